"""Sixteen clients at once, on a few objects: what is there when they begin, and what they choose.

Nothing here fails or is killed; everybody only acts at once. What one does is in `clients`, what
that may come to is in `hindsight`.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

from django.db import connections

from approvals import closing, grants, opening, sweeper
from approvals.errors import DebugflowError, ProvisionError
from approvals.models import AccessRequest, Grant, Policy
from approvals.states import GrantState
from debugflow.accounts.models import User
from tests.conftest import Clock
from tests.faults.checker import Record
from tests.faults.clients import WORDINGS, Act, Client, Done
from tests.faults.ground import Ground, sweep_grants

CLIENTS = 16
JITTER = 0.004  # seconds, at most, before an act
LIVE = 3  # requests and grants that are there to be acted on when a history begins
TIRED = 8  # grants that have not ended, after which they are seen to their end first
STUCK = 31  # seconds of failing after which a grant may be abandoned
UNREACHABLE = ProvisionError("It does not answer.", code="unreachable")

VOTERS = ("bob", "dan", "dora", "carol", "chen", "alice", "mallory")
ASKERS = ("alice", "amir")
LEAVERS = (("bob", "dba"), ("dora", "dba"), ("dora", "security"), ("carol", "security"))
OWNERS = ("olga", "ada", "bob")
DEACTIVATED = ("bob", "dora", "carol", "alice")
WEIGHTS = {
    "approve": 26, "deny": 2, "submit": 6, "cancel": 3, "expire": 3, "release": 4, "revoke": 4,
    "reveal": 5, "try_again": 2, "abandon": 4, "open": 8, "close": 6, "sweep": 6, "compare": 2,
    "rescope": 4, "publish": 2, "off": 1, "on": 1, "deactivate": 2, "activate": 1, "leave": 2,
    "join": 1, "wait": 2,
}  # fmt: skip
Plan = Sequence[tuple[float, Act]]  # seconds before each act


@dataclass
class Crowd:
    """The clients in one database, and the histories that they make there."""

    client: Client
    chances: random.Random
    pool: ThreadPoolExecutor
    record: Record = field(default_factory=Record)
    seen: list[tuple[int, str]] = field(default_factory=list)  # requests, and the scope they have
    granted: list[int] = field(default_factory=list)

    def history(self) -> list[Done]:
        """Let all act at once, once or twice each; what was done, in the order it was begun."""
        self._set_up()
        self.record.look()
        barrier = threading.Barrier(CLIENTS)
        plans = [self._plan() for _ in range(CLIENTS)]
        lists = self.pool.map(partial(_acts, self.client, barrier), plans)
        return sorted((one for done in lists for one in done), key=lambda one: one.began)

    def _set_up(self) -> None:
        """All are there again, and there are requests and grants in different states."""
        self._all_back()
        going_on = Grant.objects.not_ended()
        if going_on.count() > TIRED:
            self._rest()
        if not going_on.exists():
            self._grant()
        while AccessRequest.objects.undecided().count() < LIVE - 1:
            self._ask()
        for grant in going_on.filter(state=GrantState.SCHEDULED):
            if self.chances.random() < 0.6:
                opening.open_grant(grant.pk, worker="setting up")
        if self.chances.random() < 0.2:
            self._jam()
        newest = AccessRequest.objects.undecided().order_by("-pk")
        self.seen = list(newest.values_list("pk", "scope_hash")[:LIVE])
        self.granted = list(Grant.objects.order_by("-pk").values_list("pk", flat=True)[:LIVE])

    def _all_back(self) -> None:
        world = self.client.world
        User.objects.filter(is_active=False).update(is_active=True)
        Policy.objects.filter(enabled=False).update(enabled=True)
        for person, group in LEAVERS:
            world.groups[group].user_set.add(world.people[person])

    def _ask(self) -> None:
        """By whoever has not asked for the same yet."""
        world = self.client.world
        pairs = [(who, level) for who in ASKERS for level in (world.read, world.write)]
        self.chances.shuffle(pairs)
        for who, level in pairs:
            with suppress(DebugflowError):
                world.submit(who, level=level)
                return
        self._rest()
        self._ask()

    def _grant(self) -> None:
        self._ask()
        request = AccessRequest.objects.undecided().latest("pk")
        for who in VOTERS:
            with suppress(DebugflowError):
                self.client.world.vote(request, who)

    def _jam(self) -> None:
        """One that has been to end for a while, and could not be ended."""
        for grant in Grant.objects.filter(state=GrantState.ACTIVE)[:1]:
            self.client.server.fail_next("cut", UNREACHABLE, times=3)
            grants.release(grant.pk, by=grant.beneficiary)
            closing.close_grant(grant.pk, worker="setting up")
            Clock().forward(STUCK)

    def _rest(self) -> None:
        """Let time pass until nothing goes on any more."""
        self.client.server.mend()
        Clock().forward(100_000)
        sweeper.expire_requests()
        while Grant.objects.not_ended().exists():
            sweep_grants()
            Clock().forward(62)

    def left(self) -> list[str]:
        """See all to its end; what is left on the target although nothing goes on any more."""
        self._rest()
        accounts = self.client.server.accounts
        return [*self.record.look().breaches, *(f"{name} is left" for name in accounts)]

    def _plan(self) -> Plan:
        number = self.chances.choice((1, 1, 2))
        return [(self.chances.uniform(0, JITTER), self._act()) for _ in range(number)]

    def _act(self) -> Act:
        chance, world = self.chances, self.client.world
        verb = chance.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        request, seen = self.seen[min(chance.randrange(2 * LIVE), len(self.seen)) - 1]
        grant, level = chance.choice(self.granted), chance.choice((world.read, world.write))
        asker, (leaver, group) = chance.choice(ASKERS), chance.choice(LEAVERS)
        match verb:
            case "approve" | "deny":
                return Act(verb, chance.choice(VOTERS), request, seen)
            case "submit":
                return Act(verb, asker, level.pk)
            case "cancel":
                return Act(verb, asker, request)
            case "release" | "reveal":
                return Act(verb, asker, grant)
            case "revoke" | "try_again" | "abandon":
                return Act(verb, chance.choice(OWNERS), grant)
            case "open" | "close":
                return Act(verb, to=grant)
            case "rescope":
                return Act(verb, "ada", world.read.pk, f"may read {chance.randrange(3)}")
            case "publish":
                return Act(verb, "ada", chance.randrange(len(WORDINGS)))
            case "on" | "off":
                return Act(verb, "ada")
            case "deactivate" | "activate":
                return Act(verb, to=world.people[chance.choice(DEACTIVATED)].pk)
            case "leave" | "join":
                return Act(verb, to=world.people[leaver].pk, told=group)
            case "wait":
                return Act(verb, to=chance.choice((31, 62, 62, 3700)))
        return Act(verb)


def _acts(client: Client, barrier: threading.Barrier, plan: Plan) -> list[Done]:
    connections["default"].ensure_connection()
    barrier.wait(timeout=30)
    done = []
    for jitter, act in plan:
        time.sleep(jitter)
        done.append(client.does(act))
    return done


@contextmanager
def crowd(ground: Ground, chances: random.Random) -> Iterator[Crowd]:
    """Sixteen clients where nothing has been asked yet."""
    client = Client(*ground.fresh())
    with ThreadPoolExecutor(CLIENTS) as pool:
        try:
            yield Crowd(client, chances, pool)
        finally:
            list(pool.map(_hang_up, [threading.Barrier(CLIENTS)] * CLIENTS))


def _hang_up(barrier: threading.Barrier) -> None:
    """Close this thread's connection, and let no thread do it twice and another not at all."""
    connections.close_all()
    barrier.wait(timeout=30)
