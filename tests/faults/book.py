"""What the machine itself arranged, and what must follow from it: a second opinion on every verb.

Of the product's own code nothing decides here: facts are the witness's (`course`), the chain's
arithmetic is the oracle's, and who is who is what the machine wrote down when it changed it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from approvals.chain import StageRule, StageState
from approvals.states import GrantState, RequestState
from approvals.states import StageState as S
from tests.approvals import chain_oracle
from tests.faults.course import Course
from tests.faults.witness import moment
from tests.world import HOUR

G = GrantState
OVER = (G.REVOKING, G.ENDED)
STUCK = timedelta(seconds=30)  # law 6: what has failed so long may be abandoned

# One wording of the policy: stages by name, with the least of each group, a total, how many denials
# deny, and a deadline in seconds.
Wording = tuple[tuple[str, Mapping[str, int], int, int, int | None], ...]
WORDINGS: tuple[Wording, ...] = (
    (("Database", {"dba": 1}, 1, 1, None),),
    (("Database", {"dba": 1}, 1, 1, 600), ("Security", {"security": 1}, 1, 1, None)),
    (("Both", {"dba": 1, "security": 1}, 2, 2, None),),
    (("Three", {"dba": 1, "security": 1, "owners": 0}, 3, 2, 900),),
    (("Database", {"dba": 2}, 2, 1, None), ("Security", {"security": 2}, 2, 1, 4000)),
    (("Any", {"dba": 0, "security": 0}, 1, 1, None), ("All", {"dba": 3}, 3, 1, None)),
)
Scope = tuple[str, tuple[str, ...]]
"""Where a level is, and what it may do there: as much of a scope as is changed here."""
LONGEST = 8 * HOUR  # seconds, of any wording; a level's limit is half of it
# What every wording that is published here allows of longer access, in seconds but for the first.
EXTENSIONS, EXTENSION_MAX, TOTAL, WINDOW, BRIDGE = 2, 2 * HOUR, LONGEST, 1800, 300
LONGER: Mapping[str, int] = {
    "extensions_most": EXTENSIONS,
    "extension_max": EXTENSION_MAX,
    "max_total": TOTAL,
    "extension_window": WINDOW,
    "bridge": BRIDGE,
}


@dataclass(frozen=True)
class Lent:
    """Somebody's votes, lent within a half-open time."""

    person: int
    delegate: int
    starts_at: datetime
    ends_at: datetime

    def meets(self, starts_at: datetime, ends_at: datetime) -> bool:
        return self.starts_at < ends_at and self.ends_at > starts_at


