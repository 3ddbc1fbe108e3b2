"""Rows printed as JSON, every field named. Parsing is in `inputs`; nothing is decided here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.contrib.auth import get_user_model
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from approvals import abandoning, chain, extensions, grants, narrowing, policy, reductions
from approvals.api import errors, shapes
from approvals.models import (
    Abandonment,
    AccessLevel,
    AccessRequest,
    ApiToken,
    Delegation,
    Delivery,
    Grant,
    Proposal,
    RequestStage,
    Review,
    Target,
    Vote,
)
from approvals.states import GrantState, ReviewStanding, StageState
from approvals.workflow import Preview
from audit import clock
from audit.models import Event

if TYPE_CHECKING:
    from approvals.people import Person

Json = dict[str, Any]


class PersonOut(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    username = serializers.CharField()


class TargetOut(serializers.ModelSerializer[Target]):
    class Meta:
        model = Target
        fields = (
            "id",
            "name",
            "description",
            "kind",
            "environment",
            "labels",
            "address",
            "enabled",
        )


class TargetName(serializers.ModelSerializer[Target]):
    class Meta:
        model = Target
        fields = ("id", "name", "environment")


class LevelName(serializers.ModelSerializer[AccessLevel]):
    class Meta:
        model = AccessLevel
        fields = ("id", "name", "risk")


class LevelOut(serializers.ModelSerializer[AccessLevel]):
    target = TargetName()

    class Meta:
        model = AccessLevel
        fields = (
            "id",
            "name",
            "description",
            "target",
            "summary",
            "summarised_at",
            "risk",
            "max_duration",
            "reach",
            "rank",
        )


class RequestOut(serializers.ModelSerializer[AccessRequest]):
    requester = PersonOut()
    beneficiary = PersonOut()
    target = TargetName()
    level = LevelName()
    policy_version = serializers.CharField()
    grant = serializers.SerializerMethodField()

    class Meta:
        model = AccessRequest
        fields: tuple[str, ...] = (
            "id",
            "kind",
            "state",
            "requester",
            "beneficiary",
            "target",
            "level",
            "policy_version",
            "reason",
            "ticket",
            "duration",
            "starts_at",
            "extends",
            "scope_hash",
            "submitted_at",
            "pending_until",
            "decided_at",
            "decision_note",
            "grant",
        )

    def get_grant(self, row: AccessRequest) -> int | None:
        grant: Grant | None = getattr(row, "grant", None)
        return grant.pk if grant else None


class RequestRow(RequestOut):
    """A request in a list: its stages without people, which would cost queries for each row."""

    stages = serializers.SerializerMethodField()

    class Meta(RequestOut.Meta):
        fields = (*RequestOut.Meta.fields, "stages")

    @extend_schema_field(shapes.StageShape(many=True))
    def get_stages(self, row: AccessRequest) -> list[Json]:
        return [_stage(stage) for stage in row.stages.all() if stage.round == row.round]


def request_detail(request: AccessRequest, *, viewer: Person) -> Json:
    """A request with its chain, and what `viewer` may do about it."""
    chain_ = policy.shown_chain(request)
    actions = policy.permitted_actions(request, chain_, viewer)
    lower = narrowing.offered(request, chain_.stages) if actions["approve"] is None else []
    return {
        **RequestOut(request).data,
        "scope": request.scope,
        "stages": _stages(chain_),
        "outcome": _outcome(reductions.opens(request, chain_.votes)),
        "lower_levels": [_lower(one) for one in lower],
        **_actions(actions),
    }


def _stages(chain_: policy.Chain) -> list[Json]:
    names = _usernames(person for state in chain_.states for person in state.candidates)
    return [
        {
            **_stage(stage),
            "missing": _missing(chain_, index),
            "candidates": sorted(names[person] for person in state.candidates),
            "votes": [_vote(vote) for vote in chain_.votes if vote.stage_id == stage.pk],
        }
        for index, (stage, state) in enumerate(zip(chain_.stages, chain_.states, strict=True))
    ]


def _stage(stage: RequestStage) -> Json:
    return {
        "order": stage.order,
        "name": stage.name,
        "state": stage.state,
        "total": stage.total,
        "groups": _groups(stage.minima, stage.group_names),
        "opened_at": stage.opened_at,
        "deadline_at": stage.deadline_at,
        "escalated_at": stage.escalated_at,
        "stalled_since": stage.stalled_since,
    }


def _groups(minima: Mapping[str, int], names: Mapping[str, str]) -> dict[str, int]:
    return {names[group]: minimum for group, minimum in minima.items()}


def _missing(chain_: policy.Chain, index: int) -> list[str]:
    stage = chain_.stages[index]
    if stage.state not in (StageState.OPEN, StageState.WAITING):
        return []
    outcome = chain.outcome(chain_.states, index)
    return [policy.words(missing, stage.group_names) for missing in outcome.missing]


def _vote(vote: Vote) -> Json:
    return {
        "voter": vote.voter.get_username(),
        "on_behalf_of": vote.on_behalf_of.get_username() if vote.on_behalf_of else None,
        "decision": vote.decision,
        "comment": vote.comment,
        "less": _less(vote),
        "voted_at": vote.voted_at,
    }


def _less(vote: Vote) -> Json | None:
    if vote.less is None:
        return None
    duration, level = vote.less
    return {"duration": duration, "level": level or None}


def _outcome(opens: reductions.Outcome) -> Json:
    return {"duration": opens.duration, "level": opens.level.name, "less": opens.less}


def _lower(lower: narrowing.Lower) -> Json:
    level = lower.level
    return {
        "id": level.pk,
        "name": level.name,
        "risk": level.risk,
        "rank": level.rank,
        "summary": level.summary,
        "max_duration": lower.limit,
        "level_hash": lower.hash,
    }


def _usernames(people: Iterable[int]) -> dict[int, str]:
    found = get_user_model().objects.filter(pk__in=set(people))
    return dict(found.values_list("pk", "username"))


def _actions(actions: Mapping[str, policy.Refusal | None]) -> Json:
    refused = {name: refusal for name, refusal in actions.items() if refusal is not None}
    return {
        "permitted_actions": [name for name in actions if name not in refused],
        "refused_actions": {
            name: {"code": refusal.code, "message": refusal.message}
            for name, refusal in refused.items()
        },
    }


def preview_out(preview: Preview) -> Json:
    stages = preview.plan.stages
    names = _usernames(person for stage in stages for person in stage.candidates)
    return {
        "policy": str(preview.version) if preview.version else None,
        "stages": [_planned(stage, names) for stage in stages],
        "max_duration": preview.max_duration,
        "max_duration_set_by": preview.max_duration_set_by,
        "problem": errors.describe(preview.problem) if preview.problem else None,
    }


def _planned(planned: policy.PlannedStage, names: Mapping[int, str]) -> Json:
    titles = planned.group_names
    return {
        "name": planned.stage.name,
        "total": planned.stage.total,
        "groups": _groups(planned.minima, titles),
        "candidates": sorted(names[person] for person in planned.candidates),
        "stand_ins": {
            titles[group]: sorted(titles[other] for other in others)
            for group, others in planned.stand_ins.items()
        },
    }


class GrantOut(serializers.ModelSerializer[Grant]):
    """A grant as its `viewer` may see it at the time `now`; both are in the context."""

    beneficiary = PersonOut()
    target = TargetName()
    level = LevelName()
    state = serializers.SerializerMethodField()
    shown_state = serializers.SerializerMethodField()
    overdue = serializers.SerializerMethodField()
    lateness = serializers.SerializerMethodField()
    connection = serializers.SerializerMethodField()
    revealed = serializers.SerializerMethodField()
    with_less = serializers.SerializerMethodField()
    extensions_most = serializers.SerializerMethodField()
    may_extend_from = serializers.SerializerMethodField()
    total_left = serializers.SerializerMethodField()

    class Meta:
        model = Grant
        fields: tuple[str, ...] = (
            "id",
            "request",
            "account",
            "beneficiary",
            "target",
            "level",
            "state",
            "shown_state",
            "duration",
            "with_less",
            "approved_at",
            "opens_at",
            "expires_at",
            "extended_count",
            "extended_until",
            "extensions_most",
            "may_extend_from",
            "total_left",
            "bridged_at",
            "activated_at",
            "revoking_at",
            "cut_at",
            "ended_at",
            "end_reason",
            "end_code",
            "end_note",
            "connection",
            "revealed",
            "overdue",
            "lateness",
            "last_error",
            "attempts",
            "next_try_at",
            "stuck_since",
            "abandoned_at",
        )

    @extend_schema_field(serializers.ChoiceField(choices=GrantState.choices))
    def get_state(self, grant: Grant) -> str:
        return effective_state(grant, self.context["now"])

    def get_shown_state(self, grant: Grant) -> str:
        return grants.shown_state(grant, self.context["now"])

    def get_overdue(self, grant: Grant) -> bool:
        return grant.is_overdue(self.context["now"])

    def get_lateness(self, grant: Grant) -> float | None:
        """Seconds, to the millisecond, from the end that was meant to the cut or to now."""
        late = grant.late_by(self.context["now"])
        return None if late is None else round(late.total_seconds(), 3)

    def get_connection(self, grant: Grant) -> Json | None:
        """Where and as whom to connect, for the holder alone."""
        if grant.beneficiary_id != self.context["viewer"].pk or not grant.connection:
            return None
        return grant.connection

    def get_with_less(self, grant: Grant) -> bool:
        """Whether it was approved with less than was asked."""
        asked = grant.request
        return (grant.duration, grant.level_id) != (asked.duration, asked.level_id)

    def get_extensions_most(self, grant: Grant) -> int:
        """How often its policy lets it be extended."""
        return extensions.room(grant).most

    def get_may_extend_from(self, grant: Grant) -> datetime | None:
        """From when longer access may be asked for; null where it never may, or not any more."""
        left = extensions.room(grant)
        return left.opens_at if left.longest and grant.goes_on(self.context["now"]) else None

    def get_total_left(self, grant: Grant) -> int:
        """Seconds that extensions may still add in all."""
        left = extensions.room(grant)
        return left.total_left if grant.goes_on(self.context["now"]) else 0

    def get_revealed(self, grant: Grant) -> bool:
        return grant.revealed_at is not None


def effective_state(grant: Grant, now: datetime) -> str:
    """`revoking` once the time of an active grant is over, however late a sweeper is."""
    if grant.state == GrantState.ACTIVE and not grants.is_usable(grant, now):
        return str(GrantState.REVOKING)
    return grant.state


def grant_detail(grant: Grant, *, viewer: Person) -> Json:
    """A grant, who has asked to abandon it, and what `viewer` may do about it."""
    now = clock.now()
    return {
        **GrantOut(grant, context={"viewer": viewer, "now": now}).data,
        "abandonments": [_abandonment(asked) for asked in abandoning.standing(grant)],
        **_actions(grants.permitted_actions(grant, viewer, now)),
    }


def _abandonment(asked: Abandonment) -> Json:
    return {"person": asked.person.get_username(), "reason": asked.reason, "at": asked.at}


class ReviewOut(serializers.ModelSerializer[Review]):
    """A review as it is at the time `now` in the context."""

    request = serializers.IntegerField(source="grant.request_id")
    person = PersonOut()
    reviewed_by = PersonOut(allow_null=True)
    standing = serializers.SerializerMethodField()

    class Meta:
        model = Review
        fields: tuple[str, ...] = (
            "id",
            "request",
            "grant",
            "person",
            "emergency",
            "standing",
            "opened_at",
            "due_at",
            "outcome",
            "note",
            "reviewed_by",
            "reviewed_at",
        )

    @extend_schema_field(serializers.ChoiceField(choices=ReviewStanding.choices))
    def get_standing(self, review: Review) -> str:
        return str(review.standing(self.context["now"]))


class EventOut(serializers.ModelSerializer[Event]):
    actor = serializers.SerializerMethodField()
    on_behalf_of = serializers.SerializerMethodField()
    subject = serializers.SerializerMethodField()

    class Meta:
        model = Event
        fields: tuple[str, ...] = (
            "id",
            "at",
            "action",
            "actor",
            "on_behalf_of",
            "subject",
            "thread",
            "request_id",
            "policy_version",
            "scope_hash",
            "data",
        )

    @extend_schema_field(shapes.ActorShape)
    def get_actor(self, event: Event) -> dict[str, str]:
        return {"type": event.actor_type, "id": event.actor_id, "name": event.actor_name}

    @extend_schema_field(shapes.PrincipalShape(allow_null=True))
    def get_on_behalf_of(self, event: Event) -> dict[str, str] | None:
        if not event.on_behalf_of_id:
            return None
        return {"id": event.on_behalf_of_id, "name": event.on_behalf_of_name}

    @extend_schema_field(shapes.SubjectShape)
    def get_subject(self, event: Event) -> dict[str, str]:
        return {
            "type": event.subject_type,
            "id": event.subject_id,
            "label": event.subject_label,
        }


class AuditorsEventOut(EventOut):
    """With where it came from, which is nobody's business but an auditor's."""

    class Meta(EventOut.Meta):
        fields = (*EventOut.Meta.fields, "address", "agent")


class CommentOut(serializers.ModelSerializer[Event]):
    """What somebody said: an Event told as what it is about."""

    author = serializers.SerializerMethodField()
    comment = serializers.SerializerMethodField()
    mentions = serializers.SerializerMethodField()
    unseen = serializers.SerializerMethodField()

    class Meta:
        model = Event
        fields: tuple[str, ...] = ("id", "at", "author", "comment", "mentions", "unseen")

    @extend_schema_field(PersonOut)
    def get_author(self, event: Event) -> Json:
        return {"id": int(event.actor_id), "username": event.actor_name}

    def get_comment(self, event: Event) -> str:
        return str(event.data["comment"])

    @extend_schema_field(shapes.Names)
    def get_mentions(self, event: Event) -> Any:
        """Whom it names, and who is asked to look."""
        return event.data["mentions"]

    @extend_schema_field(shapes.Names)
    def get_unseen(self, event: Event) -> Any:
        """Whom it names, who may not see the request, and is not told."""
        return event.data["unseen"]


class DelegationOut(serializers.ModelSerializer[Delegation]):
    person = PersonOut()
    delegate = PersonOut()
    made_by = PersonOut()

    class Meta:
        model = Delegation
        fields: tuple[str, ...] = (
            "id",
            "person",
            "delegate",
            "starts_at",
            "ends_at",
            "made_by",
            "made_at",
            "ended_at",
            "note",
        )


class ProposalOut(serializers.ModelSerializer[Proposal]):
    """What somebody agrees to; its arguments, which are ids, are for us alone."""

    proposer = PersonOut()
    decided_by = PersonOut(allow_null=True)
    effects = shapes.Names()
    differences = shapes.Differences()

    class Meta:
        model = Proposal
        fields: tuple[str, ...] = (
            "id",
            "change",
            "summary",
            "effects",
            "differences",
            "state",
            "proposer",
            "proposed_at",
            "expires_at",
            "decided_by",
            "decided_at",
            "note",
        )


class TokenOut(serializers.ModelSerializer[ApiToken]):
    account = PersonOut()
    made_by = PersonOut()
    scopes = shapes.Scopes()

    class Meta:
        model = ApiToken
        fields: tuple[str, ...] = (
            "id",
            "kind",
            "name",
            "hint",
            "account",
            "made_by",
            "scopes",
            "made_at",
            "expires_at",
            "last_used_at",
            "revoked_at",
        )


class EntryOut(serializers.ModelSerializer[Delivery]):
    """An entry of somebody's inbox: what they were told, in the words of the page."""

    fact = serializers.CharField(source="notice.fact")
    at = serializers.DateTimeField(source="notice.at")
    thread = serializers.CharField(source="notice.thread")
    text = serializers.CharField(source="notice.text")
    quote = serializers.CharField(source="notice.quote")
    next_step = serializers.CharField(source="notice.step")
    link = serializers.CharField(source="notice.link")

    class Meta:
        model = Delivery
        fields: tuple[str, ...] = (
            "id",
            "fact",
            "at",
            "urgent",
            "thread",
            "text",
            "quote",
            "next_step",
            "link",
            "read_at",
        )
