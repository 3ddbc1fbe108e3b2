"""alice, on call, opens without approval; everybody learns of it, and somebody looks back at it."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.db import IntegrityError, transaction
from django.test import Client

from approvals import closing, emergency, grants, opening, reviews, workflow
from approvals.errors import Invalid, NotAllowed, WrongState
from approvals.models import AccessRequest, Candidate, Grant, RequestKind, Review
from approvals.states import (
    EndReason,
    GrantState,
    RequestState,
    ReviewOutcome,
    ReviewStanding,
    StageState,
)
from audit import clock as time
from audit.log import timeline
from audit.models import Event
from tests.approvals.test_races import at_once
from tests.conftest import Clock
from tests.pages import text
from tests.world import HOUR, World, publish

REASON = "Payments are down, and nobody of dba answers."
PASSWORD = "a long password"


@pytest.fixture
def ready(world: World) -> World:
    """alice is on call, and the policy lets those on call open for half an hour."""
    world.groups["oncall"] = Group.objects.create(name="oncall")
    world.groups["oncall"].user_set.add(world.alice)
    publish_emergency(world)
    return world


def publish_emergency(world: World, **more: Any) -> None:
    values = {
        "emergency_groups": [world.groups["oncall"]],
        "emergency_duration": HOUR // 2,
        "review_within": 8 * HOUR,
    }
    publish(world, **{**values, **more})


def break_glass(world: World, who: str = "alice", **changes: Any) -> AccessRequest:
    given = {"reason": REASON, "confirmation": "orders", "proven": True, **changes}
    return emergency.break_glass(world.read.pk, by=world.people[who], **given)


def opened(world: World) -> Grant:
    """alice's access after an emergency, usable."""
    grant = Grant.objects.get(request=break_glass(world))
    opening.open_grant(grant.pk, worker="w1")
    grant.refresh_from_db()
    assert grant.state == GrantState.ACTIVE
    return grant


def review(world: World, who: str, about: Review, **changes: Any) -> Review:
    """What `who` found, who takes the access away with that, should it still be open."""
    given: dict[str, Any] = {"outcome": "justified", "note": "Read it.", "end_access": True}
    given |= changes
    return reviews.review(about.pk, by=world.people[who], **given)


def refused(code: str, kind: type[Exception], call: Any) -> Any:
    with pytest.raises(kind) as caught:
        call()
    assert caught.value.code == code  # type: ignore[attr-defined]
    return caught.value


