"""The chain of one request whose lock the caller has: begun, advanced, begun anew, decided.

Nobody is authorized here: that is for the verbs that call this.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from approvals import chain, grants, policy, proposals, reductions, scope
from approvals.errors import WrongState
from approvals.models import (
    AccessRequest,
    Candidate,
    Decision,
    RequestStage,
    Vote,
)
from approvals.states import RequestState, StageState
from approvals.transition import actor, move
from audit import log
from audit.log import SYSTEM, Subject

if TYPE_CHECKING:
    from approvals.people import Person

NOTE_MAX = 300  # characters of a decision's note; its Event has it whole
# What a request's own copy of a stage has as the policy has it.
COPIED = (
    "deadline",
    "fallback_group_id",
    "remind_every",
    "max_reminders",
    "escalate_after",
    "escalation_group_id",
)
# What a vote has of approving with less.
WITH_LESS = ("reduced_duration", "reduced_level_id", "reduced_scope", "reduced_hash")


def request_subject(pk: int) -> Subject:
    return Subject("accessrequest", str(pk), f"request {pk}", f"request:{pk}")


def ask(request: AccessRequest, plan: policy.Plan, *, by: object, now: datetime) -> None:
    """Copy the plan onto the request as its present round, and open the first stage that it asks.

    The stages that it leaves out are written down as skipped, and have no candidates.
    """
    stages = _copy(request, plan)
    for stage in stages[: plan.skipped]:
        move(stage, StageState.SKIPPED, by=SYSTEM, at=now)
    for stage in stages[plan.skipped :][:1]:
        _open(stage, by=by, now=now)


def skip_all(request: AccessRequest, plan: policy.Plan) -> None:
    """Copy the plan onto an emergency: nobody is asked, and it is known who would have been."""
    _copy(request, plan, state=StageState.SKIPPED)


def _copy(
    request: AccessRequest, plan: policy.Plan, *, state: StageState = StageState.WAITING
) -> list[RequestStage]:
    stages = RequestStage.objects.bulk_create(
        RequestStage(
            request=request,
            round=request.round,
            order=order,
            state=state,
            name=planned.stage.name,
            minima=dict(planned.minima),
            group_names=dict(planned.group_names),
            stand_ins=dict(planned.stand_ins),
            total=planned.stage.total,
            deny_quorum=planned.stage.deny_quorum,
            **{name: getattr(planned.stage, name) for name in COPIED},
        )
        for order, planned in enumerate(plan.stages)
    )
    Candidate.objects.bulk_create(
        Candidate(stage=stage, user_id=person, group_id=int(group))
        for stage, planned in zip(stages, plan.stages, strict=True)
        for person, groups in planned.candidates.items()
        for group in groups
    )
    return stages


def _open(stage: RequestStage, *, by: object, now: datetime) -> None:
    stage.opened_at = now
    stage.deadline_at = now + timedelta(seconds=stage.deadline) if stage.deadline else None
    stage.nudge_at = stage.next_nudge(reminded=0)
    changed = ("opened_at", "deadline_at", "nudge_at")
    move(stage, StageState.OPEN, by=by, at=now, changed=changed)


def locked_request(request_id: int) -> AccessRequest:
    """The request, its row locked and the time then read. Raises WrongState if there is none."""
    try:
        return AccessRequest.objects.locked(request_id)
    except AccessRequest.DoesNotExist:
        raise WrongState("This request does not exist.", code="gone") from None


def advance(request: AccessRequest, now_cast: policy.Chain, *, by: object, now: datetime) -> None:
    """Let the open stage pass or fail if its votes have decided it, and the request with it."""
    index = now_cast.require_open()
    match chain.outcome(now_cast.states, index).verdict:
        case chain.Verdict.FILLED:
            _void_left(request, now_cast, by=by, now=now)
            move(now_cast.stages[index], StageState.PASSED, by=by, at=now)
            if index + 1 < len(now_cast.stages):
                _open(now_cast.stages[index + 1], by=by, now=now)
            else:
                approve(request, by=by, now=now, votes=now_cast.votes)
        case chain.Verdict.DENIED:
            move(now_cast.stages[index], StageState.DENIED, by=by, at=now)
            decide(request, RequestState.DENIED, by=by, now=now)
        case chain.Verdict.OPEN:
            pass
        case chain.Verdict.UNFILLABLE:
            raise WrongState("This stage asks nobody, so nothing can pass it.", code="unfillable")


def approve(
    request: AccessRequest,
    *,
    by: Any,
    now: datetime,
    note: str = "",
    votes: Sequence[Vote] = (),
) -> None:
    """Bring it to its good end. Those of the `votes` that count may have left less of it."""
    decide(request, RequestState.APPROVED, by=by, now=now, note=note)
    if request.extends_id:
        grants.extend(request, by=by, votes=votes)
    else:
        grants.schedule(request, by=by, now=now, votes=votes)


def decide(
    request: AccessRequest, to: RequestState, *, by: object, now: datetime, note: str = ""
) -> None:
    """Bring a request whose lock the caller has to its end, with its stages."""
    request.decided_at, request.decision_note = now, note[:NOTE_MAX]
    if to != RequestState.APPROVED:
        _close_stages(request, by=by, now=now)
    move(
        request,
        to,
        by=by,
        at=now,
        changed=("decided_at", "decision_note"),
        note=note,
        scope_hash=request.scope_hash,
        policy_version=str(request.policy_version),
    )
    if to != RequestState.APPROVED and request.extends_id:
        grants.end_bridge(request, by=by)


def _close_stages(request: AccessRequest, *, by: object, now: datetime) -> None:
    going_on = request.stages.filter(state__in=[StageState.WAITING, StageState.OPEN])
    for stage in going_on.order_by("order"):
        move(stage, StageState.CLOSED, by=by, at=now)


def rescope(request: AccessRequest, *, by: Person, now: datetime) -> None:
    """Freeze the scope anew after its level or target changed; votes on another scope are void.

    For the verbs that change levels and targets, in their transaction and with the request
    locked. The chain begins anew with candidates drawn now; whoever made the change, or proposed
    it, is barred as its last editor. Where nobody could fill it any more, the request is
    cancelled; so is one for longer access, which is for what was approved and nothing else.
    """
    fresh = scope.of(request)
    if scope.digest(fresh) == request.scope_hash:
        return
    changed = scope.differences(request.scope, fresh)
    request.scope, request.scope_hash = fresh, scope.digest(fresh)
    request.last_edited_by_id, request.round = proposals.author(by), request.round + 1
    request.save(update_fields=["scope", "scope_hash", "last_edited_by", "round"])
    log.record(
        "accessrequest.rescoped",
        actor=actor(by),
        subject=request,
        at=now,
        scope_hash=request.scope_hash,
        changed=changed,
    )
    _void_votes(request, "scope_changed", by=by, now=now)
    if request.extends_id:
        note = f"Changed since the access was approved: {', '.join(changed)}."
        decide(request, RequestState.CANCELLED, by=by, now=now, note=note)
    else:
        _ask_anew(request, by=by, now=now)


def _ask_anew(request: AccessRequest, *, by: Person, now: datetime) -> None:
    _close_stages(request, by=by, now=now)
    plan = policy.plan(request.policy_version, barred=policy.barred_from(request))
    if plan.obstacle:
        decide(request, RequestState.CANCELLED, by=by, now=now, note=plan.obstacle)
    else:
        ask(request, plan, by=by, now=now)


def void_stale(request: AccessRequest, *, by: Person, now: datetime) -> None:
    """Void the approvals with less whose lower level is not what it was then.

    For the verb that changes levels, as `rescope` is; whoever made the change, or proposed it, is
    barred as its last editor. The open stage goes on, unless one had let a stage pass, or whoever
    made or proposed the change has voted or is needed: then all votes are void and the chain begins
    anew.
    """
    given = list(Vote.objects.all().with_less(request))
    stale = [vote for vote in given if reductions.is_stale(vote, request)]
    if not stale:
        return
    request.last_edited_by_id = proposals.author(by)
    request.save(update_fields=["last_edited_by"])
    for vote in stale:
        void(vote, request, "reduced_level_changed", by=by, now=now)
    passed = any(vote.stage.state == StageState.PASSED for vote in stale)
    left = policy.load_chain(request, now=now)
    heard = {person for vote in left.votes for person in (vote.voter_id, vote.whose)}
    if passed or heard & proposals.behind(by) or not chain.simulate(left.states).fillable:
        _begin_anew(request, stale, by=by, now=now)


def _begin_anew(
    request: AccessRequest, stale: Sequence[Vote], *, by: Person, now: datetime
) -> None:
    request.round += 1
    request.save(update_fields=["round"])
    log.record(
        "accessrequest.begun_anew",
        actor=actor(by),
        subject=request,
        at=now,
        scope_hash=request.scope_hash,
        levels=sorted({vote.reduced_level.name for vote in stale if vote.reduced_level}),
    )
    _void_votes(request, "begun_anew", by=by, now=now)
    _ask_anew(request, by=by, now=now)


def _void_votes(request: AccessRequest, why: str, *, by: Person, now: datetime) -> None:
    for cast in Vote.objects.counting().filter(stage__request=request).select_related("voter"):
        void(cast, request, why, by=by, now=now)


def _void_left(request: AccessRequest, cast: policy.Chain, *, by: object, now: datetime) -> None:
    """Of a stage that passes, void the approvals that did not count: their authors had left."""
    index = cast.require_open()
    stands = cast.states[index].standing_approvals
    for vote_ in cast.votes:
        counts = vote_.decision == Decision.DENY or vote_.whose in stands
        if vote_.stage_id == cast.stages[index].pk and not counts:
            void(vote_, request, "left", by=by, now=now)


def begin_round(request: AccessRequest, plan: policy.Plan, *, by: object, now: datetime) -> None:
    """End the stages of the round before and ask anew, as `plan` says."""
    _close_stages(request, by=by, now=now)
    ask(request, plan, by=by, now=now)


def carry_vote(request: AccessRequest, given: Vote, *, by: Person, now: datetime) -> None:
    """Let a vote of an earlier round count in the stage that is open now.

    It keeps its author, its time, the scope they saw and what they took away; the old row is
    replaced by it. The caller has the request's lock and has seen that its author may cast it.
    """
    before = policy.load_chain(request, now=now)
    stage = before.stages[before.require_open()]
    given.replaced_at = now
    given.save(update_fields=["replaced_at"])
    new = Vote.objects.create(
        stage=stage,
        voter=given.voter,
        on_behalf_of=given.on_behalf_of,
        decision=given.decision,
        comment=given.comment,
        scope_hash=given.scope_hash,
        voted_at=given.voted_at,
        **{name: getattr(given, name) for name in WITH_LESS},
    )
    log.record(
        "vote.carried",
        actor=actor(by),
        subject=request,
        at=now,
        on_behalf_of=actor(given.on_behalf_of) if given.on_behalf_of else None,
        scope_hash=given.scope_hash,
        policy_version=str(request.policy_version),
        voter=given.voter.get_username(),
        decision=given.decision,
        stage=stage.name,
    )
    advance(request, before.with_vote(new), by=by, now=now)


def void(cast: Vote, request: AccessRequest, reason: str, *, by: object, now: datetime) -> None:
    """Let a vote count no more; `reason` is for programs."""
    cast.voided_at, cast.void_reason = now, reason
    cast.save(update_fields=["voided_at", "void_reason"])
    log.record(
        "vote.voided",
        actor=actor(by),
        subject=request,
        at=now,
        scope_hash=cast.scope_hash,
        voter=cast.voter.get_username(),
        reason=reason,
    )
