"""Whether one witnessed change is lawful, given the request it belongs to as it was before.

Judged by the laws alone, with another arithmetic than the product's; no verb and no policy of it
is asked. Who was active or a member at that moment is not known here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from approvals import states
from approvals.states import GrantState, RequestState
from approvals.states import StageState as S
from tests.approvals import chain_oracle
from tests.faults.course import Course, whose
from tests.faults.witness import Change, moment

MACHINES: Mapping[str, Any] = {
    "accessrequest": RequestState,
    "requeststage": S,
    "grant": GrantState,
}
MAY_CHANGE = {
    "accessrequest": {
        "state", "scope_hash", "last_edited_by_id", "round", "decided_at", "decision_note"
    },
    "requeststage": {
        "state", "opened_at", "deadline_at", "nudge_at", "escalated_at", "stalled_since",
        "stand_ins", "group_names",
    },
    "nudge": set[str](),
    "candidate": set[str](),
    "vote": {"replaced_at", "voided_at", "void_reason"},
    "abandonment": set[str](),
    "grant": {
        "state", "expires_at", "open_before", "activated_at", "revoking_at", "cut_at", "ended_at",
        "end_reason", "end_code", "end_note", "connection", "secret", "revealed_at", "lease",
        "lease_until", "attempts", "next_try_at", "last_error", "stuck_since", "abandoned_at",
        "extended_until", "extended_count", "bridged_at",
    },
}  # fmt: skip

LATER_NEVER = ("expires_at", "open_before")


def breaches(change: Change, course: Course, everyone: Iterable[Course]) -> Iterator[str]:
    """What is unlawful about a change; nothing if all is well. `course` is as it was before it."""
    where = f"{change.table} {change.pk} of request {course.pk}"
    for wrong in _wrong(change, course, everyone):
        yield f"{where}: {wrong}"


def _wrong(change: Change, course: Course, everyone: Iterable[Course]) -> Iterator[str]:
    if change.new is None:
        if change.table == "candidate":
            yield from _taken_out(change, course)
        elif change.table != "abandonment":
            yield "it was deleted"
        return
    if change.old is None:
        yield from _born(change, course, everyone)
    else:
        yield from _changed(change)
        yield from _moved(change, course)
        if change.table == "grant" and change.differs("extended_until"):
            yield from _intended(change, everyone)


def _intended(change: Change, everyone: Iterable[Course]) -> Iterator[str]:
    """A later end that is to be needs a decision of its own, or one that is out, once."""
    mine = [one for one in everyone if one.row["extends_id"] == change.pk]
    if change.of("state") != GrantState.ACTIVE:
        yield f"it was to be extended while {change.of('state')}"
    if change.of("extended_count") == change.was("extended_count"):
        if not change.became("bridged_at") or not any(one.undecided for one in mine):
            yield "it was bridged twice, or with no decision out"
        return
    agreed = [one for one in mine if one.row["state"] == RequestState.APPROVED]
    if change.of("extended_count") != change.was("extended_count") + 1:
        yield "its extensions were miscounted"
    if change.of("extended_count") > len(agreed):
        yield "it was extended more often than that was agreed to"
    if not any(_wanted(one) == moment(change.of("extended_until")) for one in agreed):
        yield "it was extended to another end than was agreed to"


def _wanted(course: Course) -> datetime | None:
    start = moment(course.row["starts_at"])
    return start and start + timedelta(seconds=course.least()["duration"])


def _born(change: Change, course: Course, everyone: Iterable[Course]) -> Iterator[str]:
    if change.table in MACHINES and change.of("state") not in states.FIRST[MACHINES[change.table]]:
        yield f"it began as {change.of('state')}"
    match change.table:
        case "accessrequest":
            yield from _asked_twice(change, everyone)
        case "vote":
            yield from _vote(change, course)
        case "grant":
            yield from _granted(change, course)
        case "candidate" if change.of("user_id") in course.barred:
            yield "somebody is asked about themselves"
        case "nudge":
            yield from _nudge(change, course)
        case "abandonment" if change.of("person_id") in _askers(course):
            yield "somebody abandons their own access"


def _askers(course: Course) -> set[int]:
    return {course.row["requester_id"], course.row["beneficiary_id"]}


def _asked_twice(change: Change, everyone: Iterable[Course]) -> Iterator[str]:
    same = ("kind", "beneficiary_id", "level_id", "extends_id")
    for other in everyone:
        if other.pk != change.pk and other.undecided:
            if all(other.row[name] == change.of(name) for name in same):
                yield f"the same was asked in request {other.pk}, which is not decided"


def _vote(change: Change, course: Course) -> Iterator[str]:
    stage, voter = course.stages[change.of("stage_id")], change.of("voter_id")
    both = {voter, whose(change.new or {})}
    if course.row["state"] != RequestState.PENDING:
        yield f"a vote on a request that is {course.row['state']}"
    if stage != course.open_stage():
        yield "a vote in a stage that is not open"
    if change.of("scope_hash") != course.row["scope_hash"]:
        yield "a vote on another scope than that of the request"
    if both & course.barred:
        yield "a vote about oneself"
    if whose(change.new or {}) not in course.drawn(stage):
        yield "a vote of somebody who was not asked"
    if both & {*course.counting(stage), *course.given(stage).values()}:
        yield "a second vote that counts"
    for other in course.round():
        if other["state"] == S.PASSED and both & course.used_up(other):
            yield f"a vote of somebody who counted in {other['name']}"


def _nudge(change: Change, course: Course) -> Iterator[str]:
    stage, kind = change.of("stage_id"), change.of("kind")
    if not course.undecided or course.stages[stage]["state"] != S.OPEN:
        yield "somebody is reminded of what is not open"
    given = {n for of, other, n in course.nudges if (of, other) == (stage, kind)}
    if given and change.of("n") <= max(given):
        yield f"{kind} {change.of('n')} after {max(given)}"
    missed = change.of("n") - max(given, default=0) - 1
    if change.of("skipped") != missed:
        yield f"{missed} were missed before it"
    if kind == "escalate" and change.of("n") != 1:
        yield "a stage escalates twice"


def _taken_out(change: Change, course: Course) -> Iterator[str]:
    stage = course.stages[change.was("stage_id")]
    if stage["state"] not in (S.WAITING, S.OPEN):
        yield f"a candidate of a stage that is {stage['state']} was taken out"
    if change.was("user_id") in course.counting(stage):
        yield "the author of a vote was taken out"


def _granted(change: Change, course: Course) -> Iterator[str]:
    if course.grant is not None:
        yield "a second grant for one request"
    if course.row["state"] != RequestState.APPROVED:
        yield f"a grant for a request that is {course.row['state']}"
    if not course.round() or any(stage["state"] != S.PASSED for stage in course.round()):
        yield "a grant without a completed chain"
    approved = {**course.row, **course.least()}
    for name in ("beneficiary_id", "target_id", "level_id", "duration"):
        if change.of(name) != approved[name]:
            yield f"its {name} is not what was approved"
    if (change.of("scope_hash") == course.row["scope_hash"]) != (approved == course.row):
        yield "its scope_hash is not what was approved"


def _changed(change: Change) -> Iterator[str]:
    """Columns that never change, and those that change in one direction."""
    for column in change.new or {}:
        if column not in MAY_CHANGE[change.table] and change.differs(column):
            yield f"{column} became another"
    for column in ("cut_at", "revealed_at", "abandoned_at", "replaced_at", "voided_at"):
        if change.was(column) is not None and change.differs(column):
            yield f"{column} was set twice"
    for column in LATER_NEVER:
        before, after = moment(change.was(column)), moment(change.of(column))
        if column == "expires_at" and after is not None and _extended(change, after):
            continue
        if before is not None and (after is None or after > before):
            yield f"{column} moved from {before} to {after}"


def _extended(change: Change, end: datetime) -> bool:
    """Whether an end moved as far as was intended before, while the access went on."""
    until = moment(change.was("extended_until"))
    went_on = change.was("state") == change.of("state") == GrantState.ACTIVE
    return went_on and until is not None and end <= until and not change.differs("extended_until")


def _moved(change: Change, course: Course) -> Iterator[str]:
    if change.table in MACHINES and change.differs("state"):
        machine = MACHINES[change.table]
        if not states.allowed(change.was("state"), machine(change.of("state"))):
            yield f"{change.was('state')} was followed by {change.of('state')}"
    match change.table:
        case "accessrequest":
            yield from _request(change, course)
        case "requeststage" if change.differs("state"):
            yield from _stage(change, course)
        case "vote" if not course.undecided:
            yield "a vote was taken out of a decided request"
        case "grant":
            yield from _grant(change, course)


def _request(change: Change, course: Course) -> Iterator[str]:
    if not course.undecided:
        yield "a decided request was changed"
    rescoped, anew = change.differs("scope_hash"), change.differs("round")
    if (rescoped and not anew) or (anew and not rescoped and not _lost_a_vote(course)):
        yield "a scope changed without a new round, or the other way about"
    if change.differs("round") and change.of("round") != change.was("round") + 1:
        yield "a round was left out"
    if change.of("state") == RequestState.APPROVED and change.differs("state"):
        if not course.round() or any(
            stage["state"] not in _done(course) for stage in course.round()
        ):
            yield "approved without a completed chain"


def _lost_a_vote(course: Course) -> bool:
    """Whether an approval in the present round is void as its lower level is another now."""
    stages = {stage["id"] for stage in course.round()}
    return any(
        vote["stage_id"] in stages and vote["void_reason"] == "reduced_level_changed"
        for vote in course.votes.values()
    )


def _done(course: Course) -> tuple[S, ...]:
    """What stages may be that are not asked any more: longer access may leave some out."""
    return (S.PASSED, S.SKIPPED) if course.row["extends_id"] else (S.PASSED,)


def _stage(change: Change, course: Course) -> Iterator[str]:
    stages = [stage["id"] for stage in course.round()]
    if change.of("state") not in (S.OPEN, S.PASSED, S.DENIED):
        return
    if change.pk not in stages:
        yield f"a stage of an earlier round became {change.of('state')}"
        return
    index, arithmetic = stages.index(change.pk), course.states()
    match change.of("state"):
        case S.OPEN if any(one["state"] not in _done(course) for one in course.round()[:index]):
            yield "a stage opened before those before it had passed"
        case S.PASSED if chain_oracle.empty_slots(arithmetic, index):
            yield "a stage passed with places that nobody fills"
        case S.DENIED if not chain_oracle.denied(arithmetic[index]):
            yield "a stage was denied without its quorum"


def _grant(change: Change, course: Course) -> Iterator[str]:
    state = change.of("state")
    if change.was("state") == GrantState.ENDED:
        yield "a grant that had ended was changed"
    if change.became("cut_at") and state != GrantState.REVOKING:
        yield f"it was cut while {state}"
    closed = change.differs("state") and state == GrantState.ENDED
    if closed and change.was("state") == GrantState.REVOKING and change.of("cut_at") is None:
        yield "it ended without having been cut"
    if change.became("revealed_at") and state != GrantState.ACTIVE:
        yield f"its secret was shown while it was {state}"
    if state in (GrantState.REVOKING, GrantState.ENDED) and change.of("secret"):
        yield f"its secret is kept while it is {state}"
    if change.became("abandoned_at") and len(set(course.abandoners) - _askers(course)) < 2:
        yield "fewer than two others abandoned it"
