"""Targets and levels: forms made of what their kind declares, saved by `administration`.

Secrets are written only: no page shows one, and an empty field keeps what is stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path

from approvals import administration, holders, provisioning, reconciler
from approvals.admin.base import VerbAdmin, VerbForm
from approvals.admin.fields import DurationField, LabelsField, schema_fields, typed
from approvals.admin.holders import HoldersForm
from approvals.errors import DebugflowError
from approvals.lengths import lasting
from approvals.models import AccessLevel, Reconciliation, Target
from approvals.provisioning.base import Provisioner

if TYPE_CHECKING:
    from approvals.people import Person

CONFIG, RIGHTS, SECRET = "config_", "rights_", "secret_"
TEST_FIRST = "Once saved, test the connection with the button above."
NO_RIGHTS = "Nothing yet: it is read from the target when the level is saved."


class HoldersAdmin(VerbAdmin):
    """An object of which one may say who holds `holder_permissions` on it."""

    holder_permissions: Mapping[str, str] = {}

    def get_urls(self) -> list[URLPattern]:
        name = f"{self.opts.app_label}_{self.opts.model_name}_holders"
        view = self.admin_site.admin_view(self.holders_view)
        return [path("<path:object_id>/holders/", view, name=name), *super().get_urls()]

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Django's own, with who may do what."""
        obj = self.get_object(request, object_id)
        told = [
            (label, holders.names(obj, permission))
            for permission, label in self.holder_permissions.items()
            if obj is not None
        ]
        context = {"holders": told, **(extra_context or {})}
        return super().change_view(request, object_id, form_url, context)

    def holders_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        obj = self.require_change(request, object_id)
        data = request.POST if request.method == "POST" else None
        form = HoldersForm(data, obj=obj, permissions=dict(self.holder_permissions))
        if form.is_valid():
            form.save(by=request.user)
            self.log_change(request, obj, "Changed who may do what.")
            self.message_user(request, f"Who may do what on {obj} is saved.")
            return self.to_change_page(obj)
        return self.page(request, "holders", obj, title=f"Who may do what on {obj}", form=form)

    def page(self, request: HttpRequest, name: str, obj: Any, **context: Any) -> TemplateResponse:
        """One of our own pages, in the admin's frame."""
        frame = {**self.admin_site.each_context(request), "opts": self.opts, "original": obj}
        if (form := context.get("form")) is not None:
            frame["media"] = form.media
        request.current_app = self.admin_site.name
        return TemplateResponse(request, f"admin/approvals/{name}.html", {**frame, **context})


class TargetForm(VerbForm):
    """What every target has; its kind's own fields and secrets are added when it is shown."""

    kind_name = ""
    kind: type[Provisioner]
    labels = LabelsField(
        required=False, help_text="One a line, such as team=orders. Policies can go by them."
    )

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean()
        self.config = typed(self, self.kind.Config, CONFIG)
        return cleaned

    def clear_secrets(self) -> dict[str, str]:
        """The secrets that were typed, by name."""
        typed_in = {name: self.cleaned_data.get(SECRET + name, "") for name in self.kind.secrets}
        return {name: value for name, value in typed_in.items() if value}


