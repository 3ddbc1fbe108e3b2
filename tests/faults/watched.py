"""One life of the product under watch: how a step is made and judged, and what must always hold.

A step is foretold by `book`, made by the product, and judged by `checker`; then the target is
looked at. The target is in memory, so that in this one process it can be made to fail, and be
interrupted in the midst of a step. Which steps there are is in `machine`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import Any

from hypothesis.stateful import RuleBasedStateMachine, invariant

from approvals import delegating, extending, sweeper, untended
from approvals.errors import DebugflowError
from approvals.models import Grant, Step, StepKind
from approvals.policy import Refusal
from approvals.provisioning.memory import MemorySession
from approvals.states import GrantState
from debugflow.accounts.models import User
from tests.conftest import Clock
from tests.faults.book import Book, Wording
from tests.faults.checker import Look, Record
from tests.faults.course import Course, Row
from tests.faults.ground import Ground, sweep_grants
from tests.faults.witness import moment
from tests.world import World

G = GrantState
OURS = re.compile(r"dbgf_([0-9]+)")
# An administrator who may vote on what she changed herself, and a voter who owns the target.
MORE_MEMBERS = (("ada", "security"), ("dan", "owners"))
LIFETIMES = 40  # jumps of the clock within which everything that goes on must have ended


class Watched(RuleBasedStateMachine):
    """From an empty database to its end. `seen` counts what was done, in all lives together."""

    def __init__(self, ground: Ground, seen: Counter[str]) -> None:
        super().__init__()
        self.seen = seen
        self.seen["lives"] += 1
        self.world, self.server = ground.fresh()
        for name, group in MORE_MEMBERS:
            self.world.groups[group].user_set.add(self.world.people[name])
        self.book = book_of(self.world)
        self.began_with = {
            name: set(self.book.members[key]) for name, key in self.book.groups.items()
        }
        self.record = Record()
        self.book.grant = self.grant
        self.clock = Clock()
        self.rounds_made = untended.Rounds()
        self.jobs: list[Any] = []  # claimed, and whoever claimed them is gone or asleep
        self.passwords: dict[int, str] = {}
        self.sessions: list[tuple[int, MemorySession]] = []
        self.watched_since: dict[str, datetime] = {}  # accounts that no grant knows
        self.spoilt: set[int] = set()  # grants whose account somebody else has meddled with

    def do(
        self,
        name: str,
        call: Callable[[], Any],
        *,
        against: set[str],
        by: User,
        changes: bool = True,
    ) -> bool:
        """Make one step; whether it was done.

        It must be refused exactly for a reason that is in `against`, with one Event of that and
        no change, or else be done, and something told of it, if it is foretold to change anything.
        """
        self.seen["steps"] += 1
        refused = _refused(call)
        look = self.look()
        told = [(event.actor_id, event.data["code"]) for event in look.refusals]
        if refused is not None:
            code = refused.code
            assert code in against, f"{name} was refused for {code}, not for {against or 'nothing'}"
            assert not look.changes, f"{name} was refused and changed {look.changes}"
            assert told == [(str(by.pk), code)], f"{name} was refused, the log tells {told}"
            self.seen.update((f"{name} refused", f"refused: {code}"))
            return False
        assert not against, f"{name} was done, and there is {against} against it"
        assert changes or not look.changes, f"{name} was to change nothing: {look.changes}"
        assert bool(look.events) == changes, f"{name} was done, and {look.events} tell of it"
        assert not told, f"{name} was done, and the log tells {told}"
        self.seen[name] += 1
        return True

    def look(self) -> Look:
        look = self.record.look()
        assert not look.breaches, "\n".join(look.breaches)
        self.seen.update(event.action for event in look.events)
        return look

    def agrees(self, what: str, told: Refusal | None, against: set[str]) -> None:
        """What buttons are shown for is what the book foretells."""
        code = told.code if told else ""
        right = code in against if against else not code
        assert right, f"{what}: shown for {code or 'yes'}, and there is {against or 'nothing'}"

    def sweep(self) -> None:
        """One look of a sweeper."""
        self.seen["steps"] += 1
        sweeper.expire_requests()
        sweeper.close_groundless()
        extending.bridge_due()
        sweeper.nudge()
        delegating.keep()
        sweeper.notice_leavers(self.rounds_made)
        sweep_grants()

    @invariant()
    def the_ledger_is_lawful(self) -> None:
        self.look()

    @invariant()
    def the_target_holds_what_the_ledger_says(self) -> None:
        """No account but those of attempts that were written down, none that outlives its grant."""
        ours = {name: pk for name in self.server.accounts if (pk := self.grant_of(name))}
        steps = Step.objects.filter(kind=StepKind.OPEN, grant__in=ours.values())
        traces = dict(steps.values_list("grant", "traces")) if ours else {}
        for name, pk in ours.items():
            account, grant = self.server.accounts[name], self.grant(pk)
            assert account.id in [one["id"] for one in traces[pk]], f"{name} is nobody's"
            assert grant["state"] in (G.PROVISIONING, G.ACTIVE, G.REVOKING), f"{name} is left"
            assert account.valid_until <= self.latest_end(grant), f"{name} outlives its grant"
            assert not (grant["cut_at"] and account.can_sign_in), f"{name} was cut and is open"
        for pk, session in self.sessions:
            assert not (self.grant(pk)["cut_at"] and session.alive), f"{pk} was cut and is in"

    @invariant()
    def what_is_active_can_be_used(self) -> None:
        for grant in self.grants(G.ACTIVE):
            if grant["id"] in self.spoilt:
                continue
            account = self.server.accounts[f"dbgf_{grant['id']}"]
            assert account.can_sign_in
            # The ledger's end is never later than what the target has.
            end = moment(grant["expires_at"])
            assert end is not None
            assert end <= account.valid_until <= self.latest_end(grant)

    def latest_end(self, grant: Row) -> datetime:
        """When its account may end by the ledger: later than it during an extension."""
        told = (moment(grant[name]) for name in ("expires_at", "extended_until"))
        return max(one for one in told if one is not None)

    def forward(self, seconds: float) -> None:
        self.seen["steps"] += 1
        self.clock.forward(seconds)

    def grant_of(self, account: str) -> int | None:
        """The id of the grant that an account is named after; None for a stranger's."""
        named = OURS.fullmatch(account)
        return int(named[1]) if named and int(named[1]) in self.record.of_grants else None

    def grant(self, pk: int) -> Row:
        return self.record.of_grant(pk).grant or {}

    def grants(self, *wanted: GrantState) -> list[Row]:
        """As rows, of the states that are wanted or of all."""
        rows = [one.grant for one in self.record.courses.values() if one.grant]
        return [row for row in rows if not wanted or row["state"] in wanted]

    def undecided(self) -> list[Course]:
        return [one for one in self.record.courses.values() if one.undecided]

    def see_to_the_end(self) -> None:
        """With a target that works and time that passes, everything ends and nothing is left."""
        self.server.mend()
        self.jobs.clear()
        for _ in range(LIFETIMES):
            self.sweep()
            self.look()
            if not self.grants(*(set(G) - {G.ENDED})) and not self.undecided():
                break
            self.forward(2 * 3600)
        assert {row["state"] for row in self.grants()} <= {G.ENDED}
        assert not self.undecided()
        assert not [name for name in self.server.accounts if self.grant_of(name)]
        assert not any(session.alive for _, session in self.sessions)
        assert not Grant.objects.exclude(secret="").exists()


def _refused(call: Callable[[], Any]) -> DebugflowError | None:
    try:
        call()
    except DebugflowError as error:
        return error
    return None


def book_of(world: World) -> Book:
    """What the cast begins with."""
    people = world.people.values()
    groups = {name: str(group.pk) for name, group in world.groups.items()}
    levels = (world.read, world.write)
    return Book(
        active={person.pk for person in people},
        members={
            groups[name]: set(group.user_set.values_list("pk", flat=True))
            for name, group in world.groups.items()
        },
        groups=groups,
        admins=frozenset({world.ada.pk}),
        wordings={world.policy.versions.get().pk: THE_CASTS},
        level_on={level.pk: True for level in levels},
        there={level.pk: tuple(level.summary) for level in levels},
        stored={level.pk: tuple(level.summary) for level in levels},
    )


THE_CASTS: Wording = (
    ("Database", {"dba": 1}, 1, 1, None),
    ("Security", {"security": 1}, 1, 1, None),
)
