"""What the admin's pages share: saving through a verb, and looking without touching.

A refusal of a verb, which records it, is shown on the form, which stays as it was filled.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import messages
from django.contrib.admin import helpers
from django.core.exceptions import BadRequest, PermissionDenied, ValidationError
from django.db import models
from django.forms.models import construct_instance
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.views.decorators.debug import sensitive_post_parameters
from unfold.admin import ModelAdmin
from unfold.forms import AdminForm, Fieldline

from approvals import administration
from approvals.admin.look import dress
from approvals.errors import DebugflowError, Invalid

if TYPE_CHECKING:
    from django.contrib import admin

    Admin = admin.ModelAdmin[Any]
    Form = forms.ModelForm[Any]
else:
    Admin = ModelAdmin
    Form = forms.ModelForm

# As unfold itself does in the view that `VerbAdmin` goes around.
helpers.AdminForm, helpers.Fieldline = AdminForm, Fieldline  # type: ignore[misc]

SEALED = frozenset({"secret", "secrets", "lease", "password"})


class VerbForm(Form):
    """A form whose saving a verb may have refused: it then shows why.

    Uniqueness and constraints are left to the verb, which alone says them in words.
    """

    refusal: DebugflowError | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        dress(self)

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean()
        if self.refusal is not None:
            show(self, self.refusal)
        return cleaned

    def _post_clean(self) -> None:
        form: Any = self  # the stubs know none of Django's hooks for this
        form.instance = construct_instance(
            form, form.instance, form._meta.fields, form._meta.exclude
        )
        try:
            form.instance.clean_fields(exclude=form._get_validation_exclusions())
        except ValidationError as error:
            form._update_errors(error)


def show(form: forms.BaseForm, refusal: DebugflowError) -> None:
    """Put what a verb said at the fields it named, or at the head of the form."""
    fields = refusal.fields if isinstance(refusal, Invalid) else {}
    for name, lines in fields.items():
        for line in lines:
            form.add_error(name if name in form.fields else None, line)
    if not fields:
        for line in _lines(refusal):
            form.add_error(None, line)


@contextmanager
def showing(form: forms.BaseForm) -> Iterator[None]:
    """What a verb refuses inside is said on the form."""
    try:
        yield
    except DebugflowError as refusal:
        show(form, refusal)


def _lines(refusal: DebugflowError) -> list[str]:
    problems = refusal.details.get("problems", [])
    if len(problems) < 2:
        return [refusal.message]
    return [f"This was refused for {len(problems)} reasons:", *problems]


class ListAdmin(Admin):
    """A list whose filters may be typed into the address by hand, and without bulk actions."""

    actions = None

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest) -> bool:
        """No filter on what is sealed or fences: one row more or less would tell it bit by bit."""
        if SEALED.intersection(lookup.split("__")):
            return False
        return super().lookup_allowed(lookup, value, request)

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> Any:
        # Django hands filters to the database as they are, and PostgreSQL takes no NUL.
        if any("\x00" in value for values in request.GET.lists() for value in values[1]):
            raise BadRequest("An address holds a NUL character.")
        return super().changelist_view(request, extra_context)


class VerbAdmin(ListAdmin):
    """Adds and changes through `apply`, a verb. Deletes only what nothing refers to."""

    def apply(self, obj: Any, form: Any, *, by: Any) -> None:
        """Save `obj` by its verb. Raises what the verb raises."""
        raise NotImplementedError

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        self.apply(obj, form, by=request.user)

    @method_decorator(sensitive_post_parameters())
    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        """Django's own view, twice if the verb refuses: the second time shows the refusal.

        It is called without the transaction that Django puts around it: the verb has its own, and
        records a refusal after it.
        """
        bare: Any = self  # the stubs know none of Django's hooks for this
        try:
            return bare._changeform_view(request, object_id, form_url, extra_context)
        except DebugflowError as refusal:
            if request.method != "POST":
                raise
            request.refusal = refusal  # type: ignore[attr-defined]
            return bare._changeform_view(request, object_id, form_url, extra_context)

    def form_with(self, request: HttpRequest, base: type[VerbForm], **parts: Any) -> type[VerbForm]:
        """`base` with more fields or facts, and what the verb said about this very request."""
        refusal = getattr(request, "refusal", None)
        return type(base.__name__, (base,), {"refusal": refusal, **parts})

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> Any:
        """Django's own page; what it asks for is done by the verb, outside any transaction."""
        found = self.get_object(request, object_id)
        if found is None or not self.has_delete_permission(request, found):
            return super().delete_view(request, object_id, extra_context)
        if request.method == "POST":
            return self._delete(request, found)
        if administration.in_use(found):
            messages.error(request, administration.IN_USE.format(name=found))
            return self.to_change_page(found)
        return super().delete_view(request, object_id, extra_context)

    def _delete(self, request: HttpRequest, found: Any) -> HttpResponse:
        try:
            self.delete_model(request, found)
        except DebugflowError as refusal:
            messages.error(request, refusal.message)
            return self.to_change_page(found)
        deleted: Any = [found]  # the stubs want a query set, which would be empty by now
        self.log_deletions(request, deleted)
        return self.response_delete(request, str(found), found.pk)

    def delete_model(self, request: Any, obj: Any) -> None:
        administration.delete(obj, by=request.user)

    def to_change_page(self, obj: models.Model) -> HttpResponse:
        info = f"{self.opts.app_label}_{self.opts.model_name}"
        return HttpResponseRedirect(reverse(f"admin:{info}_change", args=[obj.pk]))

    def require_change(self, request: HttpRequest, object_id: str) -> Any:
        """The object, if this person may change it. Raises PermissionDenied."""
        found = self.get_object(request, object_id)
        if found is None or not self.has_change_permission(request, found):
            raise PermissionDenied
        return found


class RecordAdmin(ListAdmin):
    """What has happened: for looking only, superusers included."""

    show_full_result_count = False
    list_per_page = 50

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> Any:
        if request.method != "GET":
            raise PermissionDenied
        return super().changelist_view(request, extra_context)
