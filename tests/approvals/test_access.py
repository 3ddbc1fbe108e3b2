"""Who sees which access: administrators, who are told of alarms, and nobody by half of it."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from guardian.shortcuts import assign_perm

from approvals import access, administration, grants
from approvals.errors import NotAllowed
from approvals.models import Grant, Target
from approvals.states import GrantState
from tests.approvals.admin_browser import browser, staff
from tests.world import World


@pytest.fixture
def grant(world: World) -> Grant:
    found: Grant = world.approved()
    return found


@pytest.fixture
def tara(world: World) -> Any:
    """Administers targets, and may do nothing else there is."""
    return staff(world.mallory, "change_target")


def page(client: Client, grant: Grant) -> Any:
    return client.get(f"/grants/{grant.pk}/")


@pytest.mark.slow
def test_whoever_is_told_of_alarms_can_read_what_their_links_lead_to(grant: Grant, tara: Any):
    assert tara in access.administrators()
    shown = page(browser(tara), grant)
    assert shown.status_code == 200
    assert grant.account in shown.content.decode()
    assert browser(tara).get(f"/api/v1/grants/{grant.pk}/").status_code == 200
    assert grant.account in browser(tara).get("/grants/?show=all").content.decode()


def test_reading_is_all_that_it_gives(world: World, grant: Grant, tara: Any):
    """Neither the request behind it, nor its end, nor a vote."""
    assert not access.visible_requests(tara).exists()
    assert browser(tara).get(f"/requests/{grant.request_id}/").status_code == 404
    assert f"/requests/{grant.request_id}/" not in page(browser(tara), grant).content.decode()
    with pytest.raises(NotAllowed):
        grants.revoke(grant.pk, by=tara, reason="Because.")
    with pytest.raises(NotAllowed):
        grants.reveal(grant.pk, by=tara)
    assert Grant.objects.get(pk=grant.pk).state == GrantState.SCHEDULED


def test_who_may_see_the_request_is_led_to_it(world: World, grant: Grant):
    for who in (world.alice, world.olga, world.ada):
        assert f"/requests/{grant.request_id}/" in page(browser(who), grant).content.decode()


def holds_it_and_is_no_staff(world: World) -> Any:
    assign_perm("approvals.change_target", world.mallory)
    return world.mallory


def is_staff_and_sees_targets_only(world: World) -> Any:
    return staff(world.mallory, "view_target", "view_accesslevel", "add_target")


def was_given_it_on_the_target_alone(world: World) -> Any:
    """No verb gives it so, no page asks for it so, and no alarm is told by it."""
    assign_perm("approvals.change_target", world.mallory, world.target)
    return staff(world.mallory)


def was_switched_off(world: World) -> Any:
    person = staff(world.mallory, "change_target")
    person.is_active = False
    person.save()
    return type(person).objects.get(pk=person.pk)


@pytest.mark.parametrize(
    "other",
    [
        holds_it_and_is_no_staff,
        is_staff_and_sees_targets_only,
        was_given_it_on_the_target_alone,
        was_switched_off,
    ],
)
def test_others_see_nothing(world: World, grant: Grant, other: Any):
    person = other(world)
    assert person not in access.administrators()
    assert not access.visible_grants(person).exists()


def test_owners_see_what_is_on_their_own_target_only(world: World, grant: Grant):
    other = Target(name="billing", kind="memory", environment="staging", config={"name": "b"})
    administration.save_target(other, by=world.ada, clear_secrets={})
    assign_perm("approvals.own_target", world.mallory, other)
    assert not access.visible_grants(world.mallory).exists()
    assert list(access.visible_grants(world.olga)) == [grant]


def cost(person: Any, address: str) -> int:
    client = browser(person)
    with CaptureQueriesContext(connection) as queries:
        assert client.get(address).status_code == 200
    return len(queries)


@pytest.mark.slow
def test_more_accesses_cost_no_more_questions(world: World, grant: Grant, tara: Any):
    one = [cost(tara, "/grants/?show=all"), cost(tara, f"/grants/{grant.pk}/")]
    for who, level in (("amir", world.read), ("amir", world.write), ("alice", world.write)):
        world.approved(who, level=level)
    assert access.visible_grants(tara).count() == 4
    assert one == [cost(tara, "/grants/?show=all"), cost(tara, f"/grants/{grant.pk}/")]
    assert max(one) <= 15
