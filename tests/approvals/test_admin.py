"""The admin as a whole: who gets in, that records cannot be touched, and that no page leaks."""

from __future__ import annotations

import itertools
import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, Permission
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from approvals import administration, delegating, opening
from approvals.delegating import Lending
from approvals.models import (
    AccessRequest,
    Delegation,
    Delivery,
    Grant,
    Notice,
    Proposal,
    RequestStage,
    Review,
    SlackWorkspace,
    Step,
    Vote,
)
from approvals.notify import endpoints, expanding
from approvals.states import GrantState
from audit import clock
from audit.models import Event
from debugflow.accounts.models import User
from tests.approvals.admin_browser import INLINE, browser, staff, url
from tests.debugflow.routes import BOT_TOKEN, in_slack
from tests.world import World, owe_review, propose

RECORDS = (
    AccessRequest,
    RequestStage,
    Vote,
    Delegation,
    Grant,
    Step,
    Review,
    Proposal,
    Notice,
    Delivery,
    Event,
)
PASSWORD = "correct-horse-7Kq"


@pytest.fixture
def lived_in(world: World) -> World:
    """A world in which something of every kind has happened, and both secrets are stored."""
    administration.save_target(world.target, by=world.ada, clear_secrets={"password": PASSWORD})
    grant = world.approved()
    opening.open_grant(grant.pk, worker="w1")
    owe_review(grant)
    lending = Lending(delegate="chen", ends_at=clock.now() + timedelta(days=1))
    delegating.delegate(world.bob.pk, by=world.bob, lending=lending)
    hears = endpoints.Wish(name="chat", url="https://chat.example.com/", facts=["asked"])
    endpoints.rotate(endpoints.save(0, by=world.ada, wish=hears).pk, by=world.ada)
    in_slack(world)
    expanding.expand_due()
    propose(world)
    LogEntry.objects.log_actions(world.ada.pk, [world.target], 2, "Looked after it.")
    return world


def every_page(model: Any) -> list[str]:
    one = model._default_manager.order_by("pk").first()
    assert one is not None, f"nothing to look at in {model}"
    prefix = f"admin:{model._meta.app_label}_{model._meta.model_name}"
    views = ("change", "history", "delete")
    return [
        reverse(f"{prefix}_changelist"),
        reverse(f"{prefix}_add"),
        *(reverse(f"{prefix}_{view}", args=[one.pk]) for view in views),
    ]


def own_pages(world: World) -> list[str]:
    return [
        f"{url('accesslevel', 'add')}?target={world.target.pk}",
        url("target", "holders", world.target.pk),
        url("accesslevel", "holders", world.read.pk),
        url("policy", "publish", world.policy.pk),
        url("target", "test", world.target.pk),
        url("policy", "simulate"),
        f"{url('policy', 'simulate')}?person={world.alice.pk}&level={world.read.pk}&duration=1+h",
        reverse("admin:index"),
        reverse("admin:app_list", args=["approvals"]),
    ]


def walk(world: World) -> list[str]:
    models = list(admin.site._registry)
    assert {*RECORDS, User, Group} < set(models)
    return [*(page for model in models for page in every_page(model)), *own_pages(world)]


@pytest.mark.slow
def test_every_page_opens_for_a_superuser_and_holds_no_script_or_style_itself(lived_in: World):
    ada = browser(lived_in.ada)
    for page in walk(lived_in):
        response = ada.get(page, follow=True)
        forbidden = page.endswith(("/add/", "/delete/")) and response.status_code == 403
        assert forbidden or response.status_code == 200, page
        assert not INLINE.search(response.content.decode()), page
        assert "unsafe-inline" not in response["Content-Security-Policy"]


@pytest.mark.slow
def test_no_page_shows_a_secret_clear_or_sealed(lived_in: World):
    grant = Grant.objects.get()
    assert grant.state == GrantState.ACTIVE
    lived_in.target.refresh_from_db()
    hidden = [grant.secret, *lived_in.target.secrets.values(), PASSWORD]
    hidden += [*SlackWorkspace.objects.get().secrets.values(), BOT_TOKEN]
    assert all(hidden)
    ada = browser(lived_in.ada)
    answers = [ada.get(page, follow=True) for page in walk(lived_in)]
    answers.append(ada.post(url("target", "test", lived_in.target.pk)))
    for response in answers:
        for secret in hidden:
            assert secret not in response.content.decode(), response.request["PATH_INFO"]


