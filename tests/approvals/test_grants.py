"""What opens, how it ends, and what happens when the target does not do what it is asked."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.db import DatabaseError, transaction

from approvals import administration, closing, grants, opening, targets
from approvals.errors import Invalid, NotAllowed, ProvisionError, WrongState
from approvals.models import AccessLevel, Grant, Step, StepKind
from approvals.states import EndReason, GrantState
from approvals.workflow import cancel
from audit import clock as database_clock
from audit.log import timeline
from tests.world import HOUR, World

DOWN = ProvisionError("The target does not answer.", code="unreachable")


def opened(world: World, who: str = "alice", **wish: Any) -> Any:
    grant = world.approved(who, **wish)
    opening.open_grant(grant.pk, worker="w1")
    grant.refresh_from_db()
    return grant


def close(grant: Any) -> Any:
    closing.close_grant(grant.pk, worker="w1")
    grant.refresh_from_db()
    return grant


def deactivate(person) -> None:
    type(person).objects.filter(pk=person.pk).update(is_active=False)


class TestOpening:
    def test_time_is_not_burnt_by_waiting_or_opening(self, world: World, clock):
        grant = world.approved()
        clock.forward(1800)
        opening.open_grant(grant.pk, worker="w1")
        grant.refresh_from_db()
        left = grant.expires_at - database_clock.now()
        assert grant.state == GrantState.ACTIVE
        assert HOUR - 5 < left.total_seconds() <= HOUR

    def test_the_end_is_what_the_target_was_given(self, world: World):
        grant = opened(world)
        assert world.server.accounts[grant.account].valid_until == grant.expires_at

    def test_the_intent_is_committed_before_the_target_is_touched(self, world: World):
        grant = world.approved()
        before = database_clock.now()
        [job] = opening.claim(worker="w1", only=grant.pk)
        grant.refresh_from_db()
        assert grant.state == GrantState.PROVISIONING
        assert "open" not in world.server.calls
        latest = grant.expires_at - timedelta(seconds=opening.OPEN_BUDGET + HOUR)
        assert before <= latest <= database_clock.now()
        assert opening.run_all([job])

    def test_a_wanted_start_is_waited_for(self, world: World, clock):
        start = database_clock.now() + timedelta(hours=2)
        grant = world.approved(starts_at=start)
        opening.open_grant(grant.pk, worker="w1")
        grant.refresh_from_db()
        assert grant.state == GrantState.SCHEDULED
        clock.forward(2 * HOUR)
        opening.open_grant(grant.pk, worker="w1")
        grant.refresh_from_db()
        assert grant.state == GrantState.ACTIVE

    def test_what_could_not_open_in_time_ends_unused(self, world: World, clock):
        grant = world.approved()
        clock.forward(3600)
        opening.open_grant(grant.pk, worker="w1")
        grant.refresh_from_db()
        assert (grant.state, grant.end_reason) == (GrantState.ENDED, EndReason.UNUSED)
        assert "open" not in world.server.calls

    def test_a_failing_target_is_tried_again_within_the_budget(self, world: World, clock):
        world.server.fail_next("open", DOWN, times=2)
        grant = opened(world)
        assert grant.state == GrantState.PROVISIONING
        assert grant.last_error == DOWN.message
        opening.open_grant(grant.pk, worker="w1")
        assert world.server.calls.count("open") == 1  # not before its time
        for _ in range(2):
            clock.forward(11)
            opening.open_grant(grant.pk, worker="w2")
        grant.refresh_from_db()
        assert grant.state == GrantState.ACTIVE
        assert grant.last_error == ""

    def test_past_the_budget_it_fails_and_is_undone(self, world: World, clock):
        world.server.fail_next("commit", DOWN)
        grant = opened(world)
        clock.forward(opening.OPEN_BUDGET)
        opening.open_grant(grant.pk, worker="w1")
        close(grant)
        assert (grant.state, grant.end_reason) == (GrantState.ENDED, EndReason.FAILED)
        assert grant.end_code == "open_budget"
        assert not world.server.accounts

    def test_a_permanent_failure_is_not_tried_again(self, world: World):
        error = ProvisionError("Not ours.", code="name_taken", permanent=True)
        world.server.fail_next("open", error)
        grant = opened(world)
        assert grant.state == GrantState.REVOKING
        close(grant)
        assert (grant.end_reason, grant.end_code) == (EndReason.FAILED, "name_taken")

    def test_a_level_that_changed_since_is_not_opened(self, world: World):
        grant = world.approved()
        world.server.levels["read-only"] = ("may read", "more")
        administration.save_level(world.read, by=world.ada)
        opening.open_grant(grant.pk, worker="w1")
        grant.refresh_from_db()
        assert (grant.state, grant.end_code) == (GrantState.ENDED, "scope_changed")
        assert "level.summary" in grant.end_note
        assert not world.server.accounts

    def test_a_level_that_drifted_on_the_target_is_not_opened(self, world: World):
        grant = world.approved()
        world.server.levels["read-only"] = ("may read", "more")
        opening.open_grant(grant.pk, worker="w1")
        grant.refresh_from_db()
        assert (grant.state, grant.end_code) == (GrantState.REVOKING, "scope_changed")
        assert close(grant).state == GrantState.ENDED

    def test_what_runs_is_the_stored_text(self, world: World):
        grant = world.approved()
        AccessLevel.objects.filter(pk=world.read.pk).update(rights={"level": "read-write"})
        opening.open_grant(grant.pk, worker="w1")
        grant.refresh_from_db()
        assert grant.end_code == "scope_changed"

    @pytest.mark.parametrize("what", ["level", "target"])
    def test_what_was_switched_off_is_not_opened(self, world: World, what):
        grant = world.approved()
        thing = world.read if what == "level" else world.target
        type(thing).objects.filter(pk=thing.pk).update(enabled=False)
        opening.open_grant(grant.pk, worker="w1")
        grant.refresh_from_db()
        assert (grant.state, grant.end_code) == (GrantState.ENDED, "switched_off")

    def test_a_leaver_gets_nothing(self, world: World):
        grant = world.approved()
        deactivate(world.alice)
        opening.open_grant(grant.pk, worker="w1")
        grant.refresh_from_db()
        assert (grant.state, grant.end_code) == (GrantState.ENDED, "deactivated")

    def test_a_lost_answer_is_taken_up_by_the_next_attempt(self, world: World, clock):
        """The account was made, but the worker died before it could say so."""
        grant = world.approved()
        [job] = opening.claim(worker="w1", only=grant.pk)
        opening._open(job, targets.provisioner(job.grant.target))
        opening.open_grant(grant.pk, worker="w2")
        grant.refresh_from_db()
        assert grant.state == GrantState.PROVISIONING  # w1's lease still runs
        clock.forward(46)
        opening.open_grant(grant.pk, worker="w2")
        grant.refresh_from_db()
        assert grant.state == GrantState.ACTIVE
        assert len(world.server.accounts) == 1
        assert not opening.run_all([job]) or grant.state == GrantState.ACTIVE

    def test_a_grant_that_somebody_altered_in_the_database_is_not_opened(self, world: World):
        """What was approved is what the hash says, and the database lets nobody alter it."""
        grant = world.approved()
        scope = {**grant.scope, "duration": 300 * 86400}
        for change in ({"scope": scope}, {"duration": 300 * 86400}, {"level": world.write}):
            with pytest.raises(DatabaseError, match="completed chain"), transaction.atomic():
                Grant.objects.filter(pk=grant.pk).update(**change)


class TestFencing:
    def test_an_opener_that_lost_its_grant_leaves_nothing(self, world: World):
        grant = world.approved()
        [job] = opening.claim(worker="w1", only=grant.pk)
        grants.release(grant.pk, by=world.alice)
        close(grant)
        assert grant.state == GrantState.ENDED
        opening.run_all([job])
        grant.refresh_from_db()
        assert grant.state == GrantState.ENDED
        assert not world.server.accounts

    def test_an_opener_that_lost_its_lease_leaves_nothing(self, world: World, clock):
        grant = world.approved()
        [slow] = opening.claim(worker="w1", only=grant.pk)
        clock.forward(46)
        opening.open_grant(grant.pk, worker="w2")
        account = world.server.accounts[grant.account]
        opening.run_all([slow])
        assert world.server.accounts[grant.account] is account
        grant.refresh_from_db()
        assert grant.state == GrantState.ACTIVE

    def test_a_closer_that_lost_its_lease_says_nothing(self, world: World, clock):
        grant = opened(world)
        grants.release(grant.pk, by=world.alice)
        [slow] = closing.claim(StepKind.CUT, worker="w1", only=grant.pk)
        clock.forward(46)
        assert close(grant).state == GrantState.ENDED
        closing.run_all([slow])
        grant.refresh_from_db()
        assert grant.state == GrantState.ENDED
        told = [event.action for event in timeline(f"request:{grant.request_id}")]
        assert told.count("grant.cut") == told.count("grant.ended") == 1

    def test_two_cuts_at_once_are_one_whoever_is_first(self, world: World, clock):
        """A slow target: the second attempt begins before the first has ended."""
        grant = opened(world)
        grants.release(grant.pk, by=world.alice)
        [slow] = closing.claim(StepKind.CUT, worker="w1", only=grant.pk)
        clock.forward(4)
        [second] = closing.claim(StepKind.CUT, worker="w2", only=grant.pk)
        assert closing.run_all([slow])
        grant.refresh_from_db()
        assert grant.cut_at is not None
        assert closing.run_all([second])
        told = [event.action for event in timeline(f"request:{grant.request_id}")]
        assert told.count("grant.cut") == 1


class TestRevealing:
    def test_the_holder_sees_it_once(self, world: World):
        grant = opened(world)
        shown = grants.reveal(grant.pk, by=world.alice)
        assert world.server.sign_in(grant.account, shown.password)
        grant.refresh_from_db()
        assert grant.secret == ""
        with pytest.raises(WrongState):
            grants.reveal(grant.pk, by=world.alice)

    @pytest.mark.parametrize("who", ["bob", "carol", "olga", "ada", "mallory"])
    def test_nobody_else_does(self, world: World, who):
        grant = opened(world)
        with pytest.raises(NotAllowed):
            grants.reveal(grant.pk, by=world.people[who])

    def test_not_after_the_end_even_if_no_sweeper_came(self, world: World, clock):
        grant = opened(world)
        clock.forward(HOUR)
        with pytest.raises(WrongState):
            grants.reveal(grant.pk, by=world.alice)

    def test_not_before_it_is_usable(self, world: World):
        with pytest.raises(WrongState):
            grants.reveal(world.approved().pk, by=world.alice)

    def test_the_password_is_nowhere_else(self, world: World):
        grant = opened(world)
        password = grants.reveal(grant.pk, by=world.alice).password
        close(grant)
        for event in timeline(f"request:{grant.request_id}"):
            assert password not in bytes(event.canonical).decode()


class TestEnding:
    def test_at_its_end(self, world: World, clock):
        grant = opened(world)
        session = world.server.sign_in(
            grant.account, grants.reveal(grant.pk, by=world.alice).password
        )
        clock.forward(HOUR - 1)
        assert close(grant).state == GrantState.ACTIVE
        clock.forward(1)
        assert close(grant).state == GrantState.ENDED
        assert not session.alive
        assert not world.server.accounts

    def test_released_by_its_holder(self, world: World):
        grant = opened(world)
        grants.release(grant.pk, by=world.alice)
        assert close(grant).end_reason == EndReason.RELEASED

    @pytest.mark.parametrize("who", ["olga", "bob", "carol"])
    def test_revoked_by_owners_and_approvers(self, world: World, who):
        grant = opened(world)
        grants.revoke(grant.pk, by=world.people[who], reason="Load too high.")
        assert close(grant).end_reason == EndReason.REVOKED
        assert grant.end_note == "Load too high."

    @pytest.mark.parametrize("who", ["dan", "chen", "ada", "mallory", "alice"])
    def test_others_may_not_revoke(self, world: World, who):
        grant = opened(world)
        with pytest.raises(NotAllowed):
            grants.revoke(grant.pk, by=world.people[who], reason="Because.")
        assert close(grant).state == GrantState.ACTIVE

    @pytest.mark.parametrize("who", ["bob", "olga", "ada"])
    def test_others_may_not_release(self, world: World, who):
        grant = opened(world)
        with pytest.raises(NotAllowed):
            grants.release(grant.pk, by=world.people[who])

    @pytest.mark.parametrize("reason", ["", "  ", "x" * 301, "nul\x00"])
    def test_revoking_wants_a_reason(self, world: World, reason):
        grant = opened(world)
        with pytest.raises(Invalid):
            grants.revoke(grant.pk, by=world.olga, reason=reason)

    def test_twice_is_a_conflict(self, world: World):
        grant = opened(world)
        grants.release(grant.pk, by=world.alice)
        with pytest.raises(WrongState):
            grants.release(grant.pk, by=world.alice)
        with pytest.raises(WrongState):
            grants.revoke(grant.pk, by=world.olga, reason="Me too.")

    def test_a_scheduled_one_ends_without_touching_the_target(self, world: World):
        grant = world.approved()
        grants.revoke(grant.pk, by=world.bob, reason="Not today.")
        grant.refresh_from_db()
        assert (grant.state, grant.end_reason) == (GrantState.ENDED, EndReason.REVOKED)
        assert world.server.calls.count("open") == 0

    def test_an_approved_request_is_spent(self, world: World):
        grant = opened(world)
        grants.release(grant.pk, by=world.alice)
        close(grant)
        opening.open_grant(grant.pk, worker="w1")
        grant.refresh_from_db()
        assert grant.state == GrantState.ENDED
        with pytest.raises(WrongState):
            cancel(grant.request_id, by=world.alice)
        again = world.submit()
        assert again.pk != grant.request_id

    def test_a_leaver_is_cut_at_once(self, world: World):
        grant = opened(world)
        deactivate(world.alice)
        assert close(grant).state == GrantState.ENDED
        assert grant.end_code == "deactivated"

    def test_the_end_only_moves_earlier(self, world: World):
        grant = opened(world)
        later = grant.expires_at + timedelta(seconds=1)
        with pytest.raises(DatabaseError, match="earlier"), transaction.atomic():
            Grant.objects.filter(pk=grant.pk).update(expires_at=later)

    def test_what_has_ended_stays_so(self, world: World):
        grant = opened(world)
        grants.release(grant.pk, by=world.alice)
        close(grant)
        with pytest.raises(DatabaseError, match="stays ended"), transaction.atomic():
            Grant.objects.filter(pk=grant.pk).update(
                state=GrantState.ACTIVE, end_reason="", ended_at=None
            )


class TestNeverGivingUp:
    @pytest.mark.slow
    def test_a_failing_cut_stays_revoking_and_is_tried_within_five_seconds(
        self, world: World, clock
    ):
        grant = opened(world)
        world.server.fail_next("cut", DOWN, times=20)
        grants.release(grant.pk, by=world.alice)
        for _ in range(20):
            close(grant)
            assert grant.state == GrantState.REVOKING
            assert grant.last_error == DOWN.message
            assert grant.next_try_at <= database_clock.now() + timedelta(seconds=5)
            clock.forward(5)
        assert close(grant).state == GrantState.ENDED
        step = Step.objects.get(grant=grant, kind=StepKind.CUT)
        assert step.attempts == 21

    def test_a_failing_cleanup_is_tried_within_a_minute(self, world: World, clock):
        grant = opened(world)
        world.server.fail_next("clean", DOWN, times=10)
        grants.release(grant.pk, by=world.alice)
        for _ in range(10):
            close(grant)
            assert grant.state == GrantState.REVOKING
            assert grant.cut_at is not None
            assert grant.next_try_at <= database_clock.now() + timedelta(seconds=60)
            clock.forward(60)
        assert close(grant).state == GrantState.ENDED
        assert world.server.calls.count("cut") == 1

    def test_an_outage_is_one_line_in_the_log(self, world: World, clock):
        grant = opened(world)
        world.server.fail_next("cut", DOWN, times=5)
        grants.release(grant.pk, by=world.alice)
        for _ in range(6):
            close(grant)
            clock.forward(5)
        told = [event.action for event in timeline(f"request:{grant.request_id}")]
        assert told.count("grant.attempt_failed") == 1

    def test_it_does_not_say_ended_before_it_has_looked(self, world: World, clock):
        grant = opened(world)
        world.server.fail_next("observe", DOWN)
        grants.release(grant.pk, by=world.alice)
        assert close(grant).state == GrantState.REVOKING
        assert not world.server.accounts
        clock.forward(60)
        assert close(grant).state == GrantState.ENDED

    def test_what_is_still_there_is_not_ended(self, world: World, clock, monkeypatch):
        grant = opened(world)
        grants.release(grant.pk, by=world.alice)
        account = world.server.accounts[grant.account]
        monkeypatch.setattr(
            "approvals.provisioning.memory.MemoryProvisioner.clean", lambda self, account: None
        )
        assert close(grant).state == GrantState.REVOKING
        assert "still there" in grant.last_error
        assert world.server.accounts[grant.account] is account
        monkeypatch.undo()
        clock.forward(60)
        assert close(grant).state == GrantState.ENDED

    def test_already_gone_is_success_with_the_same_look(self, world: World):
        grant = opened(world)
        world.server.accounts.clear()
        grants.release(grant.pk, by=world.alice)
        assert close(grant).state == GrantState.ENDED
        assert "observe" in world.server.calls

    def test_lateness_is_told(self, world: World, clock):
        grant = opened(world)
        clock.forward(HOUR + 7)
        close(grant)
        cut = timeline(f"request:{grant.request_id}").get(action="grant.cut")
        assert 7000 <= cut.data["late_ms"] < 9000

    def test_a_cut_that_fails_slowly_is_seen_to_fail(self, world: World, clock):
        """It fails after its short lease has run out and another has taken over."""
        grant = opened(world)
        grants.release(grant.pk, by=world.alice)
        [slow] = closing.claim(StepKind.CUT, worker="w1", only=grant.pk)
        clock.forward(4)
        [second] = closing.claim(StepKind.CUT, worker="w2", only=grant.pk)
        world.server.fail_next("cut", DOWN)
        assert not closing.run_all([slow])
        grant.refresh_from_db()
        assert (grant.last_error, grant.attempts) == (DOWN.message, 1)
        assert grant.stuck_since is not None
        assert grant.lease == second.lease
        assert closing.run_all([second])

    def test_a_defect_is_told_by_its_kind_and_tried_again(self, world: World, clock, monkeypatch):
        grant = opened(world)
        grants.release(grant.pk, by=world.alice)

        def defect(self: object, account: object) -> None:
            raise ZeroDivisionError("with something secret")

        monkeypatch.setattr("approvals.provisioning.memory.MemoryProvisioner.cut", defect)
        assert close(grant).state == GrantState.REVOKING
        assert "ZeroDivisionError" in grant.last_error
        assert "secret" not in grant.last_error
        assert grant.stuck_since is not None
        monkeypatch.undo()
        clock.forward(5)
        assert close(grant).state == GrantState.ENDED

    def test_what_a_target_says_is_stored_whatever_it_is(self, world: World):
        grant = opened(world)
        world.server.fail_next("cut", ProvisionError("nul \x00 and long " + "x" * 2000))
        grants.release(grant.pk, by=world.alice)
        assert close(grant).last_error.startswith("nul ␀ and long")

    def test_a_key_that_was_lost_is_seen(self, world: World, settings, clock):
        grant = opened(world)
        keys = settings.ENCRYPTION_KEYS
        settings.ENCRYPTION_KEYS = [Fernet.generate_key().decode()]
        grants.release(grant.pk, by=world.alice)
        assert close(grant).state == GrantState.REVOKING
        assert grant.last_error
        assert grant.stuck_since is not None
        settings.ENCRYPTION_KEYS = keys
        clock.forward(5)
        assert close(grant).state == GrantState.ENDED