class TestBreakingGlass:
    def test_it_opens_at_once_and_is_never_called_approved(self, ready: World):
        request = break_glass(ready, ticket="INC-7")
        assert (request.kind, request.state) == (RequestKind.EMERGENCY, RequestState.BYPASSED)
        assert request.get_state_display() == "Emergency"
        assert request.duration == HOUR // 2
        assert {stage.state for stage in request.stages.all()} == {StageState.SKIPPED}
        grant = Grant.objects.get(request=request)
        assert grant.scope_hash == request.scope_hash
        [told] = Event.objects.filter(action="accessrequest.bypassed")
        assert (told.actor_name, told.data["scope"]["reason"]) == ("alice", REASON)
        assert not Event.objects.filter(action="accessrequest.approved").exists()

    def test_it_is_known_who_was_passed_over(self, ready: World):
        request = break_glass(ready)
        drawn = Candidate.objects.filter(stage__request=request)
        assert set(drawn.values_list("user__username", flat=True)) == {
            "bob",
            "dan",
            "dora",
            "carol",
            "chen",
        }

    def test_it_lasts_no_longer_than_anything_allows(self, ready: World):
        ready.read.max_duration = 600
        ready.read.save()
        assert break_glass(ready).duration == 600

    def test_even_where_nobody_could_approve(self, ready: World):
        for group in ("dba", "security"):
            ready.groups[group].user_set.clear()
        assert break_glass(ready).state == RequestState.BYPASSED

    @pytest.mark.parametrize(
        ("changes", "field"),
        [
            ({"reason": "  "}, "reason"),
            ({"reason": "x" * 2001}, "reason"),
            ({"reason": "a\0b"}, "reason"),
            ({"ticket": "x" * 101}, "ticket"),
            ({"confirmation": ""}, "confirmation"),
            ({"confirmation": "Orders"}, "confirmation"),
        ],
    )
    def test_what_cannot_be_is_said_at_its_field(self, ready: World, changes: Any, field: str):
        with pytest.raises(Invalid) as caught:
            break_glass(ready, **changes)
        assert list(caught.value.fields) == [field]
        assert not AccessRequest.objects.exists()

    def test_whoever_the_policy_does_not_name_asks_like_everybody(self, ready: World):
        refused("not_eligible", NotAllowed, lambda: break_glass(ready, "amir"))
        assert Event.objects.filter(action="emergency.refused", actor_name="amir").count() == 1

    def test_whoever_may_not_ask_for_it_at_all_does_not_open_it(self, ready: World):
        ready.groups["oncall"].user_set.add(ready.mallory)
        refused("not_requestable", NotAllowed, lambda: break_glass(ready, "mallory"))

    def test_a_policy_that_names_nobody_lets_nobody(self, world: World):
        refused("not_eligible", NotAllowed, lambda: break_glass(world))
        assert emergency.offer(world.read, world.alice) is None

    def test_a_superuser_is_nobody_special(self, ready: World):
        refused("not_requestable", NotAllowed, lambda: break_glass(ready, "ada"))

    def test_nobody_opens_without_having_proved_who_they_are(self, ready: World):
        refused("step_up_required", NotAllowed, lambda: break_glass(ready, proven=False))

    def test_nobody_votes_on_it(self, ready: World):
        request = break_glass(ready)
        refused("wrong_state", WrongState, lambda: ready.vote(request, "bob"))
        refused("wrong_state", WrongState, lambda: workflow.cancel(request.pk, by=ready.alice))

    def test_it_ends_like_any_other(self, ready: World, clock: Clock):
        grant = opened(ready)
        clock.forward(HOUR // 2 + 1)
        closing.close_grant(grant.pk, worker="w1")
        grant.refresh_from_db()
        assert (grant.state, grant.end_reason) == (GrantState.ENDED, EndReason.EXPIRED)


class TestTheNextOne:
    def test_waits_for_the_review_of_the_last(self, ready: World):
        grant = opened(ready)
        grants.release(grant.pk, by=ready.alice)
        error = refused("review_open", NotAllowed, lambda: break_glass(ready))
        assert error.details["request"] == grant.request_id
        review(ready, "carol", grant.review)
        assert break_glass(ready).state == RequestState.BYPASSED

    def test_asking_like_everybody_goes_on_meanwhile(self, ready: World):
        opened(ready)
        assert ready.submit("alice").state == RequestState.PENDING

    def test_others_have_theirs(self, ready: World):
        ready.groups["oncall"].user_set.add(ready.amir)
        opened(ready)
        assert break_glass(ready, "amir").state == RequestState.BYPASSED

    def test_of_two_at_once_one_opens(self, committed: None, ready: World):
        for _ in range(3):
            results = at_once(lambda: break_glass(ready), lambda: break_glass(ready))
            kinds = sorted(type(one).__name__ for one in results)
            assert kinds == ["AccessRequest", "NotAllowed"]
            [one] = Review.objects.filter(reviewed_at__isnull=True)
            review(ready, "bob", one)
        assert Grant.objects.count() == 3


class TestLookingBack:
    def test_is_owed_from_the_beginning(self, ready: World):
        grant = opened(ready)
        assert grant.review.due_at - grant.review.opened_at == timedelta(hours=8)
        assert {one.username for one in reviews.reviewers(grant.review, time.now())} == {
            "bob",
            "dan",
            "dora",
            "carol",
            "chen",
        }
        assert list(reviews.waiting_for(ready.bob, time.now())) == [grant.review]
        assert not reviews.waiting_for(ready.alice, time.now())

    def test_says_what_was_found(self, ready: World):
        grant = opened(ready)
        review(ready, "bob", grant.review, outcome="needs_action", note=" Add an index. ")
        given = Review.objects.get()
        assert (given.outcome, given.note) == (ReviewOutcome.NEEDS_ACTION, "Add an index.")
        told = timeline(f"request:{grant.request_id}").get(action="review.done")
        assert (told.actor_name, told.data["outcome"]) == ("bob", "needs_action")
        assert given.standing(time.now()) == ReviewStanding.NEEDS_ACTION

    def test_nobody_looks_back_at_their_own(self, ready: World):
        ready.groups["dba"].user_set.add(ready.alice)
        grant = opened(ready)
        refused("self_approval", NotAllowed, lambda: review(ready, "alice", grant.review))
        with pytest.raises(IntegrityError, match="review_not_of_oneself"), transaction.atomic():
            Review.objects.update(
                outcome="justified", reviewed_by=ready.alice, reviewed_at=time.now()
            )

    @pytest.mark.parametrize("who", ["mallory", "amir", "olga", "ada"])
    def test_nor_do_those_who_were_not_passed_over(self, ready: World, who: str):
        grant = opened(ready)
        refused("not_eligible", NotAllowed, lambda: review(ready, who, grant.review))

    def test_nor_whoever_has_left(self, ready: World):
        grant = opened(ready)
        ready.bob.is_active = False
        ready.bob.save()
        refused("not_eligible", NotAllowed, lambda: review(ready, "bob", grant.review))

    def test_is_given_once(self, ready: World):
        grant = opened(ready)
        review(ready, "bob", grant.review)
        refused("wrong_state", WrongState, lambda: review(ready, "carol", grant.review))
        refused(
            "gone", WrongState, lambda: reviews.review(10**6, by=ready.bob, outcome="", note="")
        )

    @pytest.mark.parametrize(
        ("changes", "field"),
        [
            ({"outcome": "fine"}, "outcome"),
            ({"note": " "}, "note"),
            ({"note": "x" * 2001}, "note"),
            ({"note": "a\0b"}, "note"),
        ],
    )
    def test_what_cannot_be_is_said_at_its_field(self, ready: World, changes: Any, field: str):
        grant = opened(ready)
        with pytest.raises(Invalid) as caught:
            review(ready, "bob", grant.review, **changes)
        assert list(caught.value.fields) == [field]

    def test_comes_to_no_end_while_the_access_goes_on(self, ready: World):
        grant = Grant.objects.get(request=break_glass(ready))
        for state in (GrantState.SCHEDULED, GrantState.ACTIVE):
            assert grant.state == state
            for outcome in ReviewOutcome.values:
                more = {"outcome": outcome, "end_access": False}
                late = partial(review, ready, "bob", grant.review, **more)
                assert "still open" in refused("wrong_state", WrongState, late).message
            opening.open_grant(grant.pk, worker="w1")
            grant.refresh_from_db()
        grants.release(grant.pk, by=ready.alice)
        assert review(ready, "bob", grant.review, end_access=False).outcome == "justified"

    @pytest.mark.parametrize("outcome", ReviewOutcome.values)
    def test_may_take_the_access_away(self, ready: World, outcome: str):
        grant = opened(ready)
        review(ready, "bob", grant.review, outcome=outcome)
        grant.refresh_from_db()
        assert (grant.state, grant.end_reason) == (GrantState.REVOKING, EndReason.REVOKED)
        closing.close_grant(grant.pk, worker="w1")
        grant.refresh_from_db()
        assert grant.state == GrantState.ENDED

    def test_or_leaves_what_has_ended_as_it_is(self, ready: World):
        grant = opened(ready)
        grants.release(grant.pk, by=ready.alice)
        review(ready, "bob", grant.review, outcome="not_justified")
        grant.refresh_from_db()
        assert grant.end_reason == EndReason.RELEASED

    def test_those_who_are_told_may_as_well(self, ready: World):
        ready.groups["watch"] = Group.objects.create(name="watch")
        ready.groups["watch"].user_set.add(ready.mallory, ready.alice)
        publish_emergency(ready, emergency_tells=ready.groups["watch"])
        offered = emergency.offer(ready.read, ready.alice)
        assert offered is not None
        assert offered.tells == ("dba", "security", "watch")
        grant = opened(ready)
        assert reviews.visible(ready.mallory).get() == grant.review
        assert review(ready, "mallory", grant.review).outcome == "justified"

    def test_where_nobody_is_left_the_owners_are_asked_at_once(self, ready: World):
        for group in ("dba", "security"):
            ready.groups[group].user_set.clear()
        grant = opened(ready)
        asked = {one.username for one in reviews.reviewers(grant.review, time.now())}
        assert asked == {"olga", "ada"}


class TestReminding:
    def test_at_half_time_when_overdue_and_daily_then(self, ready: World, clock: Clock):
        review_ = opened(ready).review
        told = []
        for hours in (0, 4, 0, 4, 0, 23, 1, 24):
            clock.forward(hours * HOUR)
            told.append(reviews.remind())
        assert told == [0, 1, 0, 1, 0, 0, 1, 1]
        events = Event.objects.filter(action__startswith="review.").order_by("id")
        assert [event.action for event in events] == [
            "review.opened",
            "review.reminded",
            "review.overdue",
            "review.reminded",
            "review.reminded",
        ]
        review_.refresh_from_db()
        assert review_.standing(time.now()) == ReviewStanding.OVERDUE
        assert review(ready, "olga", review_).outcome == "justified"
        assert reviews.remind() == 0

    def test_after_an_outage_of_days_once(self, ready: World, clock: Clock):
        opened(ready)
        clock.forward(30 * 24 * HOUR)
        assert [reviews.remind(), reviews.remind()] == [1, 0]
        assert Event.objects.filter(action="review.overdue").count() == 1

    def test_by_two_sweepers_at_once_once(self, committed: None, ready: World, clock: Clock):
        opened(ready)
        clock.forward(4 * HOUR)
        assert sum(at_once(reviews.remind, reviews.remind, reviews.remind)) == 1
        assert Event.objects.filter(action="review.reminded").count() == 1


class TestOtherAccess:
    def test_is_looked_back_at_where_its_policy_asks_for_it(self, world: World):
        publish(world, review_all=True)
        grant = world.approved()
        opening.open_grant(grant.pk, worker="w1")
        assert not Review.objects.exists()
        grants.release(grant.pk, by=world.alice)
        closing.close_grant(grant.pk, worker="w1")
        [owed] = Review.objects.all()
        assert (owed.grant, owed.emergency) == (grant, False)
        assert review(world, "dan", owed).reviewed_by == world.dan

    def test_unless_it_never_opened_or_no_policy_asks(self, world: World):
        publish(world, review_all=True)
        grants.release(world.approved().pk, by=world.alice)
        publish(world)
        grant = world.approved("amir")
        opening.open_grant(grant.pk, worker="w1")
        grants.release(grant.pk, by=world.amir)
        closing.close_grant(grant.pk, worker="w1")
        assert not Review.objects.exists()

    def test_and_keeps_nobody_from_an_emergency(self, ready: World):
        publish_emergency(ready, review_all=True)
        grant = ready.approved()
        opening.open_grant(grant.pk, worker="w1")
        grants.release(grant.pk, by=ready.alice)
        closing.close_grant(grant.pk, worker="w1")
        assert Review.objects.get().emergency is False
        assert break_glass(ready).state == RequestState.BYPASSED


class TestPublishing:
    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"emergency_duration": None}, "Say how long an emergency lasts."),
            ({"emergency_groups": []}, "Name the groups"),
            ({"emergency_duration": 9 * HOUR}, "no longer than other access"),
            ({"emergency_duration": 0}, "at least a second"),
            ({"review_within": 0}, "Whoever looks back"),
        ],
    )
    def test_what_could_not_work_is_refused(self, ready: World, changes: Any, said: str):
        with pytest.raises(Invalid, match=said):
            publish_emergency(ready, **changes)


