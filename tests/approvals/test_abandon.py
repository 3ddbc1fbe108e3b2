"""An access that will not close: whoever may has it tried again, and two may give it up.

orders does not answer when alice's access is to end. olga owns it; ada administers, and tara is
staff who may change targets. Neither alice nor whoever asked for her gives up closing her access.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import Any

import psycopg
import pytest
from django.db import IntegrityError, connection, transaction

from approvals import closing, grants, opening
from approvals.errors import DebugflowError, Invalid, NotAllowed, ProvisionError, WrongState
from approvals.models import Abandonment, AccessRequest, Grant, StepKind
from approvals.states import GrantState
from audit import clock as database_clock
from audit.log import timeline
from audit.models import Event
from tests.approvals.admin_browser import staff
from tests.approvals.test_races import at_once, until_blocked
from tests.conftest import Clock, Control
from tests.world import HOUR, World

DOWN = ProvisionError("The target does not answer.", code="unreachable")
WHY = "The host was wiped."
ABANDONED_EVENTS = {"grant.abandon_asked", "grant.abandoned", "grant.abandon_voided"}


def opened(world: World, who: str = "alice") -> Any:
    grant = world.approved(who)
    opening.open_grant(grant.pk, worker="w1")
    grant.refresh_from_db()
    return grant


def close(grant: Any) -> Any:
    closing.close_grant(grant.pk, worker="w1")
    grant.refresh_from_db()
    return grant


def failing(world: World, *, verb: str = "cut", who: str = "alice") -> Any:
    """An access that is to end, the first try at which has just failed; so will many more."""
    grant = opened(world, who)
    world.server.fail_next(verb, DOWN, times=1000)
    grants.revoke(grant.pk, by=world.bob, reason="Enough.")
    return close(grant)


def repaired(world: World) -> None:
    world.server._faults.clear()


@pytest.fixture
def stuck(world: World, clock: Clock) -> Any:
    """Alice's, which has failed to be cut for more than 30 s."""
    grant = failing(world)
    clock.forward(31)
    return close(grant)


@pytest.fixture
def tara(world: World) -> Any:
    world.people["tara"] = type(world.ada).objects.create_user("tara")
    return staff(world.tara, "change_target")


def refusal(verb: Any, *args: Any, **kwargs: Any) -> tuple[int, str]:
    with pytest.raises(DebugflowError) as refused:
        verb(*args, **kwargs)
    return refused.value.status, refused.value.code


def abandon(grant: Any, by: Any, reason: str = WHY) -> Any:
    return grants.abandon(grant.pk, by=by, reason=reason)


def told(grant: Any, *actions: str) -> list[tuple[str, str]]:
    events = timeline(f"request:{grant.request_id}").filter(action__in=actions).order_by("id")
    return [(event.action, event.actor_name) for event in events]


class TestStuckSince:
    """One work at a time: that of cutting is over when it is cut, whatever cleaning up does."""

    @pytest.mark.slow
    def test_from_the_first_failure_until_it_is_cut(self, world: World, clock: Clock):
        grant = failing(world)
        first = grant.stuck_since
        assert first is not None
        clock.forward(5)
        assert close(grant).stuck_since == first
        assert grant.attempts == 2

        repaired(world)
        world.server.fail_next("clean", DOWN)
        clock.forward(5)
        assert close(grant).cut_at is not None
        assert grant.stuck_since >= grant.cut_at > first
        assert grant.attempts == 1

        clock.forward(60)
        assert close(grant).state == GrantState.ENDED
        assert grant.stuck_since is None

    def test_a_cut_leaves_nothing_stuck_behind(self, world: World, clock: Clock):
        grant = failing(world)
        repaired(world)
        clock.forward(5)
        [job] = closing.claim(StepKind.CUT, worker="w1", only=grant.pk)
        assert closing.run_all([job])
        grant.refresh_from_db()
        assert (grant.state, grant.stuck_since) == (GrantState.REVOKING, None)


