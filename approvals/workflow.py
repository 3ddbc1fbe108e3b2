"""The verbs of a request: submit, vote, cancel, expire. The only code that decides one.

What an approval opens is in `grants`; who may vote is in `policy`; the arithmetic is in `chain`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.contrib.auth import get_user_model
from django.db import IntegrityError, connection, transaction

from approvals import extensions, grants, narrowing, policy, reductions, rounds, scope, wishes
from approvals.errors import Invalid, NotAllowed, WrongState
from approvals.models import (
    AccessLevel,
    AccessRequest,
    Decision,
    Grant,
    PolicyVersion,
    RequestKind,
    RequestStage,
    Risk,
    Vote,
)
from approvals.states import UNDECIDED, RequestState, StageState
from approvals.transition import actor, verb
from approvals.wishes import Wish
from audit import clock, log
from audit.log import SYSTEM, Subject

if TYPE_CHECKING:
    from approvals.narrowing import Less, Reduction
    from approvals.people import Person


def level_subject(pk: int) -> Subject:
    level = AccessLevel.objects.select_related("target").filter(pk=pk).first()
    return level.audit_subject() if level else Subject("accesslevel", str(pk), f"level {pk}")


@dataclass(frozen=True)
class Preview:
    """What submitting a wish would do: whom it would ask, or why it would be refused."""

    version: PolicyVersion | None
    plan: policy.Plan
    max_duration: int
    max_duration_set_by: str
    problem: Invalid | NotAllowed | WrongState | None = None
    whom: Person | None = None


def preview(level: AccessLevel, *, by: Person, wish: Wish) -> Preview:
    """What `submit` would answer now, without doing anything."""
    return _consider(level, by=by, wish=wish, now=clock.now())


@verb("submit.refused", level_subject)
def submit(level_id: int, *, by: Person, wish: Wish) -> AccessRequest:
    """Ask for a level. Raises NotAllowed, Invalid, or WrongState if the same is asked already."""
    level = hold_level(level_id)
    now = clock.now()
    considered = _consider(level, by=by, wish=wish, now=now)
    if considered.problem is not None or considered.version is None:
        raise considered.problem or Invalid(code="no_policy")
    request = create_request(
        level, by=by, whom=considered.whom, wish=wish, version=considered.version, now=now
    )
    rounds.ask(request, considered.plan, by=by, now=now)
    return request


@verb("extend.refused", grants.grant_subject)
def ask_longer(grant_id: int, *, by: Person, wish: Wish) -> AccessRequest:
    """Ask that an access goes on beyond its end, by `wish.duration`. Its start is that end, and its
    ticket that of the access. Raises NotAllowed, Invalid, WrongState.

    Where the policy asks nobody for it, it is approved at once.
    """
    level_id = Grant.objects.filter(pk=grant_id).values_list("level", flat=True).first()
    if level_id is None:
        raise WrongState("This grant does not exist.", code="gone")
    level = hold_level(level_id)
    grant = grants.locked(grant_id)
    now = clock.now()
    if (refusal := extensions.may_extend(grant, by, now)) is not None:
        raise refusal.error()
    version = grant.request.policy_version
    wish = replace(wish, starts_at=grant.expires_at, ticket=grant.request.ticket)
    if fields := wishes.wrong_longer(wish, extensions.room(grant)):
        raise Invalid("Some of what you entered cannot be used.", fields=fields)
    barred = {by.pk, grant.request.requester_id}
    plan = policy.plan_longer(version, barred=barred)
    if plan.obstacle:
        raise Invalid(plan.obstacle, code="unfillable")
    kind = RequestKind.EXTENSION
    request = create_request(
        level, by=by, wish=wish, version=version, now=now, kind=kind, extends=grant
    )
    rounds.ask(request, plan, by=by, now=now)
    if plan.skipped == len(plan.stages):
        rounds.approve(
            request, by=SYSTEM, now=now, note="Its policy asks nobody for longer access."
        )
    return request


def hold_level(level_id: int) -> AccessLevel:
    """The level, it and its target locked against change (not against other requests).

    The target's row stands for both: whoever changes a level locks it first.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT FROM approvals_target WHERE id ="
            " (SELECT target_id FROM approvals_accesslevel WHERE id = %s) FOR SHARE",
            [level_id],
        )
        if not cursor.rowcount:
            raise Invalid("This level does not exist any more. Choose another.", code="no_level")
    return AccessLevel.objects.select_related("target").get(pk=level_id)