@admin.register(Target)
class TargetAdmin(HoldersAdmin):
    list_display = ["name", "environment", "kind", "address", "enabled", "secrets_stored"]
    list_filter = ["environment", "kind", "enabled"]
    search_fields = ["name", "description", "address"]
    holder_permissions = {
        "own_target": "Owns it (may cut any grant, gets its alarms)",
        "watch_target": "May watch and end sessions",
        "audit_target": "May read recordings",
    }

    @admin.display(description="Secrets stored")
    def secrets_stored(self, target: Target) -> str:
        return ", ".join(sorted(target.secrets)) or "none"

    def _kind_name(self, request: HttpRequest, target: Target | None) -> str:
        """The kind is chosen once: a target of another kind is another target."""
        if target is not None:
            return target.kind
        offered = list(provisioning.kinds())
        wanted = request.GET.get("kind", offered[0] if len(offered) == 1 else "")
        return wanted if wanted in offered else ""

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        if self._kind_name(request, None) or not self.has_add_permission(request):
            return super().add_view(request, form_url, extra_context)
        choices = [(f"?kind={name}", label) for name, label in provisioning.kinds().items()]
        title = "Which kind of target is it?"
        return self.page(request, "choose", None, title=title, choices=choices, nothing="None.")

    def get_form(
        self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any
    ) -> Any:
        name = self._kind_name(request, obj)
        kind = provisioning.get(name)
        config = obj.config if obj is not None else {}
        fields = {**schema_fields(kind.Config, CONFIG, config), **_secret_fields(kind, obj)}
        kwargs["form"] = self.form_with(request, TargetForm, kind=kind, kind_name=name, **fields)
        return super().get_form(request, obj, change, **kwargs)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        first = ["name", "description", "environment", "labels", "enabled"]
        if obj is not None and not self.has_change_permission(request, obj):
            seen = [*first, "kind", "address", "config", "trust_anchor", "secrets_stored"]
            return [(None, {"fields": seen})]
        kind = provisioning.get(self._kind_name(request, obj))
        reach = [*(CONFIG + name for name in kind.Config.model_fields), "trust_anchor"]
        secrets = [SECRET + name for name in kind.secrets]
        return [
            (None, {"fields": first}),
            (f"{kind.label}: where it is", {"fields": reach}),
            ("Secrets", {"fields": secrets, "description": TEST_FIRST if obj else ""}),
        ]

    def apply(self, obj: Target, form: TargetForm, *, by: Any) -> None:
        obj.kind, obj.config = form.kind_name, form.config
        administration.save_target(obj, by=by, clear_secrets=form.clear_secrets())

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        if missing := set(form.kind.secrets) - obj.secrets.keys():
            self.message_user(
                request,
                f"{obj} has no {' and no '.join(sorted(missing))} stored, so nothing can be "
                "opened on it yet.",
                level="WARNING",
            )

    def get_urls(self) -> list[URLPattern]:
        test, allow = map(self.admin_site.admin_view, (self.test_view, self.allow_view))
        return [
            path("<path:object_id>/test/", test, name="approvals_target_test"),
            path("<path:object_id>/allow/", allow, name="approvals_target_allow"),
            *super().get_urls(),
        ]

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Django's own, with what the last comparison with the ledger found."""
        target, person = self.get_object(request, object_id), cast("Person", request.user)
        more = {
            "reconciliation": Reconciliation.objects.filter(target=target).first(),
            "may_allow": target is not None and reconciler.may_allow(target, person),
        }
        return super().change_view(request, object_id, form_url, {**more, **(extra_context or {})})

    def allow_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Let the next comparison end exactly the accounts that the page showed."""
        target = self.get_object(request, object_id)
        if target is None or not self.has_view_permission(request, target):
            raise PermissionDenied
        if request.method == "POST":
            try:
                named, person = request.POST.getlist("account"), cast("Person", request.user)
                reconciler.allow(target.pk, by=person, accounts=named)
            except DebugflowError as refusal:
                messages.error(request, refusal.message)
            else:
                self.message_user(request, f"{len(named)} on {target} will be ended.")
        return self.to_change_page(target)

    def test_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Sign in to the target and show what was found. Only a POST does."""
        target = self.require_change(request, object_id)
        if request.method != "POST":
            return self.to_change_page(target)
        findings = administration.check_target(target)
        title = f"Connection to {target}"
        fine = all(ok for ok, _, _ in findings)
        return self.page(request, "findings", target, title=title, findings=findings, fine=fine)


def _secret_fields(kind: type[Provisioner], target: Target | None) -> dict[str, forms.Field]:
    stored = target.secrets if target is not None else {}
    return {
        SECRET + name: forms.CharField(
            label=name.replace("_", " ").capitalize(),
            required=False,
            strip=False,
            max_length=1000,
            widget=forms.PasswordInput(render_value=False, attrs={"autocomplete": "new-password"}),
            help_text=_about_secret(kind, stored=name in stored),
        )
        for name in kind.secrets
    }


