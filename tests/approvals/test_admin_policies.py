"""ada writes policies in the admin: sentences, stages, versions, and what cannot be published."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from approvals import administration, policy
from approvals.admin import wording
from approvals.admin.fields import CountedGroupsField, DurationField
from approvals.lengths import lasting
from approvals.models import Policy, PolicyVersion
from approvals.policy import AppliesTo
from audit.models import Event
from tests.approvals.admin_browser import admin_form, browser, errors, filled, said, staff, url
from tests.world import HOUR, World, publish, stage


@pytest.fixture
def ada(world: World) -> Client:
    return browser(world.ada)


def form_data(ada: Client, world: World) -> dict[str, Any]:
    """What the publish page sends if nothing is touched."""
    page = ada.get(url("policy", "publish", world.policy.pk))
    stages = page.context["stages"]
    return filled(page.context["form"], stages.management_form, *stages.forms)


def send(ada: Client, world: World, **changes: Any) -> Any:
    data = {**form_data(ada, world), **changes}
    data = {name: value for name, value in data.items() if value is not None}
    return ada.post(url("policy", "publish", world.policy.pk), data, follow=True)


def newest(world: World) -> PolicyVersion:
    world.policy.refresh_from_db()
    assert world.policy.current is not None
    return world.policy.current


def in_words(version: PolicyVersion) -> str:
    loaded = wording.with_stages(PolicyVersion.objects.filter(pk=version.pk)).get()
    return wording.sentence(loaded, wording.names([loaded]))


@pytest.mark.slow
def test_publishing_what_is_shown_says_the_same_again(ada: Client, world: World):
    publish(
        world,
        stage(
            world,
            "Database",
            "dba",
            "security",
            deadline=HOUR,
            remind_every=600,
            max_reminders=3,
            escalate_after=1800,
            escalation_group=world.groups["owners"],
        ),
        stage(world, "Security", "security", fallback_group=world.groups["owners"], deny_quorum=2),
        applies_to=AppliesTo(
            environments=["production"],
            labels={"team": "orders"},
            risks=["low", "medium"],
            levels=[world.read.pk],
            requester_groups=[world.groups["developers"].pk],
        ),
        reason_hint="Say what hangs.",
        ticket_required=True,
        pending_ttl=90 * 60,
        extensions_most=2,
        extension_max=HOUR,
        max_total=12 * HOUR,
        extension_approval="last",
        extension_window=1800,
        bridge=600,
    )
    before = newest(world)
    response = send(ada, world)
    after = newest(world)
    assert after.number == before.number + 1
    same = ("applies_to", "reason_hint", "ticket_required", "max_duration", "pending_ttl")
    for name in (*same, "activation_ttl", *administration.EXTENSIONS):
        assert getattr(after, name) == getattr(before, name), name
    stages = ("order", "name", "total", "deny_quorum", "deadline", "fallback_group")
    times = ("remind_every", "max_reminders", "escalate_after", "escalation_group")
    for names in (stages, times):
        assert list(after.stages.values_list(*names)) == list(before.stages.values_list(*names))
    assert in_words(after) == in_words(before)
    assert in_words(after) in said(response)[0]
    assert Event.objects.filter(action="policy.published").latest("id").actor_name == "ada"


@pytest.mark.slow
def test_longer_access_is_told_in_words(ada: Client, world: World):
    assert wording.clocks(newest(world)) == "Up to 8 h; decided within 24 h, opened within 1 h."
    changes = {
        "extensions_most": "2",
        "extension_max": "1 h",
        "max_total": "12 h",
        "extension_window": "30 min",
        "extension_approval": "last",
    }
    send(ada, world, **changes)
    assert wording.clocks(newest(world)) == (
        "Up to 8 h; decided within 24 h, opened within 1 h. In its last 30 min extended 2 times, "
        "by up to 1 h and to 12 h in all, if its last stage agrees."
    )
    send(ada, world, extensions_most="1", extension_approval="none", bridge="10 min")
    assert wording.clocks(newest(world)).endswith(
        "In its last 30 min extended once, by up to 1 h and to 12 h in all, without asking "
        "anybody; undecided at its end it goes on for 10 min, once."
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"extensions_most": "1"}, "needs a length"),
        ({"extensions_most": "21"}, "less than or equal to 20"),
        ({"extensions_most": "-1"}, "greater than or equal to 0"),
        ({"extension_approval": "somebody"}, "not one of the available choices"),
        ({"bridge": "ten"}, "with its unit"),
    ],
)
def test_longer_access_that_could_not_work_is_not_published(
    ada: Client, world: World, changes, why
):
    before = newest(world)
    assert why in send(ada, world, **changes).content.decode()
    assert newest(world) == before


@pytest.mark.slow
def test_the_sentence_says_what_happens_while_a_stage_waits(ada: Client, world: World):
    changes = {
        "stages-0-remind_every": "10 min",
        "stages-0-max_reminders": "3",
        "stages-0-escalate_after": "1 h",
        "stages-0-escalation_group": str(world.groups["owners"].pk),
        "stages-1-remind_every": "2 h",
        "stages-1-max_reminders": "1",
    }
    send(ada, world, **changes)
    assert in_words(newest(world)) == (
        "All requests need 1 of dba (after 1 h also of owners; reminded every 10 min, at most 3 "
        "times), then 1 of security (reminded every 2 h, once)."
    )


@pytest.mark.slow
def test_stages_are_asked_in_the_order_of_their_numbers(ada: Client, world: World):
    send(ada, world, **{"stages-0-ORDER": "9", "stages-1-ORDER": "2"})
    assert in_words(newest(world)) == "All requests need 1 of security, then 1 of dba."


@pytest.mark.slow
def test_a_stage_is_added_and_another_deleted(ada: Client, world: World):
    changes = {
        "stages-0-DELETE": "on",
        "stages-2-name": "Owners",
        "stages-2-groups": "owners: 1, dba: 0",
        "stages-2-total": "2",
        "stages-2-deadline": "4 h",
        "environments": ["production"],
        "max_duration": "2 h",
    }
    send(ada, world, **changes)
    version = newest(world)
    assert in_words(version) == (
        "Requests for production need 1 of security, then 1 of owners and 1 more of dba or owners."
    )
    assert version.max_duration == 2 * HOUR
    assert [one.deadline for one in version.stages.order_by("order")] == [None, 4 * HOUR]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("groups", "dbaa: 1", "There is no group called “dbaa”"),
        ("groups", "dba", "with its number"),
        ("groups", "dba: one", "with its number"),
        ("groups", "dba: -1", "with its number"),
        ("groups", "dba: 1, dba: 2", "twice"),
        ("groups", "dba: 9999", "At most 50"),
        ("groups", "dba: 1\x00", "Null characters"),
        ("groups", "", "required"),
        ("name", "", "required"),
        ("total", "0", "greater than or equal to 1"),
        ("total", "100000", "less than or equal to 50"),
        ("deadline", "soon", "with its unit"),
        ("deny_quorum", "0", "greater than or equal to 1"),
        ("fallback_group", "999999", "not one of the available choices"),
        ("escalation_group", "999999", "not one of the available choices"),
        ("max_reminders", "51", "less than or equal to 50"),
        ("remind_every", "soon", "with its unit"),
    ],
)
def test_a_wrong_field_of_a_stage_is_named(
    ada: Client, world: World, name: str, value: str, why: str
):
    response = send(ada, world, **{f"stages-1-{name}": value})
    found = errors(response.context["stages"].forms[1])
    assert why in " ".join(found[name]), found
    assert newest(world).number == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"stages-0-needs_second_factor": "on"}, "There is no second factor yet"),
        ({"stages-0-DELETE": "on", "stages-1-DELETE": "on"}, "at least one stage"),
        ({"stages-0-groups": "dba: 3", "stages-0-total": "2"}, "at least the sum"),
        ({"stages-0-groups": "dba: 0", "stages-0-total": None}, "total is at least 1"),
        ({"stages-0-escalate_after": "1 h"}, "escalation needs both"),
        ({"stages-0-remind_every": "1 h"}, "reminders need both"),
    ],
)
def test_what_could_not_work_is_refused_with_the_reason_and_logged(
    ada: Client, world: World, changes: dict[str, Any], why: str
):
    response = send(ada, world, **{"reason_hint": "Kept.", **changes})
    form = response.context["form"]
    assert why in " ".join(errors(form)["__all__"])
    assert form["reason_hint"].value() == "Kept."
    assert newest(world).number == 1
    refused = Event.objects.get(action="administration.refused")
    assert (refused.actor_name, refused.subject_label) == ("ada", "Production")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("environments", ["moon"]),
        ("risks", ["none"]),
        ("levels", ["999999"]),
        ("requester_groups", ["x"]),
        ("labels", "no equals sign"),
        ("max_duration", "-1 h"),
        ("pending_ttl", ""),
        ("activation_ttl", "9999999 d"),
        ("based_on", "x"),
        ("reason_hint", "x" * 201),
    ],
)
def test_a_wrong_condition_or_clock_is_named(ada: Client, world: World, name: str, value: Any):
    response = send(ada, world, **{name: value})
    assert name in response.context["form"].errors
    assert newest(world).number == 1


@pytest.mark.slow
@pytest.mark.parametrize("count", ["100000", "-1", "x", ""])
def test_a_tampered_number_of_stages_is_refused(ada: Client, world: World, count: str):
    response = send(ada, world, **{"stages-TOTAL_FORMS": count})
    assert response.status_code == 200
    assert newest(world).number == 1


@pytest.mark.slow
def test_nobody_publishes_over_a_version_they_have_not_seen(ada: Client, world: World):
    stale = form_data(ada, world)
    publish(world, stage(world, "Owners", "owners"))
    response = ada.post(url("policy", "publish", world.policy.pk), stale)
    assert "Version 2 was published meanwhile" in errors(response.context["form"])["__all__"][0]
    assert in_words(newest(world)) == "All requests need 1 of owners."


@pytest.mark.slow
def test_a_new_policy_says_nothing_until_its_first_version(ada: Client, world: World):
    ada.post(url("policy", "add"), {"name": "Staging", "rank": "5", "enabled": "on"})
    made = Policy.objects.get(name="Staging")
    assert made.current is None
    listing = ada.get(url("policy", "changelist")).content.decode()
    assert "Nothing yet" in listing
    assert "All requests need 1 of dba, then 1 of security." in listing

    world.policy = made
    first = {"stages-0-name": "Anyone", "stages-0-groups": "dba: 1, security: 0"}
    send(ada, world, environments=["staging"], **first)
    assert in_words(newest(world)) == "Requests for staging need 1 of dba."


def test_changing_a_name_keeps_what_was_published_meanwhile(ada: Client, world: World):
    page = url("policy", "change", world.policy.pk)
    data = filled(admin_form(ada.get(page)))
    publish(world, stage(world, "Owners", "owners"))
    ada.post(page, {**data, "name": "Production reads"})
    assert newest(world).number == 2
    assert world.policy.name == "Production reads"
    assert Event.objects.filter(action="policy.changed").latest("id").actor_name == "ada"


def test_a_policy_is_switched_off_and_governs_nothing(ada: Client, world: World):
    page = url("policy", "change", world.policy.pk)
    data = filled(admin_form(ada.get(page)))
    del data["enabled"]
    ada.post(page, data)
    assert policy.choose(world.read, world.alice).version is None


def test_a_rank_that_is_taken_is_said_in_words(ada: Client, world: World):
    response = ada.post(url("policy", "add"), {"name": "Other", "rank": "10"})
    assert errors(admin_form(response))["rank"] == ["Policy with this Rank already exists."]
    assert not Policy.objects.filter(name="Other").exists()


def test_the_page_lists_every_version_in_words(ada: Client, world: World):
    publish(world, stage(world, "Owners", "owners"), max_duration=90 * 60)
    text = ada.get(url("policy", "change", world.policy.pk)).content.decode()
    assert "v2 (in force)" in text
    assert "All requests need 1 of owners." in text
    assert "All requests need 1 of dba, then 1 of security." in text
    assert "90 min" in text


@pytest.mark.slow
def test_a_longer_list_of_policies_costs_no_more_queries(ada: Client, world: World):
    listing = url("policy", "changelist")
    ada.get(listing)
    with CaptureQueriesContext(connection) as few:
        ada.get(listing)
    for rank in (20, 30, 40):
        made = administration.change_policy(Policy(name=f"P{rank}", rank=rank), by=world.ada)
        wanted = AppliesTo(levels=[world.read.pk], requester_groups=[world.groups["dba"].pk])
        publish(world, stage(world, "A", "dba"), policy=made, applies_to=wanted)
    with CaptureQueriesContext(connection) as more:
        text = ada.get(listing).content.decode()
    assert "Requests from dba for read-only on orders need 1 of dba." in text
    # Three more, for the names of levels and groups and for what looks wrong with them, however
    # many policies name some.
    assert len(more) <= len(few) + 3


def test_a_version_that_names_a_deleted_group_is_still_told(world: World):
    gone = Group.objects.create(name="leavers")
    publish(world, applies_to=AppliesTo(requester_groups=[gone.pk]))
    gone.delete()
    assert in_words(newest(world)).startswith("Requests from a deleted one need")


def test_whoever_may_only_look_cannot_publish(ada: Client, world: World):
    data = form_data(ada, world)
    viewer = browser(staff(world.mallory, "view_policy"))
    assert viewer.get(url("policy", "publish", world.policy.pk)).status_code == 403
    assert viewer.post(url("policy", "publish", world.policy.pk), data).status_code == 403
    assert newest(world).number == 1


@pytest.mark.parametrize("seconds", [1, 59, 60, 90, 3600, 5400, 9000, 86400, 90061, 366 * 86400])
def test_a_duration_reads_back_as_it_is_shown(seconds: int):
    field = DurationField()
    assert field.clean(lasting(seconds)) == seconds
    assert field.prepare_value(seconds) == lasting(seconds)


@pytest.mark.parametrize(
    ("text", "seconds"), [("1 d 12 h", 129600), ("2 Hours, 5 minutes", 7500), ("45m", 2700)]
)
def test_durations_are_read_as_people_write_them(text: str, seconds: int):
    assert DurationField().clean(text) == seconds


def test_a_group_with_a_comma_in_its_name_can_be_asked(world: World):
    odd = Group.objects.create(name="Ops, night: shift")
    field = CountedGroupsField()
    wanted = {odd: 1, world.groups["dba"]: 2}
    assert field.clean(field.prepare_value(wanted)) == wanted
