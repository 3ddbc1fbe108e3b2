"""Two things at once, on real connections: whoever comes second must notice.

Each race is run with both orders possible: the threads meet at a barrier, then go.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import psycopg
import pytest
from django.db import connection, connections, transaction

from approvals import administration, closing, grants, leases, opening, workflow
from approvals.errors import DebugflowError, NotAllowed, WrongState
from approvals.models import AccessLevel, AccessRequest, Grant, StepKind, Vote
from approvals.narrowing import Less, Lower
from approvals.provisioning.memory import MemoryServer
from approvals.states import GrantState, RequestState
from audit.log import timeline
from audit.models import Event
from tests.conftest import Control
from tests.world import World, publish, stage

pytestmark = pytest.mark.usefixtures("committed")


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Run the calls in threads of their own, released together; their results or errors."""
    barrier = threading.Barrier(len(calls))

    def go(call: Callable[[], Any]) -> Any:
        try:
            connection.ensure_connection()
            barrier.wait(timeout=10)
            return call()
        except DebugflowError as error:
            return error
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(go, calls))


def vote(world: World, request: AccessRequest, who: str, decision: str = "approve") -> Any:
    return lambda: workflow.vote(
        request.pk,
        by=world.people[who],
        decision=decision,
        scope_hash=request.scope_hash,
        comment="So be it.",
    )


def actions(request: AccessRequest) -> Counter[str]:
    return Counter(event.action for event in timeline(f"request:{request.pk}"))


def test_two_approvers_of_the_last_place(world: World):
    """One of them completes the chain; the other is told that it is done. One grant comes of it."""
    publish(world, stage(world, "Database", "dba"))
    for _ in range(5):
        request = world.submit()
        results = at_once(vote(world, request, "bob"), vote(world, request, "dan"))
        assert sorted(type(result).__name__ for result in results) == [
            "AccessRequest",
            "WrongState",
        ]
        assert Grant.objects.filter(request=request).count() == 1
        told = actions(request)
        assert told["accessrequest.approved"] == told["grant.scheduled"] == 1
        assert told["vote.cast"] == 1
        assert Event.objects.filter(action="vote.refused", subject_id=str(request.pk)).count() == 1


def test_two_approvers_of_two_places_both_count(world: World):
    publish(world, stage(world, "Two", "dba", minimum=2))
    for _ in range(5):
        request = world.submit()
        results = at_once(vote(world, request, "bob"), vote(world, request, "dan"))
        assert not any(isinstance(result, Exception) for result in results)
        request.refresh_from_db()
        assert request.state == RequestState.APPROVED


def test_one_person_twice_at_once_is_one_person(world: World):
    publish(world, stage(world, "Two", "dba", minimum=2))
    request = world.submit()
    at_once(*[vote(world, request, "bob")] * 4)
    request.refresh_from_db()
    assert request.state == RequestState.PENDING
    assert Vote.objects.counting().count() == 1


def test_approve_against_deny(world: World):
    publish(world, stage(world, "Database", "dba"))
    for _ in range(5):
        request = world.submit()
        at_once(vote(world, request, "bob"), vote(world, request, "dan", "deny"))
        request.refresh_from_db()
        told = actions(request)
        assert told["accessrequest.approved"] + told["accessrequest.denied"] == 1
        made = Grant.objects.filter(request=request).count()
        assert made == (request.state == RequestState.APPROVED)


def test_approve_against_cancel(world: World):
    publish(world, stage(world, "Database", "dba"))
    for _ in range(5):
        request = world.submit()
        cancel = partial(workflow.cancel, request.pk, by=world.alice)
        results = at_once(vote(world, request, "bob"), cancel)
        assert sum(isinstance(result, WrongState) for result in results) == 1
        request.refresh_from_db()
        made = Grant.objects.filter(request=request).count()
        assert made == (request.state == RequestState.APPROVED)


