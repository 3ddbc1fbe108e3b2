"""What is shown of one request, on a page of its own or beside a list."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.contrib.auth import get_user_model
from django.db.models import Q, prefetch_related_objects
from django.http import HttpRequest
from django.shortcuts import get_object_or_404

from approvals import (
    access,
    chain,
    editing,
    grants,
    history,
    narrowing,
    policy,
    reductions,
    reviews,
)
from approvals.forms import shorter
from approvals.models import AccessRequest, Decision, Grant, RequestStage, Review, Vote
from approvals.states import UNDECIDED, GrantState, RequestState, StageState
from approvals.views.viewer import viewer
from audit import log

if TYPE_CHECKING:
    from approvals.people import Person
    from audit.models import Event

RELATED = ("requester", "beneficiary", "level", "target", "policy_version__policy")
HELPERS = 3  # admins who are named where nobody is left to decide
TIMELINE = 200  # the newest Events that a page shows; refused attempts could make it endless


def found(request: HttpRequest, pk: int) -> AccessRequest:
    """The request with this id. Raises Http404 where the viewer may not see it."""
    visible = access.visible_requests(viewer(request)).select_related(*RELATED)
    return get_object_or_404(visible, pk=pk)


@dataclass(frozen=True)
class ShownStage:
    """A stage with its votes, what it still lacks, and who could give it."""

    stage: RequestStage
    votes: list[Vote]
    missing: list[str]
    able: list[str]


def shown(asked: AccessRequest, person: Person, *, lower: bool = True) -> dict[str, Any]:
    """What the templates of a request read; without `lower` not which levels are lower ones."""
    loaded = policy.load_chain(asked)
    stages = _stages(loaded, policy.barred_from(asked))
    grant = None if asked.state in UNDECIDED and not asked.extends_id else _grant(asked)
    events = _timeline(asked)
    actions = policy.permitted_actions(asked, loaded, person)
    index = loaded.index
    mine = _mine(loaded, person)
    context = {
        "now": loaded.now,
        "asked": asked,
        "past": history.before(asked),
        "edited": editing.last_edit(asked) if asked.round > 1 else None,
        "sent_back": _sent_back(events),
        "stages": stages,
        "open": stages[index] if index is not None else None,
        "grant": grant,
        "events": events,
        "left_out": len(events) == TIMELINE,
        "overdue": asked.state in UNDECIDED and policy.is_too_late(asked, loaded),
        "stalled": _stalled(asked, loaded),
        "actions": actions,
        "mine": mine,
        **_review(grant, person, loaded.now),
        "lenders": _lenders(asked, loaded, person),
        "less": _less(asked, loaded, lower=lower) if actions["approve"] is None else None,
        "outcome": reductions.opens(asked, loaded.votes),
        "over": _over(asked, grant),
    }
    return context | _fingerprints(context)


def _mine(loaded: policy.Chain, person: Person) -> Vote | None:
    """The vote in the open stage that this person gave, or that somebody gave for them."""
    if loaded.index is None:
        return None
    stage = loaded.stages[loaded.index]
    return loaded.given_vote(stage, person.pk) or loaded.counting_vote(stage, person.pk)


@dataclass(frozen=True)
class ShownLess:
    """What an approver may leave of a request: shorter times, and lower levels; None for levels
    that are found once somebody wants to see them."""

    chips: Sequence[tuple[str, str]]
    levels: Sequence[narrowing.Lower] | None


def _less(asked: AccessRequest, loaded: policy.Chain, *, lower: bool) -> ShownLess:
    bridge = asked.policy_version.bridge if asked.extends_id else 0
    levels = narrowing.offered(asked, loaded.stages) if lower else None
    return ShownLess(shorter(asked.duration, bridge), levels)


def lower_levels(asked: AccessRequest, person: Person) -> ShownLess | None:
    """What `shown` has left out; None for whoever may not approve it."""
    loaded = policy.load_chain(asked)
    if policy.permitted_actions(asked, loaded, person)["approve"] is not None:
        return None
    return _less(asked, loaded, lower=True)


def _lenders(asked: AccessRequest, loaded: policy.Chain, person: Person) -> list[str]:
    """For whom this person can vote, by username; nobody where they can vote for themselves."""
    weighed = [policy.voices(asked, loaded, person, decision) for decision in Decision.values]
    able = {pk for voices in weighed for pk, refusal in voices.items() if refusal is None}
    if not able or person.pk in able:
        return []
    found = get_user_model()._default_manager.filter(pk__in=able)
    return sorted(found.values_list("username", flat=True))


@dataclass(frozen=True)
class Stalled:
    """What nobody can give any more, in words, and who can help."""

    lacks: str
    helpers: str


def _stalled(asked: AccessRequest, loaded: policy.Chain) -> Stalled | None:
    """Told as it is, whether or not a sweeper has come by to write it down."""
    lacking = policy.lacking(loaded)
    if asked.state != RequestState.PENDING or not lacking:
        return None
    names = loaded.stages[loaded.require_open()].group_names
    admins = access.policy_admins().exclude(pk__in=[asked.requester_id, asked.beneficiary_id])
    helpers = [one.get_username() for one in admins[:HELPERS]]
    return Stalled(
        " and ".join(policy.words(one, names) for one in lacking),
        " or ".join(helpers) or "an admin",
    )


def _grant(asked: AccessRequest) -> Grant | None:
    """What it has opened, or what it is to prolong."""
    which = Q(pk=asked.extends_id) if asked.extends_id else Q(request=asked)
    return Grant.objects.filter(which).select_related("beneficiary").first()


def _sent_back(events: list[Event]) -> dict[str, Any] | None:
    """The last time that somebody asked for changes, and what they said."""
    back = [event for event in events if event.action == "accessrequest.changes_requested"]
    if not back:
        return None
    return {"by": back[-1].actor_name, "at": back[-1].at, "note": back[-1].data["note"]}


def _review(grant: Grant | None, person: Person, now: datetime) -> dict[str, Any]:
    """The look back that is owed for it, and why this person may not give it."""
    review = Review.objects.with_ground().filter(grant=grant).first() if grant else None
    if review is None:
        return {"review": None}
    return {
        "review": review,
        "no_review": reviews.may_review(review, person, now),
        "still_open": reviews.STILL_OPEN if grants.is_going(review.grant) else None,
    }


def _over(asked: AccessRequest, grant: Grant | None) -> bool:
    """Whether nothing about this can change any more, so that looking again is of no use."""
    return asked.state not in UNDECIDED and (grant is None or grant.state == GrantState.ENDED)


def _fingerprints(context: dict[str, Any]) -> dict[str, str]:
    """What a page showed, to tell later whether it still holds: all of it, and the decision box."""
    asked, grant, events, mine = (context[key] for key in ("asked", "grant", "events", "mine"))
    codes = {name: no and no.message for name, no in context["actions"].items()}
    opened = context["open"].stage.pk if context["open"] else 0
    late, stuck = context["overdue"], context["stalled"]
    said = (mine and mine.pk, context["lenders"])
    box = (asked.state, asked.scope_hash, opened, said, late, stuck, codes)
    live = grant and (
        grant.state,
        grant.expires_at,
        grant.expires_at > context["now"] if grant.expires_at else None,
    )
    seen = (events[-1].pk if events else 0, live, box)
    return {"seen": _short_hash(seen), "box": _short_hash(box)}


def _short_hash(values: object) -> str:
    return hashlib.sha256(repr(values).encode()).hexdigest()[:16]


def _timeline(asked: AccessRequest) -> list[Event]:
    newest = log.timeline(f"request:{asked.pk}").order_by("-id")[:TIMELINE]
    return list(reversed(newest))


def _stages(loaded: policy.Chain, barred: set[int]) -> list[ShownStage]:
    """The stages, and the votes with their voters: all the people are read at once."""
    ids = {person for state in loaded.states for person in state.candidates}
    heard = _heard(loaded)
    delegates = loaded.lent.keys() - barred - heard
    users = get_user_model()._default_manager.in_bulk(ids | heard | delegates)
    prefetch_related_objects(list(loaded.votes), "reduced_level")
    for vote in loaded.votes:
        vote.voter = users[vote.voter_id]
        vote.on_behalf_of = users[vote.on_behalf_of_id] if vote.on_behalf_of_id else None
    names = {user.pk: user.get_username() for user in users.values()}
    may = {pk: f"{names[pk]}{_or(loaded, pk, delegates, names)}" for pk in ids if pk not in heard}
    return [_stage(loaded, number, may) for number in range(len(loaded.stages))]


def _or(loaded: policy.Chain, pk: int, delegates: Set[int], names: Mapping[int, str]) -> str:
    """“ (or olga)”: whoever may vote for somebody, too."""
    others = sorted(names[one] for one in delegates if pk in loaded.lenders(one))
    return f" (or {', '.join(others)})" if others else ""


def _heard(loaded: policy.Chain) -> set[int]:
    """Whoever gave a vote, and whoever one was given for."""
    return {person for vote in loaded.votes for person in (vote.voter_id, vote.whose)}


def _stage(loaded: policy.Chain, number: int, may: Mapping[int, str]) -> ShownStage:
    stage, state = loaded.stages[number], loaded.states[number]
    missing = []
    if stage.state == StageState.OPEN:
        outcome = chain.outcome(loaded.states, number)
        missing = [policy.words(lack, stage.group_names) for lack in outcome.missing]
    votes = [vote for vote in loaded.votes if vote.stage_id == stage.pk]
    able = sorted(may[pk] for pk in state.candidates if pk in may)
    return ShownStage(stage, votes, missing, able)
