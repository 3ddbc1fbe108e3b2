"""Signing in, and one's own password. There is one page for each, of the admin's site as well."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django import forms
from django.contrib import admin, messages
from django.contrib.auth import views as auth
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.forms import PasswordChangeForm
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse, reverse_lazy
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from approvals import tokens
from approvals.views.viewer import viewer
from audit import clock, log
from audit.log import Actor, Subject
from debugflow.accounts import throttle
from debugflow.accounts.browsers import known_as
from debugflow.accounts.throttle import TooManyTries


class SignIn(auth.LoginView):
    template_name = "sign_in.html"
    redirect_authenticated_user = True
    http_method_names = ["get", "head", "post"]

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            return super().post(request, *args, **kwargs)
        except TooManyTries as refusal:
            return self._page(refusal)

    def _page(self, refusal: TooManyTries) -> HttpResponse:
        """The form again, with the name that was typed and how long to wait."""
        name = self.request.POST.get("username", "")
        form = self.form_class(self.request, initial={"username": name})
        context = self.get_context_data(form=form, refusal=refusal)
        response = self.render_to_response(context, status=refusal.status)
        response["Retry-After"] = str(refusal.wait)
        return response


@login_not_required
@never_cache
def admin_sign_in(request: HttpRequest) -> HttpResponse:
    """In place of the admin's own page: leads to ours, and is no page for who may not go there.

    Raises PermissionDenied for them.
    """
    if not request.user.is_authenticated:
        wanted = request.GET.get("next") or reverse("admin:index")
        return redirect(f"{reverse('sign-in')}?{urlencode({'next': wanted})}")
    if not admin.site.has_permission(request):
        raise PermissionDenied
    return redirect("admin:index")


class PasswordForm(PasswordChangeForm):
    revoke_tokens = forms.BooleanField(required=False)

    def __init__(self, *args: Any, browser: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.browser = browser

    def clean_old_password(self) -> str:
        """Counted like a sign-in: a session that was left open must not tell the password."""
        slots = throttle.take(self.user.get_username(), browser=self.browser)
        old: str = super().clean_old_password()
        throttle.give_back(slots)
        return old


@method_decorator(never_cache, name="dispatch")
class Password(auth.PasswordChangeView):
    """One's own password. All other sessions of the account end with the old one.

    Its tokens go on, as programs would stop otherwise, unless one asks for them to end as well.
    """

    form_class = PasswordForm
    template_name = "password.html"
    success_url = reverse_lazy("home")
    http_method_names = ["get", "head", "post"]

    def get_form_kwargs(self) -> dict[str, Any]:
        browser = known_as(self.request, self.request.user.get_username())
        return {**super().get_form_kwargs(), "browser": browser}

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        working = tokens.live(viewer(self.request).pk, clock.now()).count()
        return {**super().get_context_data(**kwargs), "tokens": working}

    def form_valid(self, form: PasswordChangeForm) -> HttpResponse:
        user, ended = form.user, 0
        with transaction.atomic():
            response = super().form_valid(form)
            subject = Subject("user", str(user.pk), user.get_username(), f"user:{user.pk}")
            log.record("account.password_changed", actor=Actor.of(user), subject=subject)
            if form.cleaned_data["revoke_tokens"]:
                ended = tokens.revoke_all(user.pk, by=user, because="account.password_changed")
        also = f" So {'has' if ended == 1 else 'have'} {_counted(ended)}." if ended else ""
        messages.success(self.request, f"Changed. All your other sessions have ended.{also}")
        return response


def _counted(tokens: int) -> str:
    """“1 token”, “3 tokens”."""
    return f"{tokens} token{'' if tokens == 1 else 's'}"


@login_not_required
@require_safe
def change_password(request: HttpRequest) -> HttpResponse:
    """/.well-known/change-password, by which password managers find the page."""
    return redirect("password")
