"""The sweeper by itself: what it finds, whom it keeps waiting, and what it survives."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from django.db import connections
from guardian.shortcuts import assign_perm

from approvals import administration, closing, delegating, grants, leases, opening, rounds
from approvals.delegating import Lending
from approvals.errors import ProvisionError
from approvals.models import AccessLevel, AccessRequest, Delegation, Grant, StepKind, Target
from approvals.provisioning.base import Account
from approvals.provisioning.memory import MemoryProvisioner, MemoryServer
from approvals.states import GrantState, RequestState
from approvals.sweeper import Sweeper
from audit import clock as database_clock
from audit.models import Event
from tests.conftest import Control
from tests.world import World, publish, stage

pytestmark = pytest.mark.usefixtures("committed")


@contextmanager
def sweeping(count: int = 1, *, interval: float = 0.05, **options: Any) -> Iterator[list[Sweeper]]:
    sweepers = [Sweeper(interval=interval, name=f"s{n}", **options) for n in range(count)]
    threads = [threading.Thread(target=sweeper.run) for sweeper in sweepers]
    for thread in threads:
        thread.start()
    try:
        yield sweepers
    finally:
        for sweeper in sweepers:
            sweeper.stop()
        for thread in threads:
            thread.join(timeout=20)
            assert not thread.is_alive()


def eventually(check: Callable[[], bool], *, within: float = 10) -> None:
    deadline = time.monotonic() + within
    while not check():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


def state_of(grant: Grant) -> str:
    return str(Grant.objects.values_list("state", flat=True).get(pk=grant.pk))


@pytest.mark.slow
def test_it_opens_and_ends_without_any_bell(world: World, clock):
    grant = world.approved()
    with sweeping():
        eventually(lambda: state_of(grant) == GrantState.ACTIVE)
        clock.forward(3600)
        eventually(lambda: state_of(grant) == GrantState.ENDED)
    assert not world.server.accounts


def test_it_closes_requests_whose_time_is_over(world: World, clock):
    request = world.submit()
    clock.forward(86400)
    with sweeping():
        eventually(lambda: AccessRequest.objects.get(pk=request.pk).state == RequestState.EXPIRED)


@pytest.mark.slow
def test_many_due_at_once_are_each_ended_once(world: World, clock):
    made = [world.approved(who, level=level) for who, level in pairs(world)]
    for grant in made:
        opening.open_grant(grant.pk, worker="w")
    world.server.calls.clear()
    clock.forward(3600)
    with sweeping(3):
        eventually(lambda: not Grant.objects.not_ended().exists())
    assert world.server.calls.count("cut") == world.server.calls.count("clean") == len(made)


def pairs(world: World) -> list[tuple[str, AccessLevel]]:
    return [(who, level) for who in ("alice", "amir") for level in (world.read, world.write)]


def second_target(world: World) -> tuple[Target, AccessLevel]:
    target = Target(name="billing", kind="memory", environment="production")
    target.config = {"name": "billing"}
    administration.save_target(target, by=world.ada, clear_secrets={})
    level = AccessLevel(
        target=target,
        name="read-only",
        rights={"level": "read-only"},
        risk="low",
        rank=1,
        max_duration=3600,
    )
    administration.save_level(level, by=world.ada)
    assign_perm("approvals.request_accesslevel", world.groups["developers"], level)
    return target, level


@pytest.mark.slow
def test_a_target_that_hangs_does_not_hold_up_another(world: World, clock, monkeypatch):
    """The dead one has more due than there are threads; the live one is cut all the same."""
    _, level = second_target(world)
    dead = [world.approved(who, level=where) for who, where in pairs(world)]
    live = [world.approved(who, level=level) for who in ("alice", "amir")]
    for grant in (*dead, *live):
        opening.open_grant(grant.pk, worker="w")
    hang = threading.Event()

    class Stuck(MemoryServer):
        def enter(self, verb: str) -> None:
            super().enter(verb)
            if verb == "cut":
                self.lock.release()  # a hung target keeps its own callers waiting, nobody else
                hang.wait(timeout=30)
                self.lock.acquire()
                raise ProvisionError("The target does not answer.", code="unreachable")

    world.server.__class__ = Stuck
    clock.forward(3600)
    with sweeping(threads=4):
        try:
            eventually(lambda: all(state_of(grant) == GrantState.ENDED for grant in live))
            assert all(state_of(grant) != GrantState.ENDED for grant in dead)
            assert world.server.calls.count("cut") <= leases.PER_TARGET
        finally:
            hang.set()
            world.server.__class__ = MemoryServer
        clock.forward(5)
        eventually(lambda: not Grant.objects.not_ended().exists())


@pytest.mark.slow
def test_cleanups_that_hang_do_not_hold_up_a_cut(world: World, monkeypatch):
    """On the very same target: a clean-up may take long, a cut may not wait for it."""
    hanging = [world.approved("alice", level=level) for level in (world.read, world.write)]
    due = world.approved("amir")
    for grant in (*hanging, due):
        opening.open_grant(grant.pk, worker="w")
    for grant in hanging:
        grants.release(grant.pk, by=world.alice)
    hang = threading.Event()

    def clean(self: object, account: object) -> None:
        assert hang.wait(timeout=30)

    clean_for_real = MemoryProvisioner.clean
    monkeypatch.setattr(MemoryProvisioner, "clean", clean)
    with sweeping(threads=2):
        try:
            eventually(lambda: Grant.objects.filter(cut_at__isnull=False).count() == 2)
            grants.release(due.pk, by=world.amir)
            eventually(lambda: Grant.objects.get(pk=due.pk).cut_at is not None)
            assert not Grant.objects.filter(state=GrantState.ENDED).exists()
        finally:
            monkeypatch.setattr(MemoryProvisioner, "clean", clean_for_real)
            hang.set()


def test_a_failing_target_gets_one_attempt_at_a_time(world: World):
    room = leases.Room(free=9, batch=2, failing=frozenset({7}), not_at=frozenset({9}))
    assert [room.takes(7, first_cut=False) for _ in range(2)] == [True, False]
    assert [room.takes(8, first_cut=False) for _ in range(3)] == [True, True, False]
    assert room.in_flight == {7: 1, 8: 1}
    assert room.full() == [9]
    assert leases.Room(free=9, in_flight=Counter({8: leases.PER_TARGET})).full() == [8]


@pytest.mark.slow
def test_much_due_at_a_failing_target_does_not_hide_what_is_due_elsewhere(world: World, clock):
    """More than a look reads is due there, all tried before, and its one attempt is under way."""
    _, level = second_target(world)
    failing = [world.approved(who, level=where) for who, where in pairs(world)]
    live = world.approved("alice", level=level)
    for grant in (*failing, live):
        opening.open_grant(grant.pk, worker="w")
    clock.forward(4 * 3600)
    ids = [grant.pk for grant in failing]
    for grant in Grant.objects.filter(pk__in=ids):
        for job in closing.claim(StepKind.CUT, worker="w", only=grant.pk):
            closing._failed(job, ProvisionError("It does not answer."))
    clock.forward(10)
    down = world.target.pk
    room = leases.Room(free=1, failing=frozenset({down}), in_flight=Counter({down: 1}))
    assert [job.grant for job in closing.claim(StepKind.CUT, worker="w", room=room)] == [live]


def test_what_was_handed_back_was_no_attempt(world: World):
    grant = world.approved()
    for _ in range(3):
        opening.run_all(opening.claim(worker="w", only=grant.pk), stopping=lambda: True)
    opening.open_grant(grant.pk, worker="w")
    assert state_of(grant) == GrantState.ACTIVE
    assert grant.steps.get().attempts == 1


@pytest.mark.slow
def test_it_outlives_its_database_connections(world: World, clock, control: Control):
    grant = world.approved()
    with sweeping():
        eventually(lambda: state_of(grant) == GrantState.ACTIVE)
        connections.close_all()
        with control.superuser() as server:
            for _ in range(5):
                server.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE usename = 'debugflow_app'"
                )
                server.execute("SELECT pg_sleep(0.1)")
        clock.forward(3600)
        eventually(lambda: state_of(grant) == GrantState.ENDED)


@pytest.mark.slow
def test_a_defect_in_one_attempt_stops_nothing_else(world: World, clock, monkeypatch):
    broken, sound = world.approved("alice"), world.approved("amir")
    for grant in (broken, sound):
        opening.open_grant(grant.pk, worker="w")
    cut = type(world.server).enter

    def enter(self: MemoryServer, verb: str) -> None:
        if verb == "cut" and not self.calls.count("broken"):
            self.calls.append("broken")
            raise ZeroDivisionError
        cut(self, verb)

    monkeypatch.setattr(MemoryServer, "enter", enter)
    clock.forward(3600)
    with sweeping():
        eventually(Grant.objects.filter(state=GrantState.ENDED).exists)
        clock.forward(leases.LEASE[StepKind.CUT])
        eventually(lambda: not Grant.objects.not_ended().exists())


def test_effective_state_does_not_wait_for_a_sweeper(world: World, clock):
    grant = world.approved()
    opening.open_grant(grant.pk, worker="w")
    grant.refresh_from_db()
    now = grant.expires_at
    assert now is not None
    assert grants.is_usable(grant, now - timedelta(microseconds=1))
    assert not grants.is_usable(grant, now)
    assert grants.shown_state(grant, now) == "closing"
    assert grants.is_usable(grant, datetime.now(UTC))


@pytest.mark.slow
def test_a_request_that_somebody_holds_locked_stops_nothing(world: World, clock, control: Control):
    """A voter's process that is paused in mid-vote holds a row past its end; all else goes on."""
    held, other = world.submit(), world.submit(level=world.write)
    grant = world.approved("amir")
    with psycopg.connect(control.url()) as voter:
        voter.execute("SELECT FROM approvals_accessrequest WHERE id = %s FOR UPDATE", [held.pk])
        clock.forward(3000)
        with sweeping(2):
            eventually(lambda: state_of(grant) == GrantState.ACTIVE)
            clock.forward(86400)
            eventually(lambda: state_of(grant) == GrantState.ENDED)
            eventually(lambda: _is_expired(other))
            assert not _is_expired(held)
            voter.rollback()
            eventually(lambda: _is_expired(held))