def _consider(level: AccessLevel, *, by: Person, wish: Wish, now: datetime) -> Preview:
    found = wishes.whom_of(level, by, wish)
    whom = found or by
    choice = policy.choose(level, whom)
    version = choice.version
    limit, whose = wishes.limit_of(level, version)
    problem = wishes.not_askable(level, by) or wishes.wrong_wish(wish, version, limit, whose, now)
    if found is None:
        problem = problem or Invalid(fields={"whom": [wishes.NOBODY_OF_THAT_NAME]})
    if version is None:
        return Preview(
            None, policy.Plan(()), limit, whose, problem or wishes.unmatched(level, choice)
        )
    plan = policy.plan(version, barred={by.pk, whom.pk})
    if plan.obstacle:
        problem = problem or Invalid(plan.obstacle, code="unfillable")
    return Preview(version, plan, limit, whose, problem or _asked_already(level, by, whom), whom)


def _asked_already(level: AccessLevel, by: Person, whom: Person) -> WrongState | None:
    undecided = AccessRequest.objects.undecided().filter(kind=RequestKind.ACCESS)
    same = undecided.filter(beneficiary=whom, level=level).first()
    if same is None:
        return None
    if whom.pk != by.pk and same.requester_id != by.pk:
        return WrongState(
            f"{level} is asked for {whom} already, and not decided yet.", code="asked_already"
        )
    return WrongState(
        f"{level} is asked for already (request {same.pk}) and not decided yet. "
        "Wait for it, or cancel it.",
        code="asked_already",
        request=same.pk,
    )


def create_request(
    level: AccessLevel,
    *,
    by: Person,
    wish: Wish,
    version: PolicyVersion,
    now: datetime,
    kind: RequestKind = RequestKind.ACCESS,
    whom: Person | None = None,
    extends: Grant | None = None,
) -> AccessRequest:
    """Write it down with its scope frozen. An emergency is bypassed from its beginning.

    Raises WrongState if the same is asked already.
    """
    at_once = kind == RequestKind.EMERGENCY
    whom = whom or by
    pending_until = now + timedelta(seconds=version.pending_ttl)
    if extends is not None:
        pending_until = min(pending_until, extensions.decided_before(extends) or pending_until)
    frozen = scope.freeze(
        beneficiary=whom,
        level=level,
        duration=wish.duration,
        starts_at=wish.starts_at,
        reason=wish.reason,
        ticket=wish.ticket,
        policy_version=version,
        extends=extends.pk if extends else None,
    )
    try:
        with transaction.atomic():
            request = AccessRequest.objects.create(
                kind=kind,
                state=RequestState.BYPASSED if at_once else RequestState.PENDING,
                decided_at=now if at_once else None,
                extends=extends,
                requester=by,
                beneficiary=whom,
                last_edited_by=by,
                target=level.target,
                level=level,
                policy_version=version,
                reason=wish.reason,
                ticket=wish.ticket,
                duration=wish.duration,
                starts_at=wish.starts_at,
                scope=frozen,
                scope_hash=scope.digest(frozen),
                submitted_at=now,
                pending_until=pending_until,
            )
    except IntegrityError as error:
        if "request_one_undecided" not in str(error):
            raise
        # Another submission of the same committed between the look and the insert.
        raise _asked_already(level, by, whom) or WrongState() from None
    log.record(
        f"accessrequest.{RequestState.BYPASSED if at_once else 'submitted'}",
        actor=actor(by),
        subject=request,
        at=now,
        scope_hash=request.scope_hash,
        policy_version=str(version),
        scope=request.scope,
    )
    return request


