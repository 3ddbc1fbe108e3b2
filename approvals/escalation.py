"""What becomes of a stage while it waits: reminders, escalation, and what its people leave behind.

The clock asks more people and never decides; it says what the votes that count have decided. Which
requests it has to look at is in `untended`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.db.models import Max
from django.db.models.functions import Coalesce

from approvals import chain, policy, rounds
from approvals.models import AccessRequest, Candidate, Nudge, NudgeKind, RequestStage
from approvals.rounds import locked_request, request_subject
from approvals.states import RequestState, StageState
from approvals.transition import actor, verb
from audit import log
from audit.log import SYSTEM

if TYPE_CHECKING:
    from approvals.people import Person

# Why a stage was escalated, in its Event.
TIME: Final = "time"
NOBODY_LEFT: Final = "nobody_left"
KEPT: Final = ("stand_ins", "group_names", "nudge_at", "escalated_at", "stalled_since")


@verb("tend.refused", request_subject)
def tend(request_id: int) -> AccessRequest | None:
    """Remind and escalate if it is time, and see whether the open stage can be filled yet, or is.

    None where there is nothing to tend, or somebody else is at it: the clock waits for nobody and
    comes by again.
    """
    request = AccessRequest.objects.all().free(request_id)
    if request is None or request.state != RequestState.PENDING:
        return None
    now = request.locked_at
    loaded = policy.load_chain(request, now=now)
    if loaded.index is None or policy.is_too_late(request, loaded):
        return None
    stage = loaded.stages[loaded.index]
    reminded = _remind(stage, loaded, now=now)
    if stage.escalates(now):
        _escalate(request, stage, because=TIME, now=now)
    _settle(request, stage, now=now)
    stage.nudge_at = stage.next_nudge(reminded=reminded)
    stage.save(update_fields=KEPT)
    _go_on(request, now=now)
    return request


def _go_on(request: AccessRequest, *, now: datetime) -> None:
    """Let a stage end that no vote is missing in any more, since somebody is back.

    Whom the clock called in for others counts when they vote: no timeout approves.
    """
    loaded = policy.load_chain(request, now=now)
    if policy.verdict_of_its_own(request, loaded) in (chain.Verdict.FILLED, chain.Verdict.DENIED):
        rounds.advance(request, loaded, by=SYSTEM, now=now)


def _remind(stage: RequestStage, loaded: policy.Chain, *, now: datetime) -> int:
    """Write down the latest reminder that is due; the number of the last one there was.

    Of several that were missed only the latest is given: nobody is helped by ten at once.
    """
    last = stage.nudges.filter(kind=NudgeKind.REMIND).aggregate(n=Max("n"))["n"] or 0
    due = stage.reminders_due(now)
    if due <= last:
        return int(last)
    skipped = due - last - 1
    Nudge.objects.create(stage=stage, kind=NudgeKind.REMIND, n=due, skipped=skipped, at=now)
    log.record(
        "requeststage.reminded",
        actor=SYSTEM,
        subject=stage,
        at=now,
        n=due,
        of=stage.max_reminders,
        skipped=skipped,
        missing=policy.missing(loaded),
    )
    return due


def _escalate(request: AccessRequest, stage: RequestStage, *, because: str, now: datetime) -> None:
    """Ask the escalation group as well, whose people may fill whatever place is empty."""
    group = stage.escalation_group
    if group is None:
        return
    added = _call_in(request, stage, group, stage.minima)
    stage.escalated_at = now
    Nudge.objects.create(stage=stage, kind=NudgeKind.ESCALATE, n=1, at=now)
    log.record(
        "requeststage.escalated",
        actor=SYSTEM,
        subject=stage,
        at=now,
        group=group.name,
        added=added,
        because=because,
    )


def _call_in(
    request: AccessRequest, stage: RequestStage, group: Group, groups: Iterable[str]
) -> list[str]:
    """Let the group's people stand in for `groups` in this stage, too; who was not asked before.

    Nobody is taken out, and none of those who are barred comes in.
    """
    key = str(group.pk)
    stage.stand_ins = {
        **stage.stand_ins,
        key: sorted({*stage.stand_ins.get(key, ()), *groups}),
    }
    stage.group_names = {**stage.group_names, key: group.name}
    members = policy.members_of((), group.pk)[key] - policy.barred_from(request)
    asked = set(stage.candidates.values_list("user_id", flat=True))
    Candidate.objects.bulk_create(
        [Candidate(stage=stage, user_id=person, group=group) for person in sorted(members)],
        ignore_conflicts=True,
    )
    return _usernames(members - asked)


def _settle(request: AccessRequest, stage: RequestStage, *, now: datetime) -> None:
    """Where nobody is left for a place, ask the fallback group, then the escalation group; say so
    if that does not help either, and when it is over."""
    lacking = _lacking(request, stage, now)
    if lacking and stage.fallback_group and (short := _not_stood_in_for(stage, lacking)):
        _fall_back(request, stage, short, now=now)
        lacking = _lacking(request, stage, now)
    if lacking and stage.escalation_group_id and stage.escalated_at is None:
        _escalate(request, stage, because=NOBODY_LEFT, now=now)
        lacking = _lacking(request, stage, now)
    if lacking and stage.stalled_since is None:
        stage.stalled_since = now
        missing = [policy.words(one, stage.group_names) for one in lacking]
        log.record("requeststage.stalled", actor=SYSTEM, subject=stage, at=now, missing=missing)
    elif stage.stalled_since is not None and not lacking:
        since, stage.stalled_since = stage.stalled_since, None
        log.record("requeststage.revived", actor=SYSTEM, subject=stage, at=now, stalled_since=since)


def _lacking(request: AccessRequest, stage: RequestStage, now: datetime) -> Sequence[Any]:
    """What nobody can give any more, with those who have just been called in."""
    stage.save(update_fields=KEPT)
    return policy.lacking(policy.load_chain(request, now=now))


def _not_stood_in_for(stage: RequestStage, lacking: Sequence[Any]) -> set[str]:
    """The groups that are short and that the fallback group does not stand in for yet."""
    short = {group for one in lacking for group in one.groups}
    return short - set(stage.stand_ins.get(str(stage.fallback_group_id), ()))


def _fall_back(
    request: AccessRequest, stage: RequestStage, short: set[str], *, now: datetime
) -> None:
    group = stage.fallback_group
    if group is None:
        return
    added = _call_in(request, stage, group, short)
    log.record(
        "requeststage.stood_in",
        actor=SYSTEM,
        subject=stage,
        at=now,
        group=group.name,
        added=added,
        stands_in_for=sorted(stage.group_names[key] for key in short),
    )


@verb("redraw.refused", request_subject)
def redraw(request_id: int, *, by: Person) -> AccessRequest:
    """Ask in every stage that has not passed those who are in its groups today.

    Votes stay, and with them the candidacy of their authors. Raises NotAllowed, WrongState.
    """
    request = locked_request(request_id)
    now = request.locked_at
    loaded = policy.load_chain(request, now=now)
    if (refusal := policy.may_redraw(request, loaded, by)) is not None:
        raise refusal.error()
    going_on = [stage for stage in loaded.stages if stage.state in ASKING]
    log.record(
        "accessrequest.redrawn",
        actor=actor(by),
        subject=request,
        at=now,
        scope_hash=request.scope_hash,
        stages=[_draw_anew(request, stage) for stage in going_on],
    )
    opened = loaded.stages[loaded.require_open()]
    _settle(request, opened, now=now)
    opened.save(update_fields=KEPT)
    return request


ASKING: Final = (StageState.WAITING, StageState.OPEN)


def _draw_anew(request: AccessRequest, stage: RequestStage) -> Mapping[str, Any]:
    """The stage's candidates as they would be drawn now; who came and who went, by name."""
    groups = {int(key) for key in (*stage.minima, *stage.stand_ins)}
    barred = policy.barred_from(request)
    drawn = policy.members_of((), *groups)
    wanted = {(person, int(group)) for group, held in drawn.items() for person in held - barred}
    had = set(stage.candidates.values_list("user_id", "group_id"))
    gone = stage.candidates.exclude(
        user__in=stage.votes.values(who=Coalesce("on_behalf_of", "voter"))
    )
    for person, group in had - wanted:
        gone.filter(user=person, group=group).delete()
    Candidate.objects.bulk_create(
        Candidate(stage=stage, user_id=person, group_id=group) for person, group in wanted - had
    )
    before = {person for person, _ in had}
    after = set(stage.candidates.values_list("user_id", flat=True))
    return {
        "name": stage.name,
        "added": _usernames(after - before),
        "left": _usernames(before - after),
    }


def _usernames(people: set[int]) -> list[str]:
    found = get_user_model()._default_manager.filter(pk__in=people)
    return sorted(found.values_list("username", flat=True))
