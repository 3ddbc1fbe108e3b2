"""Out of office, on one's own settings page, and what pages say of a vote given for another."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.test import Client

from approvals.models import Delegation, Vote
from audit import clock as database_clock
from tests.pages import signed_in, text
from tests.world import World, publish, stage


def typed(**more: str) -> dict[str, str]:
    ends = database_clock.now() + timedelta(days=7)
    return {"delegate": "olga", "starts_at": "", "ends_at": f"{ends:%Y-%m-%dT%H:%M}", **more}


@pytest.fixture
def bob(world: World) -> Client:
    return signed_in(world.bob)


def lend(client: Client, **more: str) -> str:
    return text(client.post("/settings/delegations/", typed(**more), follow=True))


@pytest.mark.slow
def test_bob_arranges_it_and_both_read_it(world: World, bob: Client):
    page = lend(bob, note="On the beach.")
    assert "Arranged. olga can vote for you in that time." in page
    assert "olga votes for you" in page
    assert "On the beach." in page
    assert "You vote for bob" in text(signed_in(world.olga).get("/settings/"))
    assert "votes for" not in text(signed_in(world.dan).get("/settings/")).partition("Out of")[0]


def test_times_are_those_of_his_clock(world: World, bob: Client):
    bob.post("/settings/time-zone/", {"time_zone": "Asia/Tokyo"})
    day = f"{database_clock.now() + timedelta(days=7):%Y-%m-%d}"
    lend(bob, ends_at=f"{day}T09:00")
    assert f"{Delegation.objects.get().ends_at:%Y-%m-%d %H:%M}" == f"{day} 00:00"


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"delegate": ""}, "Say who."),
        ({"delegate": "bob"}, "These votes are theirs already."),
        ({"delegate": "zoe"}, "Nobody of this name can vote."),
        ({"ends_at": ""}, "Say until when."),
        ({"ends_at": "2001-01-01T00:00"}, "It has to end after it begins."),
        ({"ends_at": "9999-12-31T23:59"}, "At most 90 days."),
        ({"starts_at": "soon"}, "Enter a valid date/time."),
        ({"note": "x" * 301}, "at most 300 characters"),
    ],
)
def test_what_cannot_be_is_said_and_what_was_typed_stays(bob: Client, more, why):
    answer = bob.post("/settings/delegations/", typed(**{"note": "Kept.", **more}))
    assert answer.status_code == 422
    assert why in text(answer)
    assert "note" in more or 'value="Kept."' in answer.content.decode()
    assert not Delegation.objects.exists()


def test_twice_is_a_conflict(bob: Client):
    lend(bob)
    answer = bob.post("/settings/delegations/", typed(delegate="dan"))
    assert answer.status_code == 409
    assert "These votes are lent to olga" in text(answer)


def test_either_ends_it(world: World, bob: Client):
    lend(bob)
    row = Delegation.objects.get()
    address = f"/settings/delegations/{row.pk}/end/"
    assert signed_in(world.dan).post(address).status_code == 404
    page = text(signed_in(world.olga).post(address, follow=True))
    assert "Ended. olga gives no vote of bob any more." in page
    assert "You vote for bob" not in page
    assert bob.post(address).status_code == 409


@pytest.mark.slow
def test_olga_decides_for_bob_and_pages_say_so(world: World, bob: Client):
    publish(world, stage(world, "Two", "dba", minimum=2))
    lend(bob)
    request = world.submit()
    olga = signed_in(world.olga)
    assert f"/requests/{request.pk}/" in olga.get("/").content.decode()
    page = olga.get(f"/requests/{request.pk}/")
    assert "who lets you vote while away." in text(page)
    assert "bob (or olga), dan, dora can" in text(page)
    sent = {"scope_hash": request.scope_hash, "replaces": "0", "on_behalf_of": "bob"}
    done = olga.post(f"/requests/{request.pk}/vote/", {"decision": "approve", **sent}, follow=True)
    assert "olga for bob approved" in text(done)
    assert "You approved for bob; you may change that" in text(done)
    assert "olga approved for bob in “Two”." in text(done)
    assert "olga approved for you; you may change that" in text(bob.get(f"/requests/{request.pk}/"))


@pytest.mark.slow
def test_of_several_she_chooses(world: World, bob: Client):
    lend(bob)
    lend(signed_in(world.dan))
    request = world.submit()
    olga = signed_in(world.olga)
    page = olga.get(f"/requests/{request.pk}/").content.decode()
    assert '<option value="bob">' in page
    sent = {"scope_hash": request.scope_hash, "replaces": "0", "decision": "approve"}
    again = olga.post(f"/requests/{request.pk}/vote/", sent)
    assert again.status_code == 422
    assert "Say for whom: bob or dan." in text(again)
    olga.post(f"/requests/{request.pk}/vote/", {**sent, "on_behalf_of": "dan"})
    assert Vote.objects.get().on_behalf_of == world.dan


def test_a_policy_that_forbids_it_says_so(world: World, bob: Client):
    publish(world, stage(world, "One", "dba"), allow_delegation=False)
    lend(bob)
    request = world.submit()
    assert signed_in(world.mallory).get(f"/requests/{request.pk}/").status_code == 404
    olga = text(signed_in(world.olga).get(f"/requests/{request.pk}/"))
    assert "who lets you vote" not in olga
