"""Stages over time: reminders, escalation, people who leave while others wait, drawing anew."""

from __future__ import annotations

from datetime import timedelta
from importlib import import_module
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from guardian.shortcuts import assign_perm

from approvals import administration, escalation, policy, sweeper, untended, workflow
from approvals.errors import Invalid, NotAllowed, WrongState
from approvals.models import (
    AccessRequest,
    Candidate,
    Grant,
    Nudge,
    NudgeKind,
    RequestStage,
    Stage,
)
from approvals.sentences import event_sentence
from approvals.states import RequestState, StageState
from audit.log import SYSTEM
from audit.models import Event
from tests.world import HOUR, World, publish, save_level, stage

MINUTE = 60
TIMES = ("remind_every", "max_reminders", "escalate_after", "escalation")


def timed(world: World, name: str = "Database", *groups: str, **fields: Any) -> Any:
    """A stage that reminds three times, every ten minutes, and asks the owners after an hour."""
    values = {
        "remind_every": 10 * MINUTE,
        "max_reminders": 3,
        "escalate_after": HOUR,
        "escalation_group": world.groups["owners"],
        **fields,
    }
    return stage(world, name, *(groups or ("dba",)), **values)


def opened(request: AccessRequest) -> RequestStage:
    return request.stages.get(state=StageState.OPEN)


def nudges(request: AccessRequest, kind: NudgeKind = NudgeKind.REMIND) -> list[tuple[int, int]]:
    rows = Nudge.objects.filter(stage__request=request, kind=kind)
    return list(rows.values_list("n", "skipped"))


def told(action: str) -> list[str]:
    return [event_sentence(event) for event in Event.objects.filter(action=action).order_by("id")]


def asked(request: AccessRequest) -> set[str]:
    rows = Candidate.objects.filter(stage=opened(request))
    return set(rows.values_list("user__username", flat=True))


class TestReminders:
    def test_each_is_given_once_when_it_is_due_and_no_more_than_so_many(self, world, clock):
        publish(world, timed(world, escalate_after=None, escalation_group=None))
        request = world.submit()
        assert sweeper.nudge() == 0
        for n in (1, 2, 3):
            clock.forward(10 * MINUTE)
            assert sweeper.nudge() == 1
            assert sweeper.nudge() == 0
            assert nudges(request)[-1] == (n, 0)
        clock.forward(10 * MINUTE)
        assert sweeper.nudge() == 0
        assert told("requeststage.reminded")[-1] == (
            "debugflow reminded whoever can decide “Database”, 3 of 3."
        )
        assert opened(request).nudge_at is None

    def test_after_an_outage_there_is_one_that_says_how_many_were_missed(self, world, clock):
        publish(world, timed(world, max_reminders=5, escalate_after=None, escalation_group=None))
        request = world.submit()
        clock.forward(35 * MINUTE)
        sweeper.nudge()
        assert nudges(request) == [(3, 2)]
        assert "3 of 5 (2 before it missed)" in told("requeststage.reminded")[0]
        clock.forward(5 * MINUTE)
        sweeper.nudge()
        assert nudges(request) == [(3, 2), (4, 0)]

    def test_a_clock_that_goes_back_reminds_of_nothing_twice(self, world, clock):
        publish(world, timed(world))
        request = world.submit()
        clock.forward(25 * MINUTE)
        sweeper.nudge()
        clock.forward(-20 * MINUTE)
        assert escalation.tend(request.pk) is not None
        assert sweeper.nudge() == 0
        clock.forward(20 * MINUTE)
        assert sweeper.nudge() == 0
        assert nudges(request) == [(2, 1)]

    def test_the_database_takes_none_twice(self, world, clock):
        publish(world, timed(world))
        request = world.submit()
        clock.forward(10 * MINUTE)
        sweeper.nudge()
        [same] = Nudge.objects.filter(stage=opened(request))
        with pytest.raises(IntegrityError), transaction.atomic():
            Nudge.objects.create(stage=same.stage, kind=same.kind, n=same.n, at=same.at)

    def test_what_is_told_is_enough_for_whoever_is_to_be_told(self, world, clock):
        publish(world, timed(world))
        request = world.submit()
        clock.forward(10 * MINUTE)
        sweeper.nudge()
        event = Event.objects.get(action="requeststage.reminded")
        assert event.thread == f"request:{request.pk}"
        assert event.data == {"n": 1, "of": 3, "skipped": 0, "missing": ["1 of dba"]}

    def test_the_next_stage_counts_from_its_own_opening(self, world, clock):
        publish(world, stage(world, "First", "dba"), timed(world, "Second", "security"))
        request = world.submit()
        clock.forward(30 * MINUTE)
        assert sweeper.nudge() == 0
        world.vote(request, "bob")
        assert sweeper.nudge() == 0
        clock.forward(10 * MINUTE)
        assert sweeper.nudge() == 1
        assert nudges(request) == [(1, 0)]

    @pytest.mark.parametrize("end", ["cancelled", "late", "decided", "requester gone"])
    def test_nobody_is_reminded_of_what_is_over(self, world, clock, end):
        publish(world, timed(world, deadline=2 * HOUR))
        request = world.submit()
        clock.forward(10 * MINUTE)
        match end:
            case "cancelled":
                workflow.cancel(request.pk, by=world.alice)
            case "late":
                clock.forward(2 * HOUR)
            case "decided":
                world.vote(request, "bob", "deny")
            case "requester gone":
                type(world.alice).objects.filter(pk=world.alice.pk).update(is_active=False)
        assert sweeper.nudge() == 0
        assert not Nudge.objects.exists()

    def test_a_request_keeps_the_times_it_was_asked_under(self, world, clock):
        publish(world, timed(world))
        request = world.submit()
        publish(world, timed(world, remind_every=HOUR, escalate_after=None, escalation_group=None))
        clock.forward(10 * MINUTE)
        assert sweeper.nudge() == 1
        assert opened(request).escalation_group == world.groups["owners"]


