"""Approving with less on the pages and in the API: offered, kept when refused, and told to all."""

from __future__ import annotations

import re
from typing import Any

import pytest

from approvals.models import Grant, Vote
from approvals.narrowing import Lower
from tests.approvals.test_less import HALF, less
from tests.approvals.test_views import field, vote
from tests.pages import signed_in, text
from tests.world import HOUR, World, publish, stage


@pytest.fixture
def sign_in(world: World):
    return lambda name: signed_in(world.people[name])


@pytest.mark.slow
def test_bob_gives_half_an_hour_of_the_lower_level_and_all_are_told(world: World, sign_in):
    request = world.submit(level=world.write)
    bob, address = sign_in("bob"), f"/requests/{request.pk}/"
    offered = bob.get(address)
    assert "Approve with less" in text(offered)
    assert "1 h, as asked" in text(offered)
    assert "may read" in text(offered)
    level = Lower(world.read).chosen
    assert f'value="{level}"' in offered.content.decode()
    given = {"less_duration": str(HALF), "less_level": level}
    assert vote(bob, request, "less", **given).status_code == 302
    carol = sign_in("carol")
    for page in (carol.get(address), carol.get("/queue/")):
        said = text(page)
        assert "bob approved only 30 min of read-only" in said
        assert "With the approvals so far it opens 30 min of read-only" in said
    assert "approved with less so far" in text(carol.get("/queue/"))
    assert vote(carol, request).status_code == 302
    alice = sign_in("alice")
    assert "with less: 30 min of read-only instead of 1 h of read-write" in text(alice.get(address))
    assert "approved with less: 30 min of read-only" in text(alice.get("/"))


@pytest.mark.slow
def test_the_queue_offers_lower_levels_once_they_are_wanted(world: World, sign_in):
    request = world.submit(level=world.write)
    bob, lower = sign_in("bob"), f"/requests/{request.pk}/lower/"
    shown = bob.get("/queue/").content.decode()
    assert f'hx-get="{lower}"' in shown
    assert "less_level" not in shown
    assert f'value="{Lower(world.read).chosen}"' in bob.get(lower).content.decode()
    assert sign_in("alice").get(lower).content.strip() == b""
    # What was chosen from them is still chosen when something else about it will not do.
    given = {"less_level": Lower(world.read).chosen, "less_duration": "soon"}
    again = vote(bob, request, "less", queue="", **given)
    assert re.search(rf'value="{given["less_level"]}" checked', again.content.decode())


@pytest.mark.slow
def test_what_is_no_less_is_said_beside_it_and_what_was_typed_stays(world: World, sign_in):
    request = world.submit(level=world.write)
    bob = sign_in("bob")
    for given, why in (
        ({}, "Say how much less: a shorter time, a lower level, or both."),
        ({"less_duration": "other", "less_minutes": "90"}, "Shorter than the 1 h"),
        ({"less_minutes": "-5"}, "Shorter than the 1 h"),
        ({"less_duration": "soon"}, "Shorter than the 1 h"),
        ({"less_level": "read-only"}, "Choose a lower level of the same target."),
    ):
        answer = vote(bob, request, "less", comment="A look will do.", **given)
        assert answer.status_code == 422
        assert why in text(answer)
        assert "A look will do." in text(answer)
        assert '<details class="fold less" open>' in answer.content.decode()
    # Nor does whoever chose less approve all of it by the other button.
    answer = vote(bob, request, "approve", less_duration=str(HALF))
    assert (answer.status_code, Vote.objects.count()) == (422, 0)
    assert "You chose less here." in text(answer)
    assert vote(bob, request, "approve", less_duration="", less_level="").status_code == 302
    assert Vote.objects.get().less is None


def test_minutes_count_without_script_too(world: World, sign_in):
    publish(world, stage(world, "Database", "dba"))
    request = world.submit()
    page = sign_in("bob").get(f"/requests/{request.pk}/")
    assert "Which level" not in text(page), "there is none below"
    assert field(page, "scope_hash")
    vote(sign_in("bob"), request, "less", less_duration="", less_minutes="20")
    assert Grant.objects.get().duration == 1200


def test_only_who_may_approve_is_offered_it(world: World, sign_in):
    request = world.submit(level=world.write)
    for who in ("alice", "carol", "olga"):
        assert "Approve with less" not in text(sign_in(who).get(f"/requests/{request.pk}/"))


@pytest.mark.slow
def test_the_same_for_a_program(world: World, client: Any):
    request = world.submit(level=world.write)
    path = f"/api/v1/requests/{request.pk}/"
    bob = signed_in(world.bob)
    seen = bob.get(path).json()
    assert seen["outcome"] == {"duration": HOUR, "level": "read-write", "less": False}
    [lower] = seen["lower_levels"]
    assert (lower["name"], lower["summary"], lower["max_duration"]) == (
        "read-only",
        ["may read"],
        4 * HOUR,
    )
    body: dict[str, Any] = {"decision": "approve", "scope_hash": seen["scope_hash"]}

    def send(**left: Any) -> Any:
        words = {**body, "less": left}
        return bob.post(f"{path}vote/", words, content_type="application/json")

    refused = send(duration=2 * HOUR)
    assert (refused.status_code, refused.json()["code"]) == (422, "not_less")
    assert refused.json()["fields"]["less"] == ["Shorter than the 1 h that were asked for."]
    assert send(minutes=5).status_code == send(duration="5").status_code == 422
    stale = send(level=lower["id"], level_hash="0" * 64)
    assert (stale.status_code, stale.json()["code"]) == (409, "scope_changed")
    told = send(level=lower["id"], level_hash=lower["level_hash"]).json()
    assert told["outcome"] == {"duration": HOUR, "level": "read-only", "less": True}
    [cast] = told["stages"][0]["votes"]
    assert cast["less"] == {"duration": None, "level": "read-only"}
    assert told["lower_levels"] == []
    world.vote(request, "carol", less=less(duration=HALF))
    grant = Grant.objects.get()
    shown = signed_in(world.alice).get(f"/api/v1/grants/{grant.pk}/").json()
    assert (shown["with_less"], shown["duration"], shown["level"]["name"]) == (
        True,
        HALF,
        "read-only",
    )
