"""Leases of processes that are gone are given up at once, and nobody else's."""

from __future__ import annotations

import time

import pytest
from django.db import DatabaseError

from approvals import closing, grants, leases, opening, presence
from approvals.models import Grant, StepKind
from approvals.presence import Presence
from tests.conftest import Control
from tests.world import World


@pytest.fixture
def worker(committed, monkeypatch):
    """The presence of this process; a worker takes leases under it."""
    own = Presence()
    monkeypatch.setattr(leases, "presence", own)
    yield own
    own.leave()


@pytest.fixture
def grant(world: World) -> Grant:
    """alice's, and it is to end now."""
    made: Grant = world.approved()
    opening.open_grant(made.pk, worker="w")
    grants.release(made.pk, by=world.alice)
    return made


def claimed() -> list[int]:
    return [job.grant.pk for job in closing.claim(StepKind.CUT, worker="w")]


def die(control: Control) -> None:
    """End the connection as the kernel does for a process that was killed."""
    with control.superuser() as server:
        server.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks"
            " WHERE locktype = 'advisory' AND classid = %s::bigint::oid",
            [presence.LOCKS],
        )


def test_a_living_worker_keeps_what_it_has_claimed(worker, grant):
    worker.keep()
    assert claimed() == [grant.pk]
    assert presence.free_the_dead() == 0
    assert claimed() == []


def test_what_a_dead_worker_had_claimed_is_due_at_once(worker, grant, control):
    worker.keep()
    assert claimed() == [grant.pk]
    die(control)
    assert presence.free_the_dead() == 1
    assert claimed() == [grant.pk]


def test_whoever_does_not_say_that_it_lives_is_waited_for(worker, grant, clock):
    assert claimed() == [grant.pk]
    assert presence.free_the_dead() == 0
    assert claimed() == []
    clock.forward(leases.LEASE[StepKind.CUT])
    assert claimed() == [grant.pk]


def test_one_that_lost_its_connection_and_lives_begins_anew(worker, grant, control):
    worker.keep()
    before = worker.mark
    die(control)
    with pytest.raises(DatabaseError):
        worker.keep()
    assert worker.mark == presence.NOBODY
    worker.keep()
    assert worker.mark not in (before, presence.NOBODY)
    assert claimed() == [grant.pk]
    assert presence.free_the_dead() == 0


def test_the_same_lock_in_another_database_keeps_nothing_of_ours(worker, grant, control):
    worker.keep()
    assert claimed() == [grant.pk]
    key = int(worker.mark, 16)
    with control.superuser() as elsewhere:
        elsewhere.execute("SELECT pg_advisory_lock(%s, %s)", [presence.LOCKS, key])
        worker.leave()
        # Its backend takes a moment to be gone, and the lock with it.
        deadline = time.monotonic() + 10
        while not (freed := presence.free_the_dead()) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert freed == 1


def test_who_draws_the_mark_of_another_waits_for_nobody_and_draws_again(worker, monkeypatch):
    draws = iter([6, 6, 7])
    monkeypatch.setattr("secrets.randbelow", lambda _: next(draws))
    worker.keep()
    other = Presence()
    try:
        other.keep()
        assert other.mark == presence.NOBODY
        other.keep()
        assert (worker.mark, other.mark) == ("00000007", "00000008")
    finally:
        other.leave()
