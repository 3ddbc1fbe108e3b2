"""What pages say of a stage that nobody can decide any more, and of drawing anew."""

from __future__ import annotations

from typing import Any

import pytest

from approvals import sweeper, untended
from tests.approvals.test_escalation import asked, leave, timed
from tests.pages import signed_in, text
from tests.world import HOUR, World, publish, stage


@pytest.fixture
def stuck(world: World) -> Any:
    publish(world, stage(world, "Database", "dba"))
    request = world.submit()
    leave(world, "bob", "dan", "dora")
    return request


def test_it_is_said_at_once_and_who_can_help(world: World, stuck: Any):
    page = text(signed_in(world.alice).get(f"/requests/{stuck.pk}/"))
    assert "Nobody is left who can decide this. “Database” lacks 1 of dba. Ask ada" in page
    assert "Draw anew" not in page


def test_whoever_asked_is_not_named_as_help(world: World, stuck: Any):
    type(stuck).objects.filter(pk=stuck.pk).update(requester=world.ada)
    page = text(signed_in(world.alice).get(f"/requests/{stuck.pk}/"))
    assert "Ask an admin, who can" in page


def test_the_queue_says_it_once_a_sweeper_has_come_by(world: World, stuck: Any):
    assert "Nobody left" not in text(signed_in(world.ada).get("/queue/?show=all"))
    sweeper.notice_leavers(untended.Rounds())
    assert "Nobody left" in text(signed_in(world.ada).get("/queue/?show=all"))


def test_an_admin_draws_anew_and_it_is_over(world: World, stuck: Any):
    world.groups["dba"].user_set.add(world.olga)
    ada = signed_in(world.ada)
    assert "Draw anew who is asked" in text(ada.get(f"/requests/{stuck.pk}/"))
    after = ada.post(f"/requests/{stuck.pk}/redraw/", follow=True)
    assert "Drawn anew." in text(after)
    assert "Nobody is left" not in text(after)
    assert "ada drew anew who is asked: in “Database” olga more, no longer bob, dan, dora." in text(
        after
    )
    assert asked(stuck) == {"olga"}


def test_bob_may_not(world: World):
    request = world.submit()
    bob = signed_in(world.bob)
    assert "Draw anew" not in text(bob.get(f"/requests/{request.pk}/"))
    assert bob.post(f"/requests/{request.pk}/redraw/").status_code == 403
    assert bob.get(f"/requests/{request.pk}/redraw/").status_code == 405


def test_that_it_was_escalated_is_seen(world: World, clock):
    publish(world, timed(world))
    request = world.submit()
    clock.forward(HOUR)
    sweeper.nudge()
    page = text(signed_in(world.alice).get(f"/requests/{request.pk}/"))
    assert "escalated" in page
    assert "asked owners to decide “Database” as well (olga): it took long." in page
