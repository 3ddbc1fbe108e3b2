"""What looks wrong with the policies in force, told before somebody is refused for it."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from approvals import administration, lint, workflow
from approvals.lint import Ground, Place, Rule, Warned
from approvals.models import Policy
from approvals.policy import AppliesTo
from audit.models import Event
from tests.approvals.admin_browser import admin_form, browser, filled, said, url
from tests.world import HOUR, World, publish, stage

EMPTY = Ground(members={}, levels={}, names={})
UNFILLED = {lint.UNFILLABLE}  # of rules without stages


def rule(number: int, **applies_to: Any) -> Rule:
    conditions = AppliesTo(**applies_to)
    return Rule(policy=number, name=f"P{number}", rank=number, applies_to=conditions)


def reached(*rules: Rule) -> list[int]:
    """The policies that are not taken from by those before."""
    found = lint.lint(rules, EMPTY)
    lost = {pk for pk, warned in found.items() if lint.UNREACHABLE in codes(warned)}
    return [one.policy for one in rules if one.policy not in lost]


def codes(warned: list[Warned]) -> list[str]:
    return [one.code for one in warned]


def of(world: World, chosen: Policy | None = None) -> list[Warned]:
    return lint.look().get((chosen or world.policy).pk, [])


def another(world: World, name: str, rank: int, *stages: Any, **draft: Any) -> Policy:
    made = administration.change_policy(Policy(name=name, rank=rank), by=world.ada)
    publish(world, *stages, policy=made, **draft)
    return made


class TestWhatComesFirst:
    """A policy that another one leaves nothing never governs."""

    def test_whatever_comes_after_one_without_conditions_is_lost(self):
        first, then = rule(1), rule(2, environments=["production"], risks=["low"])
        assert reached(first, then) == [1]
        assert reached(then, first) == [2, 1]

    @pytest.mark.parametrize(
        ("first", "then"),
        [
            ({"environments": ["production"]}, {"environments": ["production"]}),
            ({"environments": ["production", "staging"]}, {"environments": ["staging"]}),
            ({"labels": {"team": "a"}}, {"labels": {"team": "a", "tier": "1"}}),
            ({"levels": [1, 2]}, {"levels": [2]}),
            ({"requester_groups": [1]}, {"requester_groups": [1], "risks": ["low"]}),
        ],
    )
    def test_so_is_what_is_narrower(self, first: dict[str, Any], then: dict[str, Any]):
        assert reached(rule(1, **first), rule(2, **then)) == [1]

    @pytest.mark.parametrize(
        ("first", "then"),
        [
            ({"environments": ["production"]}, {}),
            ({"environments": ["production"]}, {"environments": ["staging"]}),
            ({"environments": ["production"]}, {"environments": ["production", "staging"]}),
            ({"labels": {"team": "a"}}, {"labels": {"team": "b"}}),
            ({"labels": {"team": "a"}}, {}),
            ({"levels": [1]}, {"levels": [1, 2]}),
            ({"levels": [1]}, {}),
            ({"requester_groups": [1]}, {"requester_groups": [2]}),
            ({"requester_groups": [1], "risks": ["low"]}, {"requester_groups": [1]}),
        ],
    )
    def test_what_is_wider_or_elsewhere_is_not(self, first: dict[str, Any], then: dict[str, Any]):
        assert reached(rule(1, **first), rule(2, **then)) == [1, 2]

    def test_several_may_take_it_together(self):
        low, rest, last = rule(1, risks=["low"]), rule(2, risks=["medium", "high"]), rule(3)
        assert reached(low, rest, last) == [1, 2]
        (warned, *_) = lint.lint([low, rest, last], EMPTY)[3]
        assert "“P1” (rank 1) and “P2” (rank 2)" in warned.text

    def test_every_condition_there_is_is_looked_at(self):
        """A new one has to be compared too, or what it keeps apart would look the same."""
        known = {"environments", "labels", "risks", "levels", "requester_groups"}
        assert set(AppliesTo.model_fields) == known


class TestLevelsAndRequesters:
    """Conditions that nothing meets."""

    ground = Ground(
        members={"7": set(), "8": {1}},
        levels={1: Place("production", "low", {"team": "a"})},
        names={1: "alice"},
    )

    @pytest.mark.parametrize(
        ("conditions", "fits"),
        [
            ({"levels": [1]}, True),
            ({"levels": [1, 2]}, True),
            ({"levels": [2]}, False),
            ({"levels": [1], "environments": ["staging"]}, False),
            ({"levels": [1], "risks": ["low"], "labels": {"team": "a"}}, True),
            ({"levels": [1], "labels": {"team": "b"}}, False),
        ],
    )
    def test_levels_that_do_not_meet_the_rest(self, conditions: dict[str, Any], fits: bool):
        found = lint.lint([rule(1, **conditions)], self.ground)
        assert (lint.NO_LEVEL not in codes(found[1])) is fits

    @pytest.mark.parametrize(("groups", "fits"), [([7], False), ([7, 8], True), ([9], False)])
    def test_groups_without_people(self, groups: list[int], fits: bool):
        found = lint.lint([rule(1, requester_groups=groups)], self.ground)
        assert (lint.NO_REQUESTER not in codes(found[1])) is fits


class TestPeople:
    """Stages that nobody could fill, or not for everybody."""

    def test_nothing_is_wrong_with_the_world_as_it_is(self, world: World):
        assert lint.look() == {}

    def test_an_empty_group_can_approve_nothing(self, world: World):
        publish(world, stage(world, "Anyone", "nobody"))
        (warned,) = of(world)
        assert warned.code == lint.UNFILLABLE
        assert "“Anyone”: it lacks 1 of nobody" in warned.text

    def test_nor_can_one_with_too_few(self, world: World):
        publish(world, stage(world, "Owners", "owners", minimum=2))
        (warned,) = of(world)
        assert "it lacks 1 of owners" in warned.text

    def test_nor_can_two_stages_that_need_the_same_person(self, world: World):
        publish(world, stage(world, "Owners", "owners"), stage(world, "Again", "owners"))
        assert codes(of(world)) == [lint.UNFILLABLE]

    def test_whoever_was_switched_off_is_not_counted(self, world: World):
        publish(world, stage(world, "Owners", "owners"), stage(world, "Security", "security"))
        world.olga.is_active = False
        world.olga.save()
        assert codes(of(world)) == [lint.UNFILLABLE]

    def test_who_asks_cannot_approve_and_is_named_if_that_leaves_too_few(self, world: World):
        publish(world, stage(world, "Owners", "owners"))
        (warned,) = of(world)
        assert warned.code == lint.TOO_FEW
        assert warned.text.startswith("If olga asks, nobody could fill the stage “Owners”")

    def test_that_is_nothing_to_whom_the_policy_is_not_for(self, world: World):
        wanted = AppliesTo(requester_groups=[world.groups["developers"].pk])
        publish(world, stage(world, "Owners", "owners"), applies_to=wanted)
        assert of(world) == []

    def test_a_fallback_group_helps_if_somebody_is_in_it(self, world: World):
        fallback = stage(world, "Anyone", "nobody", fallback_group=world.groups["dba"])
        publish(world, fallback)
        assert of(world) == []
        world.groups["dba"].user_set.clear()
        assert codes(of(world)) == [lint.UNFILLABLE, lint.NO_FALLBACK]

    def test_an_escalation_group_has_to_have_somebody_in_it(self, world: World):
        late = stage(
            world, "Late", "dba", escalate_after=600, escalation_group=world.groups["nobody"]
        )
        publish(world, late)
        assert codes(of(world)) == [lint.NO_ESCALATION]
        world.groups["nobody"].user_set.add(world.olga)
        assert of(world) == []

    def test_a_reminder_that_a_deadline_forestalls(self, world: World):
        publish(world, stage(world, "Late", "dba", deadline=600, remind_every=600, max_reminders=1))
        assert codes(of(world)) == [lint.NO_REMINDER]

    def test_what_it_says_of_each_asker_is_what_submitting_says(self, world: World):
        """Everybody in the world asks; who is refused is who was named."""
        publish(world, stage(world, "All dba", "dba", minimum=3), stage(world, "One", "security"))
        world.groups["security"].user_set.remove(world.dora)
        named = {
            name
            for warned in of(world)
            for name in warned.text.removeprefix("If ")
            .split(" asks,")[0]
            .replace(" or", ",")
            .split(", ")
        }
        refused = set()
        for name, person in world.people.items():
            preview = workflow.preview(world.read, by=person, wish=world.wish())
            if preview.plan.obstacle:
                refused.add(name)
        assert named == refused == {"bob", "dan", "dora"}

    def test_many_policies_cost_no_more_queries_than_one(self, world: World):
        with CaptureQueriesContext(connection) as few:
            lint.look()
        for rank in (20, 30):
            another(world, f"P{rank}", rank, stage(world, "Anyone", "nobody"))
        with CaptureQueriesContext(connection) as more:
            assert len(lint.look()) == 2
        assert len(more) == len(few)

    def test_what_is_switched_off_or_unpublished_is_left_alone(self, world: World):
        administration.change_policy(Policy(name="New", rank=1), by=world.ada)
        publish(world, stage(world, "Anyone", "nobody"))
        world.policy.refresh_from_db()
        world.policy.enabled = False
        administration.change_policy(world.policy, by=world.ada)
        assert lint.look() == {}


class TestPages:
    """ada is told on the page, and nothing she wrote is lost."""

    @pytest.fixture
    def ada(self, world: World) -> Client:
        return browser(world.ada)

    @pytest.mark.slow
    def test_after_publishing(self, ada: Client, world: World):
        page = ada.get(url("policy", "publish", world.policy.pk))
        stages = page.context["stages"]
        data = filled(page.context["form"], stages.management_form, *stages.forms)
        data["stages-0-groups"] = "nobody: 1"
        response = ada.post(url("policy", "publish", world.policy.pk), data, follow=True)
        world.policy.refresh_from_db()
        assert world.policy.current is not None
        assert world.policy.current.number == 2
        assert response.content.decode().count("it lacks 1 of nobody") == 1
        listing = ada.get(url("policy", "changelist")).content.decode()
        assert "it lacks 1 of nobody" in listing

    @pytest.mark.slow
    def test_after_a_change_of_rank_of_whatever_policy_it_takes_from(
        self, ada: Client, world: World
    ):
        staging = another(world, "Staging", 20, applies_to=AppliesTo(environments=["staging"]))
        assert codes(of(world, staging)) == [lint.UNREACHABLE]
        page = url("policy", "change", staging.pk)
        data = filled(admin_form(ada.get(page)))
        assert not said(ada.post(page, {**data, "rank": "5"}, follow=True))[1:]
        assert lint.look() == {}
        warned = said(ada.post(page, {**data, "rank": "20"}, follow=True))
        assert any("Staging: It never governs a request" in message for message in warned)

    @pytest.mark.slow
    def test_not_of_all_if_many_are(self, ada: Client, world: World):
        for rank in range(20, 27):
            another(world, f"P{rank}", rank)
        data = filled(admin_form(ada.get(url("policy", "change", world.policy.pk))))
        told = said(ada.post(url("policy", "change", world.policy.pk), data, follow=True))
        warned = [line for line in told if "never governs" in line or "more are told" in line]
        assert len(warned) == 6
        assert "2 more are told in the list of policies." in warned

    @pytest.mark.slow
    def test_before_publishing_if_she_looks_first(self, ada: Client, world: World):
        page = ada.get(url("policy", "publish", world.policy.pk))
        stages = page.context["stages"]
        data = filled(page.context["form"], stages.management_form, *stages.forms)
        data |= {"stages-0-groups": "nobody: 1", "rehearse": "yes"}
        events = Event.objects.count()
        answer = ada.post(url("policy", "publish", world.policy.pk), data)
        effect = answer.context["effect"]
        assert effect.sentence == "All requests need 1 of nobody, then 1 of security."
        assert [(name, one.code) for name, one in effect.warnings] == [
            ("Production", lint.UNFILLABLE)
        ]
        text = answer.content.decode()
        assert "Nothing is published yet." in text
        assert 'value="nobody: 1"' in text
        world.policy.refresh_from_db()
        assert world.policy.versions.count() == 1
        assert Event.objects.count() == events

    @pytest.mark.slow
    def test_what_could_not_be_published_is_refused_in_a_rehearsal_too(
        self, ada: Client, world: World
    ):
        page = ada.get(url("policy", "publish", world.policy.pk))
        stages = page.context["stages"]
        data = filled(page.context["form"], stages.management_form, *stages.forms)
        data |= {"stages-0-groups": "dba: 3", "stages-0-total": "2", "rehearse": "yes"}
        answer = ada.post(url("policy", "publish", world.policy.pk), data)
        assert answer.context["effect"] is None
        assert "at least the sum" in str(answer.context["form"].errors)
        assert Event.objects.filter(action="administration.refused").count() == 1


class TestLongerAccess:
    """What is allowed of it, and would surprise somebody."""

    LONGER: ClassVar[dict[str, Any]] = {
        "extensions_most": 2,
        "extension_max": HOUR,
        "max_total": 12 * HOUR,
        "extension_approval": "last",
        "extension_window": 1800,
    }

    def test_nothing_where_there_is_none_or_all_is_well(self, world: World):
        assert of(world) == []
        publish(world, **self.LONGER)
        assert of(world) == []

    def test_that_nobody_is_asked_for_it(self, world: World):
        publish(world, **{**self.LONGER, "extension_approval": "none"})
        [warned] = of(world)
        assert warned.code == lint.ASKS_NOBODY
        assert "for 12 h" in warned.text

    def test_that_there_is_no_time_to_decide(self, world: World):
        publish(world, **{**self.LONGER, "extension_window": 60})
        assert codes(of(world)) == [lint.TOO_LATE]
        publish(world, **{**self.LONGER, "extension_window": 60, "bridge": 600})
        assert of(world) == []

    def test_that_what_is_asked_for_in_full_is_never_extended(self, world: World):
        publish(world, **{**self.LONGER, "max_total": 8 * HOUR})
        assert codes(of(world)) == [lint.NO_ROOM]