def test_vote_against_level_edit(world: World):
    """A vote never counts for a scope its author did not see."""
    publish(world, stage(world, "Database", "dba"))
    for number in range(5):
        request = world.submit()
        world.server.levels["read-only"] = (f"may read {number}",)

        def edit() -> None:
            level = type(world.read).objects.select_related("target").get(pk=world.read.pk)
            administration.save_level(level, by=world.ada)

        at_once(vote(world, request, "bob"), edit)
        request.refresh_from_db()
        counting = Vote.objects.counting().filter(stage__request=request)
        assert {cast.scope_hash for cast in counting} <= {request.scope_hash}
        for grant in Grant.objects.filter(request=request):
            opening.open_grant(grant.pk, worker="w1")
            grant.refresh_from_db()
            assert grant.end_code == "scope_changed"
        if request.state == RequestState.PENDING:
            workflow.cancel(request.pk, by=world.alice)


def test_vote_with_less_against_edit_of_the_lower_level(world: World):
    """Nothing is opened that its approver did not read, and neither waits for ever."""
    publish(world, stage(world, "Two", "dba", minimum=2))
    for number in range(3):
        request = world.submit(level=world.write)
        level = AccessLevel.objects.select_related("target").get(pk=world.read.pk)
        less = Less(level=level.pk, level_hash=Lower(level).hash)
        world.server.levels["read-only"] = (f"may read {number}",)
        results = at_once(
            partial(world.vote, request, "bob", less=less),
            partial(administration.save_level, level, by=world.ada),
            partial(world.vote, request, "dan"),
        )
        codes = {result.code for result in results if isinstance(result, DebugflowError)}
        assert codes <= {"scope_changed"}
        request.refresh_from_db()
        for grant in Grant.objects.filter(request=request):  # decided before the edit
            opening.open_grant(grant.pk, worker="w1")
            grant.refresh_from_db()
            assert (grant.level, grant.end_code) == (level, "scope_changed")
        if request.state == RequestState.PENDING:
            here = Vote.objects.counting().filter(stage__request=request)
            assert not here.filter(reduced_level=level).exists()
            workflow.cancel(request.pk, by=world.alice)


@pytest.mark.slow
def test_submit_against_level_edit(world: World):
    """No request is ever pending with a scope older than its level."""
    for number in range(5):
        world.server.levels["read-only"] = (f"may read {number}",)

        def edit() -> None:
            level = type(world.read).objects.select_related("target").get(pk=world.read.pk)
            administration.save_level(level, by=world.ada)

        at_once(lambda: world.submit(), edit)
        request = AccessRequest.objects.undecided().get()
        assert request.scope["level"]["summary"] == [f"may read {number}"]
        workflow.cancel(request.pk, by=world.alice)


def test_the_same_request_twice_at_once(world: World):
    for _ in range(3):
        results = at_once(*[lambda: world.submit()] * 3)
        assert sum(isinstance(result, WrongState) for result in results) == 2
        request = AccessRequest.objects.undecided().get()
        workflow.cancel(request.pk, by=world.alice)


def test_two_workers_open_once(world: World):
    for _ in range(3):
        grant = world.approved()
        at_once(*[partial(opening.open_grant, grant.pk, worker="w")] * 4)
        grant.refresh_from_db()
        assert grant.state == GrantState.ACTIVE
        assert world.server.calls.count("open") == 1
        world.server.calls.clear()
        grants.release(grant.pk, by=world.alice)


@pytest.mark.slow
def test_revoke_while_opening(world: World):
    """Whichever comes first, nothing is left and the end is told once."""
    for _ in range(5):
        grant = world.approved()
        revoke = partial(grants.revoke, grant.pk, by=world.olga, reason="Stop.")
        at_once(partial(opening.open_grant, grant.pk, worker="w1"), revoke)
        closing.close_grant(grant.pk, worker="w2")
        grant.refresh_from_db()
        assert grant.state == GrantState.ENDED
        assert grant.account not in world.server.accounts
        assert actions(grant.request)["grant.ended"] == 1


def test_double_revoke(world: World):
    grant = world.approved()
    opening.open_grant(grant.pk, worker="w1")
    results = at_once(
        lambda: grants.revoke(grant.pk, by=world.olga, reason="One."),
        lambda: grants.revoke(grant.pk, by=world.bob, reason="Two."),
    )
    assert sum(isinstance(result, WrongState) for result in results) == 1
    assert actions(grant.request)["grant.revoking"] == 1


