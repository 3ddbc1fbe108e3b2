"""What went wrong elsewhere and no other test shows: see docs/failures-of-others.md."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db.models import ProtectedError

from approvals import access, administration, closing, grants, opening, sweeper, untended
from approvals.errors import Invalid, NotAllowed
from approvals.models import Grant, Policy, RequestStage
from approvals.notify import outbox
from approvals.policy import AppliesTo
from approvals.states import EndReason, GrantState, RequestState
from audit import clock as time
from audit.log import timeline
from tests.approvals.notify.telling import close, opened, tell, told
from tests.approvals.test_editing import counting, edit
from tests.approvals.test_emergency import break_glass, ready, review  # noqa: F401
from tests.conftest import Clock
from tests.pages import signed_in, text
from tests.world import HOUR, World, publish, save_level, stage

YEAR = 365 * 86400


def now_is(thing: Any) -> Any:
    return type(thing).objects.get(pk=thing.pk)


class TestChains:
    def test_a_group_may_be_asked_in_two_stages(self, world: World):
        publish(world, stage(world, "First", "dba"), stage(world, "Second", "dba"))
        request = world.submit()
        world.vote(request, "bob")
        assert [one.state for one in request.stages.order_by("order")] == ["passed", "open"]
        with pytest.raises(NotAllowed):
            world.vote(request, "bob")
        world.vote(request, "dan")
        assert now_is(request).state == RequestState.APPROVED

    def test_every_group_that_somebody_is_in_counts(self, world: World):
        """Whichever of them is looked at first."""
        world.groups["owners"].user_set.add(world.chen)
        publish(world, stage(world, "Both", "dba", "owners"))
        request = world.submit()
        tell()
        assert "chen" in told("asked")
        world.vote(request, "chen")
        world.vote(request, "bob")
        assert now_is(request).state == RequestState.APPROVED

    def test_nobody_stands_in_by_being_an_administrator(self, world: World):
        publish(world, stage(world, "Database", "dba"))
        request = world.submit()
        world.groups["dba"].user_set.clear()
        sweeper.notice_leavers(untended.Rounds())
        assert RequestStage.objects.get(request=request).stalled_since is not None
        with pytest.raises(NotAllowed):
            world.vote(request, "ada")
        assert now_is(request).state == RequestState.PENDING

    def test_a_group_that_is_asked_cannot_be_deleted(self, world: World):
        """Not even once no version that is in force asks it: what waits does."""
        request = world.submit()
        publish(world, stage(world, "Database", "dba"))
        with pytest.raises(ProtectedError):
            world.groups["security"].delete()
        world.vote(request, "bob")
        world.vote(request, "carol")
        assert now_is(request).state == RequestState.APPROVED

    @pytest.mark.parametrize(
        "changed",
        [
            {"duration": HOUR // 2},
            {"reason": "To see who ordered what."},
            {"ticket": "OPS-7"},
            {"starts_at": timedelta(hours=2)},
        ],
        ids=lambda changed: next(iter(changed)),
    )
    def test_no_approval_moves_to_something_else(self, world: World, changed: dict[str, Any]):
        """Whichever field is changed, and however little."""
        request = world.submit()
        world.vote(request, "bob")
        before = now_is(request).scope_hash
        if "starts_at" in changed:
            changed = {"starts_at": time.now() + changed["starts_at"]}
        assert edit(world, request, **changed).scope_hash != before
        assert counting(request) == 0

    def test_whoever_decides_reads_all_that_they_decide_on(self, world: World):
        publish(world, max_duration=8000 * 60)
        world.read.max_duration = 8000 * 60
        administration.save_level(world.read, by=world.ada)
        asked: dict[str, Any] = {
            "duration": 8000 * 60,
            "reason": "A long migration.",
            "ticket": "OPS-7",
        }
        request = world.submit(**asked)
        shown = text(signed_in(world.bob).get(f"/requests/{request.pk}/"))
        for part in ("133 h 20 min", "A long migration.", "OPS-7", "read-only", "orders"):
            assert part in shown


class TestTime:
    def test_a_long_window_elsewhere_lengthens_nothing_here(self, world: World):
        """The limit is that of the level and of the policy that govern, and of no other."""
        wide = administration.change_policy(Policy(name="Development", rank=20), by=world.ada)
        elsewhere = AppliesTo(environments=["development"])
        publish(world, policy=wide, applies_to=elsewhere, max_duration=24 * HOUR)
        publish(world, max_duration=HOUR)
        with pytest.raises(Invalid) as refused:
            world.submit(duration=2 * HOUR)
        assert "policy Production" in refused.value.fields["duration"][0]

    @pytest.mark.parametrize("what", ["policy", "level", "request"])
    def test_no_length_of_zero_means_without_end(self, world: World, what: str):
        calls: dict[str, Callable[[], Any]] = {
            "policy": lambda: publish(world, max_duration=0),
            "level": lambda: save_level(world, name="for-ever", rank=9, max_duration=0),
            "request": lambda: world.submit(duration=0),
        }
        with pytest.raises(Invalid):
            calls[what]()

    def test_who_comes_in_at_the_last_minute_leaves_with_the_others(
        self, world: World, clock: Clock
    ):
        grant = opened(world)
        password = grants.reveal(grant.pk, by=world.alice).password
        clock.forward(HOUR - 60)
        session = world.server.sign_in(grant.account, password)
        clock.forward(60)
        close(grant)
        assert not session.alive
        assert now_is(grant).end_reason == EndReason.EXPIRED


class TestEnding:
    @pytest.mark.parametrize("off", ["target", "level"])
    def test_what_is_switched_off_is_given_back_all_the_same(self, world: World, off: str):
        grant = opened(world)
        if off == "target":
            world.target.enabled = False
            administration.save_target(world.target, by=world.ada, clear_secrets={})
        else:
            world.read.enabled = False
            administration.save_level(world.read, by=world.ada)
        grants.release(grant.pk, by=world.alice)
        close(grant)
        assert (now_is(grant).state, world.server.accounts) == (GrantState.ENDED, {})

    def test_access_ends_though_its_level_is_gone(self, world: World):
        grant = opened(world)
        world.server.levels.clear()
        grants.revoke(grant.pk, by=world.olga, reason="Enough.")
        close(grant)
        assert (now_is(grant).state, world.server.accounts) == (GrantState.ENDED, {})

    def test_what_was_given_back_is_not_shown_as_approved_access(self, world: World):
        grant = opened(world)
        page = f"/requests/{grant.request_id}/"
        grants.release(grant.pk, by=world.alice)
        assert "Closing" in text(signed_in(world.bob).get(page))
        close(grant)
        for who in (world.alice, world.bob):
            assert "Released" in text(signed_in(who).get(page))
            assert "Active" not in text(signed_in(who).get(page))

    def test_an_emergency_is_one_for_ever(self, ready: World):  # noqa: F811
        """Neither its end nor the look back at it makes it look approved."""
        request = break_glass(ready)
        grant = Grant.objects.get(request=request)
        opening.open_grant(grant.pk, worker="w")
        grants.release(grant.pk, by=ready.alice)
        closing.close_grant(grant.pk, worker="w")
        review(ready, "carol", grant.review)
        after = now_is(request)
        assert (after.kind, after.state) == ("emergency", RequestState.BYPASSED)
        page = text(signed_in(ready.bob).get(f"/requests/{request.pk}/"))
        assert "alice opened read-only on orders for 30 min without approval" in page
        assert request.reason in page


class TestAfterwards:
    def test_what_happened_is_there_a_year_later(self, world: World, clock: Clock):
        """What was opened, and what never was; for whoever asked and for whoever decided."""
        grant = opened(world)
        expired = world.submit("amir")
        clock.forward(HOUR)
        close(grant)
        clock.forward(YEAR)
        sweeper.expire_requests()
        outbox.forget_old()
        assert now_is(expired).state == RequestState.EXPIRED
        for who, request in (("alice", grant.request), ("bob", grant.request), ("bob", expired)):
            assert request in access.visible_requests(world.people[who])
        shown = text(signed_in(world.bob).get(f"/requests/{grant.request_id}/"))
        assert "carol approved" in shown
        assert timeline(f"request:{grant.request_id}").filter(action="vote.cast").count() == 2


class TestTelling:
    def test_a_crowd_is_asked_to_the_last(self, world: World):
        people = get_user_model().objects
        made = people.bulk_create(
            get_user_model()(username=f"dba{n}", email=f"dba{n}@example.com") for n in range(150)
        )
        world.groups["dba"].user_set.add(*made)
        world.submit()
        tell()
        assert len(told("asked")) == len(made) + 3
