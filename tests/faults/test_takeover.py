"""Whoever lost a lease to another says nothing and leaves nothing, while the other is at it.

And nobody waits for the leases of the dead.
"""

from __future__ import annotations

import select
import time
from contextlib import ExitStack

import pytest

from approvals import closing, grants, leases, opening
from approvals.models import Grant, StepKind
from approvals.states import GrantState
from tests.faults.children import child
from tests.faults.place import Place, eventually, has_ended, state_of
from tests.faults.work import sweep, sweep_until
from tests.world import World


def forward_past(clock, kind: StepKind) -> None:
    clock.forward(leases.LEASE[kind] + 1)


def test_a_late_opener_makes_no_account_beside_the_one_that_took_over(world: World, clock):
    grant = world.approved()
    [late] = opening.claim(worker="w1", only=grant.pk)
    forward_past(clock, StepKind.OPEN)
    [taken] = opening.claim(worker="w2", only=grant.pk)
    opening.run_all([late])
    assert not world.server.accounts
    assert state_of(grant) == GrantState.PROVISIONING
    opening.run_all([taken])
    assert state_of(grant) == GrantState.ACTIVE


def test_a_late_closer_does_not_say_ended_for_the_one_that_took_over(world: World, clock):
    grant = world.approved()
    opening.open_grant(grant.pk, worker="w")
    grants.release(grant.pk, by=world.alice)
    closing.run_all(closing.claim(StepKind.CUT, worker="w", only=grant.pk))
    [late] = closing.claim(StepKind.CLEAN, worker="w1", only=grant.pk)
    forward_past(clock, StepKind.CLEAN)
    [taken] = closing.claim(StepKind.CLEAN, worker="w2", only=grant.pk)
    closing.run_all([late])
    assert state_of(grant) == GrantState.REVOKING
    assert Grant.objects.get(pk=grant.pk).lease == taken.lease
    closing.run_all([taken])
    assert state_of(grant) == GrantState.ENDED


@pytest.mark.slow
def test_a_cut_whose_workers_are_killed_one_after_the_other_is_on_time(place: Place):
    """Three die in the middle of it: with 3 s for each lease the session would live for 10 s."""
    grant = place.approved()
    opening.open_grant(grant.pk, worker="w")
    grant.refresh_from_db()
    password = grants.reveal(grant.pk, by=place.world.alice).password
    with ExitStack() as running, place.sign_in(grant, password) as session:
        doomed = [
            running.enter_context(child(sweep_until, "cut", "claimed", 0.2)) for _ in range(3)
        ]
        for one in doomed:
            assert one.reaches() == "sweeping"
        began = time.monotonic()
        grants.release(grant.pk, by=place.world.alice)
        for one in doomed:
            assert one.ends() < 0
        running.enter_context(child(sweep, 0.2))
        assert select.select([session.fileno()], [], [], leases.LEASE[StepKind.CUT] * 4)[0]
        assert time.monotonic() - began < 5
        eventually(lambda: has_ended(grant))
    assert place.accounts() == []