@pytest.mark.slow
def test_a_credential_is_shown_once_however_many_ask_at_once(world: World):
    grant = world.approved()
    opening.open_grant(grant.pk, worker="w1")
    results = at_once(*[partial(grants.reveal, grant.pk, by=world.alice)] * 4)
    assert sum(isinstance(result, WrongState) for result in results) == 3
    assert actions(grant.request)["grant.revealed"] == 1


def test_release_against_expiry(world: World, clock):
    for _ in range(3):
        grant = world.approved()
        opening.open_grant(grant.pk, worker="w1")
        clock.forward(3600)
        at_once(
            partial(grants.release, grant.pk, by=world.alice),
            partial(closing.close_grant, grant.pk, worker="w1"),
        )
        closing.close_grant(grant.pk, worker="w2")
        grant.refresh_from_db()
        assert grant.state == GrantState.ENDED
        assert grant.end_reason in ("released", "expired")
        assert actions(grant.request)["grant.revoking"] == 1


def test_two_sweepers_share_the_work(world: World, clock):
    """Each grant is cut once, however many look for it."""
    for name in ("alice", "amir"):
        opening.open_grant(world.approved(name).pk, worker="w1")
    clock.forward(3600)
    found = at_once(*[lambda: closing.claim(StepKind.CUT, worker="s")] * 4)
    assert sum(len(jobs) for jobs in found) == 2
    assert len({job.grant.pk for jobs in found for job in jobs}) == 2


def test_a_vote_that_waited_past_the_deadline_is_late(world: World, control: Control, clock):
    """The time is read after the lock is held, not when the transaction began."""
    request = world.submit()
    with psycopg.connect(control.url()) as other:
        other.execute("SELECT FROM approvals_accessrequest WHERE id = %s FOR UPDATE", [request.pk])
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(at_once, vote(world, request, "bob"))
            until_blocked(control)
            clock.forward(86400)
            other.commit()
            [result] = waiting.result(timeout=10)
    assert isinstance(result, WrongState)
    assert not Vote.objects.exists()


def until_blocked(control: Control, many: int = 1) -> None:
    """Wait until so many backends wait for a lock."""
    with control.superuser() as watcher:
        for _ in range(1000):
            row = watcher.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            ).fetchone()
            if row and row[0] >= many:
                return
            watcher.execute("SELECT pg_sleep(0.01)")
    raise AssertionError("nobody waits for a lock")


def test_a_membership_that_ends_before_the_lock_is_had_does_not_count(
    world: World, control: Control
):
    request = world.submit()
    with psycopg.connect(control.url()) as other:
        other.execute("SELECT FROM approvals_accessrequest WHERE id = %s FOR UPDATE", [request.pk])
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(at_once, vote(world, request, "bob"))
            until_blocked(control)
            world.groups["dba"].user_set.remove(world.bob)
            other.commit()
            [result] = waiting.result(timeout=10)
    assert isinstance(result, NotAllowed)
    assert result.code == "not_eligible"


def test_a_change_and_its_event_stand_or_fall_together(world: World, monkeypatch):
    """Law 7: where the Event cannot be written, nothing happened."""
    request = world.submit()
    before = Event.objects.count()

    def refuse(*args: object) -> None:
        raise RuntimeError("no room for events")

    monkeypatch.setattr("audit.log._write", refuse)
    with pytest.raises(RuntimeError, match="no room"):
        world.vote(request, "bob")
    monkeypatch.undo()
    request.refresh_from_db()
    assert not Vote.objects.exists()
    assert request.stages.get(order=0).state == "open"
    assert Event.objects.count() == before


def test_a_refusal_is_told_after_the_roll_back(world: World):
    request = world.submit()
    with pytest.raises(NotAllowed):
        world.vote(request, "alice")
    told = Event.objects.latest("id")
    assert (told.action, told.actor_name, told.data) == (
        "vote.refused",
        "alice",
        {"code": "self_approval"},
    )
    assert told.thread == f"request:{request.pk}"


