"""Whether what happened could have happened: changes, Events and laws compared, whoever acted.

`Record` goes through what the database witnessed, in the order in which the rows were changed.
Whether one step is lawful is told in `lawful`; here, that each is told by one Event of its own
transaction, and that the log alone is a path through the states.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from django.db.models import Max

from audit.models import Event
from tests.faults import lawful, witness
from tests.faults.course import Course
from tests.faults.lawful import MACHINES
from tests.faults.witness import Change, Said, moment

MOVES = {f"{name}.{state}" for name, machine in MACHINES.items() for state in machine}
BORN = {"accessrequest": "accessrequest.submitted", "grant": "grant.scheduled", "vote": "vote.cast"}
# What else is told by an Event of its own: a column that gets a value.
MOMENTS = {
    ("grant", "cut_at"): "grant.cut",
    ("grant", "revealed_at"): "grant.revealed",
    ("grant", "abandoned_at"): "grant.abandoned",
    ("grant", "bridged_at"): "grant.bridged",
    ("vote", "voided_at"): "vote.voided",
    ("requeststage", "stalled_since"): "requeststage.stalled",
}
NUDGED = {"remind": "requeststage.reminded", "escalate": "requeststage.escalated"}
REVIVED, BEGUN_ANEW = "requeststage.revived", "accessrequest.begun_anew"
TOLD = {
    *MOVES,
    *BORN.values(),
    *MOMENTS.values(),
    *NUDGED.values(),
    REVIVED,
    BEGUN_ANEW,
    "vote.replaced",
    "accessrequest.rescoped",
    "grant.extending",
    "grant.extended",
}
Told = tuple[int, str, str, str]
"""A transaction, an action, its subject's id, and the state that was left, if it was a move."""


@dataclass(frozen=True)
class Look:
    """What happened since the last look."""

    changes: Sequence[Change]
    events: Sequence[Said]
    breaches: Sequence[str]

    @property
    def refusals(self) -> list[Said]:
        return [event for event in self.events if event.action.endswith(".refused")]


@dataclass
class Record:
    """All that was witnessed in one database, by request."""

    courses: dict[int, Course] = field(default_factory=dict)
    _of_stage: dict[int, int] = field(default_factory=dict)
    of_grants: dict[int, int] = field(default_factory=dict)  # grant id -> request id
    _moves: dict[tuple[str, str], tuple[str, datetime]] = field(default_factory=dict)
    _change: int = 0
    _event: int = field(default_factory=lambda: Event.objects.aggregate(n=Max("id"))["n"] or 0)

    def look(self) -> Look:
        """Judge what is new. Call it while nobody changes anything."""
        changes, events = witness.changes(self._change), witness.events(self._event)
        self._change = changes[-1].id if changes else self._change
        self._event = events[-1].id if events else self._event
        breaches: list[str] = []
        for change in changes:
            course = self._course(change)
            breaches += lawful.breaches(change, course, self.courses.values())
            self._apply(change, course)
        breaches += self._differences(changes, events)
        for event in events:
            breaches += self._followed(event)
        return Look(changes, events, breaches)

    def of_grant(self, pk: int) -> Course:
        return self.courses[self.of_grants[pk]]

    def _course(self, change: Change) -> Course:
        """The request that the row belongs to; for one that has just been asked, an empty one."""
        row = change.new or change.old or {}
        if change.table == "accessrequest":
            return self.courses.setdefault(change.pk, Course(row))
        if change.table == "abandonment":
            return self.of_grant(row["grant_id"])
        return self.courses[row.get("request_id") or self._of_stage[row["stage_id"]]]

    def _apply(self, change: Change, course: Course) -> None:
        row = change.new or {}
        match change.table:
            case "accessrequest":
                course.row = row
            case "requeststage":
                self._of_stage[change.pk] = course.pk
                course.stages[change.pk] = row
            case "candidate" if change.new is None:
                gone = (change.was("user_id"), change.was("group_id"))
                course.candidates[change.was("stage_id")].remove(gone)
            case "nudge":
                course.nudges.add((row["stage_id"], row["kind"], row["n"]))
            case "candidate":
                drawn = course.candidates.setdefault(row["stage_id"], [])
                drawn.append((row["user_id"], row["group_id"]))
            case "vote":
                course.votes[change.pk] = row
            case "grant":
                self.of_grants[change.pk] = course.pk
                course.grant = row
            case "abandonment" if change.new is None:
                del course.abandoners[change.was("person_id")]
            case "abandonment":
                course.abandoners[row["person_id"]] = row["at"]

    def _differences(self, changes: Sequence[Change], events: Sequence[Said]) -> Iterator[str]:
        """Changes without an Event in their transaction, and Events without their change."""
        witnessed = Counter(told for change in changes for told in self._owed(change))
        told = Counter(_said(event) for event in events if event.action in TOLD)
        for one in witnessed - told:
            yield f"it changed and no Event of its transaction tells of it: {one}"
        for one in told - witnessed:
            yield f"an Event tells of what did not change in its transaction: {one}"

    def _owed(self, change: Change) -> Iterator[Told]:
        """The Events that must tell of a change."""
        subject = str(self._course(change).pk if change.table == "vote" else change.pk)
        if change.old is None and change.table in BORN:
            yield change.xid, BORN[change.table], subject, ""
        if change.table in MACHINES and change.old is not None and change.differs("state"):
            action = f"{change.table}.{change.of('state')}"
            yield change.xid, action, subject, change.was("state")
        if change.table == "accessrequest" and change.old:
            if change.differs("scope_hash"):
                yield change.xid, "accessrequest.rescoped", subject, ""
            elif change.differs("round"):
                yield change.xid, BEGUN_ANEW, subject, ""
        if change.table == "grant" and change.old and change.differs("extended_count"):
            yield change.xid, "grant.extending", subject, ""
        if change.table == "grant" and change.old and _moved_later(change):
            yield change.xid, "grant.extended", subject, ""
        if change.table == "nudge":
            yield change.xid, NUDGED[change.of("kind")], str(change.of("stage_id")), ""
        if change.table == "requeststage" and change.was("stalled_since"):
            if change.of("stalled_since") is None:
                yield change.xid, REVIVED, subject, ""
        for (table, column), action in MOMENTS.items():
            if table == change.table and change.became(column):
                yield change.xid, action, subject, ""

    def _followed(self, event: Said) -> Iterator[str]:
        """Whether the log by itself is a path through the states."""
        if event.action not in MOVES:
            return
        name, state = event.action.split(".")
        key = (name, event.subject_id)
        begun = (
            "waiting" if name == "requeststage" else "pending" if name == "accessrequest" else ""
        )
        was, at = self._moves.get(key, (begun, event.at))
        if event.data.get("before", "") != was:
            yield f"{event.action} of {event.subject_id} says it left another state than {was}"
        if event.at < at:
            yield f"{event.action} of {event.subject_id} goes back in time"
        self._moves[key] = (state, event.at)


def _moved_later(change: Change) -> bool:
    before, after = (moment(told("expires_at")) for told in (change.was, change.of))
    return before is not None and after is not None and after > before


def _said(event: Said) -> Told:
    move = event.action in MOVES and event.action != "grant.scheduled"
    action = BORN["vote"] if event.action == "vote.replaced" else event.action
    return event.xid, action, event.subject_id, event.data.get("before", "") if move else ""