@pytest.mark.slow
def test_nobody_gets_in_without_a_permission(lived_in: World):
    mallory = browser(staff(lived_in.mallory))
    for page in walk(lived_in):
        if page != reverse("admin:index"):
            status = mallory.get(page).status_code
            assert status in (403, 404), (page, status)


@pytest.mark.slow
def test_neither_strangers_nor_people_who_are_not_staff_get_in(lived_in: World):
    for client in (Client(), browser(lived_in.alice)):
        for page in walk(lived_in):
            response = client.get(page)
            assert response.status_code == 302, page
            assert "/login/" in response["Location"] or "/sign-in/" in response["Location"]


@pytest.mark.slow
@pytest.mark.parametrize("model", RECORDS, ids=lambda model: model.__name__)
def test_records_are_for_looking_only_superusers_included(lived_in: World, model: Any):
    ada, one = browser(lived_in.ada), model._default_manager.order_by("pk").first()
    before = list(model._default_manager.order_by("pk").values())
    listing, add, change, _, delete = every_page(model)
    fields = {"state": "approved", "decision": "approve", "secret": "x", "action": "grant.cut"}
    attempts = [
        (add, fields),
        (change, fields),
        (change, {"_saveasnew": "1", **fields}),
        (delete, {"post": "yes"}),
        (listing, {"action": "delete_selected", "_selected_action": [one.pk], "post": "yes"}),
        (listing, {"form-TOTAL_FORMS": "1", "form-INITIAL_FORMS": "1", "_save": "Save"}),
    ]
    for page, data in attempts:
        assert ada.post(page, data).status_code == 403, page
    assert list(model._default_manager.order_by("pk").values()) == before


@pytest.mark.slow
def test_what_is_set_up_has_no_bulk_deletion_around_the_verbs(lived_in: World):
    ada = browser(lived_in.ada)
    for model in ("target", "accesslevel", "policy"):
        page = url(model, "changelist")
        assert "delete_selected" not in ada.get(page).content.decode()
        pk = getattr(lived_in, {"accesslevel": "read"}.get(model, model)).pk
        data = {"action": "delete_selected", "_selected_action": [pk], "post": "yes"}
        ada.post(page, data)
    assert lived_in.target.levels.count() == 2
    lived_in.policy.refresh_from_db()


HOSTILE = [
    "'; DROP TABLE approvals_grant; --",
    "<script>alert(1)</script>",
    "99999999999999999999999",
    "abc\x00def",
    "%",
    "١٢٣",
    "x" * 3000,
]
FILTERS = ("p", "state", "action")


@pytest.mark.slow
def test_searches_and_filters_survive_anything(lived_in: World):
    ada = browser(lived_in.ada)
    listings = [every_page(model)[0] for model in admin.site._registry]
    for (place, listing), value in itertools.product(enumerate(listings), HOSTILE):
        # Each list is searched for each; what else may be in its address takes turns.
        for name in ("q", FILTERS[(place + HOSTILE.index(value)) % len(FILTERS)]):
            response = ada.get(listing, {name: value}, follow=True)
            assert response.status_code in (200, 400), (listing, name, value)
            assert "<script>alert" not in response.content.decode()


@pytest.mark.slow
def test_names_are_shown_as_text(lived_in: World):
    lived_in.policy.refresh_from_db()
    lived_in.policy.name = "<img src=x onerror=alert(1)>"
    administration.change_policy(lived_in.policy, by=lived_in.ada)
    lived_in.submit("amir", reason="<b>because</b>")
    ada = browser(lived_in.ada)
    for page in walk(lived_in):
        text = ada.get(page, follow=True).content.decode()
        assert "<img src=x" not in text
        assert "<b>because" not in text


@pytest.mark.slow
@pytest.mark.parametrize("model", RECORDS, ids=lambda model: model.__name__)
def test_a_longer_list_costs_no_more_queries(lived_in: World, model: Any):
    ada, listing = browser(lived_in.ada), every_page(model)[0]
    ada.get(listing)
    with CaptureQueriesContext(connection) as few:
        ada.get(listing)
    opening.open_grant(lived_in.approved("amir").pk, worker="w1")
    lived_in.submit("alice", lived_in.write)
    with CaptureQueriesContext(connection) as more:
        ada.get(listing)
    assert len(more) <= len(few)