@verb("vote.refused", rounds.request_subject)
def vote(
    request_id: int,
    *,
    by: Person,
    decision: str,
    scope_hash: str,
    comment: str = "",
    on_behalf_of: str = "",
    replaces: int | None = None,
    stage_id: int | None = None,
    risks: Collection[str] = Risk.values,
    less: Less | None = None,
    seen_outcome: str = "",
) -> AccessRequest:
    """Approve or deny in the open stage; a second vote there replaces the first.

    `scope_hash` is that of the scope the voter saw; `replaces`, where given, the id of their vote
    that they saw in this stage (0 for none), so that the same form sent twice is a conflict.
    `stage_id`, where given, is the stage that they were asked in: a vote there counts in no later
    one.
    `on_behalf_of` is the username of whom the vote is given for, needed only where several have
    lent theirs to whoever gives it.
    `risks` are those of a level that may be voted on in this way. `less` approves with less than
    was asked: the grant takes the shortest time and the lowest level of the approvals that count.
    `seen_outcome`, where given, is the hash of what the approvals of the others would open: if that
    is not what it was any more, an approval is a conflict.
    Raises WrongState (too late, or not what they saw), NotAllowed with a reason code, Invalid.
    """
    if less is not None and less.level is not None:
        narrowing.hold_ground(request_id)
    request = rounds.locked_request(request_id)
    now = request.locked_at
    if scope_hash != request.scope_hash:
        raise WrongState(
            "What is asked for has changed since you looked at it. Read it again, then decide.",
            code="scope_changed",
        )
    if decision not in Decision.values:
        raise Invalid(fields={"decision": ["approve or deny"]})
    deny = decision == Decision.DENY
    require_comment(comment, why="Say why, so that they know what to do instead." if deny else "")
    _require_risk(request.level, risks)
    before = policy.load_chain(request, now=now)
    whose = _whose(policy.voices(request, before, by, decision), by, on_behalf_of)
    stage = before.stages[before.require_open()]
    if stage_id not in (None, stage.pk):
        raise WrongState(f"You were asked in another stage; now “{stage.name}” is open.")
    mine = before.counting_vote(stage, whose.pk)
    if replaces is not None and replaces != (mine.pk if mine else 0):
        raise WrongState(
            "You have voted here since this page was shown, and that vote counts. "
            "To change it, open the request again.",
            code="voted_already",
        )
    others = reductions.outcome(request, [vote for vote in before.votes if vote is not mine])
    _require_seen(others, "" if deny else seen_outcome, risks)
    stages = before.stages
    left = narrowing.reduction(request, less, decision=decision, stages=stages) if less else None
    if left is not None and left.level is not None:
        _require_risk(left.level, risks)
    words = {"decision": decision, "comment": comment}
    cast = _cast(stage, before, request, by=by, whose=whose, left=left, now=now, **words)
    rounds.advance(request, before.with_vote(cast), by=by, now=now)
    return request


def _require_seen(opens: reductions.Outcome, seen: str, risks: Collection[str]) -> None:
    """Refuse where the approvals so far open what may not be voted on in this way, or not what
    was seen."""
    _require_risk(opens.level, risks)
    if seen and seen != opens.scope_hash:
        raise WrongState(
            "What it would open has changed since you looked at it: somebody approved with less, "
            "or does not any more. Read it again, then decide.",
            code="scope_changed",
        )


def _require_risk(level: AccessLevel, risks: Collection[str]) -> None:
    if level.risk not in risks:
        raise NotAllowed("At this risk somebody has to vote in person.", code="token_risk")


def _whose(voices: Mapping[int, policy.Refusal | None], by: Person, named: str) -> Person:
    """Whose vote it is: of the one who is `named`, or else the only one that may be given."""
    if named:
        if (chosen := _people(voices).get(named)) is None:
            raise NotAllowed(
                "You cannot vote for them here: they are not asked, have not lent you their "
                "votes, or you can vote yourself.",
                code="not_lent",
            )
        voices = {chosen.pk: voices[chosen.pk]}
    able = [pk for pk, refusal in voices.items() if refusal is None]
    refusals = [refusal for refusal in voices.values() if refusal is not None]
    if not able:
        raise refusals[0].error()
    if able == [by.pk]:
        return by
    people = _people(able)
    if len(able) > 1:
        names = " or ".join(sorted(people))
        raise Invalid(fields={"on_behalf_of": [f"Say for whom: {names}."]})
    return people.popitem()[1]


