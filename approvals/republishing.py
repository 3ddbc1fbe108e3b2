"""What becomes of undecided requests when their policy says something else.

By default they keep the version they were asked under. An admin may have them weighed anew, or
cancelled, in the transaction that publishes. Access that was approved stays as it was approved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from django.db import models, transaction

from approvals import narrowing, policy, proposals, rounds, scope
from approvals.errors import Invalid
from approvals.lengths import lasting
from approvals.models import AccessRequest, Grant, Policy, PolicyVersion, Vote
from approvals.states import UNDECIDED, RequestState
from approvals.transition import actor
from audit import log

if TYPE_CHECKING:
    from approvals.people import Person

MOST: Final = 500
"""Requests that one publication weighs or cancels: they are locked until it is through."""


TOLD_MOST: Final = 10
"""Of these, as many as whoever agrees to it is told the fate of."""


class Pending(models.TextChoices):
    """What publishing does to undecided requests of the policy."""

    KEEP = "keep", "Keep the version they were asked under"
    RE_EVALUATE = "re_evaluate", "Weigh them anew; votes that still fit stay"
    CANCEL = "cancel", "Cancel them"


@dataclass(frozen=True)
class Fate:
    """What became of one request, in words."""

    request: AccessRequest
    words: str


def undecided(policy_: Policy) -> models.QuerySet[AccessRequest]:
    """Those that were asked under any version of it, oldest first."""
    return AccessRequest.objects.undecided().filter(policy_version__policy=policy_).order_by("pk")


def settle(policy_: Policy, pending: str, *, by: Person) -> list[Fate]:
    """Do it, in the caller's transaction, which has published already.

    Raises Invalid where there are more than MOST, and for a choice that is none.
    """
    if pending not in Pending.values:
        raise Invalid(fields={"pending": [f"One of {', '.join(Pending.values)}."]})
    if pending == Pending.KEEP:
        return []
    keys = list(undecided(policy_).values_list("pk", flat=True)[: MOST + 1])
    if len(keys) > MOST:
        raise Invalid(
            f"More than {MOST} requests wait under this policy: too many to be settled at once. "
            "Publish and keep them, or have some decided first.",
            code="too_many_pending",
        )
    act = _cancel if pending == Pending.CANCEL else _weigh
    return [fate for pk in keys if (fate := _locked(pk, act, by=by)) is not None]


def outlook(policy_: Policy, pending: str, fates: Sequence[Fate]) -> dict[str, str]:
    """What becomes of those that wait, for whoever agrees to it: `fates` is what `settle` found."""
    count = len(fates) if pending != Pending.KEEP else undecided(policy_).count()
    told = [f"{Pending(pending).label} ({count} waiting)"]
    if pending == Pending.RE_EVALUATE:
        told += [f"{fate.request} {fate.words}" for fate in fates[:TOLD_MOST]]
        if (more := count - TOLD_MOST) > 0:
            told.append(f"and {more} more")
    return {"Requests that wait": "; ".join(told)}


@dataclass(frozen=True)
class Foresight:
    """What each choice would do, and how much access stays as it is."""

    weighed: list[Fate] = field(default_factory=list)
    too_many: bool = False
    open_grants: int = 0


def foresee(policy_: Policy, *, by: Person) -> Foresight:
    """What weighing anew would do right after a publication, all of which is then taken back."""
    open_grants = Grant.objects.not_ended().filter(request__policy_version__policy=policy_).count()
    try:
        with transaction.atomic():
            weighed = settle(policy_, Pending.RE_EVALUATE, by=by)
            transaction.set_rollback(True)
    except Invalid:
        return Foresight(too_many=True, open_grants=open_grants)
    return Foresight(weighed=weighed, open_grants=open_grants)


def _locked(
    pk: int, act: Callable[[AccessRequest, Person, datetime], str], *, by: Person
) -> Fate | None:
    request = AccessRequest.objects.locked(pk)
    if request.state not in UNDECIDED:  # somebody was faster
        return None
    return Fate(request, act(request, by, request.locked_at))


def _cancel(request: AccessRequest, by: Person, now: datetime) -> str:
    note = f"The policy {request.policy_version.policy} says something else now. Ask again."
    rounds.decide(request, RequestState.CANCELLED, by=by, now=now, note=note)
    return "is cancelled"


def _weigh(request: AccessRequest, by: Person, now: datetime) -> str:
    """Put it under whatever governs it now, with the votes that still fit. Longer access goes by
    the version that the access was asked under."""
    if proposals.behind(by) & {request.requester_id, request.beneficiary_id}:
        return "stays as it is: nobody settles what is asked for themselves"
    if request.extends_id:
        return "stays as it is, like the access that it prolongs"
    version = policy.choose(request.level, request.beneficiary).version
    if version is None:
        return _turned_away(request, "No policy governs this any more.", by, now)
    if version.pk == request.policy_version_id:
        return "stays as it is"
    if (problem := _forbidden(request, version)) is not None:
        return _turned_away(request, problem, by, now)
    plan = policy.plan(version, barred=policy.barred_from(request))
    if plan.obstacle:
        return _turned_away(request, plan.obstacle, by, now)
    given = list(
        Vote.objects.counting()
        .filter(stage__request=request)
        .select_related("voter", "on_behalf_of")
    )
    _put_under(request, version, plan, by=by, now=now)
    carried = _carry(request, given, by=by, now=now)
    return _told(request, version, kept=len(carried), of=len(given))


def _turned_away(request: AccessRequest, why: str, by: Person, now: datetime) -> str:
    rounds.decide(request, RequestState.CANCELLED, by=by, now=now, note=why)
    return f"is cancelled: {why}"


def _forbidden(request: AccessRequest, version: PolicyVersion) -> str | None:
    """What the version does not allow, where it asks for less than the request has."""
    if request.duration > version.max_duration:
        return f"{version} allows up to {lasting(version.max_duration)}."
    if version.ticket_required and not request.ticket.strip():
        return f"{version} wants a ticket."
    return None


def _put_under(
    request: AccessRequest,
    version: PolicyVersion,
    plan: policy.Plan,
    *,
    by: Person,
    now: datetime,
) -> None:
    """Begin a new round under `version`. The time to decide may become shorter, never longer."""
    before = request.policy_version
    request.policy_version = version
    request.scope = scope.of(request)
    request.scope_hash, before_hash = scope.digest(request.scope), request.scope_hash
    until = request.submitted_at + timedelta(seconds=version.pending_ttl)
    request.pending_until = min(request.pending_until, until)
    request.round += 1
    request.save(update_fields=["policy_version", "scope", "scope_hash", "pending_until", "round"])
    log.record(
        "accessrequest.reevaluated",
        actor=actor(by),
        subject=request,
        at=now,
        scope_hash=request.scope_hash,
        policy_version=str(version),
        before=str(before),
        scope_hash_before=before_hash,
    )
    rounds.begin_round(request, plan, by=by, now=now)


def _carry(
    request: AccessRequest, given: Sequence[Vote], *, by: Person, now: datetime
) -> list[Vote]:
    """Let each vote that still fits count in the stage it fits; the others are void.

    All that was voted on is the same but for the policy, so each keeps the scope that its author
    saw. Nobody's vote is moved where they could not cast it themselves now, nor by themselves.
    Approvals with less come first: where fewer are needed now, what opens is not more than before.
    """
    carried: list[Vote] = []
    left, own = sorted(given, key=lambda vote: vote.less is None), proposals.behind(by)
    while request.state == RequestState.PENDING:
        others = [vote for vote in left if not own & {vote.voter_id, vote.whose}]
        fitting = next((vote for vote in others if _fits(request, vote, now)), None)
        if fitting is None:
            break
        left.remove(fitting)
        rounds.carry_vote(request, fitting, by=by, now=now)
        carried.append(fitting)
    for vote in left:
        rounds.void(vote, request, "policy_changed", by=by, now=now)
    return carried


def _fits(request: AccessRequest, vote: Vote, now: datetime) -> bool:
    chain_ = policy.load_chain(request, now=now)
    voices = policy.voices(request, chain_, vote.voter, vote.decision)
    if vote.whose not in voices or voices[vote.whose] is not None:
        return False
    level, duration = vote.reduced_level, vote.reduced_duration or request.duration
    return level is None or narrowing.can_be_given(level, duration, request, chain_.stages)


def _told(request: AccessRequest, version: PolicyVersion, *, kept: int, of: int) -> str:
    words = f"goes under {version}"
    if of:
        words += f", with {kept} of {of} vote{'s' if of > 1 else ''}"
    if request.state == RequestState.APPROVED:
        words += ", and is approved by them"
    return words
