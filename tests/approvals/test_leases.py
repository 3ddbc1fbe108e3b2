"""Who is given what is due: a worker that fails at a target leaves it to the others first."""

from __future__ import annotations

import pytest
from django.db.models import QuerySet

from approvals import closing, grants, leases, opening
from approvals.models import Grant
from approvals.provisioning.memory import MemoryProvisioner
from tests.world import World


@pytest.fixture
def failing(world: World) -> leases.Room:
    """Of a worker that does not get through to the target."""
    return leases.Room(free=9, failing=frozenset({world.target.pk}))


@pytest.fixture
def grant(world: World) -> Grant:
    made: Grant = world.approved()
    opening.open_grant(made.pk, worker="w")
    return made


def taken(due: QuerySet[Grant], room: leases.Room) -> list[int]:
    return [grant.pk for grant in leases.pick(due, room)]


def test_others_have_a_seconds_lead_over_whoever_fails_there(world, clock, grant, failing):
    grants.revoke(grant.pk, by=world.bob, reason="Not now.")
    assert taken(closing.cuts_due(), failing) == []
    assert taken(closing.cuts_due(), leases.Room(free=9)) == [grant.pk]
    clock.forward(leases.LEAD)
    assert taken(closing.cuts_due(), failing) == [grant.pk]


def test_an_end_that_nobody_has_begun_is_for_all(clock, grant, failing):
    clock.forward(3600)
    assert taken(closing.cuts_due(), failing) == [grant.pk]


@pytest.mark.slow
def test_a_target_that_does_not_fail_is_for_all(world, grant):
    grants.revoke(grant.pk, by=world.bob, reason="Not now.")
    elsewhere = leases.Room(free=9, failing=frozenset({world.target.pk + 1}))
    assert taken(closing.cuts_due(), elsewhere) == [grant.pk]


def test_an_opening_that_is_to_be_tried_again_is_left_to_the_others_too(
    world, clock, failing, monkeypatch
):
    made = world.approved()
    monkeypatch.setattr(MemoryProvisioner, "open", lambda *_: 1 / 0)
    opening.open_grant(made.pk, worker="w")
    clock.forward(opening.FIRST_RETRY)
    assert taken(opening.due(), failing) == []
    clock.forward(leases.LEAD)
    assert taken(opening.due(), failing) == [made.pk]


def test_whoever_asks_over_and_over_for_another_try_does_not_put_it_off(
    world, clock, grant, failing
):
    grants.revoke(grant.pk, by=world.bob, reason="Not now.")
    for _ in range(4):
        clock.forward(leases.LEAD / 4)
        grants.try_again(grant.pk, by=world.alice)
    assert taken(closing.cuts_due(), failing) == [grant.pk]


def test_what_fails_is_tried_again_within_the_time_of_the_law_the_lead_included():
    cut, clean = (closing.LAST_RETRY[kind] + leases.LEAD for kind in closing.LAST_RETRY)
    assert (cut, clean) == (5, 60)