@pytest.mark.slow
def test_events_are_found_by_thread_and_action_and_say_that_they_are_sound(lived_in: World):
    ada = browser(lived_in.ada)
    request = AccessRequest.objects.get()
    found = ada.get(url("event", "changelist"), {"q": f"request:{request.pk}"})
    threads = {event.thread for event in found.context["cl"].result_list}
    assert threads == {f"request:{request.pk}"}
    votes = ada.get(url("event", "changelist"), {"action": "vote.cast"}).context["cl"].result_list
    assert [event.action for event in votes] == ["vote.cast", "vote.cast"]
    page = ada.get(url("event", "change", votes[0].pk)).content.decode()
    assert bytes(votes[0].leaf_hash).hex() in page
    assert ">check_small<" in re.sub(r"\s", "", page)


def test_people_are_switched_off_and_never_deleted(world: World):
    ada = browser(world.ada)
    assert ada.post(url("user", "delete", world.bob.pk), {"post": "yes"}).status_code == 403
    data = {"action": "delete_selected", "_selected_action": [world.bob.pk], "post": "yes"}
    ada.post(url("user", "changelist"), data)
    world.bob.refresh_from_db()
    form = ada.get(url("user", "change", world.bob.pk)).context["adminform"].form
    assert "instead of deleting" in form.fields["is_active"].help_text


def test_whoever_is_no_superuser_cannot_become_one_or_touch_one(world: World):
    mallory = browser(staff(world.mallory, "view_user", "change_user"))
    own = url("user", "change", world.mallory.pk)
    form = mallory.get(own).context["adminform"].form
    assert not {"is_superuser", "is_staff", "user_permissions"} & set(form.fields)
    data = {
        "username": "mallory",
        "time_zone": "UTC",
        "is_active": "on",
        "is_superuser": "on",
        "date_joined_0": "2026-01-01",
        "date_joined_1": "10:00",
    }
    assert mallory.post(own, data).status_code == 302
    world.mallory.refresh_from_db()
    assert not world.mallory.is_superuser
    ada = url("user", "change", world.ada.pk)
    assert mallory.post(ada, data).status_code == 403
    password = reverse("admin:auth_user_password_change", args=[world.ada.pk])
    assert mallory.get(password).status_code == 403


def test_a_time_zone_must_exist(world: World):
    ada, page = browser(world.ada), url("user", "change", world.bob.pk)
    data = {"username": "bob", "date_joined_0": "2026-01-01", "date_joined_1": "10:00"}
    response = ada.post(page, {**data, "time_zone": "Mars/Olympus"})
    assert "There is no such time zone" in response.content.decode()
    assert ada.post(page, {**data, "time_zone": "Europe/Berlin"}).status_code == 302
    world.bob.refresh_from_db()
    assert world.bob.time_zone == "Europe/Berlin"


def test_who_is_in_which_group_is_told_to_the_audit_log(world: World):
    """Groups decide who may vote, so a change of them is an Event like any other."""
    ada, page = browser(world.ada), url("user", "change", world.mallory.pk)
    data = {
        "username": "mallory",
        "time_zone": "UTC",
        "is_active": "on",
        "date_joined_0": "2026-01-01",
        "date_joined_1": "10:00",
        "groups": [world.groups["dba"].pk],
    }
    assert ada.post(page, data).status_code == 302
    told = Event.objects.get(action="account.changed")
    assert (told.actor_name, told.subject_label) == ("ada", "mallory")
    assert told.data == {"active": True, "staff": False, "superuser": False, "groups": ["dba"]}

    reset = reverse("admin:auth_user_password_change", args=[world.mallory.pk])
    password = "another long secret"
    sent = {"password1": password, "password2": password, "usable_password": "true"}
    assert ada.post(reset, sent).status_code == 302
    changes = Event.objects.filter(action="account.changed")
    assert changes.count() == 2
    assert not [event for event in changes if password in bytes(event.canonical).decode()]


