"""alice asks for amir: he has it, and neither of them decides about it."""

from __future__ import annotations

import pytest

from approvals import grants, opening, workflow
from approvals.errors import Invalid, NotAllowed, WrongState
from approvals.models import AccessRequest, Candidate, Grant
from tests.approvals.test_emergency import post, refused, signed_in
from tests.world import World


def test_whoever_it_is_for_has_it_and_is_shown_the_credential(world: World):
    request = world.submit(whom="amir")
    assert (request.requester, request.beneficiary) == (world.alice, world.amir)
    assert request.scope["beneficiary"] == world.amir.pk
    world.vote(request, "bob")
    world.vote(request, "carol")
    grant = Grant.objects.get()
    opening.open_grant(grant.pk, worker="w1")
    refused("not_yours", NotAllowed, lambda: grants.reveal(grant.pk, by=world.alice))
    assert grants.reveal(grant.pk, by=world.amir).password
    assert grants.revoke(grant.pk, by=world.alice, reason="Done.").end_reason == "revoked"


def test_neither_is_asked_nor_can_vote(world: World):
    world.groups["dba"].user_set.add(world.alice, world.amir)
    request = world.submit(whom="amir")
    drawn = Candidate.objects.filter(stage__request=request).values_list(
        "user__username", flat=True
    )
    assert not {"alice", "amir"} & set(drawn)
    for who in ("alice", "amir"):
        refused("self_approval", NotAllowed, lambda who=who: world.vote(request, who))


def test_either_may_take_it_back(world: World):
    request = world.submit(whom="amir")
    assert workflow.cancel(request.pk, by=world.amir).state == "cancelled"


def test_the_policy_goes_by_whoever_is_to_have_it(world: World):
    world.groups["developers"].user_set.remove(world.alice)
    refused("not_requestable", NotAllowed, lambda: world.submit(whom="amir"))


@pytest.mark.parametrize("whom", ["mallory", "nobody", "bob", "AMIR", "a\0b", "x" * 200])
def test_who_may_not_and_who_is_not_are_not_told_apart(world: World, whom: str):
    with pytest.raises(Invalid) as caught:
        world.submit(whom=whom)
    assert caught.value.fields == {"whom": ["Nobody of that name may use this level."]}
    assert not AccessRequest.objects.exists()


def test_who_has_left_is_nobody(world: World):
    world.amir.is_active = False
    world.amir.save()
    with pytest.raises(Invalid):
        world.submit(whom="amir")


def test_ones_own_name_is_oneself(world: World):
    assert world.submit(whom="alice").beneficiary == world.alice


def test_the_same_for_the_same_is_asked_once(world: World):
    own = world.submit("amir")
    error = refused("asked_already", WrongState, lambda: world.submit(whom="amir"))
    assert "request" not in error.details
    workflow.cancel(own.pk, by=world.amir)
    world.submit(whom="amir")
    assert refused("asked_already", WrongState, lambda: world.submit(whom="amir")).details


@pytest.mark.slow
def test_by_page_and_api(world: World):
    alice = signed_in(world, "alice")
    wish = {"duration": "3600", "reason": "Amir has the page.", "whom": "mallory"}
    answer = alice.post(f"/ask/{world.read.pk}/", wish)
    assert answer.status_code == 422
    assert "Nobody of that name may use this level." in answer.content.decode()
    done = alice.post(f"/ask/{world.read.pk}/", {**wish, "whom": "amir"}, follow=True)
    assert "alice asks, for amir, for read-only on orders for 1 h" in done.content.decode()
    assert "for amir" in signed_in(world, "amir").get(done.redirect_chain[0][0]).content.decode()
    given = {"level": world.write.pk, "duration": 900, "reason": "He has the page.", "whom": "amir"}
    made = post(alice, "/api/v1/requests/", given)
    assert (made.status_code, made.json()["beneficiary"]["username"]) == (201, "amir")
