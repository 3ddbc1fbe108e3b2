"""Whoever lost a lease to another says nothing and leaves nothing, while the other is at it."""

from __future__ import annotations

from approvals import closing, grants, leases, opening
from approvals.models import Grant, StepKind
from approvals.states import GrantState
from tests.faults.place import state_of
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