def test_groups_come_and_go_in_the_audit_log(world: World):
    ada = browser(world.ada)
    assert ada.post(url("group", "add"), {"name": "night shift"}).status_code == 302
    group = Group.objects.get(name="night shift")
    page = url("group", "change", group.pk)
    assert ada.post(page, {"name": "day shift"}).status_code == 302
    assert ada.post(url("group", "delete", group.pk), {"post": "yes"}).status_code == 302
    told = Event.objects.filter(thread=f"group:{group.pk}").order_by("id")
    assert [(e.action, e.subject_label) for e in told] == [
        ("group.created", "night shift"),
        ("group.changed", "day shift"),
        ("group.deleted", "day shift"),
    ]


def test_whoever_is_no_superuser_hands_out_no_permission_and_no_password(world: World):
    rights = ("view_group", "change_group", "view_user", "change_user")
    mallory = browser(staff(world.mallory, *rights))
    own = Group.objects.create(name="own")
    everything = list(Permission.objects.values_list("pk", flat=True))
    page = url("group", "change", own.pk)
    assert mallory.post(page, {"name": "own", "permissions": everything}).status_code == 302
    assert not own.permissions.exists()
    own.permissions.set(everything[:1])
    assert mallory.post(page, {"name": "mine"}).status_code == 403
    reset = reverse("admin:auth_user_password_change", args=[world.bob.pk])
    sent = {"password1": "another long secret", "password2": "another long secret"}
    assert mallory.post(reset, sent).status_code == 403
    assert Client().login(username="bob", password="a long password")


@pytest.mark.parametrize(
    ("model", "lookup"),
    [
        ("grant", "secret__startswith"),
        ("grant", "lease__startswith"),
        ("target", "secrets__password__startswith"),
    ],
)
def test_no_filter_tells_a_sealed_secret_bit_by_bit(lived_in: World, model: str, lookup: str):
    answer = browser(lived_in.ada).get(url(model, "changelist"), {lookup: "g"})
    assert answer.status_code == 400


@pytest.mark.slow
def test_a_grant_in_trouble_is_told_in_words(lived_in: World):
    ada, listing = browser(lived_in.ada), url("grant", "changelist")
    assert "stuck" not in rows(ada.get(listing))
    Grant.objects.update(stuck_since=Grant.objects.get().approved_at)
    assert "stuck" in rows(ada.get(listing))


def rows(listing: Any) -> str:
    """The table of a list, without what stands around it."""
    page: str = listing.content.decode()
    return page[page.index('id="result_list"') : page.index("</table>")]


@pytest.mark.slow
def test_names_and_times_read_as_on_the_site(lived_in: World):
    """A name is typed as it is shown, and an incident goes by 24 hours and seconds."""
    ada = browser(lived_in.ada)
    target = ada.get(url("target", "change", lived_in.target.pk)).content.decode()
    assert re.search(rf">\s*{lived_in.target.name}\s*<", target)
    asked = ada.get(every_page(AccessRequest)[2]).content.decode()
    assert re.search(r"\d{4}, \d\d:\d\d:\d\d", asked)
    assert not re.search(r"\d [ap]\.m\.", asked)
    assert ">1 h<" in asked
    assert "3600" not in re.sub(r"<pre>.*?</pre>", "", asked, flags=re.DOTALL)


@pytest.mark.slow
def test_a_group_shows_who_is_in_it_and_a_person_where_they_are(world: World):
    ada = browser(world.ada)
    dba = Group.objects.get(name="dba")
    page = f"/admin/auth/group/{dba.pk}/change/"
    named = ", ".join(dba.user_set.order_by("username").values_list("username", flat=True))
    assert named in ada.get(page).content.decode()
    dba.user_set.clear()
    assert "nobody yet" in ada.get(page).content.decode()
    dba.user_set.add(*User.objects.bulk_create(User(username=f"p{n:03}") for n in range(53)))
    assert "p049 and 3 more" in ada.get(page).content.decode()
    assert "dba" in ada.get("/admin/accounts/user/").content.decode()


def test_when_somebody_came_and_was_here_last_is_not_typed(world: World):
    ada = browser(world.ada)
    page = ada.get(f"/admin/accounts/user/{world.alice.pk}/change/").content.decode()
    assert "Date joined" in page
    assert 'name="date_joined_0"' not in page
    assert 'name="last_login_0"' not in page
