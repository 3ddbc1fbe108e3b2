"""What is shown of one request, on a page of its own or beside a list."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.contrib.auth import get_user_model
from django.db.models import Q
from django.http import HttpRequest
from django.shortcuts import get_object_or_404

from approvals import access, chain, editing, history, policy, reviews
from approvals.models import AccessRequest, Grant, RequestStage, Review, Vote
from approvals.states import UNDECIDED, GrantState, StageState
from approvals.views.viewer import viewer
from audit import log

if TYPE_CHECKING:
    from approvals.people import Person
    from audit.models import Event

RELATED = ("requester", "beneficiary", "level", "target", "policy_version__policy")
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


def shown(asked: AccessRequest, person: Person) -> dict[str, Any]:
    """What the templates of a request read."""
    loaded = policy.load_chain(asked)
    stages = _stages(loaded)
    grant = None if asked.state in UNDECIDED and not asked.extends_id else _grant(asked)
    events = _timeline(asked)
    actions = policy.permitted_actions(asked, loaded, person)
    index = loaded.index
    mine = loaded.counting_vote(loaded.stages[index], person.pk) if index is not None else None
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
        "actions": actions,
        "mine": mine,
        **_review(grant, person, loaded.now),
        "over": _over(asked, grant),
    }
    return context | _fingerprints(context)


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
    return {"review": review, "no_review": reviews.may_review(review, person, now)}


def _over(asked: AccessRequest, grant: Grant | None) -> bool:
    """Whether nothing about this can change any more, so that looking again is of no use."""
    return asked.state not in UNDECIDED and (grant is None or grant.state == GrantState.ENDED)


def _fingerprints(context: dict[str, Any]) -> dict[str, str]:
    """What a page showed, to tell later whether it still holds: all of it, and the decision box."""
    asked, grant, events, mine = (context[key] for key in ("asked", "grant", "events", "mine"))
    codes = {name: no and no.message for name, no in context["actions"].items()}
    opened = context["open"].stage.pk if context["open"] else 0
    box = (asked.state, asked.scope_hash, opened, mine and mine.pk, context["overdue"], codes)
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


def _stages(loaded: policy.Chain) -> list[ShownStage]:
    """The stages, and the votes with their voters: all the people are read at once."""
    ids = {person for state in loaded.states for person in state.candidates}
    ids |= {vote.voter_id for vote in loaded.votes}
    users = get_user_model()._default_manager.in_bulk(ids)
    for vote in loaded.votes:
        vote.voter = users[vote.voter_id]
    names = {user.pk: user.get_username() for user in users.values()}
    return [_stage(loaded, number, names) for number in range(len(loaded.stages))]


def _stage(loaded: policy.Chain, number: int, names: dict[int, str]) -> ShownStage:
    stage, state = loaded.stages[number], loaded.states[number]
    missing = []
    if stage.state == StageState.OPEN:
        outcome = chain.outcome(loaded.states, number)
        missing = [policy.words(lack, stage.group_names) for lack in outcome.missing]
    votes = [vote for vote in loaded.votes if vote.stage_id == stage.pk]
    heard = {vote.voter_id for vote in loaded.votes}
    able = sorted(names[pk] for pk in state.candidates if pk in names and pk not in heard)
    return ShownStage(stage, votes, missing, able)
