"""Heartbeats and tallies: who is alive, what was done, and that neither lies nor is in the way."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections
from django.db.models import F

from approvals import closing, heartbeats, opening, tallies
from approvals.errors import ProvisionError
from approvals.heartbeats import PAST, Heart
from approvals.models import Grant, Heartbeat, StepKind
from approvals.states import GrantState
from approvals.sweeper import Sweeper
from audit import clock as database
from tests.conftest import DATABASE, Clock, Control
from tests.world import World

pytestmark = pytest.mark.usefixtures("committed")


def eventually(check: Callable[[], Any], *, within: float = 10) -> None:
    deadline = time.monotonic() + within
    while not check():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeats, "BEAT_EVERY", 0.05)


@contextmanager
def sweeping() -> Iterator[Sweeper]:
    sweeper = Sweeper(interval=0.05)
    thread = threading.Thread(target=sweeper.run)
    thread.start()
    try:
        yield sweeper
    finally:
        sweeper.stop()
        thread.join(timeout=20)
        assert not thread.is_alive()


def swept_at(sweeper: Sweeper) -> Any:
    row = Heartbeat.objects.filter(process=sweeper.heart.process).first()
    return row and row.swept_at


def beats(sweeper: Sweeper) -> bool:
    before = swept_at(sweeper)
    with suppress(AssertionError):
        eventually(lambda: swept_at(sweeper) != before, within=1)
    return bool(swept_at(sweeper) != before)


def looked(heart: Heart) -> None:
    """One look of a sweeper's loop that came to its end, when a beat is due."""
    heart._beat_after = 0
    heart.looked()
    heart.beat()


def test_a_sweeper_beats_while_it_lives_and_says_when_it_stops():
    with sweeping() as sweeper:
        eventually(heartbeats.sweeping().exists)
        assert beats(sweeper)
        row = Heartbeat.objects.get()
        assert row.name.startswith(heartbeats.this_host())
        assert (row.is_worker, row.stopped_at, row.served_at) == (False, None, None)
        assert abs(row.skew_ms) < 1000
    assert not heartbeats.sweeping().exists()
    stopped = Heartbeat.objects.get()
    assert stopped.stopped_at is not None
    assert stopped.stopped_at >= stopped.swept_at


def test_two_sweepers_are_two_and_a_silent_one_is_none(clock: Clock):
    with sweeping(), sweeping():
        eventually(lambda: heartbeats.sweeping().count() == 2)
    killed = Heart()
    looked(killed)
    assert heartbeats.sweeping().get().process == killed.process
    clock.forward(15)
    assert not heartbeats.sweeping().exists()


@pytest.mark.slow
def test_a_loop_that_stalls_stops_beating(control: Control):
    with sweeping() as sweeper:
        eventually(lambda: beats(sweeper))
        with control.superuser(DATABASE) as other, other.transaction():
            other.execute("LOCK TABLE approvals_grant IN ACCESS EXCLUSIVE MODE")
            time.sleep(0.3)  # for the look that is under way
            assert not beats(sweeper)
        assert beats(sweeper)


@pytest.mark.slow
def test_a_loop_whose_looks_fail_does_not_beat(monkeypatch: pytest.MonkeyPatch):
    def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("a defect")

    with sweeping() as sweeper:
        eventually(lambda: beats(sweeper))
        monkeypatch.setattr(closing, "claim", broken)
        time.sleep(0.2)
        assert not beats(sweeper)


def test_it_comes_back_by_itself_when_the_database_does(control: Control):
    with sweeping() as sweeper:
        eventually(lambda: beats(sweeper))
        with control.superuser() as server:
            server.execute(f"ALTER DATABASE {DATABASE} ALLOW_CONNECTIONS false")
            server.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
                [DATABASE],
            )
            time.sleep(0.3)
            server.execute(f"ALTER DATABASE {DATABASE} ALLOW_CONNECTIONS true")
        connections.close_all()
        assert beats(sweeper)
        assert Heartbeat.objects.count() == 1


def test_a_beat_waits_for_no_lock(control: Control):
    heart = Heart()
    looked(heart)
    before = Heartbeat.objects.get().swept_at
    with control.superuser(DATABASE) as other, other.transaction():
        other.execute("SELECT FROM approvals_heartbeat FOR UPDATE")
        began = time.monotonic()
        looked(heart)
        assert time.monotonic() - began < 1
        assert Heartbeat.objects.get().swept_at == before
    looked(heart)
    assert Heartbeat.objects.get().swept_at > before


def test_one_beat_is_one_short_statement(
    django_assert_num_queries: Any, monkeypatch: pytest.MonkeyPatch
):
    heart = Heart()
    looked(heart)
    with django_assert_num_queries(1):
        looked(heart)
    monkeypatch.setattr(heartbeats, "BEAT_EVERY", 60)
    looked(heart)
    heart.looked()
    with django_assert_num_queries(0):
        heart.beat()


@pytest.mark.parametrize(("ahead", "told"), [(3.0, 3000), (-3.0, -3000), (0.0, 0)])
def test_a_clock_that_goes_wrong_is_seen(ahead: float, told: int):
    heart = Heart(wall=lambda: time.time() + ahead)
    looked(heart)
    looked(heart)
    assert Heartbeat.objects.get().skew_ms == pytest.approx(told, abs=200)


def test_a_slow_answer_is_no_skew():
    assert heartbeats.skew_ms(100.0, 104.9, 105.0) == 0
    assert heartbeats.skew_ms(100.0, 99.0, 105.0) == 1000
    assert heartbeats.skew_ms(100.0, 107.5, 105.0) == -2500


# Tallies


def counted() -> dict[str, float]:
    return {name: number for name, number in heartbeats.totals().items() if number}


