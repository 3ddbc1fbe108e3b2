"""What was asked, decided, opened, done and logged: to be looked at and searched, never changed.

Grants are shown without their sealed secret and their lease.
"""

from __future__ import annotations

import json
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.shortcuts import redirect

from approvals.admin.base import RecordAdmin
from approvals.lengths import lasting
from approvals.models import (
    AccessRequest,
    Delegation,
    Grant,
    RequestStage,
    Review,
    Step,
    Vote,
)
from audit import actions, looking
from audit.models import Event


@admin.register(AccessRequest)
class AccessRequestAdmin(RecordAdmin):
    list_display = ["__str__", "state", "beneficiary", "level", "lasts", "submitted_at"]
    list_filter = ["state", "kind", "target__environment", "submitted_at"]
    list_select_related = ["beneficiary", "level__target"]
    search_fields = ["=id", "=beneficiary__username", "=target__name", "=ticket", "reason"]

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        fields = super().get_fields(request, obj)
        return ["lasts" if name == "duration" else name for name in fields]

    @admin.display(description="For", ordering="duration")
    def lasts(self, request: AccessRequest) -> str:
        return lasting(request.duration)


@admin.register(RequestStage)
class RequestStageAdmin(RecordAdmin):
    list_display = ["name", "request", "round", "order", "state", "opened_at", "deadline_at"]
    list_filter = ["state"]
    list_select_related = ["request"]
    search_fields = ["=request__id", "name"]


@admin.register(Vote)
class VoteAdmin(RecordAdmin):
    list_display = ["voter", "on_behalf_of", "decision", "stage", "asked", "voted_at", "counts"]
    list_filter = ["decision", "voted_at"]
    list_select_related = ["voter", "on_behalf_of", "stage__request"]
    search_fields = [
        "=voter__username",
        "=on_behalf_of__username",
        "=stage__request__id",
        "comment",
    ]

    @admin.display(description="Request")
    def asked(self, vote: Vote) -> str:
        return str(vote.stage.request)

    @admin.display(description="Counts", boolean=True)
    def counts(self, vote: Vote) -> bool:
        return vote.replaced_at is None and vote.voided_at is None


@admin.register(Delegation)
class DelegationAdmin(RecordAdmin):
    list_display = ["person", "delegate", "starts_at", "ends_at", "ended_at", "made_by"]
    list_filter = ["starts_at", "ended_at"]
    list_select_related = ["person", "delegate", "made_by"]
    search_fields = ["=person__username", "=delegate__username", "note"]


@admin.register(Grant)
class GrantAdmin(RecordAdmin):
    list_display = [
        "__str__",
        "state",
        "beneficiary",
        "level",
        "expires_at",
        "end_reason",
        "trouble",
    ]
    list_filter = ["state", "end_reason", "target__environment", "approved_at"]
    list_select_related = ["beneficiary", "level__target"]
    search_fields = ["=id", "=request__id", "=beneficiary__username", "=target__name"]
    exclude = ["secret", "lease"]

    @admin.display(description="Trouble", ordering="stuck_since")
    def trouble(self, grant: Grant) -> str | None:
        if grant.is_abandoned:
            return "abandoned, unsafe"
        return "stuck" if grant.stuck_since else None


@admin.register(Review)
class ReviewAdmin(RecordAdmin):
    list_display = ["__str__", "person", "grant", "emergency", "due_at", "outcome", "reviewed_by"]
    list_filter = ["emergency", "outcome", "opened_at"]
    list_select_related = ["person", "grant", "reviewed_by"]
    search_fields = ["=id", "=grant__request__id", "=person__username", "note"]


@admin.register(Step)
class StepAdmin(RecordAdmin):
    list_display = ["kind", "grant", "attempts", "worker", "started_at", "finished_at"]
    list_filter = ["kind", "started_at"]
    list_select_related = ["grant"]
    search_fields = ["=grant__id", "=worker", "last_error"]


class ActionFilter(admin.SimpleListFilter):
    """By the declared names: asking the table for its distinct ones would read all of it."""

    title = "action"
    parameter_name = "action"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, name) for name in sorted(actions.declared())]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Event]) -> QuerySet[Event]:
        return queryset.filter(action=self.value()) if self.value() else queryset


@admin.register(Event)
class EventAdmin(RecordAdmin):
    list_display = ["at", "action", "actor_name", "subject_label", "thread"]
    list_display_links = ["at", "action"]
    list_filter = [ActionFilter, "at"]
    search_fields = ["=thread", "=actor_name", "=request_id", "=address", "subject_label"]
    search_help_text = "A thread such as request:12, a person, an address, or part of a subject."
    ordering = ["-id"]
    fields = [
        "at",
        "action",
        ("actor_type", "actor_id", "actor_name"),
        ("on_behalf_of_id", "on_behalf_of_name"),
        ("subject_type", "subject_id", "subject_label"),
        "thread",
        ("request_id", "address", "agent"),
        ("policy_version", "scope_hash"),
        "told_data",
        "hash_hex",
        "sound",
    ]

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        """A search here is one of the log, and written down as on its own page."""
        if request.GET and looking.sent_from_elsewhere(request):
            return redirect(request.path)
        terms = [f"{name}:{value}" for name, value in sorted(request.GET.items()) if name != "p"]
        if request.method == "GET":
            looking.tell(request.user, " ".join(terms), where="in the admin")
        return super().changelist_view(request, extra_context)

    @admin.display(description="Data")
    def told_data(self, event: Event) -> str:
        return json.dumps(event.data, indent=2, ensure_ascii=False, sort_keys=True)

    @admin.display(description="Leaf hash")
    def hash_hex(self, event: Event) -> str:
        return bytes(event.leaf_hash).hex()

    @admin.display(description="Agrees with what was hashed", boolean=True)
    def sound(self, event: Event) -> bool:
        return not event.mismatches()