def test_every_change_of_state_has_its_event(world: World, clock):
    """Law 7, by the tables: as many Events of moves as rows have moved."""
    grant = world.approved()
    opening.open_grant(grant.pk, worker="w1")
    clock.forward(3600)
    closing.close_grant(grant.pk, worker="w1")
    denied = world.submit()
    world.vote(denied, "bob", "deny")
    for subject, states in (
        ("accessrequest", {"approved": 1, "denied": 1}),
        ("grant", {"provisioning": 1, "active": 1, "revoking": 1, "ended": 1}),
    ):
        for state, count in states.items():
            assert Event.objects.filter(action=f"{subject}.{state}").count() == count
    with transaction.atomic():
        assert not [event for event in Event.objects.all() if event.mismatches()]


@pytest.mark.slow
def test_a_target_that_moves_against_an_opening(world: World):
    """Nothing is opened on the old place after the new one is stored, so nothing is forgotten."""
    for number in range(6):
        grant = world.approved()
        old = MemoryServer.named(world.target.config["name"])

        def move(number: int = number) -> None:
            target = type(world.target).objects.get(pk=world.target.pk)
            target.config = {"name": f"place-{number}"}
            administration.save_target(target, by=world.ada, clear_secrets={})

        MemoryServer.named(f"place-{number}").levels |= old.levels
        at_once(partial(opening.open_grant, grant.pk, worker="w1"), move)
        opening.open_grant(grant.pk, worker="w1")
        grant.refresh_from_db()
        world.target.refresh_from_db()
        if world.target.config["name"] == f"place-{number}":
            assert (grant.state, grant.end_code) == (GrantState.ENDED, "scope_changed")
            assert not old.accounts
        else:
            assert grant.state == GrantState.ACTIVE
            grants.release(grant.pk, by=world.alice)
            closing.close_grant(grant.pk, worker="w1")
            assert not old.accounts


def test_a_vote_that_waited_decides_on_what_is_so_after_the_wait(world: World, control: Control):
    """After a wait, rows joined to the locked one would be those of before it."""
    request = world.submit()
    world.vote(request, "bob")
    with psycopg.connect(control.url()) as other:
        other.execute("SELECT FROM approvals_accessrequest WHERE id = %s FOR UPDATE", [request.pk])
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(at_once, vote(world, request, "carol"))
            until_blocked(control)
            world.policy.refresh_from_db()
            world.policy.enabled = False
            administration.change_policy(world.policy, by=world.ada)
            type(world.alice).objects.filter(pk=world.alice.pk).update(is_active=False)
            other.commit()
            [result] = waiting.result(timeout=10)
    assert isinstance(result, WrongState)
    request.refresh_from_db()
    assert request.state == RequestState.PENDING
    assert not Grant.objects.exists()


def test_while_a_target_is_being_changed_nothing_is_opened_on_it(world: World, control: Control):
    """Left for the next look, which sees what has become of it."""
    grant = world.approved()
    with psycopg.connect(control.url()) as other:
        other.execute(
            "SELECT FROM approvals_target WHERE id = %s FOR NO KEY UPDATE", [world.target.pk]
        )
        opening.open_grant(grant.pk, worker="w1")
        grant.refresh_from_db()
        assert grant.state == GrantState.SCHEDULED
        assert "open" not in world.server.calls
    opening.open_grant(grant.pk, worker="w1")
    grant.refresh_from_db()
    assert grant.state == GrantState.ACTIVE


def test_two_who_look_at_once_share_what_is_due_at_one_target(world: World):
    """Whoever looks first locks what one piece of work takes, and not what it must leave."""
    made = [world.approved().pk for _ in range(4)]
    looked, second = threading.Event(), threading.Event()

    def pick(before: threading.Event, done: threading.Event, until: threading.Event) -> list[int]:
        before.wait(timeout=10)
        try:
            with transaction.atomic():
                picked = leases.pick(opening.due(), leases.Room(free=9, batch=2))
                done.set()
                until.wait(timeout=10)
                return [grant.pk for grant in picked]
        finally:
            done.set()
            connections.close_all()

    at_hand = threading.Event()
    at_hand.set()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(pick, at_hand, looked, second)
        other = pool.submit(pick, looked, second, at_hand)
        assert first.result() == made[:2]
        assert other.result() == made[2:]
