"""The partition campaign: two workers' hosts, a target's and our database's, kept from one another.

Packets are lost without a word. What must hold: whoever still reaches both ends access on time;
whoever was away opens nothing after the end; and all is well soon after the network is.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from django.db import connections
from django.db.models import QuerySet

from approvals import leases
from approvals.models import Grant, Heartbeat, StepKind
from audit import clock
from audit.models import Event
from debugflow.embedded.postgres import EmbeddedPostgres
from debugflow.embedded.production import Production
from debugflow.embedded.runtime import APP
from debugflow.embedded.state import scratch
from tests.conftest import DATABASE, UNSAFE_BUT_FAST, Control
from tests.faults import attempts, namespaces
from tests.faults.campaign import Row, Run, campaign, counted, seconds
from tests.faults.histories import all_breaches
from tests.faults.namespaces import Host, Network, heal, part
from tests.faults.place import ROOT, Place, ask_one_person, eventually, has_ended, make_place
from tests.faults.target import BACK, ENDED, LATE, LONG, forward, is_failing, take_away
from tests.faults.watch import Held, hold

NAMES = ("control", "target", "first", "second")
TIMES = 10
MANY = 6  # that are taken away at once
LASTS = 2  # seconds, of an access that ends while a worker is away
AWAY = 6.0  # seconds beyond that: connections are given up, and are to be made anew
SETTINGS = {**UNSAFE_BUT_FAST, "listen_addresses": "*"}


class Far(EmbeddedPostgres):
    """On a host of its own, which lets all hosts of the network in, with a password."""

    def __init__(self, directory: Path, host: Host, *, settings: dict[str, str]) -> None:
        super().__init__(directory, settings=settings)
        self.host = host

    def url(
        self, database: str = "postgres", user: str | None = None, password: str | None = None
    ) -> str:
        return super().url(database, user, password).replace("127.0.0.1", self.host.address)

    def _prepare(self) -> None:
        super()._prepare()
        with (self.directory / "data" / "pg_hba.conf").open("a") as rules:
            rules.write("host all all 10.0.0.0/8 scram-sha-256\n")


class FarProduction(Production):
    def __init__(self, directory: Path, host: Host) -> None:
        super().__init__(directory)
        self.host = host
        settings = {**SETTINGS, "reserved_connections": "2", "max_prepared_transactions": "10"}
        self.server = Far(directory, host, settings=settings)

    @property
    def config(self) -> dict[str, Any]:
        return {**super().config, "host": self.host.address}


class FarControl(Control):
    def point_django_at(self, database: str, user: str, **options: Any) -> None:
        super().point_django_at(database, user, **options)
        assert isinstance(self.postgres, Far)
        connections["default"].settings_dict["HOST"] = self.postgres.host.address


@dataclass
class Ground:
    """The hosts by their names, and what was seen, in seconds."""

    place: Place
    network: Network
    sweepers: dict[str, int] = field(default_factory=dict)  # process ids by the host's address
    late: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    back: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    wrong: list[str] = field(default_factory=list)
    looked: int = 0

    def __getattr__(self, name: str) -> Host:
        return self.network.hosts[name]

    def held(self, duration: int = LONG) -> Held:
        return hold(self.place, self.approved(duration))

    def approved(self, duration: int = LONG) -> Grant:
        request = self.place.world.submit("alice", self.place.level, duration=duration)
        self.place.world.vote(request, "bob")
        return Grant.objects.select_related("beneficiary").get(request=request)

    def expect(self, what: str, *, holds: bool) -> None:
        self.looked += 1
        if not holds:
            self.wrong.append(what)

    @contextmanager
    def parted(self, one: Host, other: Host) -> Iterator[None]:
        part(one, other)
        try:
            yield
        finally:
            heal(one, other)


@campaign("partition")
def partition(run: Run) -> list[Row]:
    """Ten of each; a bounded run has one. Nothing is run where no namespaces can be made."""
    if why := namespaces.missing():
        return [Row(what=f"skipped: {why}", runs=1)]
    with ground() as at:
        with _sweeping(at):
            for _ in range(run.times(TIMES)):
                first_from_target(at)
                everyone_from_target(at)
                first_from_database(at)
        for _ in range(run.times(TIMES)):
            opener_from_database(at)
        return _rows(at)


@contextmanager
def ground() -> Iterator[Ground]:
    """Four hosts: our database, the target, and two for workers. The cast is in that database."""
    before = dict(connections["default"].settings_dict)
    with scratch() as directory, namespaces.network(*NAMES) as network, ExitStack() as servers:
        hosts = network.hosts
        postgres = Far(directory / "control", hosts["control"], settings=SETTINGS)
        production = FarProduction(directory / "target", hosts["target"])
        for host, server in ((hosts["control"], postgres), (hosts["target"], production)):
            servers.callback(server.stop)
            host.do(server.start)
        control = FarControl(postgres)
        try:
            control.make_template()
            control.fresh_database()
            control.point_django_at(DATABASE, APP)
            place = make_place(control, production)
            ask_one_person(place)
            yield Ground(place, network)
            place.leave()
        finally:
            connections.close_all()
            connections["default"].settings_dict.update(before)


@contextmanager
def _sweeping(at: Ground) -> Iterator[None]:
    with ExitStack() as running:
        for host in (at.first, at.second):
            at.sweepers[host.address] = running.enter_context(_sweeper(at, host))
        yield


@contextmanager
def _sweeper(at: Ground, host: Host) -> Iterator[int]:
    """One on that host, which has looked; its process's id."""
    told = {**os.environ, **at.place.environment, "LOG_LEVEL": "CRITICAL"}
    command = [*host.inside, sys.executable, "manage.py", "sweep"]
    with subprocess.Popen(command, cwd=ROOT, env=told, stdout=subprocess.DEVNULL) as process:
        try:
            eventually(lambda: _beats(process.pid).exists())
            yield process.pid
        finally:
            process.kill()


