"""The canary on real parts: a Celery worker, Valkey, and what is left of the dead ones in it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

from approvals import heartbeats
from approvals.models import Heartbeat
from audit import clock
from debugflow.celery import app
from debugflow.embedded.valkey import EmbeddedValkey
from tests.approvals.test_races import until_blocked
from tests.conftest import DATABASE, Control
from tests.debugflow.workers import worker

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("committed")]


@pytest.fixture
def valkey(server_directory: Path) -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey(server_directory / "canary") as running:
        yield running


def eventually(check: Callable[[], Any], *, within: float = 30) -> None:
    deadline = time.monotonic() + within
    while not check():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


def served_after(moment: Any) -> bool:
    return heartbeats.serving().filter(served_at__gt=moment).exists()


def swept_after(moment: Any) -> bool:
    return heartbeats.sweeping().filter(swept_at__gt=moment).exists()


def more_than(before: int) -> bool:
    return heartbeats.serving().count() > before


def keys(valkey: EmbeddedValkey) -> dict[str, int]:
    """What is kept in the broker, with the seconds until it is forgotten; -1 for never."""
    with redis.Redis.from_url(valkey.url, decode_responses=True) as client:
        return {key: client.ttl(key) for key in client.keys()}


def send_canary(valkey: EmbeddedValkey, process: Heartbeat) -> None:
    """To whichever worker takes it, and acknowledges it when it is done."""
    with app.connection_for_write(valkey.url) as broker:
        told = [str(process.process)]
        app.send_task(heartbeats.CANARY_TASK, args=told, connection=broker)


def refused(broker: redis.Redis, command: str) -> int:
    """How often the broker has refused this command since it began."""
    return int(broker.info("commandstats").get(f"cmdstat_{command}", {}).get("rejected_calls", 0))


def test_a_stopped_broker_is_seen_while_the_sweeper_beats_on(
    control: Control, valkey: EmbeddedValkey
):
    with worker(control, valkey):
        eventually(heartbeats.serving().exists)
        os.kill(valkey.pid, signal.SIGSTOP)
        time.sleep(0.5)  # for what was under way
        stopped = clock.now()
        try:
            for _ in range(3):
                now = clock.now()
                eventually(partial(swept_after, now), within=3)
            assert not served_after(stopped)
        finally:
            os.kill(valkey.pid, signal.SIGCONT)
        eventually(lambda: served_after(stopped))


def test_a_worker_that_comes_to_a_full_broker_waits_and_does_not_exit(
    control: Control, valkey: EmbeddedValkey
):
    """The broker takes the connection and answers with errors what the worker begins with."""
    with redis.Redis.from_url(valkey.url) as broker:
        broker.config_set("maxmemory", "1")
        with worker(control, valkey) as process:
            eventually(lambda: process.poll() is not None or refused(broker, "set") > 1)
            assert process.poll() is None
            assert not heartbeats.serving().exists()
            broker.config_set("maxmemory", "0")
            eventually(heartbeats.serving().exists)


def test_a_task_that_outlasts_its_broker_does_not_take_the_worker_with_it(
    control: Control, valkey: EmbeddedValkey
):
    """It is done on a channel that went with the old broker, and acknowledged to nobody."""
    now = clock.now()
    held = Heartbeat.objects.create(name="held", started_at=now, swept_at=now)
    with worker(control, valkey) as process, control.superuser(DATABASE) as other:
        eventually(heartbeats.serving().exists)
        with other.transaction():
            other.execute("SELECT FROM approvals_heartbeat WHERE name = 'held' FOR UPDATE")
            send_canary(valkey, held)
            until_blocked(control)
            valkey.kill()
            time.sleep(0.5)
            valkey.start()
            back = clock.now()
            eventually(lambda: served_after(back))
        eventually(lambda: Heartbeat.objects.filter(pk=held.pk, served_at__isnull=False).exists())
        done = clock.now()
        eventually(lambda: process.poll() is not None or served_after(done))
        assert process.poll() is None


def test_a_worker_without_a_free_thread_serves_nobody(control: Control, valkey: EmbeddedValkey):
    """Its process lives and its sweeper sweeps; what it would take from the broker waits."""
    now = clock.now()
    held = Heartbeat.objects.create(name="held", started_at=now, swept_at=now)
    with worker(control, valkey), control.superuser(DATABASE) as other:
        eventually(heartbeats.serving().exists)
        with other.transaction():
            other.execute("SELECT FROM approvals_heartbeat WHERE name = 'held' FOR UPDATE")
            for _ in range(2):  # as many as it has threads
                send_canary(valkey, held)
            time.sleep(1)
            stuck = clock.now()
            eventually(lambda: swept_after(stuck), within=3)
            assert not served_after(stuck)
        eventually(lambda: served_after(stuck))


def test_the_broker_forgets_workers_that_were_killed(control: Control, valkey: EmbeddedValkey):
    for _ in range(2):
        before = Heartbeat.objects.count()
        with worker(control, valkey) as process:
            eventually(partial(more_than, before))
            os.kill(valkey.pid, signal.SIGSTOP)  # with a canary on its way, if it may be
            process.send_signal(signal.SIGKILL)
            process.wait(timeout=10)
            os.kill(valkey.pid, signal.SIGCONT)
    assert Heartbeat.objects.count() == 2
    _leave_a_canary(valkey, Heartbeat.objects.latest("started_at"))
    kept = keys(valkey)
    canaries = {key: ttl for key, ttl in kept.items() if key.startswith("debugflow:canary.")}
    assert canaries
    assert all(0 < ttl <= heartbeats.QUEUE_EXPIRES for ttl in canaries.values()), kept
    assert not [key for key in kept.keys() - canaries.keys() if "canary" in key]
    with redis.Redis.from_url(valkey.url, decode_responses=True) as client:
        for key in kept.keys() - canaries.keys():
            held = client.smembers(key) if client.type(key) == "set" else []
            held = client.hvals(key) if client.type(key) == "hash" else held
            assert "canary" not in " ".join(held), key


def _leave_a_canary(valkey: EmbeddedValkey, dead: Heartbeat) -> None:
    """As its sweeper would have sent it right before the worker was killed."""
    options: Any = {"args": [str(dead.process)], "queue": heartbeats.canary_queue(dead.process)}
    with app.connection_for_write(valkey.url) as broker:
        app.send_task(heartbeats.CANARY_TASK, connection=broker, **options)
