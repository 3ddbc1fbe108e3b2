"""Longer access against whatever happens at the same time, on real connections.

Whichever comes first: the access ends at its old end or goes on to the new one, in the ledger and
on the target alike, and what has ended stays so.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import psycopg
import pytest
from django.db import transaction

from approvals import closing, extending, grants, opening, workflow
from approvals.errors import WrongState
from approvals.models import AccessRequest, ExtensionApproval, Grant, StepKind
from approvals.states import GrantState, RequestState
from audit.log import timeline
from tests.approvals.test_races import at_once, until_blocked, vote
from tests.conftest import Clock, Control
from tests.world import HOUR, World, publish

pytestmark = pytest.mark.usefixtures("committed")

TIMES = 5
WINDOW = 1800


@pytest.fixture
def world(world: World) -> World:
    publish(
        world,
        extensions_most=2,
        extension_max=2 * HOUR,
        max_total=8 * HOUR,
        extension_approval=ExtensionApproval.LAST,
        extension_window=8 * HOUR,
    )
    return world


def opened(world: World) -> Any:
    grant = world.approved()
    opening.open_grant(grant.pk, worker="w")
    grant.refresh_from_db()
    return grant


def ask(world: World, grant: Grant) -> AccessRequest:
    return workflow.ask_longer(grant.pk, by=world.alice, wish=world.wish(duration=HOUR))


def agreed(world: World) -> Any:
    grant = opened(world)
    vote(world, ask(world, grant), "carol")()
    grant.refresh_from_db()
    assert grant.is_extending
    return grant


def extend(grant: Grant) -> Callable[[], Any]:
    return lambda: extending.extend_grant(grant.pk, worker="w")


def revoke(world: World, grant: Grant) -> Callable[[], Any]:
    return lambda: grants.revoke(grant.pk, by=world.bob, reason="Stop.")


def ended(world: World, grant: Grant) -> bool:
    """Whether it ends for good, whatever is tried afterwards."""
    before = Grant.objects.get(pk=grant.pk)
    extend(grant)()
    closing.close_grant(grant.pk, worker="w")
    extend(grant)()
    grant.refresh_from_db()
    assert grant.expires_at == before.expires_at
    return grant.state == GrantState.ENDED and grant.account not in world.server.accounts


def told(grant: Grant, action: str) -> int:
    return timeline(f"request:{grant.request_id}").filter(action=action).count()


@pytest.mark.slow
def test_asked_twice_at_once_is_asked_once(world: World):
    for _ in range(TIMES):
        grant = opened(world)
        results = at_once(*[partial(ask, world, grant)] * 3)
        refused = [one for one in results if isinstance(one, WrongState)]
        assert [one.code for one in refused] == ["asked_already"] * 2
        assert AccessRequest.objects.filter(extends=grant).count() == 1


@pytest.mark.slow
def test_two_approvers_extend_once(world: World):
    for _ in range(TIMES):
        grant = opened(world)
        request = ask(world, grant)
        at_once(vote(world, request, "carol"), vote(world, request, "chen"))
        grant.refresh_from_db()
        assert grant.extended_count == told(grant, "grant.extending") == 1


@pytest.mark.slow
def test_a_decision_against_a_revoke(world: World):
    for _ in range(TIMES):
        grant = opened(world)
        request = ask(world, grant)
        at_once(vote(world, request, "carol"), revoke(world, grant))
        request.refresh_from_db()
        decided = request.state == RequestState.APPROVED
        assert told(grant, "grant.extending") == decided
        assert decided or workflow.expire(request.pk) is not None
        assert ended(world, grant)


@pytest.mark.slow
def test_an_extension_against_a_revoke(world: World):
    for _ in range(TIMES):
        grant = agreed(world)
        at_once(extend(grant), revoke(world, grant))
        assert ended(world, grant)


@pytest.mark.slow
def test_an_extension_against_a_release_and_its_closing(world: World):
    for _ in range(TIMES):
        grant = agreed(world)

        def give_back(grant: Grant = grant) -> None:
            grants.release(grant.pk, by=world.alice)
            closing.close_grant(grant.pk, worker="c")

        at_once(extend(grant), give_back)
        assert ended(world, grant)


@pytest.mark.slow
def test_an_extension_against_the_end(world: World):
    for number in range(2 * TIMES):
        grant = agreed(world)

        def end(grant: Grant = grant) -> None:
            Clock().forward(HOUR)
            closing.close_grant(grant.pk, worker="c")

        if number % 2:
            at_once(extend(grant), end)
        else:
            at_once(end, extend(grant))
        grant.refresh_from_db()
        if grant.expires_at == grant.extended_until:
            assert grant.state == GrantState.ACTIVE
            account = world.server.accounts[grant.account]
            assert grant.expires_at == grant.extended_until == account.valid_until
            assert told(grant, "grant.extended") == 1
            grants.release(grant.pk, by=world.alice)
        else:
            assert told(grant, "grant.extended") == 0
        assert ended(world, grant)


def test_a_decision_while_the_end_is_under_way_comes_too_late(world: World):
    """The sweeper has the access locked to end it when the last vote comes for it."""
    grant = opened(world)
    request = ask(world, grant)
    Clock().forward(HOUR)
    with transaction.atomic():
        jobs = closing.claim(StepKind.CUT, worker="s")
        [decided] = at_once(vote(world, request, "carol"))
    assert isinstance(decided, WrongState)
    assert closing.run_all(jobs)
    refused_and_over(world, grant, request)


def test_a_decision_that_waits_past_the_end_comes_too_late(world: World, control: Control):
    """Somebody else has the access locked, and its end comes before the vote gets it."""
    grant = opened(world)
    request = ask(world, grant)
    Clock().forward(HOUR - 1)
    with psycopg.connect(control.url()) as other, ThreadPoolExecutor(1) as pool:
        other.execute("SELECT FROM approvals_grant WHERE id = %s FOR UPDATE", [grant.pk])
        decides = pool.submit(at_once, vote(world, request, "carol"))
        until_blocked(control)
        Clock().forward(1)
        closing.close_grant(grant.pk, worker="s")  # nor does the sweeper get it: it comes again
        other.commit()
        [decided] = decides.result(timeout=10)
    assert isinstance(decided, WrongState)
    closing.close_grant(grant.pk, worker="s")
    refused_and_over(world, grant, request)


def test_an_end_that_waits_for_the_decision_is_that_of_the_decision(world: World, control: Control):
    """The vote has the access locked when the sweeper comes for it, at the old end."""
    grant = opened(world)
    request = ask(world, grant)
    before = grant.expires_at
    Clock().forward(HOUR - 1)
    with psycopg.connect(control.url()) as other, ThreadPoolExecutor(1) as pool:
        # What people are told is written last, with the request and the access locked.
        other.execute("LOCK TABLE approvals_notice IN SHARE MODE")
        decides = pool.submit(at_once, vote(world, request, "carol"))
        until_blocked(control)
        assert closing.claim(StepKind.CUT, worker="s") == []
        other.commit()
        [decided] = decides.result(timeout=10)
    assert not isinstance(decided, Exception)
    extend(grant)()
    Clock().forward(1)
    closing.close_grant(grant.pk, worker="s")
    grant.refresh_from_db()
    assert (grant.state, grant.expires_at) == (GrantState.ACTIVE, request.wanted_until)
    assert before < grant.expires_at == world.server.accounts[grant.account].valid_until
    Clock().forward(HOUR)
    assert ended(world, grant)


def refused_and_over(world: World, grant: Grant, request: AccessRequest) -> None:
    """The decision has left nothing, and the access is not open past its end."""
    request.refresh_from_db()
    assert request.state == RequestState.PENDING
    assert told(grant, "grant.extending") == 0
    grant.refresh_from_db()
    assert (grant.state == GrantState.ACTIVE, grant.extended_until) == (False, None)
    assert workflow.expire(request.pk) is not None
    request.refresh_from_db()
    assert request.state == RequestState.EXPIRED
    assert ended(world, grant)


@pytest.mark.slow
def test_two_workers_extend_once(world: World):
    for _ in range(TIMES):
        grant = agreed(world)
        at_once(extend(grant), extend(grant))
        extend(grant)()
        grant.refresh_from_db()
        assert not grant.is_extending
        assert told(grant, "grant.extended") == 1
        assert world.server.accounts[grant.account].valid_until == grant.expires_at


@pytest.mark.slow
def test_a_second_extension_against_the_first_being_carried_out(world: World):
    """It is refused while that is under way, and counts from the new end afterwards."""
    for _ in range(TIMES):
        grant = agreed(world)
        _, second = at_once(extend(grant), partial(ask, world, grant))
        extend(grant)()  # what is locked at the moment is left for the next look
        grant.refresh_from_db()
        if isinstance(second, WrongState):
            second = ask(world, grant)
        assert second.starts_at == grant.expires_at == grant.extended_until
        vote(world, second, "carol")()
        extend(grant)()
        grant.refresh_from_db()
        assert (grant.extended_count, grant.expires_at) == (2, second.wanted_until)


@pytest.mark.slow
def test_a_denial_against_the_bridge(world: World):
    publish(
        world,
        extensions_most=1,
        extension_max=2 * HOUR,
        max_total=8 * HOUR,
        extension_approval=ExtensionApproval.LAST,
        extension_window=8 * HOUR,
        bridge=600,
    )
    for _ in range(TIMES):
        grant = opened(world)
        request = ask(world, grant)
        before = grant.expires_at
        Clock().forward(HOUR - 15)
        at_once(vote(world, request, "carol", "deny"), extending.bridge_due)
        extend(grant)()
        grant.refresh_from_db()
        assert (grant.state, grant.expires_at) == (GrantState.ACTIVE, before)
        grants.release(grant.pk, by=world.alice)
        assert ended(world, grant)