class TestEscalation:
    def test_it_asks_one_more_group_and_takes_nobody_out(self, world, clock):
        publish(world, timed(world))
        request = world.submit()
        assert asked(request) == {"bob", "dan", "dora"}
        clock.forward(HOUR)
        sweeper.nudge()
        assert asked(request) == {"bob", "dan", "dora", "olga"}
        assert told("requeststage.escalated") == [
            "debugflow asked owners to decide “Database” as well (olga): it took long."
        ]
        assert request.pk in AccessRequest.objects.all().waiting_for(world.olga).values_list(
            "pk", flat=True
        )
        world.vote(request, "olga")
        request.refresh_from_db()
        assert request.state == RequestState.APPROVED

    def test_whoever_was_asked_first_can_still_decide(self, world, clock):
        publish(world, timed(world))
        request = world.submit()
        clock.forward(HOUR)
        sweeper.nudge()
        world.vote(request, "bob")
        request.refresh_from_db()
        assert request.state == RequestState.APPROVED

    def test_before_that_they_are_not_asked(self, world, clock):
        publish(world, timed(world))
        request = world.submit()
        clock.forward(HOUR - 1)
        sweeper.nudge()
        with pytest.raises(NotAllowed) as refused:
            world.vote(request, "olga")
        assert refused.value.code == "not_eligible"

    def test_it_happens_once(self, world, clock):
        publish(world, timed(world))
        request = world.submit()
        clock.forward(HOUR)
        sweeper.nudge()
        world.groups["owners"].user_set.add(world.amir)
        clock.forward(HOUR)
        sweeper.nudge()
        escalation.tend(request.pk)
        assert nudges(request, NudgeKind.ESCALATE) == [(1, 0)]
        assert "amir" not in asked(request)

    def test_it_never_lets_in_whoever_asked_or_changed_it(self, world, clock):
        """alice owns the target and asks; ada owns it and changes the level meanwhile."""
        publish(world, timed(world))
        world.groups["owners"].user_set.add(world.alice, world.ada)
        request = world.submit()
        world.server.levels["read-only"] = ("may read a little",)
        save_again(world)
        clock.forward(HOUR)
        sweeper.nudge()
        assert asked(request) == {"bob", "dan", "dora", "olga"}
        for who in ("alice", "ada"):
            with pytest.raises(NotAllowed) as refused:
                world.vote(request, who)
            assert refused.value.code == "self_approval"

    def test_its_people_fill_whatever_place_is_empty(self, world, clock):
        publish(world, timed(world, "Both", "dba", "security"))
        request = world.submit()
        world.vote(request, "bob")
        clock.forward(HOUR)
        sweeper.nudge()
        world.vote(request, "olga")
        request.refresh_from_db()
        assert request.state == RequestState.APPROVED

    def test_no_timeout_approves(self, world, clock):
        """chen has approved for security; as an owner, too, he could fill the place of a dba."""
        world.groups["owners"].user_set.add(world.chen)
        publish(world, timed(world, "Both", "dba", "security"))
        request = world.submit()
        world.vote(request, "carol")
        world.vote(request, "chen")
        clock.forward(HOUR)
        sweeper.nudge()
        notice()
        request.refresh_from_db()
        assert (request.state, opened(request).state) == (RequestState.PENDING, StageState.OPEN)
        world.vote(request, "chen")
        request.refresh_from_db()
        assert request.state == RequestState.APPROVED

    def test_the_deadline_comes_all_the_same(self, world, clock):
        publish(world, timed(world, deadline=2 * HOUR))
        request = world.submit()
        clock.forward(HOUR)
        sweeper.nudge()
        clock.forward(HOUR)
        sweeper.expire_requests()
        request.refresh_from_db()
        assert request.state == RequestState.EXPIRED

    def test_a_deadline_that_has_come_first_leaves_nothing_to_escalate(self, world, clock):
        publish(world, timed(world, deadline=2 * HOUR))
        request = world.submit()
        clock.forward(3 * HOUR)
        assert escalation.tend(request.pk) is None
        assert not Nudge.objects.exists()

    def test_a_new_round_begins_anew(self, world, clock):
        publish(world, timed(world))
        request = world.submit()
        clock.forward(HOUR)
        sweeper.nudge()
        world.server.levels["read-only"] = ("may read a little",)
        save_again(world)
        request.refresh_from_db()
        assert request.round == 2
        assert opened(request).escalated_at is None
        assert "olga" not in asked(request)
        clock.forward(HOUR)
        sweeper.nudge()
        assert "olga" in asked(request)

    @pytest.mark.parametrize(
        "fields",
        [
            {"remind_every": 600},
            {"max_reminders": 3},
            {"remind_every": 0, "max_reminders": 3},
            {"escalate_after": 600},
            {"escalate_after": 600, "group": True, "deadline": 600},
            {"group": True},
        ],
    )
    def test_the_database_takes_no_half_of_it(self, world, fields):
        version = world.policy.versions.create(
            number=9, max_duration=1, pending_ttl=1, activation_ttl=1
        )
        group = world.groups["owners"] if fields.pop("group", False) else None
        with pytest.raises(IntegrityError), transaction.atomic():
            Stage.objects.create(
                version=version, order=0, name="x", total=1, escalation_group=group, **fields
            )


