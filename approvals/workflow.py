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

from approvals import access, chain, extensions, grants, policy, scope
from approvals.errors import Invalid, NotAllowed, WrongState
from approvals.lengths import lasting
from approvals.models import (
    AccessLevel,
    AccessRequest,
    Candidate,
    Decision,
    Grant,
    PolicyVersion,
    RequestKind,
    RequestStage,
    Risk,
    Vote,
)
from approvals.states import UNDECIDED, RequestState, StageState
from approvals.transition import actor, move, verb
from audit import clock, log
from audit.log import SYSTEM, Subject

if TYPE_CHECKING:
    from approvals.people import Person

REASON_MAX = 2000  # characters; long enough for an incident's story, short enough to be read
TICKET_MAX = 100  # characters
NOTE_MAX = 300  # characters of a decision's note; its Event has it whole
NOBODY_OF_THAT_NAME = "Nobody of that name may use this level."
AHEAD_MAX = 30 * 86400  # seconds a wanted start may lie ahead
# What a request's own copy of a stage has as the policy has it.
COPIED = (
    "deadline",
    "fallback_group_id",
    "remind_every",
    "max_reminders",
    "escalate_after",
    "escalation_group_id",
)


def request_subject(pk: int) -> Subject:
    return Subject("accessrequest", str(pk), f"request {pk}", f"request:{pk}")