def _about_secret(kind: type[Provisioner], *, stored: bool) -> str:
    if not stored:
        return "None is stored. It is kept encrypted and never shown again."
    places = ", ".join([*kind.address_fields, "trust anchor"])
    return (
        "One is stored. Leave this empty to keep it. A change of any of "
        f"{places} clears it, so that it is never sent to another place."
    )


class LevelForm(VerbForm):
    """What every level has; the rights are its target's kind's."""

    target: Target
    kind: type[Provisioner]
    max_duration = DurationField(help_text="The longest a grant may last, such as 4 h.")

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean()
        self.rights = typed(self, self.kind.Rights, RIGHTS)
        return cleaned


@admin.register(AccessLevel)
class AccessLevelAdmin(HoldersAdmin):
    list_display = ["name", "target", "risk", "reach", "rank", "lasts", "enabled"]
    list_filter = ["target__environment", "risk", "enabled", "target"]
    list_select_related = ["target"]
    search_fields = ["name", "target__name", "description"]
    readonly_fields = ["target_name"]
    holder_permissions = {"request_accesslevel": "May ask for it"}

    @admin.display(description="Target")
    def target_name(self, level: AccessLevel) -> str:
        return level.target.name if level.target_id else ""

    @admin.display(description="At most", ordering="max_duration")
    def lasts(self, level: AccessLevel) -> str:
        return lasting(level.max_duration)

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Django's own, with what a holder can do."""
        level = self.get_object(request, object_id)
        words = provisioning.get(level.target.kind).in_words(level.summary) if level else ""
        more = {"in_words": words, "no_rights": NO_RIGHTS, **(extra_context or {})}
        return super().change_view(request, object_id, form_url, more)

    def _target(self, request: HttpRequest, level: AccessLevel | None) -> Target | None:
        if level is not None:
            return level.target
        wanted = request.GET.get("target", "")
        known = wanted.isascii() and wanted.isdigit() and len(wanted) < 19
        return Target.objects.filter(pk=wanted).first() if known else None

    def _needed_target(self, request: HttpRequest, level: AccessLevel | None) -> Target:
        """Raises Http404: the page that asks for the target comes first."""
        target = self._target(request, level)
        if target is None:
            raise Http404
        return target

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        if self._target(request, None) or not self.has_add_permission(request):
            return super().add_view(request, form_url, extra_context)
        choices = [(f"?target={target.pk}", target.name) for target in Target.objects.all()]
        title, nothing = "Which target is the level on?", "There is no target yet."
        return self.page(request, "choose", None, title=title, choices=choices, nothing=nothing)

    def get_form(
        self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any
    ) -> Any:
        target = self._needed_target(request, obj)
        kind = provisioning.get(target.kind)
        fields = schema_fields(kind.Rights, RIGHTS, obj.rights if obj is not None else {})
        kwargs["form"] = self.form_with(request, LevelForm, kind=kind, target=target, **fields)
        return super().get_form(request, obj, change, **kwargs)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        first = ["name", "description", "enabled"]
        limits = ["risk", "max_duration", "reach", "rank"]
        if obj is not None and not self.has_change_permission(request, obj):
            seen = [*first, "target_name", "rights"]
            return [(None, {"fields": [*seen, "risk", "lasts", "reach", "rank"]})]
        target = self._needed_target(request, obj)
        names = provisioning.get(target.kind).Rights.model_fields
        rights = [RIGHTS + name for name in names]
        return [
            (f"On {target.name}", {"fields": first}),
            ("Rights", {"fields": rights}),
            ("Limits", {"fields": limits}),
        ]

    def apply(self, obj: AccessLevel, form: LevelForm, *, by: Any) -> None:
        obj.target, obj.rights = form.target, form.rights
        administration.save_level(obj, by=by)