@dataclass
class Book:
    """Who is active and a member of what, and what is switched on. Ids throughout."""

    active: set[int]
    members: dict[str, set[int]]
    groups: Mapping[str, str]  # name -> id as text
    admins: frozenset[int]
    wordings: dict[int, Wording]  # by the id of the policy's version; the last is in force
    on: dict[str, bool] = field(default_factory=lambda: dict.fromkeys(("target", "policy"), True))
    level_on: dict[int, bool] = field(default_factory=dict)
    # What the target would say of a level, what was stored of it, and what each request froze.
    there: dict[int, tuple[str, ...]] = field(default_factory=dict)
    stored: dict[int, tuple[str, ...]] = field(default_factory=dict)
    frozen: dict[int, Scope] = field(default_factory=dict)
    left: dict[int, Scope] = field(default_factory=dict)  # by the vote that leaves a lower level
    address: str = "orders"
    longer: dict[int, str] = field(default_factory=dict)  # version's id -> whom an extension asks
    grant: Callable[[int], Mapping[str, Any]] = lambda _: {}  # by its id, as witnessed
    lent: dict[int, Lent] = field(default_factory=dict)  # by the id of the delegation

    @property
    def wording(self) -> Wording:
        return self.wordings[max(self.wordings)]

    def scope_of(self, level: int) -> Scope:
        return self.address, self.stored[level]

    def approved(self, course: Course) -> Scope:
        """What was frozen of the level that is opened: of a lower one, where some left that."""
        lower = [one["id"] for one in course.approvals() if one["reduced_level_id"]]
        return self.left[min(lower)] if lower else self.frozen[course.pk]

    def is_in(self, person: int, group: str) -> bool:
        return person in self.members[self.groups[group]]

    def drawn(self, groups: Mapping[str, int], barred: set[int]) -> dict[int, frozenset[str]]:
        """Whom a stage asks that is drawn now."""
        held: dict[int, set[str]] = {}
        for name in groups:
            for person in self.members[self.groups[name]] & self.active - barred:
                held.setdefault(person, set()).add(self.groups[name])
        return {person: frozenset(names) for person, names in held.items()}

    def still(self, course: Course, stage: Mapping[str, Any]) -> dict[int, frozenset[str]]:
        """Of those whom a stage asked, who may decide in it yet."""
        drawn = course.drawn(stage, self.members)
        return {
            person: groups
            for person, groups in drawn.items()
            if person in self.active - course.barred
        }

    def asked_today(self, course: Course, stage: Mapping[str, Any]) -> set[int]:
        """Whom a stage asks after it was drawn anew, those left out who have voted in it."""
        members = set().union(
            *(self.members[key] for key in (*stage["minima"], *stage["stand_ins"]))
        )
        return (members & self.active) - course.barred - course.counting(stage).keys()

    def states(self, course: Course, *, revoting: int | None = None) -> list[StageState]:
        """The present round as the arithmetic is asked about this moment."""
        people = [self.still(course, stage) for stage in course.round()]
        return course.states(people, revoting=revoting, active=self.active)

    def is_over(self, course: Course, now: datetime) -> bool:
        """Whether nobody can decide it any more, whatever its stages say."""
        row, stage = course.row, course.open_stage()
        start, end = moment(row["starts_at"]), moment(row["pending_until"])
        window = start and start + timedelta(seconds=row["duration"])
        ends = [end, window, moment(stage["deadline_at"]) if stage else None]
        gone = not ({row["requester_id"], row["beneficiary_id"]} <= self.active)
        off = not (all(self.on.values()) and self.level_on[row["level_id"]])
        over = any(one is not None and one <= now for one in ends)
        return gone or off or over or self.prolongs_nothing(course, now)

    def prolongs_nothing(self, course: Course, now: datetime) -> bool:
        """Whether it is for more of an access that does not go on."""
        if course.row["extends_id"] is None:
            return False
        grant = self.grant(course.row["extends_id"])
        end = moment(grant["expires_at"])
        return grant["state"] != G.ACTIVE or end is None or end <= now

    def intends(self, grant: int, start: datetime | None, seconds: int) -> bool:
        """Whether an access is to go on for so long after that moment."""
        until = moment(self.grant(grant)["extended_until"])
        return start is not None and until == start + timedelta(seconds=seconds)

    def asks_for_longer(self, version: int) -> Wording:
        """The stages of a version that are asked for longer access."""
        wording = self.wordings[version]
        return {"chain": wording, "last": wording[-1:]}.get(self.longer.get(version, "none"), ())

    def against_extending(
        self, course: Course, person: int, seconds: int, now: datetime, live: list[Course]
    ) -> set[str]:
        """Every reason not to let somebody ask for so many seconds more of an access."""
        grant, version = course.grant or {}, course.row["policy_version_id"]
        times = (moment(grant[n]) for n in ("activated_at", "expires_at", "extended_until"))
        begin, end, until = times
        if grant["state"] != G.ACTIVE or begin is None or end is None:
            return {"wrong_state", "not_yours", "no_extensions"}
        on = all(self.on.values()) and self.level_on[grant["level_id"]]
        left = TOTAL - (end - begin).total_seconds()
        longest = min(EXTENSION_MAX, int(left))
        bridge = 0 if grant["bridged_at"] else BRIDGE
        stages = self.asks_for_longer(version)
        people = [self.drawn(groups, {person}) for _, groups, *_ in stages]
        fillable = chain_oracle.fillable(asked(stages, people, self.groups)) if stages else True
        found = {
            "not_yours": person != grant["beneficiary_id"],
            "no_extensions": version not in self.longer,
            "wrong_state": end <= now or (until is not None and until > end) or not on,
            "asked_already": any(one.row["extends_id"] == grant["id"] for one in live),
            "used_up": grant["extended_count"] >= EXTENSIONS or longest <= bridge,
            "too_early": end - timedelta(seconds=WINDOW) > now,
            "scope_changed": self.approved(course) != self.scope_of(grant["level_id"]),
            "not_requestable": not (self.is_in(person, "developers") and on),
            "invalid": not bridge < seconds <= longest,
            "unfillable": not fillable,
        }
        return {code for code, holds in found.items() if holds}

    def against_asking(self, person: int, level: int, seconds: int, live: list[Course]) -> set[str]:
        """Every reason not to let somebody ask for a level."""
        stages = [self.drawn(groups, {person}) for _, groups, *_ in self.wording]
        same = [one for one in live if one.row["level_id"] == level and one.row["kind"] == "access"]
        asks = self.is_in(person, "developers") and self.on["target"] and self.level_on[level]
        found = {
            "not_requestable": not asks,
            "no_policy": not self.on["policy"],
            "invalid": not 0 < seconds <= LONGEST // 2,
            "unfillable": not chain_oracle.fillable(asked(self.wording, stages, self.groups)),
            "asked_already": any(one.row["beneficiary_id"] == person for one in same),
        }
        return {code for code, holds in found.items() if holds}

    def against_voting(self, course: Course, person: int, decision: str, now: datetime) -> set[str]:
        """Every reason not to count somebody's vote."""
        if course.row["state"] != RequestState.PENDING or course.open_stage() is None:
            return {"wrong_state"}
        found = {"wrong_state"} if self.is_over(course, now) else set()
        if person in course.barred:
            return found | {"self_approval"}
        if found or not (weighed := self.voices(course, person, decision, now)):
            return found | {"not_eligible", "wrong_stage"}
        return set() if set() in weighed.values() else set().union(*weighed.values())

    def voices(
        self, course: Course, person: int, decision: str, now: datetime
    ) -> dict[int, set[str]]:
        """Whose vote somebody could give in the open stage, each with every reason against it;
        their own alone where there is none against that."""
        stage = course.open_stage()
        if stage is None or person not in self.active:
            return {}
        asked_ = self.still(course, stage)
        own = {person: self._against(course, person, person, decision)} if person in asked_ else {}
        if own.get(person) == set():
            return own
        lenders = self.lenders(person, now, course.barred) & asked_.keys() - {person}
        return own | {one: self._against(course, one, person, decision) for one in sorted(lenders)}

    def _against(self, course: Course, whose: int, voter: int, decision: str) -> set[str]:
        stage = course.open_stage()
        assert stage is not None
        given = course.given(stage)
        said_otherwise = any(by == voter and one != whose for one, by in given.items())
        said_already = voter != whose and given.get(whose, voter) != voter
        passed = [one for one in course.round() if one["state"] == S.PASSED]
        found: set[str] = set()
        if (
            said_otherwise
            or said_already
            or any({whose, voter} & course.used_up(one) for one in passed)
        ):
            found.add("already_counted")
        if decision == "approve":
            index = course.round().index(stage)
            before = self.states(course, revoting=whose)
            code = chain_oracle.judge(before, index, whose, voter)[0]
            found |= {code} - {"allowed"}
        return found

    def lenders(self, person: int, now: datetime, barred: set[int]) -> set[int]:
        """Whose votes somebody may give now: lent to them, or to one of those, three times on; none
        by way of somebody who is barred."""
        found: set[int] = set()
        last = {person}
        for _ in range(3):
            last = {
                one.person
                for one in self.lent.values()
                if one.delegate in last & self.active - barred
                and one.person in self.active - barred
                and one.starts_at <= now < one.ends_at
            }
            found |= last
        return found - {person}

    def against_lending(self, lent: Lent, now: datetime) -> set[str]:
        """Every reason not to let somebody lend their votes."""
        met = [
            one
            for one in self.lent.values()
            if one.ends_at > now and one.meets(lent.starts_at, lent.ends_at)
        ]
        reached, last = set[int](), {lent.delegate}
        while last := {one.delegate for one in met if one.person in last} - reached:
            reached |= last
        found = {
            "invalid": lent.person == lent.delegate
            or not {lent.person, lent.delegate} <= self.active,
            "delegated_already": any(one.person == lent.person for one in met),
            "circle": lent.person in reached,
        }
        return {code for code, holds in found.items() if holds}

    def becomes(self, course: Course, index: int) -> S:
        """What a stage that was open is to become, by the votes that count in it."""
        stages = self.states(course)
        stages[index] = replace(stages[index], passed=False)
        if chain_oracle.denied(stages[index]):
            return S.DENIED
        return S.OPEN if chain_oracle.empty_slots(stages, index) else S.PASSED

    def changes_nothing(self, action: str, course: Course, now: datetime) -> bool:
        """Whether another try is asked for while it is due in any case."""
        due = moment((course.grant or {})["next_try_at"])
        return action == "try_again" and due is not None and due <= now

    def against_acting(self, action: str, course: Course, person: int, now: datetime) -> set[str]:
        """Every reason not to let somebody do something to a grant."""
        grant = course.grant or {}
        holds, state = person == grant["beneficiary_id"], grant["state"]
        takes = self.is_in(person, "owners") or self._approved(course, person)
        looks_after = person in self.active and (
            self.is_in(person, "owners") or person in self.admins
        )
        stuck = moment(grant["stuck_since"])
        end, lease = moment(grant["expires_at"]), moment(grant["lease_until"])
        found: dict[str, bool] = {}
        match action:
            case "release":
                found = {"not_yours": not holds, "wrong_state": state in OVER}
            case "revoke":
                found = {"not_yours": not takes, "wrong_state": state in OVER}
            case "reveal":
                usable = state == G.ACTIVE and end is not None and end > now
                shown = grant["revealed_at"] is not None
                found = {"not_yours": not holds, "wrong_state": not usable or shown}
            case "try_again":
                busy = lease is not None and lease > now
                found = {
                    "not_yours": not (holds or takes or looks_after),
                    "wrong_state": state != G.REVOKING or busy,
                }
            case "abandon":
                found = {
                    "wrong_state": state != G.REVOKING or grant["abandoned_at"] is not None,
                    "self_abandon": holds or person == course.row["requester_id"],
                    "not_yours": not looks_after,
                    "not_stuck": stuck is None or stuck > now - STUCK,
                    "already_counted": person in self.abandoners(course),
                }
        return {code for code, yes in found.items() if yes}

    def _approved(self, course: Course, person: int) -> bool:
        return any(course.counting(one).get(person) == "approve" for one in course.round())

    def abandoners(self, course: Course) -> set[int]:
        """Whose asking to give it up counts."""
        since = moment((course.grant or {})["stuck_since"])
        owners = self.members[self.groups["owners"]]
        asked_since = {
            person
            for person, at in course.abandoners.items()
            if since is not None and (moment(at) or since) >= since
        }
        return asked_since & self.active & (owners | self.admins)


def asked(
    wording: Wording, people: list[dict[int, frozenset[str]]], groups: Mapping[str, str]
) -> list[StageState]:
    """The chain of a wording before anybody voted, as the oracle reads it."""
    return [
        StageState(
            rule=StageRule(
                groups={groups[name]: least for name, least in minima.items()},
                total=total,
                deny_quorum=quorum,
            ),
            candidates=held,
        )
        for (_, minima, total, quorum, _), held in zip(wording, people, strict=True)
    ]
