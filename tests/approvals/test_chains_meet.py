"""Where the parts of a chain meet: lent votes, longer access, republished policies and reviews give
nobody a say about themselves."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.db import DatabaseError, transaction

from approvals import access, delegating, opening, policy, reviews, wishes, workflow
from approvals.delegating import Lending
from approvals.errors import NotAllowed
from approvals.models import AccessRequest, Grant, Policy, Review, Vote
from approvals.policy import AppliesTo
from approvals.states import RequestState
from audit import clock as time
from tests.approvals.test_emergency import refused, signed_in
from tests.approvals.test_republishing import republish
from tests.conftest import Clock
from tests.world import HOUR, World, in_an_emergency, publish, stage


def lend(world: World, person: str, to: str, *, by: str = "") -> None:
    lending = Lending(delegate=to, ends_at=time.now() + timedelta(days=1))
    admin = world.people[by or person]
    delegating.delegate(world.people[person].pk, by=admin, lending=lending)


class TestLentVotes:
    def test_nobody_passes_on_a_vote_about_their_own_request(self, world: World):
        lend(world, "bob", "alice")
        lend(world, "alice", "mallory")
        request = world.submit("alice")
        refused("not_eligible", NotAllowed, lambda: world.vote(request, "mallory"))
        assert not AccessRequest.objects.waiting_for(world.mallory).exists()

    def test_somebody_elses_they_may_pass_on(self, world: World):
        lend(world, "bob", "alice")
        lend(world, "alice", "mallory")
        request = world.submit("amir")
        assert AccessRequest.objects.waiting_for(world.mallory).get() == request
        world.vote(request, "mallory")
        assert Vote.objects.get().on_behalf_of == world.bob

    def test_whoever_asks_does_not_choose_who_votes_for_another(self, world: World):
        world.groups["developers"].user_set.add(world.ada)
        lend(world, "bob", "mallory", by="ada")
        request = world.submit("ada")
        refused("not_eligible", NotAllowed, lambda: world.vote(request, "mallory"))
        assert not AccessRequest.objects.waiting_for(world.mallory).exists()


class TestRepublishing:
    def test_nobody_settles_what_is_asked_for_themselves(self, world: World):
        world.groups["developers"].user_set.add(world.ada)
        request = world.submit("ada")
        world.vote(request, "bob")
        republish(world, stage(world, "Database", "dba"))
        request.refresh_from_db()
        assert (request.state, request.policy_version.number) == (RequestState.PENDING, 1)

    def test_nor_is_their_own_vote_carried(self, world: World):
        world.groups["dba"].user_set.add(world.ada)
        request = world.submit()
        world.vote(request, "ada")
        republish(world, stage(world, "Database", "dba"))
        request.refresh_from_db()
        assert request.state == RequestState.PENDING
        assert not Vote.objects.counting().filter(stage__request=request).exists()

    def test_it_goes_by_whoever_is_to_have_it(self, world: World):
        strict = Policy.objects.create(name="Strict", rank=1)
        team = Group.objects.create(name="contractors")
        team.user_set.add(world.amir)
        rule = AppliesTo(requester_groups=[team.pk])
        publish(world, stage(world, "All", "security"), policy=strict, applies_to=rule)
        request = world.submit("alice", whom="amir")
        assert request.policy_version.policy == strict
        strict.refresh_from_db()
        publish(world, stage(world, "All", "security"), policy=strict, applies_to=rule)
        republish(world)
        request.refresh_from_db()
        assert request.policy_version.policy == strict


class TestLongerAccess:
    def test_whoever_asked_for_somebody_does_not_approve_more_of_it(
        self, world: World, clock: Clock
    ):
        world.groups["security"].user_set.add(world.alice)
        publish(
            world,
            extensions_most=1,
            extension_max=HOUR,
            max_total=12 * HOUR,
            extension_window=8 * HOUR,
        )
        request = world.submit("alice", whom="amir")
        world.vote(request, "bob")
        world.vote(request, "carol")
        grant = Grant.objects.get()
        opening.open_grant(grant.pk, worker="w1")
        wish = wishes.Wish(duration=900, reason="Not done yet.")
        more = workflow.ask_longer(grant.pk, by=world.amir, wish=wish)
        assert world.alice.pk in policy.barred_from(more)
        world.vote(more, "bob")
        assert not AccessRequest.objects.waiting_for(world.alice).exists()
        assert AccessRequest.objects.waiting_for(world.carol).exists()
        refused("self_approval", NotAllowed, lambda: world.vote(more, "alice"))
        last = more.stages.last()
        assert last is not None
        with pytest.raises(DatabaseError, match="about themselves"), transaction.atomic():
            Vote.objects.create(
                stage=last,
                voter=world.alice,
                decision="approve",
                scope_hash=more.scope_hash,
                voted_at=time.now(),
            )


class TestReviews:
    @pytest.fixture
    def owed(self, world: World) -> Review:
        return in_an_emergency(world).review

    def test_whoever_has_left_the_group_does_not_give_it(self, world: World, owed: Review):
        world.groups["dba"].user_set.remove(world.bob)
        give: dict[str, Any] = {"outcome": "justified", "note": "Fine."}
        refused("not_eligible", NotAllowed, lambda: reviews.review(owed.pk, by=world.bob, **give))

    def test_the_security_group_can_open_what_it_is_told_of(self, world: World, owed: Review):
        page = signed_in(world, "mallory").get(f"/requests/{owed.grant.request_id}/")
        assert "What you found" in page.content.decode()

    def test_so_can_administrators_once_it_is_overdue(
        self, world: World, owed: Review, clock: Clock
    ):
        world.olga.is_staff = True
        world.olga.save()
        clock.forward(25 * HOUR)
        assert access.visible_requests(world.ada).filter(pk=owed.grant.request_id).exists()
        assert "What you found" in (
            signed_in(world, "olga").get(f"/requests/{owed.grant.request_id}/").content.decode()
        )

    def test_a_form_that_cannot_be_read_is_shown_again(self, world: World, owed: Review):
        bob = signed_in(world, "bob")
        answer = bob.post(f"/reviews/{owed.pk}/", {"outcome": "a\0b", "note": "c\0d"})
        assert answer.status_code == 422
