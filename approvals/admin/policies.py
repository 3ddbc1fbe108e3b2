"""Policies: name, rank and on or off through `change_policy`; what they say through `publish`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path

from approvals import administration
from approvals.admin import wording
from approvals.admin.base import VerbAdmin, VerbForm, show
from approvals.admin.publishing import (
    StageForms,
    VersionForm,
    draft,
    publish,
    stage_values,
    version_values,
)
from approvals.errors import DebugflowError
from approvals.lengths import lasting
from approvals.models import Policy, PolicyVersion

SHOWN_VERSIONS = 50


class PolicyList(ChangeList):
    """The list with each policy in words, in as many queries for many as for one."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        policies = list(self.result_list)
        sentences = _sentences([p.current_id for p in policies if p.current_id])
        for policy in policies:
            policy.sentence = sentences.get(policy.current_id, wording.UNPUBLISHED)
        self.result_list = policies


def _sentences(ids: Sequence[int]) -> dict[int | None, str]:
    versions = list(wording.with_stages(PolicyVersion.objects.filter(pk__in=ids)))
    known = wording.names(versions)
    return {version.pk: wording.sentence(version, known) for version in versions}


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
    def said(self, policy: Any) -> str:
        sentence: str = policy.sentence
        return sentence

    @admin.display(description="Version")
    def version(self, policy: Policy) -> str:
        return f"v{policy.current.number}" if policy.current else "none"

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return PolicyList

    def get_form(
        self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any
    ) -> Any:
        kwargs["form"] = self.form_with(request, PolicyForm)
        return super().get_form(request, obj, change, **kwargs)

    def apply(self, obj: Policy, form: Any, *, by: Any) -> None:
        administration.change_policy(obj, by=by)

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        policy = self.get_object(request, object_id)
        versions = _told_versions(policy) if policy else []
        context = {**(extra_context or {}), "versions": versions}
        return super().change_view(request, object_id, form_url, context)

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.publish_view)
        name = "approvals_policy_publish"
        return [path("<path:object_id>/publish/", view, name=name), *super().get_urls()]

    def publish_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """The form for the next version, filled from the one in force; a POST publishes it."""
        policy = self.require_change(request, object_id)
        base = wording.with_stages(PolicyVersion.objects.filter(pk=policy.current_id)).first()
        data = request.POST if request.method == "POST" else None
        form = VersionForm(data, initial=version_values(base))
        stages = StageForms(data, initial=stage_values(base), prefix="stages")
        if data is not None and form.is_valid() and stages.is_valid():
            version = self._publish(request, policy, form, stages)
            if version is not None:
                return self._published(request, policy, version)
        return self._publish_page(request, policy, form, stages)

    def _publish(
        self, request: HttpRequest, policy: Policy, form: VersionForm, stages: Any
    ) -> PolicyVersion | None:
        based_on = form.cleaned_data["based_on"]
        try:
            return publish(policy, draft(form, stages), based_on=based_on, by=request.user)
        except DebugflowError as refusal:
            show(form, refusal)
            return None

    def _published(
        self, request: HttpRequest, policy: Policy, version: PolicyVersion
    ) -> HttpResponse:
        sentence = _sentences([version.pk])[version.pk]
        self.log_change(request, policy, f"Published version {version.number}.")
        self.message_user(
            request, f"Version {version.number} is in force for new requests: {sentence}"
        )
        return self.to_change_page(policy)

    def _publish_page(
        self, request: HttpRequest, policy: Policy, form: VersionForm, stages: Any
    ) -> HttpResponse:
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "original": policy,
            "title": f"Publish a new version of {policy}",
            "form": form,
            "stages": stages,
        }
        return TemplateResponse(request, "admin/approvals/policy/publish.html", context)


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
            "lasts": lasting(version.max_duration),
            "decided": lasting(version.pending_ttl),
            "opened": lasting(version.activation_ttl),
            "at": version.published_at,
            "by": version.published_by,
        }
        for version in versions
    ]