class TestWhatIsListed:
    """The querysets of pages, metrics and alarms agree with what is said of one grant."""

    def agree(self, grant: Any, **expected: bool) -> None:
        grant.refresh_from_db()
        now = database_clock.now()
        said = {
            "overdue": grant.is_overdue(now),
            "stuck": grant.is_stuck(now),
            "abandoned": grant.is_abandoned,
        }
        rows = {name: getattr(Grant.objects, name)().filter(pk=grant.pk).exists() for name in said}
        assert said == rows == {**dict.fromkeys(said, False), **expected}

    @pytest.mark.slow
    def test_from_open_to_ended(self, world: World, clock: Clock):
        grant = opened(world)
        self.agree(grant)
        clock.forward(HOUR + 4)
        self.agree(grant)
        clock.forward(2)  # nobody has swept: past its end, and uncut
        self.agree(grant, overdue=True)

        world.server.fail_next("cut", DOWN, times=1000)
        close(grant)
        clock.forward(28)
        self.agree(grant, overdue=True)
        clock.forward(3)
        self.agree(grant, overdue=True, stuck=True)
        abandon(grant, world.olga)
        self.agree(grant, overdue=True, stuck=True)
        abandon(grant, world.ada)
        self.agree(grant, overdue=True, stuck=True, abandoned=True)

        repaired(world)
        world.server.fail_next("clean", DOWN)
        close(grant)
        self.agree(grant, abandoned=True)  # cut: neither overdue, nor stuck for long enough yet
        clock.forward(HOUR)
        close(grant)
        self.agree(grant)
        assert grant.abandoned_at is not None

    def test_a_revoke_counts_from_when_it_was_said(self, world: World, clock: Clock):
        grant = opened(world)
        grants.revoke(grant.pk, by=world.bob, reason="Enough.")
        clock.forward(4)
        self.agree(grant)
        clock.forward(2)
        self.agree(grant, overdue=True)
        assert grant.late_by(grant.revoking_at + timedelta(seconds=6)) == timedelta(seconds=6)
        assert close(grant).late_by(database_clock.now()) == grant.cut_at - grant.revoking_at

    def test_what_has_not_begun_is_never_late(self, world: World, clock: Clock):
        grant = world.approved()
        clock.forward(60)
        self.agree(grant)
        grants.revoke(grant.pk, by=world.bob, reason="Not needed.")
        grant.refresh_from_db()
        clock.forward(60)
        self.agree(grant)
        assert grant.late_by(database_clock.now()) is None


class TestTryNow:
    @pytest.mark.parametrize("name", ["mallory", "amir", "dan"])
    def test_strangers_may_not(self, world: World, stuck: Any, name: str):
        again = partial(grants.try_again, stuck.pk, by=world.people[name])
        assert refusal(again) == (403, "not_yours")
        assert told(stuck, "try_again.refused") == [("try_again.refused", name)]
        before, after = stuck.next_try_at, Grant.objects.get(pk=stuck.pk).next_try_at
        assert before == after

    @pytest.mark.parametrize("name", ["alice", "bob", "carol", "olga", "ada", "tara"])
    def test_holder_approvers_owners_and_administrators_may(
        self, world: World, clock: Clock, stuck: Any, tara: Any, name: str
    ):
        repaired(world)
        assert close(stuck).state == GrantState.REVOKING  # not its time yet
        grants.try_again(stuck.pk, by=world.people[name])
        assert close(stuck).state == GrantState.ENDED
        assert told(stuck, "grant.tried_again") == [("grant.tried_again", name)]

    def test_over_and_over_it_is_told_once_for_each_attempt(self, world: World, clock, stuck: Any):
        for _ in range(3):
            grants.try_again(stuck.pk, by=world.alice)
        due = Grant.objects.get(pk=stuck.pk).next_try_at
        clock.forward(1)
        grants.try_again(stuck.pk, by=world.bob)
        assert Grant.objects.get(pk=stuck.pk).next_try_at == due
        assert told(stuck, "grant.tried_again") == [("grant.tried_again", "alice")]
        assert close(stuck).state == GrantState.REVOKING  # it fails, and is to be tried later
        grants.try_again(stuck.pk, by=world.bob)
        assert told(stuck, "grant.tried_again")[1:] == [("grant.tried_again", "bob")]

    def test_the_bell_is_rung(self, world: World, stuck: Any, django_capture_on_commit_callbacks):
        with django_capture_on_commit_callbacks() as callbacks:
            grants.try_again(stuck.pk, by=world.alice)
        assert len(callbacks) == 1

    def test_only_while_it_is_closing(self, world: World):
        grant = opened(world)
        assert refusal(grants.try_again, grant.pk, by=world.olga) == (409, "wrong_state")
        grants.release(grant.pk, by=world.alice)
        assert close(grant).state == GrantState.ENDED
        assert refusal(grants.try_again, grant.pk, by=world.olga) == (409, "wrong_state")

    def test_not_while_somebody_is_at_it(self, world: World, clock: Clock, stuck: Any):
        clock.forward(5)
        [job] = closing.claim(StepKind.CUT, worker="w1", only=stuck.pk)
        assert refusal(grants.try_again, stuck.pk, by=world.olga) == (409, "wrong_state")
        clock.forward(4)  # a worker that died loses its lease, and nobody waits for it
        grants.try_again(stuck.pk, by=world.olga)
        stuck.refresh_from_db()
        assert stuck.lease == job.lease