def _people(ids: Collection[int]) -> dict[str, Person]:
    found = get_user_model()._default_manager.filter(pk__in=ids)
    return {person.get_username(): person for person in found}


def require_comment(comment: str, *, why: str = "") -> None:
    """Refuse one that cannot be kept; and none at all with `why`, where one is needed."""
    if why and not comment.strip():
        raise Invalid(fields={"comment": [why]})
    if len(comment) > wishes.REASON_MAX:
        raise Invalid(fields={"comment": [f"Keep it within {wishes.REASON_MAX} characters."]})
    if "\x00" in comment:
        raise Invalid(fields={"comment": ["A NUL character cannot be stored. Remove it."]})


def _cast(
    stage: RequestStage,
    before: policy.Chain,
    request: AccessRequest,
    *,
    by: Person,
    whose: Person,
    decision: str,
    comment: str,
    left: Reduction | None,
    now: datetime,
) -> Vote:
    replaced = before.counting_vote(stage, whose.pk)
    if replaced is not None:
        replaced.replaced_at = now
        replaced.save(update_fields=["replaced_at"])
    new = Vote.objects.create(
        stage=stage,
        voter=by,
        on_behalf_of=whose if whose != by else None,
        decision=decision,
        comment=comment,
        scope_hash=request.scope_hash,
        voted_at=now,
        **_kept(left),
    )
    log.record(
        "vote.replaced" if replaced else "vote.cast",
        actor=actor(by),
        on_behalf_of=actor(whose) if whose != by else None,
        subject=request,
        at=now,
        scope_hash=request.scope_hash,
        policy_version=str(request.policy_version),
        decision=str(decision),
        before=replaced.decision if replaced else "",
        stage=stage.name,
        comment=comment,
        **_told(replaced, left),
    )
    return new


def _kept(left: Reduction | None) -> dict[str, Any]:
    """What the vote keeps of approving with less."""
    if left is None:
        return {}
    return {
        "reduced_duration": left.duration,
        "reduced_level": left.level,
        "reduced_scope": left.scope,
        "reduced_hash": left.scope_hash,
    }


def _told(replaced: Vote | None, left: Reduction | None) -> dict[str, Any]:
    """What its Event says of that, and whether the vote before it was for less."""
    data: dict[str, Any] = {}
    if replaced is not None and replaced.reduced_hash:
        data["before_less"] = True
    if left is not None:
        data["less"] = reductions.told(left.duration, left.level)
        data["reduced_hash"] = left.scope_hash
    return data


@verb("cancel.refused", rounds.request_subject)
def cancel(request_id: int, *, by: Person) -> AccessRequest:
    """Take a request back before it is decided. Raises NotAllowed, WrongState."""
    request = rounds.locked_request(request_id)
    now = request.locked_at
    if (refusal := policy.may_cancel(request, by)) is not None:
        raise refusal.error()
    rounds.decide(request, RequestState.CANCELLED, by=by, now=now, note="Taken back.")
    return request


@verb("expire.refused", rounds.request_subject)
def expire(request_id: int) -> AccessRequest | None:
    """Close a request whose time is over or whose ground is gone; None if it is neither.

    Nor if somebody else is at it: the clock waits for nobody and comes by again.
    """
    request = AccessRequest.objects.all().free(request_id)
    if request is None or request.state not in UNDECIDED:
        return None
    now = request.locked_at
    if (over := _over(request, now)) is None:
        return None
    rounds.decide(request, over[0], by=SYSTEM, now=now, note=over[1])
    return request


def _over(request: AccessRequest, now: datetime) -> tuple[RequestState, str] | None:
    """Why an undecided request cannot be decided any more. Mirrored in SQL by `overdue`."""
    if (lost := policy.ground_lost(request, now)) is not None:
        return lost
    late = request.stages.filter(state=StageState.OPEN, deadline_at__lte=now).first()
    if late is not None:
        return RequestState.EXPIRED, f"The stage “{late.name}” was not decided in time."
    return None