def _is_expired(request: AccessRequest) -> bool:
    return AccessRequest.objects.get(pk=request.pk).state == RequestState.EXPIRED


def test_one_request_that_cannot_be_closed_keeps_no_other_open(world: World, clock, monkeypatch):
    broken, sound = world.submit("alice"), world.submit("amir")
    decide = rounds.decide

    def fail(request: AccessRequest, *args: Any, **kwargs: Any) -> None:
        if request.pk == broken.pk:
            raise RuntimeError("a defect")
        decide(request, *args, **kwargs)

    monkeypatch.setattr(rounds, "decide", fail)
    clock.forward(86400)
    with sweeping():
        eventually(lambda: AccessRequest.objects.get(pk=sound.pk).state == RequestState.EXPIRED)
        assert AccessRequest.objects.get(pk=broken.pk).state == RequestState.PENDING
        monkeypatch.undo()
        eventually(lambda: AccessRequest.objects.get(pk=broken.pk).state == RequestState.EXPIRED)


@pytest.mark.slow
def test_a_defect_in_a_look_does_not_end_the_sweeper(world: World, monkeypatch):
    grant = world.approved()
    looks = iter([RuntimeError("can't start new thread"), ValueError("a defect")])
    claim = closing.claim

    def fail(*args: Any, **kwargs: Any) -> Any:
        if (error := next(looks, None)) is not None:
            raise error
        return claim(*args, **kwargs)

    monkeypatch.setattr(closing, "claim", fail)
    with sweeping():
        eventually(lambda: state_of(grant) == GrantState.ACTIVE)