def save_again(world: World) -> None:
    level = type(world.read).objects.select_related("target").get(pk=world.read.pk)
    administration.save_level(level, by=world.ada)


def leave(world: World, *names: str, group: str = "dba") -> None:
    """In bulk, of which no signal tells."""
    world.groups[group].user_set.through.objects.filter(
        group=world.groups[group], user__username__in=names
    ).delete()


def deactivate(world: World, *names: str) -> None:
    type(world.bob).objects.filter(username__in=names).update(is_active=False)


def notice(rounds: untended.Rounds | None = None) -> int:
    return sweeper.notice_leavers(rounds or untended.Rounds())


class TestPeopleWhoLeave:
    def test_where_somebody_is_left_nothing_happens(self, world):
        publish(world, stage(world, "Database", "dba"))
        request = world.submit()
        leave(world, "bob")
        deactivate(world, "dan")
        notice()
        assert opened(request).stalled_since is None
        assert not Event.objects.filter(action="requeststage.stalled").exists()

    def test_nobody_left_is_said_and_ends_when_somebody_is_back(self, world, clock):
        publish(world, stage(world, "Database", "dba"))
        request = world.submit()
        deactivate(world, "bob")
        leave(world, "dan", "dora")
        assert notice() == 1
        since = opened(request).stalled_since
        assert since is not None
        assert told("requeststage.stalled") == [
            "debugflow found nobody left who can decide “Database”: it lacks 1 of dba."
        ]
        clock.forward(60)
        notice()
        assert opened(request).stalled_since == since
        world.groups["dba"].user_set.add(world.dan)
        notice()
        assert opened(request).stalled_since is None
        assert told("requeststage.revived") == [
            "debugflow found somebody again who can decide “Database”."
        ]
        world.vote(request, "dan")
        request.refresh_from_db()
        assert request.state == RequestState.APPROVED

    def test_the_fallback_group_comes_first(self, world):
        publish(
            world,
            timed(world, fallback_group=world.groups["security"]),
        )
        request = world.submit()
        leave(world, "bob", "dan", "dora")
        notice()
        assert asked(request) >= {"carol", "chen"}
        assert "olga" not in asked(request)
        assert told("requeststage.stood_in") == [
            "debugflow let security stand in for dba in “Database” (carol, chen)."
        ]
        world.vote(request, "carol")
        request.refresh_from_db()
        assert request.state == RequestState.APPROVED

    def test_then_the_escalation_group_at_once(self, world):
        publish(world, timed(world, fallback_group=world.groups["nobody"]))
        request = world.submit()
        leave(world, "bob", "dan", "dora")
        notice()
        assert "olga" in asked(request)
        assert told("requeststage.escalated") == [
            "debugflow asked owners to decide “Database” as well (olga): nobody was left who could."
        ]
        assert opened(request).stalled_since is None

    def test_then_it_is_stalled_and_nothing_else_happens_to_it(self, world, clock):
        publish(world, timed(world, escalation_group=world.groups["nobody"]))
        request = world.submit()
        leave(world, "bob", "dan", "dora")
        notice()
        assert opened(request).stalled_since is not None
        clock.forward(HOUR)
        sweeper.nudge()
        assert nudges(request, NudgeKind.ESCALATE) == [(1, 0)]
        clock.forward(86400)
        sweeper.expire_requests()
        request.refresh_from_db()
        assert request.state == RequestState.EXPIRED

    def test_a_stage_that_opens_to_nobody_is_noticed(self, world):
        request = world.submit()
        leave(world, "carol", "chen", "dora", group="security")
        rounds = untended.Rounds()
        notice(rounds)
        assert opened(request).stalled_since is None
        world.vote(request, "bob")
        notice(rounds)
        assert (opened(request).name, bool(opened(request).stalled_since)) == ("Security", True)

    def test_one_of_two_places_may_be_what_is_lacking(self, world):
        publish(world, stage(world, "Both", "dba", "security"))
        request = world.submit()
        world.vote(request, "bob")
        leave(world, "carol", "chen", "dora", group="security")
        notice()
        assert "it lacks 1 of security" in told("requeststage.stalled")[0]
        assert opened(request).stalled_since is not None

    @pytest.mark.parametrize(
        ("decision", "state"),
        [("approve", RequestState.APPROVED), ("deny", RequestState.DENIED)],
    )
    def test_a_stage_ends_once_a_vote_in_it_counts_again(self, world, decision, state):
        """bob has left when dan votes, so one is missing; then bob is back, and nobody votes."""
        publish(world, stage(world, "Two", "dba", minimum=2, deny_quorum=2))
        request = world.submit()
        world.vote(request, "bob", decision)
        deactivate(world, "bob")
        world.vote(request, "dan", decision)
        rounds = untended.Rounds()
        notice(rounds)
        assert opened(request).name == "Two"
        type(world.bob).objects.update(is_active=True)
        assert notice(rounds) == 1
        request.refresh_from_db()
        assert (request.state, Grant.objects.exists()) == (state, decision == "approve")
        assert Event.objects.get(action=f"accessrequest.{state}").actor_name == SYSTEM.name
        assert notice() == 0

    def test_what_was_looked_at_is_looked_at_again_when_somebody_else_left(self, world):
        publish(world, stage(world, "Database", "dba"))
        request = world.submit()
        rounds = untended.Rounds()
        assert rounds.look(10) == set()
        leave(world, "bob")
        assert rounds.look(10) == {request.pk}
        assert rounds.look(10) == set()
        leave(world, "dan")
        assert rounds.look(10) == {request.pk}
        world.groups["dba"].user_set.add(world.bob)
        assert rounds.look(10) == {request.pk}
        world.groups["dba"].user_set.add(world.dan)
        assert rounds.look(10) == set()

    def test_a_round_goes_through_all_part_by_part(self, world):
        write = world.submit("amir", level=world.write)
        both = {world.submit().pk, write.pk}
        leave(world, "bob")
        rounds = untended.Rounds()
        found = [rounds.look(1) for _ in range(3)]
        assert [len(part) for part in found] == [1, 1, 0]
        assert set().union(*found) == both

    def test_a_request_of_somebody_who_left_is_left_to_its_end(self, world):
        publish(world, stage(world, "Database", "dba"))
        request = world.submit()
        leave(world, "bob", "dan", "dora")
        deactivate(world, "alice")
        notice()
        assert opened(request).stalled_since is None


