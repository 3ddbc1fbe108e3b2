"""A worker that is told to stop: it claims no more, finishes or hands back, and loses nothing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
import redis
from celery import Celery
from django.contrib.auth import get_user_model

from approvals import opening
from approvals.models import Grant, Step, StepKind
from approvals.provisioning.base import Account
from approvals.provisioning.memory import MemoryProvisioner
from approvals.states import GrantState
from approvals.sweeper import Sweeper
from audit import clock as database_clock
from audit.models import Event
from debugflow.embedded.valkey import EmbeddedValkey
from tests.faults.place import ROOT, Place, eventually
from tests.world import World

MANY = 30
SUCCEEDED = re.compile(r"Task approvals\.tasks\.\w+\[([0-9a-f-]+)\] succeeded")


@pytest.fixture
def valkey(server_directory: Path) -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey(server_directory / "shutdown") as running:
        yield running


@dataclass(frozen=True)
class Worker:
    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def told(self) -> str:
        return self.log.read_text(errors="replace")

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.told()
        return f"{self.name}@here ready" in self.told()

    def ends_within(self, seconds: float) -> int:
        return self.process.wait(timeout=seconds)


@contextmanager
def worker(place: Place, name: str, broker: str, log: Path) -> Iterator[Worker]:
    """A Celery worker of ours, as docker-compose.yml starts one, killed at the end."""
    told = {
        "DATABASE_URL": place.control.url(),
        "REDIS_URL": broker,
        "DEBUGFLOW_DEMO": "True",
        "DJANGO_SETTINGS_MODULE": "debugflow.settings",
        "LOG_LEVEL": "INFO",
    }
    command = ["celery", "-A", "debugflow", "worker", "--pool=threads", "--concurrency=4"]
    options = [f"--hostname={name}@here", "--queues=provision,notify,revoke,default"]
    with (log / f"{name}.log").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *command, *options],
            cwd=ROOT,
            env=os.environ | told,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield Worker(name, process, log / f"{name}.log")
    finally:
        process.kill()
        process.wait(timeout=10)


@contextmanager
def two_workers(place: Place, broker: str, log: Path) -> Iterator[tuple[Worker, Worker]]:
    with (
        worker(place, "first", broker, log) as first,
        worker(place, "second", broker, log) as second,
    ):
        eventually(lambda: first.is_ready() and second.is_ready())
        yield first, second


def many_grants(place: Place) -> list[Grant]:
    people = get_user_model().objects
    for number in range(MANY):
        name = f"dev{number}"
        person = people.create_user(name, f"{name}@example.com", "a long password")
        place.world.people[name] = person
        place.world.groups["developers"].user_set.add(person)
    return [place.approved(f"dev{number}") for number in range(MANY)]


def count(**where: object) -> int:
    return Grant.objects.filter(**where).count()


def leases_of(name: str) -> int:
    held = Step.objects.filter(worker__startswith=f"{name}@", finished_at=None)
    return held.exclude(grant__lease="").count()


@pytest.mark.parametrize("more", [(), (signal.SIGTERM, signal.SIGQUIT)], ids=["once", "again"])
def test_one_of_two_workers_is_told_to_stop_amid_thirty_cuts(
    place: Place, clock, valkey: EmbeddedValkey, tmp_path: Path, more: tuple[signal.Signals, ...]
):
    made = many_grants(place)
    with two_workers(place, valkey.url, tmp_path) as pair:
        eventually(lambda: count(state=GrantState.ACTIVE) == MANY, within=30)
        clock.forward(3600)
        due = database_clock.now()
        cuts = Step.objects.filter(kind=StepKind.CUT)
        eventually(cuts.exists)
        # Whoever has begun; which of the two is chance.
        busy = cuts.earliest("pk").worker
        leaving, staying = sorted(pair, key=lambda one: not busy.startswith(f"{one.name}@"))
        for number in (signal.SIGTERM, *more):
            leaving.process.send_signal(number)
        code = leaving.ends_within(20)
        assert leases_of(leaving.name) == 0
        eventually(lambda: count(cut_at=None) == 0, within=5)
        assert not Grant.objects.filter(cut_at__gt=due + timedelta(seconds=5)).exists()
        eventually(lambda: count(state=GrantState.ENDED) == MANY, within=15)
        assert staying.process.poll() is None
    assert code == 0 or more, leaving.told()
    assert place.accounts() == []
    assert Event.objects.filter(action="grant.cut").count() == len(made)
    assert Event.objects.filter(action="grant.ended").count() == len(made)


def test_what_was_claimed_and_not_begun_is_handed_back_at_once(
    committed: None, world: World, clock, monkeypatch: pytest.MonkeyPatch
):
    """The first of a batch hangs while the stop comes; another takes the rest without a wait."""
    pairs = [(who, level) for who in ("alice", "amir") for level in (world.read, world.write)]
    for who, level in pairs:
        opening.open_grant(world.approved(who, level=level).pk, worker="w")
    begun, go_on = threading.Event(), threading.Event()
    cut = MemoryProvisioner.cut

    def slow(provisioner: MemoryProvisioner, account: Account) -> None:
        begun.set()
        go_on.wait(timeout=10)
        cut(provisioner, account)

    monkeypatch.setattr(MemoryProvisioner, "cut", slow)
    clock.forward(3600)
    leaving = Sweeper(interval=0.05, name="leaving")
    running = threading.Thread(target=leaving.run)
    running.start()
    assert begun.wait(timeout=10)
    assert count(state=GrantState.REVOKING, lease__gt="") == len(pairs)
    leaving.stop()
    go_on.set()
    running.join(timeout=10)
    assert not running.is_alive()
    assert count(cut_at=None, lease="", next_try_at__lte=database_clock.now()) == len(pairs) - 1
    assert count(lease__gt="") == 0
    staying = Sweeper(interval=0.05, name="staying")
    other = threading.Thread(target=staying.run)
    other.start()
    try:
        eventually(lambda: count(state=GrantState.ENDED) == len(pairs), within=2)
    finally:
        staying.stop()
        other.join(timeout=10)


def test_messages_of_a_worker_that_stops_are_carried_out_by_another(
    place: Place, valkey: EmbeddedValkey, tmp_path: Path
):
    """Each of 300 rings is answered, by whichever: none is lost with who had fetched it."""
    with two_workers(place, valkey.url, tmp_path) as (first, second):
        sender = Celery(broker=valkey.url, fixups=[], set_as_current=False)
        sender.conf.broker_transport_options = {"global_keyprefix": "debugflow:"}
        rings = [
            sender.send_task("approvals.tasks.close_grant", [0], queue="revoke") for _ in range(300)
        ]
        sent = {ring.id for ring in rings}
        eventually(lambda: bool(SUCCEEDED.search(first.told())))
        first.process.send_signal(signal.SIGTERM)
        assert first.ends_within(20) == 0, first.told()
        done = set(SUCCEEDED.findall(first.told()))
        assert 0 < len(done) < len(sent)
        eventually(lambda: sent <= done | set(SUCCEEDED.findall(second.told())))
        with redis.Redis.from_url(valkey.url) as keys:
            assert keys.hlen("debugflow:unacked") == 0
        sender.close()


def test_a_worker_whose_broker_is_gone_stops_all_the_same(
    place: Place, valkey: EmbeddedValkey, tmp_path: Path
):
    """One that accepts and never answers costs it some 20 s, by the time limits of its sockets."""
    with worker(place, "first", valkey.url, tmp_path) as first:
        eventually(first.is_ready)
        valkey.kill()
        eventually(lambda: "Trying again" in first.told())
        first.process.send_signal(signal.SIGTERM)
        assert first.ends_within(15) == 0, first.told()
