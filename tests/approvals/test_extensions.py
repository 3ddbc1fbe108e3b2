"""Longer access: asked for near the end, decided, and given without a gap, or not given at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest
from django.db import DatabaseError, transaction
from guardian.shortcuts import remove_perm

from approvals import (
    administration,
    closing,
    extending,
    extensions,
    grants,
    leases,
    opening,
    reconciler,
    targets,
    workflow,
)
from approvals.errors import DebugflowError, Invalid, ProvisionError, WrongState
from approvals.models import AccessRequest, ExtensionApproval, Grant, Step, StepKind
from approvals.sentences import event_sentence, headline
from approvals.states import EndReason, GrantState, RequestState, StageState
from audit import clock as database_clock
from audit.log import timeline
from tests.world import HOUR, World, over, publish

DOWN = ProvisionError("The target does not answer.", code="unreachable")
WINDOW = 1800  # seconds; what the policy of these stories has
LONGER: dict[str, Any] = {
    "extensions_most": 2,
    "extension_max": 2 * HOUR,
    "max_total": 8 * HOUR,
    "extension_approval": ExtensionApproval.LAST,
    "extension_window": WINDOW,
}


@pytest.fixture
def world(world: World) -> World:
    """The usual one, whose policy allows longer access that its last stage agrees to."""
    publish(world, **LONGER)
    return world


def opened(world: World, who: str = "alice", **wish: Any) -> Any:
    grant = world.approved(who, **wish)
    opening.open_grant(grant.pk, worker="w1")
    grant.refresh_from_db()
    assert grant.state == GrantState.ACTIVE
    return grant


@pytest.fixture
def near_end(world: World, clock: Any) -> Any:
    """alice's access of an hour, half an hour of it left."""
    grant = opened(world)
    clock.forward(HOUR - WINDOW + 1)
    return grant


def ask(world: World, grant: Grant, who: str = "alice", **wish: Any) -> AccessRequest:
    return workflow.ask_longer(grant.pk, by=world.people[who], wish=world.wish(**wish))


def agreed(world: World, grant: Grant, **wish: Any) -> AccessRequest:
    request = ask(world, grant, **wish)
    world.vote(request, "carol")
    request.refresh_from_db()
    return request


def extend(grant: Any) -> Any:
    extending.extend_grant(grant.pk, worker="w1")
    grant.refresh_from_db()
    return grant


def close(grant: Any) -> Any:
    closing.close_grant(grant.pk, worker="w1")
    grant.refresh_from_db()
    return grant