def gone(number: int, **counts: float) -> None:
    """As many processes that counted this and have not been heard of for hours."""
    at = database.now() - timedelta(hours=2)
    Heartbeat.objects.bulk_create(
        Heartbeat(name=f"old {n}", started_at=at, swept_at=at, tallies=counts)
        for n in range(number)
    )


def test_those_long_gone_become_one_row_and_the_sum_stays():
    gone(3, **{"step:cut:ok": 2, "lateness:sum": 0.5})
    looked(alive := Heart())
    before = counted()
    assert heartbeats.fold() in (0, 3)  # a beat folds, too
    assert {row.process for row in Heartbeat.objects.all()} == {PAST, alive.process}
    assert counted() == before
    gone(1, **{"step:cut:ok": 1})
    assert heartbeats.fold() == 1
    assert counted()["step:cut:ok"] == before["step:cut:ok"] + 1


def test_nobody_who_may_still_come_back_is_folded(clock: Clock):
    looked(Heart())
    clock.forward(3599)
    assert heartbeats.fold() == 0
    clock.forward(1)
    assert heartbeats.fold() == 1


def test_many_fold_at_once_and_no_reader_ever_sees_another_sum():
    gone(450, **{"step:cut:ok": 1, "lateness:0.1": 1, "lateness:sum": 0.25})
    whole = counted()
    seen: list[dict[str, float]] = []
    done = threading.Event()
    looks = threading.Semaphore(0)  # each is good for one fold: the reader is not left behind

    def folding() -> None:
        while Heartbeat.objects.exclude(process=PAST).exists():
            if heartbeats.fold():
                looks.acquire(timeout=10)
        connections.close_all()

    def reading() -> None:
        while not done.is_set():
            seen.append(counted())
            looks.release()
        connections.close_all()

    reader = threading.Thread(target=reading)
    folders = [threading.Thread(target=folding) for _ in range(4)]
    for thread in (reader, *folders):
        thread.start()
    for thread in folders:
        thread.join(timeout=30)
    done.set()
    reader.join(timeout=10)
    assert len(seen) > 3
    assert all(sums == whole for sums in seen)
    assert Heartbeat.objects.get().process == PAST


def test_one_that_comes_back_from_a_long_pause_is_not_counted_twice(clock: Clock):
    heart = Heart()
    tallies.step("cut", "ok")
    looked(heart)
    first, before = heart.process, counted()
    clock.forward(4000)
    assert heartbeats.fold() == 1
    tallies.step("cut", "ok")
    looked(heart)
    assert heart.process != first
    assert counted()["step:cut:ok"] == before["step:cut:ok"] + 1
    looked(heart)
    assert counted()["step:cut:ok"] == before["step:cut:ok"] + 1
    assert Heartbeat.objects.exclude(process=PAST).count() == 1


@pytest.fixture
def since() -> Callable[[], dict[str, float]]:
    """What this process counted since the test began."""
    before = tallies.counted()

    def more() -> dict[str, float]:
        now = tallies.counted()
        return {k: now[k] - before.get(k, 0) for k in now if now[k] != before.get(k, 0)}

    return more


def closed(grant: Grant) -> None:
    closing.close_grant(grant.pk, worker="w")
    grant.refresh_from_db()
    assert grant.state == GrantState.ENDED


def test_a_whole_story_is_counted(world: World, clock: Clock, since: Any):
    grant = world.approved()
    clock.forward(20)
    opening.open_grant(grant.pk, worker="w")
    clock.forward(3603)
    closed(grant)
    found = since()
    late, opened = found.pop("lateness:sum"), found.pop("opening:sum")
    assert found == {
        "step:open:ok": 1,
        "step:cut:ok": 1,
        "step:clean:ok": 1,
        "opening:30": 1,
        "lateness:5": 1,
    }
    assert opened == pytest.approx(20, abs=2)
    assert late == pytest.approx(3, abs=1.9)


def test_failures_are_counted_as_what_they_are(world: World, clock: Clock, since: Any):
    grant = world.approved()
    world.server.fail_next("open", ProvisionError("Away."))
    opening.open_grant(grant.pk, worker="w")
    assert since() == {"step:open:failed": 1}
    Grant.objects.update(next_try_at=F("opens_at"))
    opening.open_grant(grant.pk, worker="w")
    clock.forward(3600)
    world.server.fail_next("cut", ProvisionError("Away."))
    closing.close_grant(grant.pk, worker="w")
    assert since()["step:cut:failed"] == 1
    assert "lateness:sum" not in since()


def test_whoever_was_overtaken_says_so(world: World, clock: Clock, since: Any):
    grant = world.approved()
    opening.open_grant(grant.pk, worker="w")
    clock.forward(3600)
    [slow] = closing.claim(StepKind.CUT, worker="slow", only=grant.pk)
    clock.forward(4)
    closed(grant)
    closing.run_all([slow])
    assert since()["step:cut:fenced"] == 1
    assert since()["step:cut:ok"] == 1


def test_a_child_counts_for_itself():
    import os

    tallies.step("cut", "ok")
    read, write = os.pipe()
    if (child := os.fork()) == 0:  # pragma: no cover - another process
        os.write(write, str(len(tallies.counted())).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 10) == b"0"
    os.close(read)
    os.close(write)


def test_a_canary_says_which_worker_it_was(clock: Clock):
    heart = Heart(worker="celery@here")
    looked(heart)
    row = Heartbeat.objects.get()
    assert (row.is_worker, row.served_at) == (True, None)
    assert row.name.endswith("celery@here")
    assert not heartbeats.serving().exists()
    heartbeats.served(str(heart.process))
    heartbeats.served(str(uuid.uuid4()))  # one that is gone
    assert heartbeats.serving().get().process == heart.process
    clock.forward(60)
    assert not heartbeats.serving().exists()
