"""The database campaign: our own PostgreSQL restarts, loses connections, stalls and falls silent.

Web server and workers reach it through a relay; the campaign itself goes there directly. What was
acknowledged over HTTP must be in the tables and the log afterwards, and what was not must be
absent or whole.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from math import inf
from typing import Any, Self

from django.db import connections

from approvals import closing, grants, leases
from approvals.errors import WrongState
from approvals.models import AccessRequest, Grant, Heartbeat, Vote
from approvals.states import GrantState
from audit import clock
from audit.models import Event
from debugflow.embedded.processes import WORKERS
from debugflow.embedded.server import processes_in
from debugflow.embedded.state import scratch
from debugflow.embedded.valkey import EmbeddedValkey
from tests.conftest import DATABASE, Control
from tests.faults import attempts, site
from tests.faults.campaign import Row, Run, campaign, counted, seconds
from tests.faults.histories import all_breaches
from tests.faults.place import Place, ask_one_person, eventually, has_ended, state_of
from tests.faults.proxy import Proxy
from tests.faults.target import forward
from tests.faults.watch import hold

LATE = 5.0  # seconds, on top of what is left of the outage
BACK = 10.0  # seconds after the outage for pages and sweepers to be themselves again
LASTS = 2  # seconds, of the access that ends while the database is away
STALL, AWAY, BOUNDED_AWAY = 30.0, 5.0, 2.0  # seconds
TIMES = 10  # of each fault
GAP = 0.1  # seconds, the mean between two lost connections


@dataclass(frozen=True)
class Between:
    """Our database, and the relay in front of it."""

    control: Control
    proxy: Proxy
    chances: random.Random

    def drop_one(self) -> None:
        """End one backend of the application, whatever it is in the middle of, or all of them."""
        if self.chances.random() < 0.2:
            return self.proxy.cut()
        with self.control.superuser() as server:
            server.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
                " AND client_port IS NOT NULL ORDER BY md5(pid::text || %s) LIMIT 1",
                [DATABASE, str(self.chances.random())],
            )


@contextmanager
def restarted(at: Between) -> Iterator[None]:
    """As an administrator does it: sessions are ended, nothing is lost."""
    at.control.postgres.stop()
    try:
        yield
    finally:
        at.control.postgres.start()


@contextmanager
def crashed(at: Between) -> Iterator[None]:
    """SIGKILL; it recovers from its log when it is started."""
    at.control.postgres.kill()
    try:
        yield
    finally:
        at.control.postgres.start()


@contextmanager
def stopped(at: Between) -> Iterator[None]:
    """All its processes stand still, and the kernel goes on acknowledging what is sent there."""
    found = processes_in(at.control.postgres.directory / "data", "postgres")
    _tell(found, signal.SIGSTOP)
    try:
        yield
    finally:
        _tell(found, signal.SIGCONT)


def _tell(processes: Iterable[int], number: signal.Signals) -> None:
    for pid in processes:
        with suppress(ProcessLookupError):  # a backend whose client has just gone
            os.kill(pid, number)


@contextmanager
def held_up(at: Between) -> Iterator[None]:
    """Nothing passes either way, and all of it arrives later."""
    at.proxy.stall()
    try:
        yield
    finally:
        at.proxy.flow()


@contextmanager
def swallowed(at: Between) -> Iterator[None]:
    """Accepted and never answered; what was under way is lost."""
    at.proxy.swallow()
    try:
        yield
    finally:
        at.proxy.flow()


@contextmanager
def cut_at_random(at: Between) -> Iterator[None]:
    """Connections go all the time, in the middle of statements and commits."""
    leaving = threading.Event()

    def strike() -> None:
        while not leaving.wait(at.chances.expovariate(1 / GAP)):
            at.drop_one()

    thread = threading.Thread(target=strike, daemon=True)
    thread.start()
    try:
        yield
    finally:
        leaving.set()
        thread.join()


FAULTS: dict[str, Callable[[Between], AbstractContextManager[None]]] = {
    "restarted": restarted,
    "crashed": crashed,
    "stopped": stopped,
    "held up": held_up,
    "swallowed": swallowed,
    "cut at random": cut_at_random,
}
STALLS = ("stopped", "held up")


class Clerk(AbstractContextManager["Clerk"]):
    """Asks, approves and takes away, over and over, and remembers what was acknowledged."""

    def __init__(self, installed: site.Site) -> None:
        self.acknowledged: list[tuple[str, int]] = []
        self._team = site.Team(installed)
        # Here, since signing them in takes a connection of the thread's own.
        for who in ("amir", "bob"):
            self._team[who]
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._leaving.set()
        self._thread.join()
        self._team.close()

    def _work(self) -> None:
        while not self._leaving.wait(site.PAUSE):
            if asked := self._asked():
                self._decide(asked)

    def _asked(self) -> dict[str, Any] | None:
        if asked := self._team.ask(600, "amir"):
            self.acknowledged.append(("accessrequest.submitted", asked["id"]))
            return asked
        # Of one that was not acknowledged nobody knows whether it was made.
        return next(self._listed("requests", "pending"), None)

    def _decide(self, asked: dict[str, Any]) -> None:
        if self._team.approve(asked):
            self.acknowledged.append(("vote.cast", asked["id"]))
        for grant in self._listed("grants", "scheduled", "provisioning", "active"):
            if self._team.revoke(grant["id"]):
                self.acknowledged.append(("grant.revoking", grant["id"]))

    def _listed(self, what: str, *states: str) -> Iterator[dict[str, Any]]:
        response = self._team["amir"].send("GET", f"/api/v1/{what}/")
        if response is not None and response.is_success:
            for row in response.json()["results"]:
                if row["state"] in states and row["beneficiary"]["username"] == "amir":
                    yield row


@dataclass
class Findings:
    """What was seen, in seconds, by kind of fault where it matters."""

    late: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    swept: list[float] = field(default_factory=list)
    alone: list[float] = field(default_factory=list)
    outages: list[tuple[float, float]] = field(default_factory=list)  # times of the wall clock


@campaign("database")
def database(run: Run) -> list[Row]:
    """Ten of each fault, stalls of 30 s; a bounded run has one of each, and short."""
    ask_one_person(run.place)
    found, control = Findings(), run.place.control
    _make_commits_last(control)
    with (
        scratch() as directory,
        EmbeddedValkey(directory / "valkey") as valkey,
        Proxy(control.postgres.port) as proxy,
        site.running(run.place, directory / "logs", **_ways(run.place, valkey, proxy)) as installed,
        site.Visitor(installed) as visitor,
        Clerk(installed) as clerk,
    ):
        at = Between(control, proxy, run.chances("connections"))
        with lone_sweeper(run, found):
            for kind in _rounds(run):
                _round(run, kind, at, installed, found)
        _see_pages_well(visitor)
    return [*_rows(found, visitor.answers, clerk.acknowledged), *_left(run), stalled_opener(run)]


@contextmanager
def lone_sweeper(run: Run, found: Findings) -> Iterator[None]:
    """One with nothing else in its process, to which the database is closed for all that while.

    Whoever retries in ever longer intervals looks again long after the return.
    """
    place = run.place
    with Proxy(place.control.postgres.port) as proxy:
        told = {"DATABASE_URL": site.through(place.control.url(), proxy.port)}
        with place.running("manage.py", "sweep", LOG_LEVEL="CRITICAL", **told) as sweeper:
            assert sweeper.stdout
            assert "Sweeping" in sweeper.stdout.readline()
            # Read on: a full pipe would stop it.
            threading.Thread(target=deque, args=[sweeper.stdout, 0], daemon=True).start()
            eventually(Heartbeat.objects.filter(is_worker=False).exists)
            proxy.refuse()
            yield
            proxy.listen()
            found.alone.append(_swept_after(time.time(), 1, is_worker=False))


def _make_commits_last(control: Control) -> None:
    """Tests do without; here a commit has to outlive the server's end."""
    with control.superuser() as server:
        server.execute(f"ALTER DATABASE {DATABASE} SET synchronous_commit = on")