class TestPages:
    def test_alice_is_offered_it_and_amir_is_not(self, ready: World):
        page = f"/ask/{ready.read.pk}/emergency/"
        assert page in signed_in(ready, "alice").get(f"/ask/{ready.read.pk}/").content.decode()
        amir = signed_in(ready, "amir")
        assert page not in amir.get(f"/ask/{ready.read.pk}/").content.decode()
        assert amir.get(page).status_code == 404

    def test_the_page_says_what_follows_and_keeps_what_was_typed(self, ready: World):
        alice = signed_in(ready, "alice")
        page = f"/ask/{ready.read.pk}/emergency/"
        assert "It opens at once, for 30 min" in alice.get(page).content.decode()
        typed = {"reason": REASON, "confirmation": "order", "password": PASSWORD}
        wrong = alice.post(page, typed)
        assert wrong.status_code == 422
        assert "Type the target&#x27;s name, orders, to confirm." in wrong.content.decode()
        assert REASON in wrong.content.decode()
        assert PASSWORD not in wrong.content.decode()

    @pytest.mark.parametrize(
        ("password", "said"), [("", "Type it."), ("wrong", "This is not your password.")]
    )
    def test_a_wrong_password_opens_nothing(self, ready: World, password: str, said: str):
        typed = {"reason": REASON, "confirmation": "orders", "password": password}
        answer = signed_in(ready, "alice").post(f"/ask/{ready.read.pk}/emergency/", typed)
        assert answer.status_code == 422
        assert said in answer.content.decode()
        assert not AccessRequest.objects.exists()

    def test_someone_elses_password_does_not_count(self, ready: World):
        ready.bob.set_password("another long password")
        ready.bob.save()
        typed = {"reason": REASON, "confirmation": "orders", "password": "another long password"}
        answer = signed_in(ready, "alice").post(f"/ask/{ready.read.pk}/emergency/", typed)
        assert answer.status_code == 422

    @pytest.mark.slow
    def test_from_opening_to_the_review(self, ready: World):
        alice, bob = signed_in(ready, "alice"), signed_in(ready, "bob")
        typed = {"reason": REASON, "confirmation": "orders", "password": PASSWORD}
        answer = alice.post(f"/ask/{ready.read.pk}/emergency/", typed, follow=True)
        [(where, _)] = answer.redirect_chain
        shown = answer.content.decode()
        assert "Emergency" in shown
        assert "Skipped" in shown
        assert "alice opened read-only on orders for 30 min without approval" in shown
        assert shown.index("alice took emergency access") < shown.index("asks for a look back")
        assert "not asked: bob, dan, dora" in shown
        assert "Nobody decides about their own access" in shown
        owed = Review.objects.get()
        page = f"/reviews/{owed.pk}/"
        for address in ("/", "/reviews/", where):
            assert f'href="{page}"' in bob.get(address).content.decode()
        said = text(bob.get(page))
        assert "Look back: alice opened read-only on orders for 30 min without approval" in said
        assert "it never opened" in said
        assert "bob, dan, dora" in said
        assert "The access is still open; it can be decided when it has ended" in said
        empty = bob.post(page, {"outcome": "justified", "note": ""})
        assert empty.status_code == 422
        assert "Say what you found" in empty.content.decode()
        found = {"outcome": "justified", "note": "<b>Needed</b>"}
        early = bob.post(page, found)
        assert early.status_code == 409
        assert "still open" in early.content.decode()
        found["end_access"] = "on"
        done = bob.post(page, found, follow=True).content.decode()
        assert "&lt;b&gt;Needed&lt;/b&gt;" in done
        assert "Justified" in done
        assert Grant.objects.get().end_reason == EndReason.REVOKED
        refusal = alice.post(f"/reviews/{owed.pk}/", found)
        assert refusal.status_code == 403

    def test_an_owed_review_is_said_before_anything_is_typed(self, ready: World):
        grant = opened(ready)
        page = signed_in(ready, "alice").get(f"/ask/{ready.read.pk}/emergency/")
        assert f"/requests/{grant.request_id}/" in page.content.decode()

    def test_strangers_see_no_review(self, ready: World):
        owed = opened(ready).review
        mallory = signed_in(ready, "mallory")
        assert mallory.post(f"/reviews/{owed.pk}/", {}).status_code == 404
        assert "alice" not in mallory.get("/reviews/").content.decode()


