"""Lending votes from outside, and voting with those that were lent."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from approvals import proposals
from approvals.models import Delegation, Proposal
from audit import clock
from tests.approvals.api.conftest import As, program, refused
from tests.approvals.api.test_requests import submit, vote
from tests.world import World, propose, publish, stage


def body(delegate: str = "olga", **more: Any) -> dict[str, Any]:
    ends_at = clock.now() + timedelta(days=7)
    return {"delegate": delegate, "ends_at": ends_at.isoformat(), **more}


@pytest.mark.slow
def test_bob_lends_his_votes_and_olga_gives_one(world: World, as_: As):
    publish(world, stage(world, "Database", "dba"))
    made = as_("bob").post("delegations/", body(note="On the beach."))
    assert made.status_code == 201
    told = made.json()
    assert (told["person"]["username"], told["delegate"]["username"]) == ("bob", "olga")
    assert made["Location"] == f"/api/v1/delegations/{told['id']}/"
    assert as_("olga").get(f"delegations/{told['id']}/").json() == told
    request = submit(as_("alice"), world)
    olga = as_("olga")
    (waiting,) = olga.get("requests/?awaiting_me=true").json()["results"]
    assert waiting["id"] == request["id"]
    done = vote(olga, request).json()
    (given,) = done["stages"][0]["votes"]
    assert (given["voter"], given["on_behalf_of"]) == ("olga", "bob")
    events = as_("alice").get(f"requests/{request['id']}/events/").json()["results"]
    (cast,) = [one for one in events if one["action"] == "vote.cast"]
    assert (cast["actor"]["name"], cast["on_behalf_of"]["name"]) == ("olga", "bob")


def test_where_it_takes_two_an_admin_proposes_it(world: World, as_: As, settings: Any):
    adam = type(world.ada).objects.create_superuser("adam", "adam@example.com", "a long password")
    settings.FOUR_EYES = True
    ada, once = as_("ada"), {"Idempotency-Key": "k1"}
    lending = body(person="bob")
    answer = ada.post("delegations/", lending, **once)
    told = answer.json()
    assert (answer.status_code, told["summary"]) == (202, "Let olga vote for bob")
    assert answer["Location"] == f"/api/v1/proposals/{told['id']}/"
    assert ada.post("delegations/", lending, **once).json() == told
    assert ada.get(f"proposals/{told['id']}/").json() == told
    found = Proposal.objects.get()
    proposals.agree(found.pk, by=adam, digest=found.digest)
    (listed,) = as_("olga").get("delegations/").json()["results"]
    assert (listed["person"]["username"], listed["made_by"]["username"]) == ("bob", "ada")


def test_whose_move_a_proposal_is_is_told_to_who_may_see_it(world: World, as_: As):
    found = propose(world)
    world.people["adam"] = type(world.ada).objects.create_superuser(
        "adam", password="a long password"
    )
    for who, asked, count in (
        ("adam", "awaiting_me=true&state=proposed", 1),
        ("ada", "awaiting_me=true", 0),
        ("ada", "mine=true", 1),
        ("ada", "state=denied", 0),
        ("bob", "", 0),
    ):
        assert len(as_(who).get(f"proposals/?{asked}").json()["results"]) == count, (who, asked)
    assert as_("bob").get(f"proposals/{found.pk}/").status_code == 404


@pytest.mark.slow
def test_one_who_votes_for_several_says_for_whom(world: World, as_: As):
    as_("bob").post("delegations/", body())
    as_("dan").post("delegations/", body())
    request = submit(as_("alice"), world)
    problem = refused(vote(as_("olga"), request), 422, "invalid")
    assert problem["fields"] == {"on_behalf_of": ["Say for whom: bob or dan."]}
    done = vote(as_("olga"), request, on_behalf_of="dan").json()
    assert done["stages"][0]["votes"][0]["on_behalf_of"] == "dan"
    refused(vote(as_("carol"), request, on_behalf_of="bob"), 403, "not_lent")


def test_it_is_ended_and_seen_by_nobody_else(world: World, as_: As):
    made = as_("bob").post("delegations/", body()).json()
    path = f"delegations/{made['id']}/"
    assert as_("dan").get(path).status_code == 404
    assert as_("dan").post(f"{path}end/").status_code == 404
    assert as_("dan").get("delegations/").json()["results"] == []
    ended = as_("olga").post(f"{path}end/").json()
    assert ended["ended_at"]
    refused(as_("bob").post(f"{path}end/"), 409, "wrong_state")


def test_an_admin_arranges_it_for_somebody_and_sees_all(world: World, as_: As):
    ada = as_("ada")
    made = ada.post("delegations/", body(person="bob"))
    assert made.json()["made_by"]["username"] == "ada"
    (listed,) = ada.get("delegations/?person=bob&delegate=olga").json()["results"]
    assert listed["id"] == made.json()["id"]
    assert ada.get("delegations/?mine=true").json()["results"] == []
    refused(ada.post("delegations/", body("ada", person="dan")), 403, "self_delegation")
    problem = refused(ada.post("delegations/", body(person="zoe")), 422, "invalid")
    assert list(problem["fields"]) == ["person"]


def test_nobody_else_does(world: World, as_: As):
    refused(as_("mallory").post("delegations/", body("mallory", person="bob")), 403, "not_yours")
    refused(as_("bob").post("delegations/", body("bob")), 422, "invalid")
    assert not Delegation.objects.exists()


def test_no_token_lends_or_ends(world: World, as_: As):
    made = as_("bob").post("delegations/", body()).json()
    bob = program(world, "bob", "read", "request", "vote")
    refused(bob.post("delegations/", body("dan")), 403, "needs_session")
    refused(bob.post(f"delegations/{made['id']}/end/"), 403, "needs_session")
    assert bob.get("delegations/").json()["results"][0]["id"] == made["id"]