def _ways(place: Place, valkey: EmbeddedValkey, proxy: Proxy) -> dict[str, str]:
    return {
        "REDIS_URL": valkey.url,
        "DATABASE_URL": site.through(place.control.url(), proxy.port),
    }


def _rounds(run: Run) -> list[str]:
    rounds = [*FAULTS] * run.times(TIMES)
    run.chances("database").shuffle(rounds)
    return rounds


def _round(run: Run, kind: str, at: Between, installed: site.Site, found: Findings) -> None:
    """One access runs out while the database is away."""
    place = run.place
    ending = hold(place, _approved(place, LASTS))
    connections.close_all()
    began = time.time()
    with FAULTS[kind](at):
        time.sleep(_length(run, kind))
    healed = time.time()
    found.outages.append((began, healed))
    found.late[kind].append(max(0.0, ending.over() - max(ending.due, healed)))
    found.swept.append(_swept_after(healed, len(WORKERS), is_worker=True))


def _approved(place: Place, duration: int) -> Grant:
    request = place.world.submit("alice", place.level, duration=duration)
    place.world.vote(request, "bob")
    return Grant.objects.select_related("beneficiary").get(request=request)


def _length(run: Run, kind: str) -> float:
    if run.bounded:
        return BOUNDED_AWAY
    return STALL if kind in STALLS else AWAY


def _swept_after(healed: float, count: int, *, is_worker: bool) -> float:
    """Seconds until so many sweepers, in workers or not, had looked again."""
    mended = clock.now() - timedelta(seconds=time.time() - healed)
    beats = Heartbeat.objects.filter(is_worker=is_worker, swept_at__gt=mended)
    eventually(lambda: beats.count() >= count, within=60)
    return time.time() - healed