class TestWhoMayNotAbandon:
    @pytest.mark.parametrize(
        ("name", "code"),
        [
            ("alice", "self_abandon"),
            ("mallory", "not_yours"),
            ("amir", "not_yours"),
            ("bob", "not_yours"),  # approved it, and revoked it
            ("dan", "not_yours"),
        ],
    )
    def test_they_are_refused(self, world: World, stuck: Any, name: str, code: str):
        assert refusal(abandon, stuck, world.people[name]) == (403, code)
        assert told(stuck, "abandon.refused") == [("abandon.refused", name)]
        assert Event.objects.get(action="abandon.refused").data == {"code": code}
        assert not Abandonment.objects.exists()

    def test_an_owner_who_holds_it(self, world: World, stuck: Any):
        world.groups["owners"].user_set.add(world.alice)
        assert refusal(abandon, stuck, world.alice) == (403, "self_abandon")

    def test_an_owner_who_asked_for_it_on_anothers_behalf(self, world: World, stuck: Any):
        AccessRequest.objects.filter(pk=stuck.request_id).update(requester=world.olga)
        assert refusal(abandon, stuck, world.olga) == (403, "self_abandon")

    @pytest.mark.slow
    def test_a_superuser_who_holds_it(self, world: World, stuck: Any):
        type(world.alice).objects.filter(pk=world.alice.pk).update(is_superuser=True)
        alice = type(world.alice).objects.get(pk=world.alice.pk)
        assert refusal(abandon, stuck, alice) == (403, "self_abandon")

    def test_staff_who_may_only_look_at_targets(self, world: World, stuck: Any):
        assert refusal(abandon, stuck, staff(world.dan, "view_target")) == (403, "not_yours")

    def test_an_owner_who_was_deactivated(self, world: World, stuck: Any):
        type(world.olga).objects.filter(pk=world.olga.pk).update(is_active=False)
        assert world.olga.is_active  # as her session still has her
        assert refusal(abandon, stuck, world.olga) == (403, "not_yours")


class TestWhenItMayNot:
    def test_while_open_while_ending_in_good_order_and_afterwards(self, world: World, clock: Clock):
        grant = opened(world)
        assert refusal(abandon, grant, world.olga) == (409, "wrong_state")
        grants.release(grant.pk, by=world.alice)
        clock.forward(31)
        assert refusal(abandon, grant, world.olga) == (409, "not_stuck")
        assert close(grant).state == GrantState.ENDED
        assert refusal(abandon, grant, world.olga) == (409, "wrong_state")

    @pytest.mark.slow
    def test_before_it_has_failed_for_30_seconds(self, world: World, clock: Clock):
        grant = failing(world)
        clock.forward(29)
        close(grant)
        assert refusal(abandon, grant, world.olga) == (409, "not_stuck")
        clock.forward(1)
        assert abandon(grant, world.olga).abandoned_at is None

    @pytest.mark.parametrize("reason", ["", " \n", "x" * 301, "a\x00b"])
    def test_without_a_reason_that_can_be_kept(self, world: World, stuck: Any, reason: str):
        with pytest.raises(Invalid) as refused:
            abandon(stuck, world.olga, reason)
        assert list(refused.value.fields) == ["reason"]
        assert not Abandonment.objects.exists()

    def test_one_person_counts_once(self, world: World, stuck: Any):
        abandon(stuck, world.olga)
        assert refusal(abandon, stuck, world.olga) == (409, "already_counted")
        stuck.refresh_from_db()
        assert stuck.abandoned_at is None
        assert Abandonment.objects.count() == 1

    @pytest.mark.slow
    def test_a_third_is_told_that_it_is_done(self, world: World, stuck: Any, tara: Any):
        abandon(stuck, world.olga)
        abandon(stuck, world.ada)
        assert refusal(abandon, stuck, tara) == (409, "wrong_state")
        assert refusal(abandon, stuck, world.olga) == (409, "wrong_state")
        assert Abandonment.objects.count() == 2


