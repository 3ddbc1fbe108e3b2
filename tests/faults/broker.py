"""The broker campaign: it dies, forgets, stops, fills up and comes back; a doorbell and no more.

Web server and workers are real ones, and so is the broker. What is looked at: live sessions and
sign-ins at the target, answers of pages and API, and who takes work from the broker afterwards.
"""

from __future__ import annotations

import os
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from math import inf

import redis

from approvals.models import Grant
from approvals.states import GrantState
from audit import clock
from debugflow.embedded.state import scratch
from debugflow.embedded.valkey import EmbeddedValkey
from tests.faults import site
from tests.faults.campaign import Row, Run, campaign, seconds
from tests.faults.place import ask_one_person, eventually, state_of
from tests.faults.watch import Held, hold

LATE = 5.0  # seconds after its end, or after somebody took it away, that an access may live
ANSWER = 3.0  # seconds that a page or the API may take
QUEUED = 30.0  # seconds after the broker's return for what was approved meanwhile to be open
CONSUMES = 60.0  # seconds after its return for a worker to take work from it
THREADS = 16  # more of them than before are no longer those that happen to serve somebody
LASTS = 2  # seconds, of the access that ends while the broker is away
AWAY, BOUNDED_AWAY = 4.0, 2.0  # seconds
RESTARTS, OTHERS = 20, 5


@contextmanager
def killed(valkey: EmbeddedValkey) -> Iterator[None]:
    valkey.kill()
    try:
        yield
    finally:
        valkey.start()


@contextmanager
def stopped(valkey: EmbeddedValkey) -> Iterator[None]:
    """It accepts connections, and never answers."""
    os.kill(valkey.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(valkey.pid, signal.SIGCONT)


@contextmanager
def flushed(valkey: EmbeddedValkey) -> Iterator[None]:
    """Again and again: every queue, binding and message is forgotten."""
    with redis.Redis.from_url(valkey.url) as broker:
        broker.flushall()
        yield
        broker.flushall()


@contextmanager
def full(valkey: EmbeddedValkey) -> Iterator[None]:
    """It takes nothing more: `noeviction` says so to whoever publishes."""
    with redis.Redis.from_url(valkey.url) as broker:
        broker.config_set("maxmemory", "1")
        try:
            yield
        finally:
            broker.config_set("maxmemory", "0")


FAULTS: dict[str, Callable[[EmbeddedValkey], AbstractContextManager[None]]] = {
    "killed": killed,
    "flushed": flushed,
    "stopped": stopped,
    "full": full,
}


@dataclass
class Findings:
    """What was seen, in seconds, by kind of fault where it matters."""

    closed: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    opened: list[float] = field(default_factory=list)
    consumes: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    threads: list[int] = field(default_factory=list)


@campaign("broker")
def broker(run: Run) -> list[Row]:
    """Twenty restarts and five of each other fault; a bounded run has one of each at least."""
    ask_one_person(run.place)
    found = Findings()
    with (
        scratch() as directory,
        EmbeddedValkey(directory / "valkey") as valkey,
        site.running(run.place, directory / "logs", REDIS_URL=valkey.url) as installed,
        site.Visitor(installed) as visitor,
    ):
        team = site.Team(installed)
        installed.consumes_after(clock.now())
        team.approved(duration=LASTS)  # whatever is done once only is done now
        before = installed.threads()
        for kind in _rounds(run):
            _round(run, kind, valkey, team, found)
            found.threads.append(installed.threads() - before)
        team.close()
    return _rows(found, [*visitor.answers, *team.answers])


def _rounds(run: Run) -> list[str]:
    """In an order of chance; killing it is restarting it."""
    others = [kind for kind in FAULTS if kind != "killed"] * run.times(OTHERS)
    rounds = ["killed"] * max(3, run.times(RESTARTS)) + others
    run.chances("broker").shuffle(rounds)
    return rounds


def _round(run: Run, kind: str, valkey: EmbeddedValkey, team: site.Team, found: Findings) -> None:
    """One access runs out and one is taken away while it is gone, and two more are approved."""
    place = run.place
    taken = hold(place, team.approved(duration=600))
    ending = hold(place, team.approved(duration=LASTS))
    with FAULTS[kind](valkey):
        began = time.monotonic()
        assert team.revoke(taken.grant.pk)
        revoked = time.time()
        approved = [team.approved(duration=600) for _ in range(2)]
        _over(found.closed[kind], taken, revoked)
        _over(found.closed[kind], ending, ending.due)
        away = BOUNDED_AWAY if run.bounded else AWAY
        time.sleep(max(0.0, away - (time.monotonic() - began)))
        back = clock.now()
    found.consumes[kind].append(team.site.consumes_after(back))
    for grant in approved:
        eventually(partial(_is_open, grant), within=QUEUED + 5)
        found.opened.append(_opened_after(grant, back))
        team.revoke(grant.pk)


def _over(late: list[float], held: Held, since: float) -> None:
    late.append(max(0.0, held.over(within=4 * LATE) - since))


def _is_open(grant: Grant) -> bool:
    return state_of(grant) == GrantState.ACTIVE


def _opened_after(grant: Grant, back: datetime) -> float:
    grant.refresh_from_db()
    return max(0.0, (grant.activated_at - back).total_seconds()) if grant.activated_at else inf


def _rows(found: Findings, answers: list[site.Answer]) -> list[Row]:
    took = [answer.took for answer in answers]
    failed = [answer for answer in answers if not 200 <= answer.status < 300]
    return [
        *(
            seconds(f"access that ended while the broker was {kind}", found.closed[kind], LATE)
            for kind in FAULTS
        ),
        seconds("pages and API while all that went on", took, ANSWER, bad=len(failed)),
        seconds("approved meanwhile, open after its return", found.opened, QUEUED),
        *(
            seconds(f"both workers take work again, it had been {kind}", took, CONSUMES)
            for kind, took in found.consumes.items()
        ),
        Row(
            what="threads of the web server beyond those before",
            runs=len(found.threads),
            worst=max(found.threads, default=None),
            limit=THREADS,
        ),
    ]