def _see_pages_well(visitor: site.Visitor) -> None:
    """Have the visitor look on for as long as pages may take to be well again."""
    seen = len(visitor.answers)
    eventually(lambda: all(one.status == 200 for one in visitor.answers[seen:][-9:]), within=BACK)
    eventually(lambda: len(visitor.answers) >= seen + 9)


def _left(run: Run) -> list[Row]:
    """Once all that is not ended is taken away, nothing is left on the target.

    What lost its connection in mid-work has a lease still, which is not waited for.
    """
    forward(max(leases.LEASE.values()))
    open_still = [one.pk for one in Grant.objects.not_ended()]
    for pk in open_still:
        with suppress(WrongState):
            grants.revoke(pk, by=run.place.world.bob, reason="The end.")
        eventually(partial(_closes, pk), within=90)
    return [
        counted(
            "grants with nothing left on the target", Grant.objects.count(), run.place.leftovers()
        )
    ]


def _closes(pk: int) -> bool:
    closing.close_grant(pk, worker="campaign")
    return Grant.objects.filter(pk=pk, state=GrantState.ENDED).exists()


def _recovered(found: Findings, answers: Sequence[site.Answer]) -> list[float]:
    """For each outage the seconds after its end until the last page that failed for it."""
    nexts = [*(began for began, _ in found.outages[1:]), inf]
    bad = [answer.at + answer.took for answer in answers if answer.status != 200]
    return [
        max((at - healed for at in bad if healed < at < began), default=0.0)
        for (_, healed), began in zip(found.outages, nexts, strict=True)
    ]


def _rows(
    found: Findings, answers: Sequence[site.Answer], acknowledged: Sequence[tuple[str, int]]
) -> list[Row]:
    lost = [f"{action} {pk}" for action, pk in acknowledged if not _is_written(action, pk)]
    torn = _torn()
    return [
        *(
            seconds(f"access that ended while the database was {kind}", late, LATE)
            for kind, late in found.late.items()
        ),
        seconds("both sweepers look again after its return", found.swept, LATE),
        seconds("a sweeper alone looks again after a long outage", found.alone, LATE),
        seconds("pages answer again after its return", _recovered(found, answers), BACK),
        counted("acknowledged, and in tables and log", len(acknowledged), lost),
        counted("requests, votes and grants that are whole or absent", Event.objects.count(), torn),
    ]


def _is_written(action: str, pk: int) -> bool:
    told = [action]
    if action == "grant.revoking":
        told.append("grant.ended")  # at once, where it had not begun to open
        there = Grant.objects.filter(
            pk=pk, state__in=[GrantState.REVOKING, GrantState.ENDED]
        ).exists()
    elif action == "vote.cast":
        there = Vote.objects.filter(stage__request=pk).exists()
    else:
        there = AccessRequest.objects.filter(pk=pk).exists()
    return there and Event.objects.filter(action__in=told, subject_id=str(pk)).exists()


def _torn() -> list[str]:
    """Whatever stands without its Event, or tells of what is not there."""
    stored = {
        "accessrequest.submitted": AccessRequest.objects.values_list("pk", flat=True),
        "vote.cast": Vote.objects.values_list("stage__request", flat=True),
        "grant.scheduled": Grant.objects.values_list("pk", flat=True),
    }
    wrong = all_breaches(Grant.objects.all())
    for action, keys in stored.items():
        told = Counter(Event.objects.filter(action=action).values_list("subject_id", flat=True))
        wrong += [f"{action} {pk}" for pk in told.keys() ^ {str(key) for key in keys}]
        wrong += [f"{action} {pk} {times} times" for pk, times in told.items() if times > 1]
    return wrong


def stalled_opener(run: Run) -> Row:
    """An opener that hangs at the database past its grant's end: it opens nothing when it goes on.

    It has made the account on the target by then, and is to ask whether it may commit.
    """
    place = run.place
    grant = _approved(place, 600)
    with Proxy(place.control.postgres.port) as proxy:
        told = {
            **place.environment,
            "DATABASE_URL": site.through(place.control.url(), proxy.port),
        }
        with attempts.stopped_at("before the fence", "open", grant.pk, told) as opener:
            proxy.stall()
            opener.go_on()
            grants.revoke(grant.pk, by=place.world.bob, reason="Not now.")
            closing.close_grant(grant.pk, worker="campaign")
            over = has_ended(grant) and not place.leftovers()
            proxy.flow()
            opener.ends()
    opened = place.leftovers() or state_of(grant) != GrantState.ENDED
    bad = int(not over) + int(bool(opened))
    return Row(what="an opener held up past the end opened something", runs=1, bad=bad)