class TestOverTheApi:
    @pytest.mark.slow
    def test_it_is_opened_and_looked_back_at(self, ready: World):
        alice, bob = signed_in(ready, "alice"), signed_in(ready, "bob")
        given = {"level": ready.read.pk, "reason": REASON, "confirmation": "orders"}
        wrong = post(alice, "/api/v1/requests/emergency/", {**given, "password": "wrong"})
        assert (wrong.status_code, wrong.json()["code"]) == (403, "step_up_required")
        made = post(alice, "/api/v1/requests/emergency/", {**given, "password": PASSWORD})
        assert (made.status_code, made.json()["state"]) == (201, "bypassed")
        [owed] = bob.get("/api/v1/reviews/?awaiting_me=true&open=true").json()["results"]
        assert (owed["standing"], owed["request"]) == ("open", made.json()["id"])
        assert alice.get("/api/v1/reviews/?awaiting_me=true").json()["results"] == []
        address = f"/api/v1/reviews/{owed['id']}/"
        given = {"outcome": "justified", "note": "Needed."}
        assert post(alice, address, given).json()["code"] == "self_approval"
        early = post(bob, address, given)
        assert (early.status_code, early.json()["code"]) == (409, "wrong_state")
        given["end_access"] = True
        assert post(bob, address, given).json()["standing"] == "justified"
        late = post(bob, address, given)
        assert (late.status_code, late.json()["current"]["standing"]) == (409, "justified")
        assert bob.get(address).json()["reviewed_by"]["username"] == "bob"

    def test_a_key_is_refused_as_it_would_keep_the_password(self, ready: World):
        given = {"level": ready.read.pk, "reason": REASON, "confirmation": "orders"}
        answer = post(
            signed_in(ready, "alice"),
            "/api/v1/requests/emergency/",
            {**given, "password": PASSWORD},
            headers={"Idempotency-Key": "once"},
        )
        assert answer.status_code == 400
        assert not AccessRequest.objects.exists()


def signed_in(world: World, who: str) -> Client:
    client = Client()
    client.force_login(world.people[who])
    return client


def post(client: Client, address: str, body: Any, **more: Any) -> Any:
    return client.post(address, body, content_type="application/json", **more)
