"""Votes lent for a while: who may lend them to whom, and what a lent vote counts for."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import DatabaseError, transaction

from approvals import access, administration, delegating, policy
from approvals.delegating import Lending
from approvals.errors import Invalid, NotAllowed, WrongState
from approvals.models import AccessRequest, Delegation, ServiceAccount, Vote
from approvals.sentences import event_sentence
from approvals.states import RequestState
from audit import clock as database_clock
from audit.models import Event
from tests.world import HOUR, World, publish, stage

DAY = 86400


def after(seconds: float) -> datetime:
    return database_clock.now() + timedelta(seconds=seconds)


def lend(world: World, person: str, to: str, *, by: str = "", **times: Any) -> Delegation:
    """From `starts` until `ends`, seconds from now; at once, for a day, unless they are given."""
    starts = times.pop("starts", None)
    lending = Lending(
        delegate=to,
        starts_at=after(starts) if starts is not None else None,
        ends_at=after(times.pop("ends", DAY)),
        **times,
    )
    lender = world.people[person]
    row: Delegation = delegating.delegate(lender.pk, by=world.people[by or person], lending=lending)
    return row


def waits(world: World, who: str, request: AccessRequest) -> bool:
    queue = AccessRequest.objects.all().waiting_for(world.people[who])
    return queue.filter(pk=request.pk).exists()


def buttons(world: World, who: str, request: AccessRequest) -> dict[str, str | None]:
    request = AccessRequest.objects.get(pk=request.pk)
    loaded = policy.load_chain(request)
    told = policy.permitted_actions(request, loaded, world.people[who])
    return {name: refusal.code if refusal else None for name, refusal in told.items()}


def refused_vote(world: World, request: AccessRequest, who: str, **more: Any) -> str:
    with pytest.raises((NotAllowed, WrongState)) as refused:
        world.vote(request, who, **more)
    return refused.value.code


def decided(request: AccessRequest) -> bool:
    return bool(AccessRequest.objects.get(pk=request.pk).state == RequestState.APPROVED)


@pytest.fixture
def request_(world: World) -> AccessRequest:
    """One of dba; olga, who is none, is whom they lend to."""
    publish(world, stage(world, "Database", "dba"))
    request: AccessRequest = world.submit()
    return request


class TestLending:
    def test_it_begins_at_once_and_is_told(self, world: World):
        row = lend(world, "bob", "olga", note="On the beach.")
        told = list(Event.objects.filter(subject_type="delegation").order_by("id"))
        assert [event.action for event in told] == ["delegation.made", "delegation.begun"]
        until = f"{row.ends_at:%Y-%m-%d %H:%M}"
        assert event_sentence(told[0]) == (
            f"bob lent the votes of bob to olga (until {until} UTC): “On the beach”."
        )
        assert told[1].data["person"] == "bob"
        assert told[1].data["delegate"] == "olga"

    def test_one_to_come_begins_and_ends_by_itself(self, world: World, clock):
        row = lend(world, "bob", "olga", starts=HOUR, ends=2 * HOUR)
        assert row.begun_at is None
        assert delegating.keep() == 0
        clock.forward(HOUR)
        assert (delegating.keep(), delegating.keep()) == (1, 0)
        clock.forward(HOUR)
        assert (delegating.keep(), delegating.keep()) == (1, 0)
        told = Event.objects.filter(subject_type="delegation").order_by("id")
        assert [event.action for event in told] == [
            "delegation.made",
            "delegation.begun",
            "delegation.ended",
        ]
        assert "its time was over" in event_sentence(told[2])

    def test_an_admin_lends_for_somebody_who_has_left(self, world: World):
        row = lend(world, "bob", "olga", by="ada")
        assert (row.person, row.made_by) == (world.bob, world.ada)

    def test_but_never_to_themselves(self, world: World):
        with pytest.raises(NotAllowed) as refused:
            lend(world, "bob", "ada", by="ada")
        assert refused.value.code == "self_delegation"

    def test_nobody_else_lends_anothers_votes(self, world: World):
        with pytest.raises(NotAllowed) as refused:
            lend(world, "bob", "mallory", by="mallory")
        assert refused.value.code == "not_yours"
        assert Event.objects.latest("id").action == "delegate.refused"
        assert not Delegation.objects.exists()

    @pytest.mark.parametrize(
        ("to", "times", "field"),
        [
            ("bob", {}, "delegate"),
            ("zoe", {}, "delegate"),
            ("chen", {}, "delegate"),
            ("robot", {}, "delegate"),
            ("", {}, "delegate"),
            ("olga\x00", {}, "delegate"),
            ("olga", {"ends": -1}, "ends_at"),
            ("olga", {"ends": 90 * DAY + 60}, "ends_at"),
            ("olga", {"starts": HOUR, "ends": HOUR - 5}, "ends_at"),
            ("olga", {"starts": -HOUR}, "starts_at"),
            ("olga", {"starts": 366 * DAY, "ends": 367 * DAY}, "starts_at"),
            ("olga", {"note": "x" * 301}, "note"),
            ("olga", {"note": "\x00"}, "note"),
        ],
    )
    def test_what_cannot_be_names_its_field(self, world: World, to, times, field):
        type(world.chen).objects.filter(pk=world.chen.pk).update(is_active=False)
        robot = type(world.chen).objects.create_user("robot")
        ServiceAccount.objects.create(account=robot, made_by=world.ada, made_at=after(0))
        with pytest.raises(Invalid) as refused:
            lend(world, "bob", to, **times)
        assert list(refused.value.fields) == [field]

    def test_ninety_days_may_be(self, world: World):
        assert lend(world, "bob", "olga", starts=HOUR, ends=90 * DAY + HOUR - 5)

    def test_a_time_without_a_zone_is_refused(self, world: World):
        lending = Lending(delegate="olga", ends_at=after(DAY).replace(tzinfo=None))
        with pytest.raises(Invalid) as refused:
            delegating.delegate(world.bob.pk, by=world.bob, lending=lending)
        assert "ends_at" in refused.value.fields

    def test_to_one_at_a_time(self, world: World):
        lend(world, "bob", "olga", starts=HOUR, ends=2 * HOUR)
        with pytest.raises(WrongState) as refused:
            lend(world, "bob", "dan", starts=HOUR + 60, ends=3 * HOUR)
        assert refused.value.code == "delegated_already"
        assert lend(world, "bob", "dan", starts=2 * HOUR + 60, ends=3 * HOUR)

    def test_no_circle(self, world: World):
        lend(world, "bob", "carol")
        lend(world, "carol", "dan")
        with pytest.raises(Invalid) as refused:
            lend(world, "dan", "bob")
        assert refused.value.code == "circle"
        assert lend(world, "dan", "bob", starts=DAY + 60, ends=2 * DAY)

    @pytest.mark.parametrize("who", ["bob", "olga", "ada"])
    def test_either_of_the_two_ends_it_or_an_admin(self, world: World, who):
        row = lend(world, "bob", "olga")
        delegating.end_delegation(row.pk, by=world.people[who])
        assert event_sentence(Event.objects.latest("id")) == (
            f"{who} ended the lending of bob's votes to olga."
        )
        with pytest.raises(WrongState):
            delegating.end_delegation(row.pk, by=world.people[who])

    def test_nobody_else_does(self, world: World):
        row = lend(world, "bob", "olga")
        with pytest.raises(NotAllowed):
            delegating.end_delegation(row.pk, by=world.dan)
        with pytest.raises(WrongState):
            delegating.end_delegation(row.pk + 1, by=world.bob)

    def test_who_sees_which(self, world: World):
        lend(world, "bob", "olga")
        seen = {who: delegating.visible(world.people[who]).count() for who in world.people}
        assert {who for who, count in seen.items() if count} == {"bob", "olga", "ada"}


class TestVotes:
    def test_whoever_was_lent_a_vote_gives_it(self, world: World, request_):
        assert refused_vote(world, request_, "olga") == "not_eligible"
        assert not waits(world, "olga", request_)
        lend(world, "bob", "olga")
        assert waits(world, "olga", request_)
        assert buttons(world, "olga", request_)["approve"] is None
        world.vote(request_, "olga")
        assert decided(request_)
        vote = Vote.objects.get()
        assert (vote.voter, vote.on_behalf_of) == (world.olga, world.bob)
        event = Event.objects.get(action="vote.cast")
        assert (event.actor_name, event.on_behalf_of_name) == ("olga", "bob")
        assert event_sentence(event) == "olga approved for bob in “Database”."

    def test_only_while_it_lasts(self, world: World, request_, clock):
        lend(world, "bob", "olga", starts=HOUR, ends=2 * HOUR)
        assert refused_vote(world, request_, "olga") == "not_eligible"
        clock.forward(HOUR)
        assert buttons(world, "olga", request_)["approve"] is None
        assert waits(world, "olga", request_)
        clock.forward(HOUR)
        assert refused_vote(world, request_, "olga") == "not_eligible"
        assert not waits(world, "olga", request_)

    def test_not_once_it_was_ended(self, world: World, request_):
        row = lend(world, "bob", "olga")
        delegating.end_delegation(row.pk, by=world.bob)
        assert refused_vote(world, request_, "olga") == "not_eligible"
        assert not waits(world, "olga", request_)

    def test_one_who_can_vote_for_oneself_does_so(self, world: World, request_):
        lend(world, "bob", "dan")
        world.vote(request_, "dan")
        assert Vote.objects.get().on_behalf_of is None

    def test_and_not_for_another_even_if_they_say_so(self, world: World, request_):
        lend(world, "bob", "dan")
        assert refused_vote(world, request_, "dan", on_behalf_of="bob") == "not_lent"

    def test_nobody_votes_for_one_who_has_not_lent_it(self, world: World, request_):
        lend(world, "bob", "olga")
        for name in ("dan", "nobody of this name", "alice", "olga"):
            assert refused_vote(world, request_, "olga", on_behalf_of=name) == "not_lent"

    def test_it_uses_up_both_people(self, world: World):
        """olga is in security herself: who voted for bob has no vote left there."""
        publish(world, stage(world, "Database", "dba"), stage(world, "Security", "security"))
        world.groups["security"].user_set.add(world.olga)
        request = world.submit()
        lend(world, "bob", "olga")
        world.vote(request, "olga")
        assert refused_vote(world, request, "olga") == "already_counted"
        assert refused_vote(world, request, "olga", decision="deny") == "already_counted"
        assert not waits(world, "olga", request)
        world.vote(request, "carol")
        assert decided(request)

    def test_and_the_lender_in_later_stages(self, world: World):
        publish(world, stage(world, "Database", "dba"), stage(world, "Security", "security"))
        request = world.submit()
        lend(world, "dora", "olga")
        world.vote(request, "olga")
        assert refused_vote(world, request, "dora") == "already_counted"
        assert not waits(world, "dora", request)

    def test_one_person_is_not_two(self, world: World):
        publish(world, stage(world, "Two", "dba", minimum=2))
        request = world.submit()
        lend(world, "bob", "olga")
        lend(world, "dan", "olga")
        with pytest.raises(Invalid) as refused:
            world.vote(request, "olga")
        assert refused.value.fields == {"on_behalf_of": ["Say for whom: bob or dan."]}
        world.vote(request, "olga", on_behalf_of="bob")
        assert refused_vote(world, request, "olga", on_behalf_of="dan") == "already_counted"
        assert (
            refused_vote(world, request, "olga", decision="deny", on_behalf_of="dan")
            == "already_counted"
        )
        assert not decided(request)
        world.vote(request, "dan")
        assert decided(request)

    def test_whose_vote_it_is_may_change_it(self, world: World):
        publish(world, stage(world, "Two", "dba", minimum=2))
        request = world.submit()
        lend(world, "bob", "olga")
        world.vote(request, "olga")
        assert buttons(world, "bob", request)["deny"] is None
        world.vote(request, "bob", "deny")
        request.refresh_from_db()
        assert request.state == RequestState.DENIED
        assert [vote.voter for vote in Vote.objects.counting()] == [world.bob]

    def test_a_lent_vote_never_replaces_ones_own(self, world: World):
        publish(world, stage(world, "Two", "dba", minimum=2, deny_quorum=2))
        request = world.submit()
        lend(world, "bob", "olga")
        world.vote(request, "bob", "deny")
        assert refused_vote(world, request, "olga") == "already_counted"
        assert buttons(world, "olga", request)["approve"] == "already_counted"
        assert not waits(world, "olga", request)

    def test_who_gave_it_may_change_it_while_it_is_lent(self, world: World):
        publish(world, stage(world, "Two", "dba", minimum=2, deny_quorum=2))
        request = world.submit()
        row = lend(world, "bob", "olga")
        world.vote(request, "olga")
        world.vote(request, "olga", "deny")
        told = event_sentence(Event.objects.get(action="vote.replaced"))
        assert told == "olga changed the vote of bob in “Two” from approved to denied."
        delegating.end_delegation(row.pk, by=world.bob)
        assert refused_vote(world, request, "olga") == "not_eligible"

    def test_what_was_given_in_time_counts_when_it_is_over(self, world: World):
        publish(world, stage(world, "Two", "dba", minimum=2))
        request = world.submit()
        row = lend(world, "bob", "olga")
        world.vote(request, "olga")
        delegating.end_delegation(row.pk, by=world.bob)
        world.vote(request, "dan")
        assert decided(request)

    @pytest.mark.parametrize("gone", ["bob left", "bob off", "olga off"])
    def test_nobody_who_left_counts(self, world: World, request_, gone):
        lend(world, "bob", "olga")
        match gone:
            case "bob left":
                world.groups["dba"].user_set.remove(world.bob)
            case "bob off":
                type(world.bob).objects.filter(pk=world.bob.pk).update(is_active=False)
            case "olga off":
                type(world.olga).objects.filter(pk=world.olga.pk).update(is_active=False)
                world.olga.refresh_from_db()
        assert refused_vote(world, request_, "olga") == "not_eligible"
        assert buttons(world, "olga", request_)["approve"] == "not_eligible"
        assert not waits(world, "olga", request_)

    def test_a_vote_whose_giver_left_counts_no_more_while_the_stage_is_open(self, world: World):
        publish(world, stage(world, "Two", "dba", minimum=2))
        request = world.submit()
        lend(world, "bob", "olga")
        world.vote(request, "olga")
        type(world.olga).objects.filter(pk=world.olga.pk).update(is_active=False)
        world.vote(request, "dan")
        assert not decided(request)
        world.vote(request, "dora")
        assert decided(request)
        void = Vote.objects.get(voided_at__isnull=False)
        assert (void.voter, void.void_reason) == (world.olga, "left")

    def test_never_to_whoever_asked(self, world: World, request_):
        lend(world, "bob", "alice")
        assert refused_vote(world, request_, "alice") == "self_approval"
        assert not waits(world, "alice", request_)

    def test_nor_for_whoever_asked(self, world: World):
        publish(world, stage(world, "Database", "dba"))
        world.groups["dba"].user_set.add(world.alice)
        request = world.submit()
        lend(world, "alice", "olga")
        assert refused_vote(world, request, "olga") == "not_eligible"

    def test_nor_to_whoever_changed_it(self, world: World, request_):
        lend(world, "bob", "ada")
        world.server.levels["read-only"] = ("may read a little",)
        level = type(world.read).objects.select_related("target").get(pk=world.read.pk)
        administration.save_level(level, by=world.ada)
        assert refused_vote(world, request_, "ada") == "self_approval"

    @pytest.mark.parametrize("column", ["voter", "on_behalf_of"])
    def test_the_database_refuses_both(self, world: World, request_, column):
        people = {"voter": world.olga, "on_behalf_of": world.bob, column: world.alice}
        with pytest.raises(DatabaseError, match="about themselves"), transaction.atomic():
            Vote.objects.create(
                stage=request_.stages.get(),
                decision="approve",
                scope_hash=request_.scope_hash,
                voted_at=after(0),
                **people,
            )

    def test_a_policy_may_forbid_it(self, world: World):
        publish(world, stage(world, "Database", "dba"), allow_delegation=False)
        request = world.submit()
        lend(world, "bob", "olga")
        assert refused_vote(world, request, "olga") == "not_eligible"
        assert not waits(world, "olga", request)
        visible = access.visible_requests(world.mallory)
        lend(world, "dan", "mallory")
        assert not visible.exists()

    def test_it_is_lent_on_three_times_and_no_more(self, world: World, request_):
        for person, to in (("bob", "carol"), ("carol", "olga"), ("olga", "amir")):
            lend(world, person, to)
        lend(world, "amir", "mallory")
        assert waits(world, "amir", request_)
        assert buttons(world, "amir", request_)["approve"] is None
        assert refused_vote(world, request_, "mallory") == "not_eligible"
        assert not waits(world, "mallory", request_)
        world.vote(request_, "amir")
        assert Vote.objects.get().on_behalf_of == world.bob

    def test_not_on_from_one_who_left(self, world: World, request_):
        lend(world, "bob", "carol")
        lend(world, "carol", "olga")
        type(world.carol).objects.filter(pk=world.carol.pk).update(is_active=False)
        assert refused_vote(world, request_, "olga") == "not_eligible"
        assert not waits(world, "olga", request_)

    def test_who_may_vote_sees_what_about(self, world: World, request_):
        assert not access.visible_requests(world.mallory).exists()
        row = lend(world, "bob", "mallory")
        assert access.visible_requests(world.mallory).get() == request_
        delegating.end_delegation(row.pk, by=world.bob)
        assert not access.visible_requests(world.mallory).exists()

    def test_who_has_voted_still_does(self, world: World, request_):
        row = lend(world, "bob", "mallory")
        world.vote(request_, "mallory")
        delegating.end_delegation(row.pk, by=world.bob)
        assert access.visible_requests(world.mallory).get() == request_

    def test_it_needs_nobody_later(self, world: World):
        """dora is the only one left for security: her vote is not spent on the first stage."""
        publish(world, stage(world, "Database", "dba"), stage(world, "Security", "security"))
        request = world.submit()
        world.groups["security"].user_set.set([world.dora])
        lend(world, "dora", "olga")
        assert refused_vote(world, request, "olga") == "needed_later"


@pytest.mark.slow
def test_what_the_queue_shows_is_what_the_verb_takes(world: World, clock):
    """Everybody, for every lending: a request waits for exactly those who may deny it."""
    names = ("bob", "carol", "olga", "mallory", "alice", "dora")
    publish(world, stage(world, "Both", "dba", "security", deny_quorum=2))
    request = world.submit()
    lend(world, "bob", "mallory")
    lend(world, "carol", "mallory")
    lend(world, "mallory", "olga")
    lend(world, "dan", "alice")
    for turn in range(3):
        for who in names:
            denies = buttons(world, who, request)["deny"] is None
            stands = Vote.objects.counting().filter(voter=world.people[who]).exists()
            said = Vote.objects.counting().filter(on_behalf_of=world.people[who]).exists()
            assert waits(world, who, request) == (denies and not stands and not said), (turn, who)
        if turn == 0:
            world.vote(request, "mallory", "deny", on_behalf_of="bob")
        else:
            clock.forward(DAY)