def level_subject(pk: int) -> Subject:
    level = AccessLevel.objects.select_related("target").filter(pk=pk).first()
    return level.audit_subject() if level else Subject("accesslevel", str(pk), f"level {pk}")


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What somebody asks for: seconds of access, why, and optionally when it should begin.

    `whom` is the username of whoever is to have it; empty for oneself.
    """

    duration: int
    reason: str
    ticket: str = ""
    starts_at: datetime | None = None
    whom: str = ""


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
    _ask(request, considered.plan, by=by, now=now)
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
    if fields := _wrong_longer(wish, extensions.room(grant)):
        raise Invalid("Some of what you entered cannot be used.", fields=fields)
    barred = {by.pk, grant.request.requester_id}
    plan = policy.plan_longer(version, barred=barred)
    if plan.obstacle:
        raise Invalid(plan.obstacle, code="unfillable")
    kind = RequestKind.EXTENSION
    request = create_request(
        level, by=by, wish=wish, version=version, now=now, kind=kind, extends=grant
    )
    _ask(request, plan, by=by, now=now)
    if plan.skipped == len(plan.stages):
        _approve(request, by=SYSTEM, now=now, note="Its policy asks nobody for longer access.")
    return request


def _wrong_longer(wish: Wish, left: extensions.Room) -> dict[str, list[str]]:
    fields = wrong_words(wish)
    if wish.duration > left.longest:
        longest = lasting(left.longest)
        fields["duration"] = [f"Up to {longest}; the limit is that of {left.set_by}."]
    elif wish.duration <= left.bridge:
        fields["duration"] = [
            f"More than {lasting(left.bridge)}, which the policy bridges by itself."
            if left.bridge
            else "At least one second."
        ]
    return fields


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
    found = _whom(level, by, wish)
    whom = found or by
    choice = policy.choose(level, whom)
    version = choice.version
    limit, whose = limit_of(level, version)
    problem = not_askable(level, by) or wrong_wish(wish, version, limit, whose, now)
    if found is None:
        problem = problem or Invalid(fields={"whom": [NOBODY_OF_THAT_NAME]})
    if version is None:
        return Preview(None, policy.Plan(()), limit, whose, problem or unmatched(level, choice))
    plan = policy.plan(version, barred={by.pk, whom.pk})
    if plan.obstacle:
        problem = problem or Invalid(plan.obstacle, code="unfillable")
    return Preview(version, plan, limit, whose, problem or _asked_already(level, by, whom), whom)


def _whom(level: AccessLevel, by: Person, wish: Wish) -> Person | None:
    """Who is to have it; None for whoever may not, or does not exist, which is not told apart."""
    if wish.whom in ("", by.get_username()):
        return by
    people = get_user_model()._default_manager.filter(is_active=True, service__isnull=True)
    found = people.filter(username=wish.whom).first() if "\x00" not in wish.whom else None
    if found is None or not access.requestable_levels(found).filter(pk=level.pk).exists():
        return None
    return found


def limit_of(level: AccessLevel, version: PolicyVersion | None) -> tuple[int, str]:
    """The longest that may be asked for, in seconds, and whose limit that is."""
    if version is not None and version.max_duration < level.max_duration:
        return version.max_duration, f"the policy {version.policy.name}"
    return level.max_duration, f"the level {level.name}"


def not_askable(level: AccessLevel, by: Person) -> NotAllowed | None:
    """Why this person may not ask for the level at all, or None."""
    if not access.requestable_levels(by).filter(pk=level.pk).exists():
        return NotAllowed(
            f"You may not ask for {level}. Its target's owners can give your group that right.",
            code="not_requestable",
        )
    if level.summarised_at is None:
        return NotAllowed(
            f"{level} has not been checked on its target yet. An admin has to save it again.",
            code="not_checked",
        )
    return None


def wrong_wish(
    wish: Wish, version: PolicyVersion | None, limit: int, whose: str, now: datetime
) -> Invalid | None:
    """What cannot be asked for like that, by field; `limit` and `whose` as `limit_of` has them."""
    fields = wrong_words(wish)
    if not 0 < wish.duration <= limit:
        fields["duration"] = [f"Up to {lasting(limit)}; the limit is that of {whose}."]
    if version is not None and version.ticket_required and not wish.ticket.strip():
        fields["ticket"] = [f"The policy {version.policy.name} wants a ticket."]
    fields |= _wrong_start(wish, now)
    return Invalid("Some of what you entered cannot be used.", fields=fields) if fields else None


def wrong_words(wish: Wish) -> dict[str, list[str]]:
    """What is wrong with the texts of a wish, by field."""
    fields: dict[str, list[str]] = {}
    if not wish.reason.strip():
        fields["reason"] = ["Say what is broken and what you mean to look at."]
    elif len(wish.reason) > REASON_MAX:
        fields["reason"] = [f"Keep it within {REASON_MAX} characters ({len(wish.reason)} now)."]
    if len(wish.ticket) > TICKET_MAX:
        fields["ticket"] = [f"Keep it within {TICKET_MAX} characters."]
    for name, text in (("reason", wish.reason), ("ticket", wish.ticket)):
        if "\x00" in text:
            fields[name] = ["A NUL character cannot be stored. Remove it."]
    return fields


def _wrong_start(wish: Wish, now: datetime) -> dict[str, list[str]]:
    if wish.starts_at is None:
        return {}
    if wish.starts_at.utcoffset() is None:
        return {"starts_at": ["Give a time with its zone, for example 2030-01-31T09:00:00+01:00."]}
    if wish.starts_at <= now:
        return {"starts_at": ["This has passed. Leave it empty to start at once."]}
    if wish.starts_at > now + timedelta(seconds=AHEAD_MAX):
        return {"starts_at": [f"At most {AHEAD_MAX // 86400} days ahead."]}
    return {}


def unmatched(level: AccessLevel, choice: policy.Choice) -> Invalid:
    """What is said where no policy governs it."""
    misses = [str(miss) for miss in choice.near_misses]
    return Invalid(
        f"No policy governs {level} for you, so it cannot be asked for. "
        "A policy admin can publish one. " + (" · ".join(misses) or "There is no policy yet."),
        code="no_policy",
        near_misses=misses,
    )


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


def _ask(request: AccessRequest, plan: policy.Plan, *, by: object, now: datetime) -> None:
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


@verb("vote.refused", request_subject)
def vote(
    request_id: int,
    *,
    by: Person,
    decision: str,
    scope_hash: str,
    comment: str = "",
    on_behalf_of: str = "",
    replaces: int | None = None,
    risks: Collection[str] = Risk.values,
) -> AccessRequest:
    """Approve or deny in the open stage; a second vote there replaces the first.

    `scope_hash` is that of the scope the voter saw; `replaces`, where given, the id of their vote
    that they saw in this stage (0 for none), so that the same form sent twice is a conflict.
    `on_behalf_of` is the username of whom the vote is given for, needed only where several have
    lent theirs to whoever gives it.
    `risks` are those of a level that may be voted on in this way.
    Raises WrongState (too late, or not what they saw), NotAllowed with a reason code, Invalid.
    """
    request = locked_request(request_id)
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
    if request.level.risk not in risks:
        raise NotAllowed("At this risk somebody has to vote in person.", code="token_risk")
    before = policy.load_chain(request, now=now)
    whose = _whose(policy.voices(request, before, by, decision), by, on_behalf_of)
    stage = before.stages[before.require_open()]
    mine = before.counting_vote(stage, whose.pk)
    if replaces is not None and replaces != (mine.pk if mine else 0):
        raise WrongState(
            "You have voted here since this page was shown, and that vote counts. "
            "To change it, open the request again.",
            code="voted_already",
        )
    cast = _cast(
        stage, before, request, by=by, whose=whose, decision=decision, comment=comment, now=now
    )
    _advance(request, before.with_vote(cast), by=by, now=now)
    return request


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


def locked_request(request_id: int) -> AccessRequest:
    """The request, its row locked and the time then read. Raises WrongState if there is none."""
    try:
        return AccessRequest.objects.locked(request_id)
    except AccessRequest.DoesNotExist:
        raise WrongState("This request does not exist.", code="gone") from None


def require_comment(comment: str, *, why: str = "") -> None:
    """Refuse one that cannot be kept; and none at all with `why`, where one is needed."""
    if why and not comment.strip():
        raise Invalid(fields={"comment": [why]})
    if len(comment) > REASON_MAX:
        raise Invalid(fields={"comment": [f"Keep it within {REASON_MAX} characters."]})
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
    )
    return new


def _advance(request: AccessRequest, now_cast: policy.Chain, *, by: Person, now: datetime) -> None:
    """Let the open stage pass or fail if that vote decided it, and the request with it."""
    index = now_cast.require_open()
    match chain.outcome(now_cast.states, index).verdict:
        case chain.Verdict.FILLED:
            _void_left(request, now_cast, by=by, now=now)
            move(now_cast.stages[index], StageState.PASSED, by=by, at=now)
            if index + 1 < len(now_cast.stages):
                _open(now_cast.stages[index + 1], by=by, now=now)
            else:
                _approve(request, by=by, now=now)
        case chain.Verdict.DENIED:
            move(now_cast.stages[index], StageState.DENIED, by=by, at=now)
            decide(request, RequestState.DENIED, by=by, now=now)
        case chain.Verdict.OPEN:
            pass
        case chain.Verdict.UNFILLABLE:
            raise WrongState("This stage asks nobody, so nothing can pass it.", code="unfillable")


def _approve(request: AccessRequest, *, by: Any, now: datetime, note: str = "") -> None:
    decide(request, RequestState.APPROVED, by=by, now=now, note=note)
    if request.extends_id:
        grants.extend(request, by=by)
    else:
        grants.schedule(request, by=by, now=now)


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


@verb("cancel.refused", request_subject)
def cancel(request_id: int, *, by: Person) -> AccessRequest:
    """Take a request back before it is decided. Raises NotAllowed, WrongState."""
    request = locked_request(request_id)
    now = request.locked_at
    if (refusal := policy.may_cancel(request, by)) is not None:
        raise refusal.error()
    decide(request, RequestState.CANCELLED, by=by, now=now, note="Taken back.")
    return request


@verb("expire.refused", request_subject)
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
    decide(request, over[0], by=SYSTEM, now=now, note=over[1])
    return request


def _over(request: AccessRequest, now: datetime) -> tuple[RequestState, str] | None:
    """Why an undecided request cannot be decided any more. Mirrored in SQL by `overdue`."""
    if (lost := policy.ground_lost(request, now)) is not None:
        return lost
    late = request.stages.filter(state=StageState.OPEN, deadline_at__lte=now).first()
    if late is not None:
        return RequestState.EXPIRED, f"The stage “{late.name}” was not decided in time."
    return None


def rescope(request: AccessRequest, *, by: Person, now: datetime) -> None:
    """Freeze the scope anew after its level or target changed; votes on another scope are void.

    For the verbs that change levels and targets, in their transaction and with the request
    locked. The chain begins anew with candidates drawn now; whoever made the change is barred as
    its last editor. Where nobody could fill it any more, the request is cancelled; so is one for
    longer access, which is for what was approved and nothing else.
    """
    fresh = scope.of(request)
    if scope.digest(fresh) == request.scope_hash:
        return
    changed = scope.differences(request.scope, fresh)
    request.scope, request.scope_hash = fresh, scope.digest(fresh)
    request.last_edited_by, request.round = by, request.round + 1
    request.save(update_fields=["scope", "scope_hash", "last_edited_by", "round"])
    log.record(
        "accessrequest.rescoped",
        actor=actor(by),
        subject=request,
        at=now,
        scope_hash=request.scope_hash,
        changed=changed,
    )
    _void_votes(request, by=by, now=now)
    if request.extends_id:
        note = f"Changed since the access was approved: {', '.join(changed)}."
        decide(request, RequestState.CANCELLED, by=by, now=now, note=note)
        return
    _close_stages(request, by=by, now=now)
    plan = policy.plan(request.policy_version, barred=policy.barred_from(request))
    if plan.obstacle:
        decide(request, RequestState.CANCELLED, by=by, now=now, note=plan.obstacle)
    else:
        _ask(request, plan, by=by, now=now)


def _void_votes(request: AccessRequest, *, by: Person, now: datetime) -> None:
    for cast in Vote.objects.counting().filter(stage__request=request).select_related("voter"):
        void(cast, request, "scope_changed", by=by, now=now)


def _void_left(request: AccessRequest, cast: policy.Chain, *, by: Person, now: datetime) -> None:
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
    _ask(request, plan, by=by, now=now)


def carry_vote(request: AccessRequest, given: Vote, *, by: Person, now: datetime) -> None:
    """Let a vote of an earlier round count in the stage that is open now.

    It keeps its author, its time and the scope they saw; the old row is replaced by it. The caller
    has the request's lock and has seen that its author may cast it.
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
    _advance(request, before.with_vote(new), by=by, now=now)


def void(cast: Vote, request: AccessRequest, reason: str, *, by: Person, now: datetime) -> None:
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