class TestPublishing:
    @pytest.mark.parametrize(
        ("fields", "why"),
        [
            ({"remind_every": 600}, "reminders need both"),
            ({"max_reminders": 3}, "reminders need both"),
            ({"remind_every": 59, "max_reminders": 3}, "at least 1 min apart"),
            ({"remind_every": 60, "max_reminders": 0}, "at least 1 and at most 50"),
            ({"remind_every": 60, "max_reminders": 51}, "at least 1 and at most 50"),
            ({"escalate_after": 600}, "escalation needs both"),
            ({"group": "owners"}, "escalation needs both"),
            ({"escalate_after": 0, "group": "owners"}, "one second at the earliest"),
            ({"escalate_after": 600, "group": "owners", "deadline": 600}, "deadline would come"),
            ({"escalate_after": 86400, "group": "owners"}, "would be over before it escalates"),
        ],
    )
    def test_what_could_never_happen_is_refused(self, world, fields, why):
        group = world.groups[fields.pop("group")] if "group" in fields else None
        with pytest.raises(Invalid) as refused:
            publish(world, stage(world, "Database", "dba", escalation_group=group, **fields))
        assert why in refused.value.message

    def test_the_log_has_all_of_it(self, world):
        publish(world, timed(world))
        event = Event.objects.filter(action="policy.published").latest("id")
        said = {name: event.data["stages"][0][name] for name in TIMES}
        assert said == {
            "remind_every": 600,
            "max_reminders": 3,
            "escalate_after": HOUR,
            "escalation": "owners",
        }


