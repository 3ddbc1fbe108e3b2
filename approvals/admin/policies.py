"""Policies: name, rank and on or off through `change_policy`; what they say through `publish`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from approvals import administration, lint, simulation
from approvals.admin import wording
from approvals.admin.base import VerbAdmin, VerbForm, showing
from approvals.admin.publishing import (
    Effect,
    StageForms,
    VersionForm,
    draft,
    publish,
    rehearse,
    stage_values,
    version_values,
)
from approvals.admin.simulating import SimulationForm
from approvals.models import Policy, PolicyVersion
from approvals.republishing import Pending

SHOWN_VERSIONS = 50
MOST_WARNINGS = 5  # that are told after a change; the list tells all

T = TypeVar("T")


class PolicyList(ChangeList):
    """The list with each policy in words, in as many queries for many as for one."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        policies = list(self.result_list)
        told = _told([p.current_id for p in policies if p.current_id])
        warnings = lint.look()
        for policy in policies:
            policy.told = told.get(policy.current_id, (wording.UNPUBLISHED, ""))
            policy.warnings = warnings.get(policy.pk, [])
        self.result_list = policies


def _told(ids: Sequence[int]) -> dict[int | None, tuple[str, str]]:
    """By version, what it says and its lengths of time."""
    versions = list(wording.with_stages(PolicyVersion.objects.filter(pk__in=ids)))
    known = wording.names(versions)
    return {
        version.pk: (wording.sentence(version, known), wording.clocks(version))
        for version in versions
    }


class PolicyForm(VerbForm):
    """Name, rank and whether it is on."""


@admin.register(Policy)
class PolicyAdmin(VerbAdmin):
    list_display = ["name", "rank", "enabled", "said", "version"]
    list_filter = ["enabled"]
    list_select_related = ["current"]
    search_fields = ["name"]
    fields = ["name", "rank", "enabled"]

    @admin.display(description="In words")
    def said(self, policy: Any) -> SafeString:
        """What it says; below that what looks wrong with it."""
        warned = format_html_join("", "<li>{}</li>", ((one.text,) for one in policy.warnings))
        return format_html(
            '<div>{}<br><span class="desk-quiet">{}</span>{}</div>',
            *policy.told,
            format_html('<ul class="desk-warnings">{}</ul>', warned) if warned else "",
        )

    @admin.display(description="Version")
    def version(self, policy: Policy) -> str:
        return f"v{policy.current.number}" if policy.current else "none"

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> Any:
        return PolicyList

    def get_form(
        self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any
    ) -> Any:
        kwargs["form"] = self.form_with(request, PolicyForm)
        return super().get_form(request, obj, change, **kwargs)

    def apply(self, obj: Policy, form: Any, *, by: Any) -> None:
        administration.change_policy(obj, by=by)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        self._warn(request)

    def _warn(self, request: HttpRequest, *, shown: Policy | None = None) -> None:
        """Say what looks wrong now, with any policy: a change of one may take from another.

        The page of the one that is `shown` next says so itself.
        """
        warned = {pk: found for pk, found in lint.look().items() if shown is None or pk != shown.pk}
        lines = [
            f"{policy}: {one.text} {one.fix}"
            for policy in Policy.objects.filter(pk__in=warned).order_by("rank")
            for one in warned[policy.pk]
        ]
        for line in lines[:MOST_WARNINGS]:
            self.message_user(request, line, level="WARNING")
        if (more := len(lines) - MOST_WARNINGS) > 0:
            told = f"{more} more are told in the list of policies."
            self.message_user(request, told, level="WARNING")

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        policy = self.get_object(request, object_id)
        versions = _told_versions(policy) if policy else []
        warnings = lint.look().get(policy.pk, []) if policy else []
        context = {**(extra_context or {}), "versions": versions, "warnings": warnings}
        return super().change_view(request, object_id, form_url, context)

    def get_urls(self) -> list[URLPattern]:
        publishing = self.admin_site.admin_view(self.publish_view)
        simulating = self.admin_site.admin_view(self.simulate_view)
        return [
            path("simulate/", simulating, name="approvals_policy_simulate"),
            path("<path:object_id>/publish/", publishing, name="approvals_policy_publish"),
            *super().get_urls(),
        ]

    def simulate_view(self, request: HttpRequest) -> HttpResponse:
        """Who would have to approve this, and why not the other policies. Changes nothing."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD"])
        form = SimulationForm(request.GET or None)
        simulated = None
        if form.is_valid():
            fields = form.cleaned_data
            simulated = simulation.simulate(
                fields["level"], by=fields["person"], duration=fields["duration"]
            )
        return self._page(
            request, "simulate", title="Simulate a request", form=form, simulated=simulated
        )

    def publish_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """The form for the next version, filled from the one in force.

        A POST publishes it, or says what that would do.
        """
        policy = self.require_change(request, object_id)
        base = wording.with_stages(PolicyVersion.objects.filter(pk=policy.current_id)).first()
        data = request.POST if request.method == "POST" else None
        form = VersionForm(data, initial=version_values(base))
        stages = StageForms(data, initial=stage_values(base), prefix="stages")
        effect = None
        if data is not None and form.is_valid() and stages.is_valid():
            with showing(form):
                if "rehearse" in data:
                    effect = self._written(request, policy, form, stages, rehearse)
                else:
                    version = self._written(request, policy, form, stages, publish)
                    return self._published(request, policy, version)
        return self._publish_page(request, policy, form, stages, effect)

    def _written(
        self,
        request: HttpRequest,
        policy: Policy,
        form: VersionForm,
        stages: Any,
        verb: Callable[..., T],
    ) -> T:
        fields = form.cleaned_data
        written, by = draft(form, stages), request.user
        pending = fields["pending"] or Pending.KEEP
        return verb(policy, written, based_on=fields["based_on"], by=by, pending=pending)

    def _published(
        self, request: HttpRequest, policy: Policy, version: PolicyVersion
    ) -> HttpResponse:
        sentence, _ = _told([version.pk])[version.pk]
        self.log_change(request, policy, f"Published version {version.number}.")
        self.message_user(
            request, f"Version {version.number} is in force for new requests: {sentence}"
        )
        self._warn(request, shown=policy)
        return self.to_change_page(policy)

    def _publish_page(
        self,
        request: HttpRequest,
        policy: Policy,
        form: VersionForm,
        stages: Any,
        effect: Effect | None,
    ) -> HttpResponse:
        title = f"Publish a new version of {policy}"
        more = {"original": policy, "title": title, "stages": stages, "effect": effect}
        return self._page(request, "publish", form=form, **more)

    def _page(self, request: HttpRequest, name: str, *, form: Any, **more: Any) -> HttpResponse:
        frame = {**self.admin_site.each_context(request), "opts": self.opts, "media": form.media}
        template = f"admin/approvals/policy/{name}.html"
        return TemplateResponse(request, template, {**frame, "form": form, **more})


def _told_versions(policy: Policy) -> list[dict[str, Any]]:
    """The newest versions, each as the page shows it."""
    rows = policy.versions.order_by("-number").select_related("published_by")
    versions = list(wording.with_stages(rows)[:SHOWN_VERSIONS])
    known = wording.names(versions)
    return [
        {
            "number": version.number,
            "in_force": version.pk == policy.current_id,
            "sentence": wording.sentence(version, known),
            "clocks": wording.clocks(version),
            "at": version.published_at,
            "by": version.published_by,
        }
        for version in versions
    ]