class TestTwoPeople:
    @pytest.mark.slow
    def test_the_first_asks_and_the_second_abandons_it(self, world: World, stuck: Any):
        abandon(stuck, world.olga, "x" * 300)
        stuck.refresh_from_db()
        assert (stuck.state, stuck.abandoned_at) == (GrantState.REVOKING, None)

        abandon(stuck, world.ada)
        stuck.refresh_from_db()
        assert stuck.state == GrantState.REVOKING
        assert stuck.abandoned_at is not None
        assert grants.shown_state(stuck, database_clock.now()) == "abandoned, unsafe"
        assert told(stuck, *ABANDONED_EVENTS) == [
            ("grant.abandon_asked", "olga"),
            ("grant.abandoned", "ada"),
        ]
        last = Event.objects.get(action="grant.abandoned")
        assert (last.data["note"], last.data["others"]) == (WHY, ["olga"])

    @pytest.mark.slow
    def test_staff_who_may_change_targets_count(self, world: World, stuck: Any, tara: Any):
        abandon(stuck, tara)
        assert abandon(stuck, world.olga).is_abandoned

    @pytest.mark.slow
    @pytest.mark.parametrize("how", ["left", "lost the target"])
    def test_who_has_left_meanwhile_does_not_count(
        self, world: World, stuck: Any, tara: Any, how: str
    ):
        abandon(stuck, world.olga)
        if how == "left":
            type(world.olga).objects.filter(pk=world.olga.pk).update(is_active=False)
        else:
            world.groups["owners"].user_set.clear()
        assert not abandon(stuck, world.ada).is_abandoned
        assert told(stuck, *ABANDONED_EVENTS) == [
            ("grant.abandon_asked", "olga"),
            ("grant.abandon_voided", "ada"),
            ("grant.abandon_asked", "ada"),
        ]
        assert abandon(stuck, tara).is_abandoned
        assert sorted(row.person.username for row in Abandonment.objects.all()) == ["ada", "tara"]

    def test_who_owns_it_again_counts(self, world: World, stuck: Any):
        abandon(stuck, world.olga)
        world.groups["owners"].user_set.clear()
        world.groups["owners"].user_set.add(world.olga)
        assert abandon(stuck, world.ada).is_abandoned

    def test_giving_up_the_cut_is_not_giving_up_the_clean_up(
        self, world: World, clock: Clock, stuck: Any
    ):
        abandon(stuck, world.olga)
        repaired(world)
        world.server.fail_next("clean", DOWN, times=1000)
        clock.forward(5)
        assert close(stuck).cut_at is not None
        clock.forward(31)
        close(stuck)
        assert not abandon(stuck, world.ada).is_abandoned
        assert abandon(stuck, world.olga).is_abandoned
        assert told(stuck, *ABANDONED_EVENTS) == [
            ("grant.abandon_asked", "olga"),
            ("grant.abandon_voided", "ada"),
            ("grant.abandon_asked", "ada"),
            ("grant.abandoned", "olga"),
        ]


class TestAfterwards:
    @pytest.fixture(params=["cut", "clean"])
    def given_up(self, request: pytest.FixtureRequest, world: World, clock: Clock) -> Any:
        grant = failing(world, verb=request.param)
        clock.forward(31)
        close(grant)
        abandon(grant, world.olga)
        abandon(grant, world.ada)
        clock.forward(60)
        return close(grant)

    def test_it_is_tried_every_hour(self, world: World, clock: Clock, given_up: Any):
        wait = given_up.next_try_at - database_clock.now()
        assert timedelta(minutes=59) < wait <= timedelta(hours=1)
        tried = given_up.attempts
        clock.forward(HOUR - 60)
        assert close(given_up).attempts == tried
        clock.forward(61)
        assert close(given_up).attempts == tried + 1
        assert given_up.is_abandoned

    def test_once_it_works_it_has_ended_and_stays_marked(
        self, world: World, clock: Clock, given_up: Any
    ):
        repaired(world)
        clock.forward(HOUR)
        assert close(given_up).state == GrantState.ENDED
        assert given_up.abandoned_at is not None
        assert not given_up.is_abandoned
        assert grants.shown_state(given_up, database_clock.now()) == "ended"
        assert given_up.account not in world.server.accounts

    def test_it_can_still_be_tried_at_once(self, world: World, given_up: Any):
        repaired(world)
        grants.try_again(given_up.pk, by=world.olga)
        assert close(given_up).state == GrantState.ENDED

    @pytest.mark.slow
    def test_a_try_that_fails_is_followed_by_an_hour_again(self, world: World, given_up: Any):
        tried = given_up.attempts
        grants.try_again(given_up.pk, by=world.alice)
        assert close(given_up).attempts == tried + 1
        assert given_up.next_try_at > database_clock.now() + timedelta(minutes=59)


