"""bob sends alice's request back, and she changes it; what was voted on what it was is void."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from approvals import editing, wishes, workflow
from approvals.errors import Invalid, NotAllowed, WrongState
from approvals.models import AccessRequest, Decision, Grant, Vote
from approvals.states import RequestState, StageState
from audit import clock as time
from audit.log import timeline
from audit.models import Event
from tests.approvals.test_emergency import post, refused, signed_in
from tests.approvals.test_races import at_once
from tests.conftest import Clock
from tests.world import HOUR, World, over, publish, stage

COMMENT = "An hour is too long for a look."


def back(world: World, request: AccessRequest, who: str = "bob", **changes: Any) -> AccessRequest:
    request.refresh_from_db()
    given = {"scope_hash": request.scope_hash, "comment": COMMENT, **changes}
    return editing.send_back(request.pk, by=world.people[who], **given)


def edit(world: World, request: AccessRequest, who: str = "alice", **wish: Any) -> AccessRequest:
    request.refresh_from_db()
    same = {name: getattr(request, name) for name in editing.EDITABLE}
    asked = wishes.Wish(**{**same, **wish})
    by = world.people[who]
    return editing.edit(request.pk, by=by, wish=asked, scope_hash=request.scope_hash)


def counting(request: AccessRequest) -> int:
    return Vote.objects.counting().filter(stage__request=request).count()


class TestSendingBack:
    def test_nobody_can_vote_until_it_comes_again(self, world: World):
        request = world.submit()
        assert back(world, request).state == RequestState.CHANGES_REQUESTED
        error = refused("wrong_state", WrongState, lambda: world.vote(request, "dan"))
        assert "sent back" in error.message
        assert not AccessRequest.objects.waiting_for(world.dan).exists()
        [told] = timeline(f"request:{request.pk}").filter(action__endswith="changes_requested")
        assert (told.actor_name, told.data["note"]) == ("bob", COMMENT)

    @pytest.mark.parametrize(
        ("who", "code"),
        [
            ("alice", "self_approval"),
            ("mallory", "not_eligible"),
            ("carol", "wrong_stage"),
            ("ada", "not_eligible"),
        ],
    )
    def test_only_those_may_who_are_asked_now(self, world: World, who: str, code: str):
        request = world.submit()
        kind = NotAllowed
        refused(code, kind, lambda: back(world, request, who))
        assert Event.objects.filter(action="send_back.refused", actor_name=who).count() == 1

    @pytest.mark.parametrize("comment", ["", "  ", "x" * 2001, "a\0b"])
    def test_it_says_what_should_be_different(self, world: World, comment: str):
        with pytest.raises(Invalid) as caught:
            back(world, world.submit(), comment=comment)
        assert list(caught.value.fields) == ["comment"]

    def test_what_has_changed_meanwhile_is_not_sent_back_unread(self, world: World):
        request = world.submit()
        refused("scope_changed", WrongState, lambda: back(world, request, scope_hash="0" * 64))

    def test_twice_is_too_late(self, world: World):
        request = world.submit()
        back(world, request)
        refused("wrong_state", WrongState, lambda: back(world, request, "dan"))

    def test_its_clocks_run_on(self, world: World, clock: Clock):
        request = world.submit()
        back(world, request)
        clock.forward(86400)
        assert over() == {request.pk}
        expired = workflow.expire(request.pk)
        assert expired is not None
        assert expired.state == RequestState.EXPIRED

    def test_she_may_take_it_back_instead(self, world: World):
        request = world.submit()
        back(world, request)
        assert workflow.cancel(request.pk, by=world.alice).state == RequestState.CANCELLED


class TestChanging:
    def test_begins_the_chain_anew_on_the_new_scope(self, world: World):
        request = world.submit()
        seen = request.scope_hash
        world.vote(request, "bob")
        back(world, request, "carol")
        changed = edit(world, request, duration=HOUR // 2, reason="Only a look.")
        assert (changed.state, changed.round) == (RequestState.PENDING, 2)
        assert changed.scope_hash != seen
        assert counting(request) == 0
        assert changed.stages.get(state=StageState.OPEN).name == "Database"
        event = timeline(f"request:{request.pk}").get(action="accessrequest.edited")
        assert event.data["before"]["duration"] == HOUR
        assert event.data["after"] == {"duration": HOUR // 2, "reason": "Only a look."}
        world.vote(request, "bob")
        world.vote(request, "carol")
        assert Grant.objects.get().duration == HOUR // 2

    def test_a_vote_on_what_it_was_is_a_conflict(self, world: World):
        request = world.submit()
        seen = request.scope_hash
        edit(world, request, reason="Only a look.")
        late = partial(world.vote, request, "bob", scope_hash=seen)
        refused("scope_changed", WrongState, late)

    def test_nothing_changed_goes_back_with_the_votes_that_were_given(self, world: World):
        publish(world, stage(world, "Database", "dba", minimum=2))
        request = world.submit()
        world.vote(request, "dan")
        back(world, request)
        same = edit(world, request)
        assert (same.state, same.round, counting(request)) == (RequestState.PENDING, 1, 1)
        refused("unchanged", Invalid, lambda: edit(world, request))

    def test_it_need_not_be_sent_back_first(self, world: World):
        request = world.submit()
        assert edit(world, request, ticket="OPS-7").scope["ticket"] == "OPS-7"

    @pytest.mark.parametrize("who", ["bob", "amir", "ada"])
    def test_nobody_else_speaks_for_her(self, world: World, who: str):
        request = world.submit()
        refused("not_yours", NotAllowed, lambda: edit(world, request, who, reason="Mine."))

    @pytest.mark.parametrize(
        ("wish", "field"),
        [
            ({"duration": 0}, "duration"),
            ({"duration": 5 * HOUR}, "duration"),
            ({"reason": " "}, "reason"),
            ({"ticket": "x" * 101}, "ticket"),
        ],
    )
    def test_what_cannot_be_asked_cannot_be_changed_into(self, world: World, wish: Any, field: str):
        request = world.submit()
        before = request.scope_hash
        with pytest.raises(Invalid) as caught:
            edit(world, request, **wish)
        assert list(caught.value.fields) == [field]
        request.refresh_from_db()
        assert request.scope_hash == before

    def test_a_start_that_has_passed_meanwhile_hinders_no_other_change(
        self, world: World, clock: Clock
    ):
        request = world.submit(starts_at=time.now() + timedelta(minutes=10))
        clock.forward(1200)
        assert edit(world, request, reason="Only a look.").round == 2
        with pytest.raises(Invalid, match="cannot be used"):
            edit(world, request, starts_at=time.now() - timedelta(minutes=1))

    def test_too_late_is_too_late(self, world: World, clock: Clock):
        request = world.submit()
        clock.forward(86400)
        refused("wrong_state", WrongState, lambda: edit(world, request, reason="Only a look."))
        decided = world.submit("amir")
        world.vote(decided, "bob", "deny")
        late = partial(edit, world, decided, "amir", reason="Only a look.")
        refused("wrong_state", WrongState, late)

    @pytest.mark.slow
    def test_against_a_vote_at_once_nothing_counts_for_what_was_not_seen(
        self, committed: None, world: World
    ):
        for _ in range(4):
            request = world.submit()
            vote = partial(
                workflow.vote,
                request.pk,
                by=world.bob,
                decision=Decision.APPROVE,
                scope_hash=request.scope_hash,
            )
            voted, edited = at_once(vote, partial(edit, world, request, reason="Only a look."))
            assert isinstance(edited, AccessRequest)
            assert counting(request) == 0
            assert isinstance(voted, AccessRequest | WrongState)
            workflow.cancel(request.pk, by=world.alice)


class TestPages:
    @pytest.mark.slow
    def test_bob_sends_it_back_and_alice_changes_it(self, world: World):
        alice, bob, request = signed_in(world, "alice"), signed_in(world, "bob"), world.submit()
        address = f"/requests/{request.pk}/"
        assert "Send back" in bob.get(address).content.decode()
        given = {"scope_hash": request.scope_hash, "comment": ""}
        empty = bob.post(f"{address}send-back/", given)
        assert empty.status_code == 422
        assert "Say what should be different." in empty.content.decode()
        told = bob.post(f"{address}send-back/", {**given, "comment": "<i>Shorter</i>"}, follow=True)
        assert "Changes requested" in told.content.decode()
        shown = alice.get(address).content.decode()
        assert "It was sent back" in shown
        assert "&lt;i&gt;Shorter&lt;/i&gt;" in shown
        form = alice.get(f"{address}edit/").content.decode()
        assert "Orders hang since 10:40." in form
        wish = {"duration": "900", "reason": "<b>Only</b> a look.", "ticket": ""}
        wish["scope_hash"] = request.scope_hash
        done = alice.post(f"{address}edit/", wish, follow=True).content.decode()
        assert "How long: 1 h → <b>15 min</b>" in done
        assert "&lt;b&gt;Only&lt;/b&gt; a look.</ins>" in done
        assert "alice changed it" in bob.get(address).content.decode()

    def test_a_form_that_is_old_is_refused_and_keeps_what_was_typed(self, world: World):
        alice, request = signed_in(world, "alice"), world.submit()
        wish = {"duration": "900", "reason": "Only a look.", "scope_hash": "0" * 64}
        answer = alice.post(f"/requests/{request.pk}/edit/", wish)
        assert answer.status_code == 409
        assert "Only a look." in answer.content.decode()

    def test_from_the_queue_it_leads_back_to_the_queue(self, world: World):
        request = world.submit()
        given = {"scope_hash": request.scope_hash, "comment": COMMENT, "queue": "", "then": "0"}
        answer = signed_in(world, "bob").post(f"/requests/{request.pk}/send-back/", given)
        assert answer["Location"].startswith("/queue/")


@pytest.mark.slow
def test_over_the_api(world: World):
    alice, bob, request = signed_in(world, "alice"), signed_in(world, "bob"), world.submit()
    address = f"/api/v1/requests/{request.pk}/"
    told = bob.get(address).json()
    assert "send_back" in told["permitted_actions"]
    given = {"scope_hash": told["scope_hash"], "comment": COMMENT}
    assert post(bob, f"{address}send-back/", given).json()["state"] == "changes_requested"
    wish = {"scope_hash": told["scope_hash"], "duration": 900, "reason": "Only a look."}
    assert post(bob, f"{address}edit/", wish).json()["code"] == "not_yours"
    changed = post(alice, f"{address}edit/", wish).json()
    assert (changed["state"], changed["duration"]) == ("pending", 900)
    late = post(alice, f"{address}edit/", wish)
    assert (late.status_code, late.json()["code"]) == (409, "scope_changed")
