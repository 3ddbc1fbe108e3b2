"""Lent votes against whose they are, and against their end, on real connections."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import psycopg
import pytest

from approvals import delegating, workflow
from approvals.delegating import Lending
from approvals.errors import DebugflowError, Invalid, NotAllowed, WrongState
from approvals.models import Delegation, Grant, Vote
from approvals.states import RequestState
from tests.approvals.test_delegating import DAY, after, lend
from tests.approvals.test_races import actions, at_once, until_blocked, vote
from tests.conftest import Control
from tests.world import World, publish, stage

pytestmark = pytest.mark.usefixtures("committed")


@pytest.mark.slow
def test_the_delegate_against_whose_vote_it_is(world: World):
    """One vote of bob's counts, and if both gave it, it is his own."""
    publish(world, stage(world, "Two", "dba", minimum=2))
    lend(world, "bob", "olga")
    for _ in range(6):
        request = world.submit()
        results = at_once(vote(world, request, "olga"), vote(world, request, "bob"))
        [counts] = Vote.objects.counting().filter(stage__request=request)
        assert counts.whose == world.bob.pk
        assert counts.voter == world.bob
        refused = [one for one in results if isinstance(one, DebugflowError)]
        assert len(refused) + actions(request)["vote.cast"] + actions(request)["vote.replaced"] == 2
        workflow.cancel(request.pk, by=world.alice)


@pytest.mark.slow
def test_two_delegates_of_one_person(world: World):
    """bob lends to carol, who lends on to olga: one of them gives bob's vote, once."""
    publish(world, stage(world, "Two", "dba", minimum=2))
    lend(world, "bob", "carol")
    lend(world, "carol", "olga")
    for _ in range(5):
        request = world.submit()
        results = at_once(vote(world, request, "carol"), vote(world, request, "olga"))
        assert sum(isinstance(one, NotAllowed) for one in results) == 1
        assert Vote.objects.counting().filter(stage__request=request).count() == 1
        workflow.cancel(request.pk, by=world.alice)


def test_the_same_delegate_twice_for_the_last_place(world: World):
    publish(world, stage(world, "One", "dba"))
    lend(world, "bob", "olga")
    for _ in range(5):
        request = world.submit()
        at_once(*[vote(world, request, "olga")] * 3)
        request.refresh_from_db()
        assert request.state == RequestState.APPROVED
        assert Grant.objects.filter(request=request).count() == 1


def test_a_delegation_that_ends_while_the_vote_waits_for_the_lock(world: World, control: Control):
    publish(world, stage(world, "One", "dba"))
    request, row = world.submit(), lend(world, "bob", "olga")
    with psycopg.connect(control.url()) as other:
        other.execute("SELECT FROM approvals_accessrequest WHERE id = %s FOR UPDATE", [request.pk])
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(at_once, vote(world, request, "olga"))
            until_blocked(control)
            delegating.end_delegation(row.pk, by=world.bob)
            other.commit()
            [result] = waiting.result(timeout=10)
    assert isinstance(result, NotAllowed)
    assert not Vote.objects.exists()


def test_a_delegation_that_runs_out_while_the_vote_waits(world: World, control: Control, clock):
    """The time is read after the lock is had, and no sweeper has to have come by."""
    publish(world, stage(world, "One", "dba"), pending_ttl=3 * DAY)
    request = world.submit()
    lend(world, "bob", "olga")
    with psycopg.connect(control.url()) as other:
        other.execute("SELECT FROM approvals_accessrequest WHERE id = %s FOR UPDATE", [request.pk])
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(at_once, vote(world, request, "olga"))
            until_blocked(control)
            clock.forward(DAY)
            other.commit()
            [result] = waiting.result(timeout=10)
    assert isinstance(result, NotAllowed)
    assert not Vote.objects.exists()


def test_two_halves_of_a_circle(world: World):
    """Whoever comes second is told that it would be one."""
    for _ in range(5):
        ends_at = after(DAY)
        results = at_once(
            *[
                partial(
                    delegating.delegate,
                    world.people[person].pk,
                    by=world.people[person],
                    lending=Lending(delegate=to, ends_at=ends_at),
                )
                for person, to in (("bob", "carol"), ("carol", "dan"), ("dan", "bob"))
            ]
        )
        assert sum(isinstance(one, Invalid) for one in results) == 1
        for row in Delegation.objects.not_over():
            delegating.end_delegation(row.pk, by=row.person)


def test_two_who_lend_the_same_votes(world: World):
    lending = [Lending(delegate=to, ends_at=after(DAY)) for to in ("olga", "dan")]
    results = at_once(
        *[partial(delegating.delegate, world.bob.pk, by=world.bob, lending=one) for one in lending]
    )
    assert sum(isinstance(one, WrongState) for one in results) == 1
    assert Delegation.objects.count() == 1


def test_two_sweepers_tell_of_a_beginning_once(world: World, clock):
    lend(world, "bob", "olga", starts=60)
    clock.forward(60)
    assert sum(at_once(*[delegating.keep] * 4)) == 1