@pytest.mark.slow
def test_a_defect_in_one_cut_does_not_delay_those_beside_it(world: World, clock, monkeypatch):
    made = [world.approved(who, level=level) for who, level in pairs(world)]
    for grant in made:
        opening.open_grant(grant.pk, worker="w")
    cut = MemoryProvisioner.cut

    def fail(self: MemoryProvisioner, account: Account) -> None:
        if account.grant_id == made[0].pk:
            raise ZeroDivisionError
        cut(self, account)

    monkeypatch.setattr(MemoryProvisioner, "cut", fail)
    # Whoever dies with the work loses its lease only then, so that the others were not dropped.
    monkeypatch.setitem(leases.LEASE, StepKind.CUT, 600)
    clock.forward(3600)
    with sweeping():
        eventually(lambda: Grant.objects.filter(cut_at__isnull=False).count() == 3)
        eventually(lambda: Grant.objects.get(pk=made[0].pk).stuck_since is not None)
        seen = Grant.objects.get(pk=made[0].pk)
        assert "ZeroDivisionError" in seen.last_error
        monkeypatch.undo()
        clock.forward(5)
        eventually(lambda: not Grant.objects.not_ended().exists())


def test_a_first_cut_does_not_wait_for_those_that_keep_failing(world: World):
    """One holder's sessions that do not react must not keep another's access open."""
    room = leases.Room(free=9, failing=frozenset({7}), in_flight=Counter({7: 1}))
    assert not room.takes(7, first_cut=False)
    assert room.takes(7, first_cut=True)
    tried, fresh = world.approved("alice"), world.approved("amir")
    for grant, attempts in ((tried, 3), (fresh, 0)):
        opening.open_grant(grant.pk, worker="w")
        grants.release(grant.pk, by=grant.beneficiary)
        Grant.objects.filter(pk=grant.pk).update(attempts=attempts)
    assert list(closing.cuts_due()) == [fresh, tried]


def test_a_long_name_stops_no_worker(world: World):
    grant = world.approved()
    opening.open_grant(grant.pk, worker="revoke-worker@" + "pod-" * 30)
    assert state_of(grant) == GrantState.ACTIVE


@pytest.mark.slow
def test_it_reminds_escalates_and_notices_who_left(world: World, clock):
    owners = world.groups["owners"]
    times = {"remind_every": 600, "max_reminders": 1, "escalate_after": 1200}
    publish(world, stage(world, "Database", "dba", escalation_group=owners, **times))
    request = world.submit()
    waiting = request.stages.get()

    def told(action: str) -> bool:
        return Event.objects.filter(action=action, subject_id=str(waiting.pk)).exists()

    now = database_clock.now()
    lending = Lending(
        delegate="olga",
        starts_at=now + timedelta(seconds=600),
        ends_at=now + timedelta(seconds=900),
    )
    lent = delegating.delegate(world.bob.pk, by=world.bob, lending=lending)
    with sweeping(2):
        clock.forward(600)
        eventually(lambda: told("requeststage.reminded"))
        eventually(lambda: Delegation.objects.get(pk=lent.pk).begun_at is not None)
        clock.forward(600)
        eventually(lambda: told("requeststage.escalated"))
        eventually(lambda: Delegation.objects.get(pk=lent.pk).ended_at is not None)
        world.groups["dba"].user_set.clear()
        owners.user_set.clear()
        eventually(lambda: told("requeststage.stalled"))
    assert waiting.nudges.count() == 2