class TestTheDatabaseItself:
    """What the triggers and constraints refuse to whoever goes past the verbs."""

    def insert(self, grant: Any, person: Any) -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO approvals_abandonment (grant_id, person_id, reason, at) "
                "VALUES (%s, %s, 'Because.', dbnow())",
                [grant.pk, person.pk],
            )

    def mark(self, grant: Any) -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(
                "UPDATE approvals_grant SET abandoned_at = dbnow() WHERE id = %s", [grant.pk]
            )

    def test_not_the_holder(self, world: World, stuck: Any):
        with pytest.raises(IntegrityError, match="access of their own"):
            self.insert(stuck, world.alice)

    def test_not_whoever_asked(self, world: World, stuck: Any):
        AccessRequest.objects.filter(pk=stuck.request_id).update(requester=world.amir)
        with pytest.raises(IntegrityError, match="access of their own"):
            self.insert(stuck, world.amir)

    def test_nor_by_putting_them_in_anothers_place(self, world: World, stuck: Any):
        self.insert(stuck, world.olga)
        with pytest.raises(IntegrityError, match="access of their own"), transaction.atomic():
            Abandonment.objects.update(person=world.alice)

    def test_not_by_fewer_than_two(self, world: World, stuck: Any):
        with pytest.raises(IntegrityError, match="takes two"):
            self.mark(stuck)
        self.insert(stuck, world.olga)
        with pytest.raises(IntegrityError, match="takes two"):
            self.mark(stuck)
        with pytest.raises(IntegrityError, match="abandonment_once_each"):
            self.insert(stuck, world.olga)
        self.insert(stuck, world.ada)
        self.mark(stuck)

    def test_not_what_is_open(self, world: World):
        grant = opened(world)
        for person in (world.olga, world.ada):
            self.insert(grant, person)
        with pytest.raises(IntegrityError, match="grant_abandoned_while_closing"):
            self.mark(grant)


@pytest.mark.usefixtures("committed")
class TestAtOnce:
    def test_two_people(self, world: World, stuck: Any):
        results = at_once(partial(abandon, stuck, world.olga), partial(abandon, stuck, world.ada))
        assert all(isinstance(result, Grant) for result in results)
        stuck.refresh_from_db()
        assert stuck.is_abandoned
        assert [action for action, _ in told(stuck, *ABANDONED_EVENTS)] == [
            "grant.abandon_asked",
            "grant.abandoned",
        ]

    def test_one_person_thrice(self, world: World, stuck: Any):
        results = at_once(*[partial(abandon, stuck, world.olga)] * 3)
        refused = [result for result in results if isinstance(result, WrongState)]
        assert [one.code for one in refused] == ["already_counted"] * 2
        stuck.refresh_from_db()
        assert stuck.abandoned_at is None
        assert Abandonment.objects.count() == 1

    def test_giving_up_against_a_try_that_works(self, world: World, clock: Clock, stuck: Any):
        """Either it was given up before it ended, or whoever gave up is told that it has."""
        abandon(stuck, world.olga)
        repaired(world)
        clock.forward(5)
        result, _ = at_once(
            partial(abandon, stuck, world.ada),
            partial(closing.close_grant, stuck.pk, worker="w1"),
        )
        close(stuck)
        assert stuck.state == GrantState.ENDED
        if isinstance(result, WrongState):
            assert stuck.abandoned_at is None
        else:
            assert stuck.abandoned_at is not None
            assert stuck.abandoned_at < stuck.ended_at

    def test_who_leaves_while_waiting_for_the_lock_does_not_count(
        self, world: World, control: Control, stuck: Any
    ):
        abandon(stuck, world.ada)
        with psycopg.connect(control.url()) as other:
            other.execute("SELECT FROM approvals_grant WHERE id = %s FOR UPDATE", [stuck.pk])
            with ThreadPoolExecutor(1) as pool:
                waiting = pool.submit(at_once, partial(abandon, stuck, world.olga))
                until_blocked(control)
                type(world.olga).objects.filter(pk=world.olga.pk).update(is_active=False)
                other.commit()
                [result] = waiting.result(timeout=10)
        assert isinstance(result, NotAllowed)
        stuck.refresh_from_db()
        assert stuck.abandoned_at is None
