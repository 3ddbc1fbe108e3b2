"""Webhooks: where programs of others hear of facts. A secret is shown once, and never again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from django import forms
from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_variables

from approvals.admin.base import VerbAdmin, VerbForm
from approvals.admin.look import Choices
from approvals.errors import DebugflowError
from approvals.models import Delivery, WebhookEndpoint
from approvals.notify import endpoints
from approvals.notify.facts import TABLE

if TYPE_CHECKING:
    from approvals.people import Person

NO_SECRET_YET = "It has no secret yet, so it is sent nothing. Make one with the button above."  # noqa: S105


class EndpointForm(VerbForm):
    url = forms.CharField(
        label="URL",
        max_length=500,
        help_text="Where to POST to. Another address begins anew, with another secret.",
    )
    facts = forms.MultipleChoiceField(
        label="Facts",
        choices=[(fact.name, fact.label) for fact in TABLE],
        widget=Choices,
        help_text="What it hears of.",
    )

    def wish(self) -> endpoints.Wish:
        """What was typed, once the form is valid."""
        given = self.cleaned_data
        return endpoints.Wish(
            name=given["name"],
            url=given["url"],
            facts=given["facts"],
            enabled=given["enabled"],
        )


@admin.register(WebhookEndpoint)
class WebhookEndpointAdmin(VerbAdmin):
    list_display = ["name", "url", "enabled", "disabled_because", "waiting"]
    list_filter = ["enabled"]
    search_fields = ["name", "url"]
    fields = ["name", "url", "facts", "enabled"]
    change_form_template = "admin/approvals/webhookendpoint/change_form.html"

    @admin.display(description="Waiting")
    def waiting(self, row: WebhookEndpoint) -> int:
        return Delivery.objects.filter(endpoint=row, next_try_at__isnull=False).count()

    def get_form(
        self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any
    ) -> Any:
        kwargs["form"] = self.form_with(request, EndpointForm)
        return super().get_form(request, obj, change, **kwargs)

    def apply(self, obj: WebhookEndpoint, form: EndpointForm, *, by: Any) -> None:
        saved = endpoints.save(obj.pk or 0, by=by, wish=form.wish())
        obj.pk, obj.secrets = saved.pk, saved.secrets

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        if not obj.secrets:
            self.message_user(request, NO_SECRET_YET, level="WARNING")

    def delete_model(self, request: Any, obj: Any) -> None:
        endpoints.delete(obj.pk, by=request.user)

    def get_urls(self) -> list[URLPattern]:
        rotate = self.admin_site.admin_view(self.rotate_view)
        return [
            path("<path:object_id>/secret/", rotate, name="approvals_webhookendpoint_secret"),
            *super().get_urls(),
        ]

    @method_decorator(never_cache)
    @method_decorator(sensitive_variables())
    def rotate_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """A new secret, in the answer to this POST only: kept nowhere and never redirected."""
        row = self.require_change(request, object_id)
        if request.method != "POST":
            return self.to_change_page(row)
        try:
            clear = endpoints.rotate(row.pk, by=cast("Person", request.user))
        except DebugflowError as refusal:
            messages.error(request, refusal.message)
            return self.to_change_page(row)
        frame = {**self.admin_site.each_context(request), "opts": self.opts, "original": row}
        back = reverse("admin:approvals_webhookendpoint_change", args=[row.pk])
        shown = {"title": f"The new secret of {row}", "clear": clear, "back": back}
        request.current_app = self.admin_site.name
        return TemplateResponse(
            request, "admin/approvals/webhookendpoint/secret.html", {**frame, **shown}
        )