def _beats(pid: int, since: datetime | None = None) -> QuerySet[Heartbeat]:
    beats = Heartbeat.objects.filter(name__endswith=f":{pid}")
    return beats.filter(swept_at__gt=since) if since else beats


def first_from_target(at: Ground) -> None:
    """It claims what it cannot carry out, and the second has to be in time all the same.

    The second stands still until it has: else it would mostly be the faster.
    """
    held = [at.held() for _ in range(MANY)]
    second = at.sweepers[at.second.address]
    with at.parted(at.first, at.target):
        os.kill(second, signal.SIGSTOP)
        ends = [take_away(at.place, one) for one in held]
        eventually(Grant.objects.exclude(lease="").exists)
        os.kill(second, signal.SIGCONT)
        late = [one.over() - since for one, since in zip(held, ends, strict=True)]
    at.late["one worker kept from the target"] += late
    eventually(lambda: all(has_ended(one.grant) for one in held), within=ENDED)


def everyone_from_target(at: Ground) -> None:
    held = at.held()
    with at.parted(at.first, at.target), at.parted(at.second, at.target):
        take_away(at.place, held)
        eventually(partial(is_failing, held))
        at.expect("a session is said to be over and lives", holds=held.is_live())
    healed = time.time()
    at.back["both workers kept from the target"].append(max(0.0, held.over() - healed))
    eventually(lambda: has_ended(held.grant), within=ENDED)


def first_from_database(at: Ground) -> None:
    """What it holds then is taken over, and it is back soon after the network is."""
    held = [at.held(LASTS) for _ in range(2)]
    with at.parted(at.first, at.control):
        for one in held:
            at.late["one worker kept from the database"].append(one.over() - one.due)
        time.sleep(AWAY)
    healed = clock.now()
    eventually(lambda: _beats(at.sweepers[at.first.address], healed).exists(), within=ENDED)
    at.back["a worker kept from the database looks again"].append(
        (clock.now() - healed).total_seconds()
    )


def opener_from_database(at: Ground) -> None:
    """It has made the account, not committed it, and can ask nobody any more whether it may."""
    grant = at.approved()
    opener = attempts.stopped_at(
        "before the fence", "open", grant.pk, at.place.environment, *at.first.inside
    )
    with opener as away, _sweeper(at, at.second):
        with at.parted(at.first, at.control):
            away.go_on()
            forward(leases.LEASE[StepKind.OPEN])
            held = hold(at.place, grant)
            since = take_away(at.place, held)
            at.late["its opener kept from the database"].append(held.over() - since)
            eventually(lambda: has_ended(grant), within=ENDED)
        away.ends()
    opened = Event.objects.filter(action="grant.active", subject_id=str(grant.pk)).count()
    at.expect("it was opened once", holds=opened == 1)
    at.expect("nothing is left on the target", holds=not at.place.leftovers())


def _rows(at: Ground) -> list[Row]:
    made = list(Grant.objects.all())
    return [
        *(seconds(f"access that ended, {what}", late, LATE) for what, late in at.late.items()),
        *(seconds(f"after healing, {what}", back, BACK) for what, back in at.back.items()),
        counted("told, and true", at.looked, at.wrong),
        counted("grants with nothing left on the target", len(made), at.place.leftovers()),
        counted("grants whose history is not a legal one", len(made), all_breaches(made)),
    ]