def refusal(call: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(DebugflowError) as caught:
        call()
    return caught.value.code, caught.value.message


def told(grant: Grant) -> list[str]:
    return [event.action for event in timeline(f"request:{grant.request_id}")]


def until_on_target(world: World, grant: Grant) -> datetime:
    return world.server.accounts[grant.account].valid_until


class TestAsking:
    def test_alice_goes_on_with_the_same_password_and_session(self, world: World, near_end: Any):
        shown = grants.reveal(near_end.pk, by=world.alice)
        session = world.server.sign_in(near_end.account, shown.password)
        before = near_end.expires_at
        request = agreed(world, near_end, duration=HOUR)
        assert request.state == RequestState.APPROVED
        grant = extend(near_end)
        assert before is not None
        assert grant.expires_at == before + timedelta(hours=1)
        assert until_on_target(world, grant) == grant.expires_at
        assert session.alive
        assert world.server.sign_in(grant.account, shown.password).alive
        assert (grant.extended_count, grant.is_extending) == (1, False)
        assert told(grant)[-2:] == ["grant.extending", "grant.extended"]

    def test_the_request_says_what_it_is_for(self, world: World, near_end: Any):
        request = ask(world, near_end, duration=HOUR)
        assert (request.extends, request.starts_at) == (near_end, near_end.expires_at)
        assert request.scope["extends"] == near_end.pk
        assert {name: request.scope[name] for name in ("target", "level", "reach")} == {
            name: near_end.scope[name] for name in ("target", "level", "reach")
        }
        assert headline(request) == "alice asks for 1 h more of read-only on orders"
        [submitted, *_] = timeline(f"request:{request.pk}")
        sentence = event_sentence(submitted)
        assert sentence == "alice asked for 1 h more of read-only on orders under Production v2."

    def test_only_its_holder_asks(self, world: World, near_end: Any):
        for who in ("amir", "bob", "olga", "ada", "mallory"):
            assert refusal(partial(ask, world, near_end, who))[0] == "not_yours"
        event = timeline(f"request:{near_end.request_id}").filter(action="extend.refused").last()
        assert event is not None
        assert event.actor_name == "mallory"

    def test_not_before_its_time(self, world: World):
        grant = opened(world)
        code, message = refusal(lambda: ask(world, grant))
        opens = extensions.room(grant).opens_at
        assert code == "too_early"
        assert opens is not None
        assert f"{opens:%H:%M} UTC on" in message  # before it the day, if another

    def test_not_once_it_is_over(self, world: World, near_end: Any, clock):
        clock.forward(WINDOW)
        assert refusal(lambda: ask(world, near_end))[0] == "wrong_state"
        close(near_end)
        assert refusal(lambda: ask(world, near_end))[0] == "wrong_state"

    def test_not_where_the_policy_allows_none(self, world: World, clock):
        publish(world)
        grant = opened(world)
        clock.forward(HOUR - 60)
        assert refusal(lambda: ask(world, grant))[0] == "no_extensions"

    def test_its_own_policy_version_counts(self, world: World, near_end: Any):
        publish(world)  # from now on none is allowed
        assert ask(world, near_end).policy_version == near_end.request.policy_version

    def test_one_at_a_time(self, world: World, near_end: Any):
        request = ask(world, near_end)
        code, message = refusal(lambda: ask(world, near_end))
        assert code == "asked_already"
        assert f"request {request.pk}" in message
        workflow.cancel(request.pk, by=world.alice)
        ask(world, near_end)

    def test_it_is_no_obstacle_to_asking_for_another_access(self, world: World, near_end: Any):
        ask(world, near_end)
        assert world.submit().kind == "access"

    def test_not_while_one_is_under_way(self, world: World, near_end: Any):
        agreed(world, near_end)
        assert refusal(lambda: ask(world, near_end))[0] == "wrong_state"

    @pytest.mark.slow
    def test_as_often_as_the_policy_says(self, world: World, near_end: Any, clock):
        for number in (1, 2):
            agreed(world, near_end, duration=HOUR)
            assert extend(near_end).extended_count == number
            clock.forward(HOUR)
        code, message = refusal(lambda: ask(world, near_end))
        assert (code, message[:7]) == ("used_up", "2 of 2 ")

    def test_no_longer_than_it_may_last_in_all(self, world: World, clock):
        publish(world, **{**LONGER, "max_duration": 2 * HOUR, "max_total": 2 * HOUR})
        grant = opened(world, duration=HOUR + WINDOW)
        clock.forward(HOUR + WINDOW - 60)
        with pytest.raises(Invalid) as caught:
            ask(world, grant, duration=HOUR)
        assert caught.value.fields["duration"] == [
            "Up to 30 min; the limit is that of all that it may last."
        ]
        agreed(world, grant, duration=WINDOW)
        extend(grant)
        clock.forward(WINDOW)
        assert refusal(lambda: ask(world, grant, duration=1)) == (
            "used_up",
            "It lasts as long as its policy lets it in all. Ask for access again.",
        )

    def test_no_more_at_once_than_the_level_allows(self, world: World, near_end: Any):
        world.read.max_duration = HOUR
        administration.save_level(world.read, by=world.ada)
        with pytest.raises(Invalid) as caught:
            ask(world, near_end, duration=HOUR + 1)
        assert caught.value.fields["duration"] == [
            "Up to 1 h; the limit is that of the level read-only."
        ]

    @pytest.mark.parametrize(
        ("wish", "field"),
        [
            ({"duration": 0}, "duration"),
            ({"duration": -HOUR}, "duration"),
            ({"duration": 2 * HOUR + 1}, "duration"),
            ({"reason": " "}, "reason"),
            ({"reason": "x" * 2001}, "reason"),
            ({"reason": "a\x00b"}, "reason"),
        ],
    )
    def test_what_cannot_be_used(self, world: World, near_end: Any, wish, field):
        with pytest.raises(Invalid) as caught:
            ask(world, near_end, **wish)
        assert list(caught.value.fields) == [field]
        assert not AccessRequest.objects.filter(extends=near_end).exists()

    def test_what_has_changed_is_not_prolonged(self, world: World, near_end: Any):
        world.server.levels["read-only"] = ("may read", "more")
        administration.save_level(world.read, by=world.ada)
        code, message = refusal(lambda: ask(world, near_end))
        assert code == "scope_changed"
        assert "level.summary" in message

    @pytest.mark.slow
    def test_whoever_may_not_ask_any_more_may_not_ask_for_more(self, world: World, near_end: Any):
        remove_perm("approvals.request_accesslevel", world.groups["developers"], world.read)
        assert refusal(lambda: ask(world, near_end))[0] == "not_requestable"

    @pytest.mark.parametrize("what", ["level", "target", "policy"])
    def test_what_is_switched_off_is_not_prolonged(self, world: World, near_end: Any, what):
        thing: Any = {"level": world.read, "target": world.target, "policy": world.policy}[what]
        type(thing).objects.filter(pk=thing.pk).update(enabled=False)
        with pytest.raises(DebugflowError):
            ask(world, near_end)

    def test_there_is_no_such_grant(self, world: World):
        with pytest.raises(WrongState):
            workflow.ask_longer(10**9, by=world.alice, wish=world.wish())

    def test_what_the_page_offers_is_what_the_verb_does(self, world: World, near_end: Any):
        now = database_clock.now()
        assert grants.permitted_actions(near_end, world.alice, now)["extend"] is None
        refused = grants.permitted_actions(near_end, world.bob, now)["extend"]
        assert refused is not None
        assert refused.code == "not_yours"


class TestDeciding:
    def test_the_last_stage_alone(self, world: World, near_end: Any):
        request = ask(world, near_end)
        stages = {stage.name: stage.state for stage in request.stages.all()}
        assert stages == {"Database": StageState.SKIPPED, "Security": StageState.OPEN}
        assert refusal(lambda: world.vote(request, "bob"))[0] == "not_eligible"
        world.vote(request, "carol")
        assert extend(near_end).extended_count == 1

    def test_the_whole_chain(self, world: World, clock):
        publish(world, **{**LONGER, "extension_approval": ExtensionApproval.CHAIN})
        grant = opened(world)
        clock.forward(HOUR - 60)
        request = ask(world, grant)
        world.vote(request, "bob")
        assert not extend(grant).is_extending
        world.vote(request, "carol")
        assert extend(grant).extended_count == 1

    def test_nobody(self, world: World, clock):
        publish(world, **{**LONGER, "extension_approval": ExtensionApproval.NONE})
        grant = opened(world)
        clock.forward(HOUR - 60)
        request = ask(world, grant)
        assert request.state == RequestState.APPROVED
        assert {stage.state for stage in request.stages.all()} == {StageState.SKIPPED}
        approved = timeline(f"request:{request.pk}").get(action="accessrequest.approved")
        assert approved.actor_type == "system"
        assert event_sentence(approved) == (
            "debugflow approved it: its policy asks nobody for longer access."
        )
        assert extend(grant).extended_count == 1

    def test_nobody_decides_about_their_own(self, world: World, near_end: Any):
        world.groups["security"].user_set.add(world.alice)
        request = ask(world, near_end)
        assert refusal(lambda: world.vote(request, "alice"))[0] == "self_approval"

    def test_where_nobody_could_decide_it_is_refused(self, world: World, near_end: Any):
        world.groups["security"].user_set.clear()
        assert refusal(lambda: ask(world, near_end))[0] == "unfillable"
        world.groups["security"].user_set.add(world.carol)
        world.groups["dba"].user_set.clear()  # who are not asked
        ask(world, near_end)

    def test_a_denial_leaves_the_end(self, world: World, near_end: Any):
        request = ask(world, near_end)
        before = near_end.expires_at
        world.vote(request, "carol", "deny")
        assert extend(near_end).expires_at == before
        assert not near_end.is_extending

    def test_too_late_is_expired_and_opens_nothing_again(self, world: World, near_end: Any, clock):
        request = ask(world, near_end)
        clock.forward(WINDOW)
        code, message = refusal(lambda: world.vote(request, "carol"))
        assert code == "wrong_state"
        assert "has ended" in message
        assert request.pk in over()
        workflow.expire(request.pk)
        request.refresh_from_db()
        assert request.state == RequestState.EXPIRED
        assert request.decision_note == "The access that it was to prolong has ended."
        assert close(near_end).state == GrantState.ENDED

    @pytest.mark.parametrize("how", ["release", "revoke"])
    def test_it_expires_with_an_access_that_is_taken_away(self, world: World, near_end, how):
        request = ask(world, near_end)
        if how == "release":
            grants.release(near_end.pk, by=world.alice)
        else:
            grants.revoke(near_end.pk, by=world.olga, reason="Enough.")
        assert refusal(lambda: world.vote(request, "carol"))[0] == "wrong_state"
        assert over() == {request.pk}
        expired = workflow.expire(request.pk)
        assert expired is not None
        assert expired.state == RequestState.EXPIRED
        close(near_end)
        assert near_end.state == GrantState.ENDED

    def test_a_level_that_changes_meanwhile_ends_the_request(self, world: World, near_end: Any):
        request = ask(world, near_end)
        world.server.levels["read-only"] = ("may read", "more")
        administration.save_level(world.read, by=world.ada)
        request.refresh_from_db()
        assert request.state == RequestState.CANCELLED
        assert "level.summary" in request.decision_note
        assert refusal(lambda: world.vote(request, "carol"))[0] == "wrong_state"

    def test_whoever_agreed_to_it_may_take_it_away(self, world: World, near_end: Any):
        request = ask(world, near_end)
        assert grants.may_revoke(near_end, world.chen) is not None
        world.vote(request, "chen")
        assert grants.may_revoke(near_end, world.chen) is None


class TestCarryingOut:
    def test_the_target_first_and_the_ledger_after_it(self, world: World, near_end: Any):
        agreed(world, near_end, duration=HOUR)
        near_end.refresh_from_db()
        before, later = near_end.expires_at, near_end.extended_until
        assert until_on_target(world, near_end) == before
        [job] = extending.claim(worker="w1")
        provisioner = targets.provisioner(near_end.target)
        provisioner.extend(extending._order(job.grant), extending.LeaseFence(job))
        near_end.refresh_from_db()
        assert (near_end.expires_at, until_on_target(world, near_end)) == (before, later)
        extending._extended(job)
        near_end.refresh_from_db()
        assert near_end.expires_at == later

    def test_a_failing_target_is_tried_again_until_it_works(self, world: World, near_end, clock):
        agreed(world, near_end)
        world.server.fail_next("extend", DOWN, times=3)
        for _ in range(3):
            assert extend(near_end).is_extending
            clock.forward(extending.LAST_RETRY)
        assert near_end.last_error == DOWN.message
        assert extend(near_end).extended_count == 1
        assert (near_end.is_extending, near_end.last_error) == (False, "")
        assert told(near_end).count("grant.attempt_failed") == 1

    def test_a_target_that_stays_away_leaves_the_old_end(self, world: World, near_end, clock):
        agreed(world, near_end)
        world.server.fail_next("extend", DOWN, times=100)
        extend(near_end)
        clock.forward(WINDOW)
        assert not extending.claim(worker="w1")
        close(near_end)
        assert (near_end.state, near_end.end_reason) == (GrantState.ENDED, EndReason.EXPIRED)

    def test_a_lost_answer_is_taken_up_by_the_next_attempt(self, world: World, near_end, clock):
        agreed(world, near_end)
        lost = ProvisionError("The connection was lost.", code="unreachable")
        original = world.server.enter

        def enter(verb: str) -> None:
            original(verb)
            if verb == "commit":  # kept there, and never told
                world.server.enter = original  # type: ignore[method-assign]
                until = Grant.objects.get(pk=near_end.pk).extended_until
                assert until is not None
                world.server.accounts[near_end.account].valid_until = until
                raise lost

        world.server.enter = enter  # type: ignore[method-assign]
        assert extend(near_end).is_extending
        assert until_on_target(world, near_end) == near_end.extended_until
        clock.forward(extending.LAST_RETRY)
        assert extend(near_end).expires_at == near_end.extended_until

    def test_the_level_drifting_on_the_target_is_not_prolonged(self, world: World, near_end):
        agreed(world, near_end)
        world.server.levels["read-only"] = ("may read", "more")
        before = near_end.expires_at
        assert extend(near_end).expires_at == before
        assert near_end.next_try_at is None
        given_up = timeline(f"request:{near_end.request_id}").last()
        assert given_up is not None
        assert (given_up.action, given_up.data["code"]) == (
            "grant.extension_given_up",
            "scope_changed",
        )
        assert refusal(lambda: ask(world, near_end))[0] == "wrong_state"

    def test_a_level_changed_since_the_decision_is_not_prolonged(self, world: World, near_end):
        agreed(world, near_end)
        world.server.levels["read-only"] = ("may read", "more")
        administration.save_level(world.read, by=world.ada)
        extend(near_end)
        assert "extend" not in world.server.calls
        assert "level.summary" in near_end.last_error

    @pytest.mark.slow
    @pytest.mark.parametrize("how", ["release", "revoke", "deactivate", "expire"])
    def test_an_end_during_it_wins(self, world: World, near_end: Any, clock, how):
        agreed(world, near_end)
        [job] = extending.claim(worker="slow")
        match how:
            case "release":
                grants.release(near_end.pk, by=world.alice)
            case "revoke":
                grants.revoke(near_end.pk, by=world.bob, reason="Stop.")
            case "deactivate":
                type(world.alice).objects.filter(pk=world.alice.pk).update(is_active=False)
                closing.claim(StepKind.CUT, worker="w2")
            case "expire":
                clock.forward(WINDOW)
        before = until_on_target(world, near_end)
        assert extending.run_all([job])
        assert until_on_target(world, near_end) == before
        near_end.refresh_from_db()
        assert near_end.expires_at == before
        clock.forward(60)
        assert close(near_end).state == GrantState.ENDED
        assert not extending.claim(worker="w1")

    def test_one_that_ends_between_target_and_ledger_stays_ended(self, world: World, near_end):
        agreed(world, near_end)
        [job] = extending.claim(worker="slow")
        provisioner = targets.provisioner(near_end.target)
        provisioner.extend(extending._order(job.grant), extending.LeaseFence(job))
        grants.revoke(near_end.pk, by=world.bob, reason="Stop.")
        extending._extended(job)
        near_end.refresh_from_db()
        assert near_end.state == GrantState.REVOKING
        assert near_end.expires_at != near_end.extended_until
        assert close(near_end).state == GrantState.ENDED
        assert not world.server.accounts

    def test_whoever_took_over_is_not_disturbed(self, world: World, near_end: Any, clock):
        agreed(world, near_end)
        [late] = extending.claim(worker="slow")
        clock.forward(45)
        assert extend(near_end).extended_count == 1
        assert extending.run_all([late])
        assert told(near_end).count("grant.extended") == 1

    def test_the_reconciler_knows_how_late_the_target_may_be(self, world: World, near_end: Any):
        agreed(world, near_end)
        [job] = extending.claim(worker="w1")
        provisioner = targets.provisioner(near_end.target)
        provisioner.extend(extending._order(job.grant), extending.LeaseFence(job))
        reconciler.run_all(reconciler.claim(worker="w1", most=1))
        world.target.reconciliation.refresh_from_db()
        assert world.target.reconciliation.findings == []

    def test_two_accesses_of_one_person_do_not_end_each_other(self, world: World, near_end, clock):
        other = opened(world, duration=2 * HOUR)
        agreed(world, near_end, duration=2 * HOUR)
        extend(near_end)
        grants.release(other.pk, by=world.alice)
        close(other)
        assert other.state == GrantState.ENDED
        assert list(world.server.accounts) == [near_end.account]
        assert grants.is_usable(near_end, database_clock.now())

    def test_a_failing_target_has_one_try_in_flight(self, world: World, near_end: Any):
        agreed(world, near_end)
        target = world.target.pk
        busy = leases.Room(free=9, failing=frozenset({target}), in_flight=Counter({target: 1}))
        assert extending.claim(worker="w1", room=busy) == []
        assert extending.claim(worker="w1", room=leases.Room(free=9, failing=frozenset({target})))

    def test_the_step_says_how_often_it_took(self, world: World, near_end: Any, clock):
        agreed(world, near_end)
        world.server.fail_next("extend", DOWN)
        extend(near_end)
        clock.forward(extending.LAST_RETRY)
        extend(near_end)
        step = Step.objects.get(grant=near_end, kind=StepKind.EXTEND)
        assert (step.attempts, step.last_error) == (0, "")
        extended = timeline(f"request:{near_end.request_id}").get(action="grant.extended")
        assert extended.data["attempts"] == 2


class TestBridge:
    @pytest.fixture
    def world(self, world: World) -> World:
        publish(world, **LONGER, bridge=600)
        return world

    def bridged(self, world: World, grant: Grant, clock: Any) -> AccessRequest:
        request = ask(world, grant, duration=HOUR)
        clock.forward(WINDOW - 20)
        assert extending.bridge_due() == 1
        extend(grant)
        return request

    def test_a_late_decision_finds_the_access_open(self, world: World, near_end: Any, clock):
        before = near_end.expires_at
        assert before is not None
        request = self.bridged(world, near_end, clock)
        assert near_end.expires_at == before + timedelta(minutes=10)
        assert until_on_target(world, near_end) == near_end.expires_at
        assert near_end.bridged_at is not None
        assert near_end.extended_count == 0
        clock.forward(300)
        world.vote(request, "carol")
        assert extend(near_end).expires_at == before + timedelta(hours=1)
        assert [one for one in told(near_end) if "bridge" in one] == ["grant.bridged"]

    def test_only_near_the_end_and_only_while_a_decision_is_out(self, world, near_end, clock):
        assert extending.bridge_due() == 0
        request = ask(world, near_end)
        assert extending.bridge_due() == 0
        clock.forward(WINDOW - 20)
        workflow.cancel(request.pk, by=world.alice)
        assert extending.bridge_due() == 0

    def test_once(self, world: World, near_end: Any, clock):
        request = self.bridged(world, near_end, clock)
        assert extending.bridge_due() == 0
        clock.forward(630)
        assert extending.bridge_due() == 0
        assert request.pk in over()
        workflow.expire(request.pk)
        assert close(near_end).state == GrantState.ENDED

    def test_a_denial_ends_it(self, world: World, near_end: Any, clock):
        request = self.bridged(world, near_end, clock)
        clock.forward(120)
        world.vote(request, "carol", "deny")
        now = database_clock.now()
        near_end.refresh_from_db()
        assert near_end.expires_at is not None
        assert not grants.is_usable(near_end, now)
        assert now - near_end.expires_at < timedelta(seconds=10)
        close(near_end)
        assert (near_end.state, near_end.end_reason) == (GrantState.ENDED, EndReason.EXPIRED)

    def test_a_denial_before_the_end_gives_back_what_was_left(self, world, near_end, clock):
        before = near_end.expires_at
        request = self.bridged(world, near_end, clock)
        workflow.cancel(request.pk, by=world.alice)
        near_end.refresh_from_db()
        assert near_end.expires_at == before

    def test_one_that_is_not_carried_out_yet_is_taken_back(self, world, near_end, clock):
        before = near_end.expires_at
        request = ask(world, near_end)
        clock.forward(WINDOW - 20)
        assert extending.bridge_due() == 1
        world.vote(request, "carol", "deny")
        assert extend(near_end).expires_at == before
        assert "extend" not in world.server.calls

    def test_a_decision_while_it_is_carried_out(self, world: World, near_end: Any, clock):
        request = ask(world, near_end, duration=HOUR)
        clock.forward(WINDOW - 20)
        extending.bridge_due()
        [job] = extending.claim(worker="w1")
        world.vote(request, "carol")
        assert extending.run_all([job])
        near_end.refresh_from_db()
        assert near_end.is_extending
        assert extend(near_end).expires_at == request.wanted_until

    def test_one_that_is_used_is_offered_no_more(self, world: World, near_end: Any, clock):
        request = self.bridged(world, near_end, clock)
        world.vote(request, "carol")
        assert extensions.room(extend(near_end)).bridge == 0

    def test_less_than_the_bridge_is_not_asked_for(self, world: World, near_end: Any):
        with pytest.raises(Invalid) as caught:
            ask(world, near_end, duration=600)
        assert "10 min" in caught.value.fields["duration"][0]


class TestDatabase:
    """What the code does not do, tried in SQL."""

    def refused(self, grant: Any, **values: Any) -> str:
        with pytest.raises(DatabaseError) as caught, transaction.atomic():
            Grant.objects.filter(pk=grant.pk).update(**values)
        return str(caught.value)

    def test_an_end_does_not_move_by_itself(self, world: World, near_end: Any):
        later = near_end.expires_at + timedelta(hours=1)
        assert "only moves earlier" in self.refused(near_end, expires_at=later)
        assert "only moves earlier" in self.refused(near_end, expires_at=None)
        both = {"expires_at": later, "extended_until": later, "extended_count": 1}
        assert "only what goes on" in self.refused(near_end, **both)

    def test_no_intent_without_a_decision(self, world: World, near_end: Any):
        later = near_end.expires_at + timedelta(hours=1)
        intent = {"extended_until": later, "extended_count": 1}
        assert "without a completed chain" in self.refused(near_end, **intent)
        ask(world, near_end, duration=HOUR)
        assert "without a completed chain" in self.refused(near_end, **intent)
        bridge = {"extended_until": later, "bridged_at": database_clock.now()}
        assert "bridged once" in self.refused(near_end, **bridge)
        assert "bridged once" in self.refused(near_end, extended_until=later)

    def test_one_decision_is_good_for_one_extension(self, world: World, near_end: Any):
        agreed(world, near_end, duration=HOUR)
        grant = extend(near_end)
        later = grant.expires_at + timedelta(hours=1)
        intent = {"extended_until": later, "extended_count": 2}
        assert "without a completed chain" in self.refused(grant, **intent)
        intent["extended_until"] = near_end.expires_at + timedelta(minutes=1)
        assert "without a completed chain" in self.refused(grant, **intent)

    def test_not_beyond_what_was_agreed(self, world: World, near_end: Any):
        agreed(world, near_end, duration=HOUR)
        near_end.refresh_from_db()
        beyond = near_end.extended_until + timedelta(seconds=1)
        assert "only moves earlier" in self.refused(near_end, expires_at=beyond)

    def test_not_beyond_the_total(self, world: World, near_end: Any):
        beyond = near_end.activated_at + timedelta(seconds=8 * HOUR + 1)
        intent = {"extended_until": beyond, "extended_count": 1}
        assert "within max_total" in self.refused(near_end, **intent)
        opened_later = near_end.activated_at + timedelta(hours=1)
        assert "opened when it was" in self.refused(near_end, activated_at=opened_later)

    def test_what_is_over_is_not_revived(self, world: World, near_end: Any, clock):
        agreed(world, near_end, duration=HOUR)
        near_end.refresh_from_db()
        clock.forward(WINDOW)
        until = near_end.extended_until
        assert "only moves earlier" in self.refused(near_end, expires_at=until)
        close(near_end)
        assert "only moves earlier" in self.refused(near_end, expires_at=until)

    def test_an_extension_opens_no_access_of_its_own(self, world: World, clock):
        publish(world, **{**LONGER, "extension_approval": ExtensionApproval.CHAIN})
        grant = opened(world)
        clock.forward(HOUR - 60)
        request = ask(world, grant)
        world.vote(request, "bob")
        world.vote(request, "carol")
        request.refresh_from_db()
        with pytest.raises(DatabaseError, match="opens no access of its own"), transaction.atomic():
            grants.schedule(request, by=world.carol, now=database_clock.now())

    @pytest.mark.slow
    def test_a_skipped_stage_is_no_passed_one(self, world: World, near_end: Any):
        """Law 1: for access itself all have to pass."""
        request = world.submit(level=world.write)
        request.stages.update(state=StageState.SKIPPED)
        AccessRequest.objects.filter(pk=request.pk).update(
            state=RequestState.APPROVED, decided_at=database_clock.now()
        )
        request.refresh_from_db()
        with pytest.raises(DatabaseError, match="completed chain"), transaction.atomic():
            grants.schedule(request, by=world.carol, now=database_clock.now())

    def test_a_chain_with_a_stage_left_out_extends_nothing(self, world: World, clock):
        publish(world, **{**LONGER, "extension_approval": ExtensionApproval.CHAIN})
        grant = opened(world)
        clock.forward(HOUR - 60)
        request = ask(world, grant, duration=HOUR)
        request.stages.filter(order=0).update(state=StageState.SKIPPED)
        request.stages.filter(order=1).update(state=StageState.PASSED)
        AccessRequest.objects.filter(pk=request.pk).update(
            state=RequestState.APPROVED, decided_at=database_clock.now()
        )
        intent = {"extended_until": request.wanted_until, "extended_count": 1}
        assert "without a completed chain" in self.refused(grant, **intent)


class TestPublishing:
    @pytest.mark.parametrize(
        ("wrong", "words"),
        [
            ({"extension_max": 0}, "needs a length"),
            ({"extension_window": 0}, "before the end"),
            ({"max_total": HOUR}, "no shorter"),
            ({"bridge": 2 * HOUR}, "less than one extension"),
            ({"extensions_most": -1}, "below 0"),
            ({"extension_approval": "somebody"}, "asks the whole chain"),
        ],
    )
    def test_what_could_not_work(self, world: World, wrong, words):
        with pytest.raises(Invalid) as caught:
            publish(world, **{**LONGER, **wrong})
        assert words in caught.value.message

    def test_the_database_refuses_it_as_well(self, world: World):
        world.policy.refresh_from_db()
        version: Any = world.policy.current
        values = {"policy": world.policy, "number": 99, "max_duration": 1, "pending_ttl": 1}
        with pytest.raises(DatabaseError), transaction.atomic():
            type(version).objects.create(**values, activation_ttl=1, extensions_most=1)

    def test_by_default_none(self, world: World):
        publish(world)
        world.policy.refresh_from_db()
        version: Any = world.policy.current
        assert version.extensions_most == 0
