"""ada sees who would have to approve, and it is what asking then does."""

from __future__ import annotations

from typing import Any

import pytest

from approvals import administration, simulation
from approvals.errors import DebugflowError
from approvals.models import AccessRequest, Candidate, Policy, RequestStage
from approvals.policy import AppliesTo
from approvals.simulation import Simulated
from audit.models import Event
from tests.approvals.admin_browser import browser, staff, url
from tests.world import HOUR, World, publish, stage


def simulated(world: World, who: str = "alice", level: Any = None, duration: int = HOUR):
    chosen = level or world.read
    return simulation.simulate(chosen, by=world.people[who], duration=duration)


def another(world: World, name: str, rank: int, **draft: Any) -> Policy:
    made = administration.change_policy(Policy(name=name, rank=rank), by=world.ada)
    publish(world, stage(world, "Owners", "owners"), policy=made, **draft)
    return made


def asked_for_real(request: AccessRequest) -> list[tuple[str, list[str]]]:
    return [
        (
            one.name,
            sorted(
                Candidate.objects.filter(stage=one)
                .values_list("user__username", flat=True)
                .distinct()
            ),
        )
        for one in RequestStage.objects.filter(request=request).order_by("order")
    ]


def told(outcome: Simulated) -> list[tuple[str, list[str]]]:
    return [(one.name, one.names) for one in outcome.stages]


@pytest.mark.parametrize("who", ["alice", "amir"])
@pytest.mark.parametrize("wanted", ["read", "write"])
def test_it_is_what_asking_does(world: World, who: str, wanted: str):
    level = getattr(world, wanted)
    another(world, "Writes", 5, applies_to=AppliesTo(risks=["medium"]))
    outcome = simulated(world, who, level)
    assert outcome.refusals == ()
    request = world.submit(who, level)
    assert request.policy_version == outcome.preview.version
    assert asked_for_real(request) == told(outcome)


def test_whoever_asks_is_asked_nothing_of_it_in_either(world: World):
    world.groups["developers"].user_set.add(world.bob)
    outcome = simulated(world, "bob")
    assert "bob" not in str(told(outcome))
    assert asked_for_real(world.submit("bob")) == told(outcome)


def test_a_fallback_stands_in_as_it_would(world: World):
    publish(world, stage(world, "Anyone", "nobody", fallback_group=world.groups["dba"]))
    outcome = simulated(world)
    assert outcome.stages[0].fallback
    assert asked_for_real(world.submit()) == told(outcome)


@pytest.mark.parametrize(
    ("who", "duration", "why"),
    [
        ("mallory", HOUR, "You may not ask for read-only on orders"),
        ("alice", 5 * HOUR, "Up to 4 h; the limit is that of the level read-only"),
    ],
)
def test_what_would_refuse_it_is_told_as_it_would_be(
    world: World, who: str, duration: int, why: str
):
    (refusal,) = simulated(world, who, duration=duration).refusals
    assert why in refusal
    with pytest.raises(DebugflowError) as refused:
        world.submit(who, duration=duration)
    fields = getattr(refused.value, "fields", {})
    assert refusal in [
        refused.value.message,
        *(line for lines in fields.values() for line in lines),
    ]


def test_what_is_asked_already_would_be_refused(world: World):
    world.submit()
    (refusal,) = simulated(world).refusals
    assert "read-only on orders is asked for already" in refusal


def test_each_other_policy_has_its_reason(world: World):
    another(world, "Staging", 1, applies_to=AppliesTo(environments=["staging"]))
    another(world, "Later", 20)
    administration.change_policy(Policy(name="Empty", rank=30), by=world.ada)
    off = another(world, "Off", 40)
    off.refresh_from_db()
    off.enabled = False
    administration.change_policy(off, by=world.ada)
    found = [(one.name, one.why) for one in simulated(world).others]
    assert found == [
        ("Staging", "It is for staging, and orders is production."),
        ("Later", "It would govern it, but Production comes first."),
        ("Empty", simulation.UNPUBLISHED),
        ("Off", simulation.OFF),
    ]


def test_what_no_policy_governs_is_said_to_be_refused(world: World):
    publish(world, applies_to=AppliesTo(environments=["staging"]))
    outcome = simulated(world)
    assert outcome.preview.version is None
    assert [one.name for one in outcome.others] == ["Production"]
    assert "No policy governs read-only on orders" in outcome.refusals[0]


def test_it_changes_nothing(world: World):
    before = (Event.objects.count(), AccessRequest.objects.count())
    simulated(world)
    simulated(world, "mallory")
    assert (Event.objects.count(), AccessRequest.objects.count()) == before


def test_at_most_ten_are_named_and_the_others_counted(world: World):
    users = type(world.ada).objects
    for number in range(12):
        world.groups["dba"].user_set.add(users.create_user(f"dba{number:02}"))
    first = simulated(world).stages[0]
    assert (len(first.names), first.more) == (10, 5)


def form(world: World, **changes: Any) -> dict[str, Any]:
    return {"person": world.alice.pk, "level": world.read.pk, "duration": "1 h", **changes}


def test_the_page_says_who_and_why_not_another(world: World):
    another(world, "Staging", 1, applies_to=AppliesTo(environments=["staging"]))
    ada = browser(world.ada)
    assert "Governed by" not in ada.get(url("policy", "simulate")).content.decode()
    page = ada.get(url("policy", "simulate"), form(world)).content.decode()
    assert "Governed by Production, version 1" in page
    assert "bob, dan, dora" in page
    assert "It is for staging, and orders is production." in page
    assert "alice may ask for read-only on orders for 1 h now." in page
    refused = ada.get(url("policy", "simulate"), form(world, person=world.mallory.pk))
    assert "mallory would be refused read-only on orders now" in refused.content.decode()


@pytest.mark.parametrize(
    "wrong", [{"person": "x"}, {"level": "99999999999"}, {"duration": "soon"}, {"person": ""}]
)
def test_what_cannot_be_simulated_is_said_at_its_field(world: World, wrong: dict[str, str]):
    answer = browser(world.ada).get(url("policy", "simulate"), form(world, **wrong))
    assert answer.status_code == 200
    assert list(answer.context["form"].errors) == list(wrong)
    assert "Governed by" not in answer.content.decode()


def test_it_is_for_those_who_may_see_policies_and_for_looking_only(world: World):
    page = url("policy", "simulate")
    assert browser(staff(world.mallory, "view_target")).get(page).status_code == 403
    assert browser(staff(world.mallory, "view_policy")).get(page).status_code == 200
    assert browser(world.ada).post(page, form(world)).status_code == 405
