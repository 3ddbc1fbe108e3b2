"""Who is told of what happens to a chain: sent back, lent, in an emergency, looked back at."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group

from approvals import delegating, editing, emergency, reviews, wishes
from approvals.delegating import Lending
from approvals.models import AccessRequest, Grant, Review
from audit import clock as time
from tests.approvals.notify.telling import facts_of, tell, told, words_of
from tests.conftest import Clock
from tests.world import HOUR, World, in_an_emergency, publish

pytestmark = pytest.mark.django_db


def wish_of(request: AccessRequest, **changes: Any) -> wishes.Wish:
    same = {name: getattr(request, name) for name in editing.EDITABLE}
    return wishes.Wish(**{**same, **changes})


def looked_back(world: World, *, outcome: str, note: str) -> None:
    """bob's look back, who takes the access away with it."""
    owed = Review.objects.get()
    reviews.review(owed.pk, by=world.bob, outcome=outcome, note=note, end_access=True)


def sent_back(world: World) -> AccessRequest:
    request: AccessRequest = world.submit()
    tell()
    comment = "An hour is too long."
    editing.send_back(request.pk, by=world.bob, scope_hash=request.scope_hash, comment=comment)
    tell()
    request.refresh_from_db()
    return request


class TestSendingBack:
    @pytest.mark.slow
    def test_whoever_asked_reads_what_should_be_different(self, world: World):
        sent_back(world)
        assert told("sent_back") == ["alice"]
        assert words_of("sent_back").startswith("bob asks for changes: alice asks for read-only")
        assert "An hour is too long." in words_of("sent_back")

    def test_unchanged_those_who_can_decide_are_asked_again(self, world: World):
        request = sent_back(world)
        scope = request.scope_hash
        editing.edit(request.pk, by=world.alice, wish=wish_of(request), scope_hash=scope)
        tell()
        assert told("again") == ["bob", "dan", "dora"]

    def test_changed_they_are_asked_by_its_new_stage_alone(self, world: World):
        request = sent_back(world)
        scope, wish = request.scope_hash, wish_of(request, duration=900)
        editing.edit(request.pk, by=world.alice, wish=wish, scope_hash=scope)
        tell()
        assert told("again") == []
        assert told("asked").count("dan") == 2


class TestLending:
    def test_both_hear_of_it_and_whoever_it_is_lent_to_is_asked(self, world: World):
        lending = Lending(delegate="chen", ends_at=time.now() + timedelta(days=1))
        delegating.delegate(world.bob.pk, by=world.bob, lending=lending)
        world.submit()
        tell()
        assert told("lent") == ["chen"], "bob did it himself"
        assert "chen votes for bob while bob is away" in words_of("lent")
        assert told("asked") == ["bob", "chen", "dan", "dora"]


class TestAnEmergency:
    @pytest.fixture
    def opened(self, world: World) -> Grant:
        grant = in_an_emergency(world)
        tell()
        return grant

    def test_everybody_who_was_passed_over_reads_why(self, world: World, opened: Grant):
        passed_over = ["bob", "carol", "chen", "dan", "dora"]
        assert told("emergency") == sorted([*passed_over, "mallory", "olga"])
        assert words_of("emergency").startswith(
            "EMERGENCY: alice opened read-only on orders for 30 min without approval | Payments"
        )
        assert told("review_due") == sorted([*passed_over, "mallory"])
        assert not {"emergency", "review_due"} & set(facts_of(world.alice))

    @pytest.mark.slow
    def test_where_no_group_is_named_nobody_else_hears_of_it(self, world: World):
        oncall = Group.objects.create(name="oncall")
        oncall.user_set.add(world.alice)
        publish(world, emergency_groups=[oncall], emergency_duration=HOUR // 2)
        wish = {"reason": "Payments are down.", "confirmation": "orders"}
        emergency.break_glass(world.read.pk, by=world.alice, proven=True, **wish)
        tell()
        assert "mallory" not in told("emergency"), "who is in no group at all"

    def test_they_are_reminded_and_more_are_asked_until_somebody_has_looked(
        self, world: World, opened: Grant, clock: Clock
    ):
        clock.forward(13 * HOUR)
        reviews.remind()
        tell()
        assert told("review_due").count("bob") == 2
        clock.forward(12 * HOUR)
        reviews.remind()
        tell()
        assert {"olga", "ada", "bob"} <= set(told("review_overdue"))
        looked_back(world, outcome="not_justified", note="Nobody was asked.")
        tell()
        assert told("reviewed") == ["alice"]
        assert "bob looked back at your access and found it not justified" in words_of("reviewed")

    def test_nobody_is_asked_to_look_back_at_what_somebody_has(
        self, world: World, opened: Grant, clock: Clock
    ):
        clock.forward(13 * HOUR)
        reviews.remind()
        looked_back(world, outcome="justified", note="It was needed.")
        tell()
        assert told("review_due").count("dan") == 1