class TestDrawingAnew:
    def test_todays_members_are_asked_and_votes_stay(self, world):
        publish(world, stage(world, "Two", "dba", minimum=2), stage(world, "Security", "security"))
        request = world.submit()
        world.vote(request, "bob")
        leave(world, "dan", "dora")
        leave(world, "chen", group="security")
        world.groups["dba"].user_set.add(world.olga)
        escalation.redraw(request.pk, by=world.ada)
        assert asked(request) == {"bob", "olga"}
        waiting = Candidate.objects.filter(stage__request=request, stage__order=1)
        assert set(waiting.values_list("user__username", flat=True)) == {"carol", "dora"}
        [event] = Event.objects.filter(action="accessrequest.redrawn")
        assert event.actor_name == "ada"
        assert event_sentence(event) == (
            "ada drew anew who is asked: in “Two” olga more, no longer dan, dora; "
            "in “Security” no longer chen."
        )
        world.vote(request, "olga")
        assert opened(request).name == "Security"

    def test_it_ends_a_stall(self, world):
        publish(world, stage(world, "Database", "dba"))
        request = world.submit()
        leave(world, "bob", "dan", "dora")
        notice()
        world.groups["dba"].user_set.add(world.olga)
        notice()
        assert opened(request).stalled_since is not None
        escalation.redraw(request.pk, by=world.ada)
        assert opened(request).stalled_since is None
        world.vote(request, "olga")

    def test_it_says_so_where_nobody_is_there_today_either(self, world):
        publish(world, stage(world, "Database", "dba"))
        request = world.submit()
        leave(world, "bob", "dan", "dora")
        escalation.redraw(request.pk, by=world.ada)
        assert opened(request).stalled_since is not None

    def test_who_stood_in_is_asked_still(self, world, clock):
        publish(world, timed(world))
        request = world.submit()
        clock.forward(HOUR)
        sweeper.nudge()
        world.groups["owners"].user_set.add(world.amir)
        escalation.redraw(request.pk, by=world.ada)
        assert asked(request) == {"bob", "dan", "dora", "olga", "amir"}

    def test_the_author_of_a_vote_counts_again_when_they_come_back(self, world):
        publish(world, stage(world, "Two", "dba", minimum=2))
        request = world.submit()
        world.vote(request, "bob")
        leave(world, "bob")
        escalation.redraw(request.pk, by=world.ada)
        assert "bob" in asked(request)
        world.vote(request, "dan")
        request.refresh_from_db()
        assert request.state == RequestState.PENDING
        world.groups["dba"].user_set.add(world.bob)
        world.vote(request, "dora")
        request.refresh_from_db()
        assert request.state == RequestState.APPROVED

    @pytest.mark.parametrize("who", ["alice", "bob", "olga", "mallory"])
    def test_only_those_who_may_change_policies(self, world, who):
        request = world.submit()
        with pytest.raises(NotAllowed) as refused:
            escalation.redraw(request.pk, by=world.people[who])
        assert refused.value.code == "not_admin"
        event = Event.objects.latest("id")
        assert (event.action, event.data) == ("redraw.refused", {"code": "not_admin"})

    def test_nobody_chooses_their_own_judges(self, world):
        world.groups["developers"].user_set.add(world.ada)
        level = save_level(world, name="admins", rank=3, rights={"level": "read-only"})
        assign_perm("approvals.request_accesslevel", world.groups["developers"], level)
        request = world.submit("ada", level=level)
        with pytest.raises(NotAllowed) as refused:
            escalation.redraw(request.pk, by=world.ada)
        assert refused.value.code == "self_redraw"

    def test_what_is_over_asks_nobody(self, world, clock):
        request = world.submit()
        clock.forward(86400)
        with pytest.raises(WrongState):
            escalation.redraw(request.pk, by=world.ada)
        workflow.expire(request.pk)
        with pytest.raises(WrongState):
            escalation.redraw(request.pk, by=world.ada)

    def test_buttons_say_the_same(self, world):
        request = world.submit()
        loaded = policy.load_chain(request)
        for who, code in (("ada", None), ("bob", "not_admin"), ("alice", "not_admin")):
            refusal = policy.permitted_actions(request, loaded, world.people[who])["redraw"]
            assert (refusal and refusal.code) == code


def test_what_was_asked_before_learns_its_fallback_group(world):
    """Stages kept none before: the migration reads it from the version they were asked under."""
    wanted = stage(world, "Database", "dba", fallback_group=world.groups["owners"])
    publish(world, wanted, stage(world, "Security", "security"))
    request = world.submit()
    request.stages.update(fallback_group=None)
    name = "approvals.migrations.0015_fallbacks_of_what_is_undecided"
    with connection.cursor() as cursor:
        cursor.execute(import_module(name).FALLBACKS)
    kept = request.stages.order_by("order").values_list("fallback_group__name", flat=True)
    assert list(kept) == ["owners", None]


def test_what_comes_next_is_the_first_of_what_is_left(world):
    publish(world, timed(world))
    waiting = opened(world.submit())
    assert waiting.opened_at is not None
    assert waiting.nudge_at == waiting.opened_at + timedelta(minutes=10)
    assert waiting.next_nudge(reminded=3) == waiting.opened_at + timedelta(hours=1)
