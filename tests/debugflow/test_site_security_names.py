"""Hostile names of people, groups, targets, levels, policies and stages, on every page there is.

The verbs and forms refuse most of them; they are written past those here, as another program with
a login to the database, or a directory of people, would. What people *say* is tried out in
`tests/approvals/test_injection.py`, what goes into mails in `tests/approvals/test_alarms.py`.
"""

from __future__ import annotations

import html
from typing import Any

import pytest
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import Group
from django.test import Client

from approvals.models import AccessLevel, AccessRequest, Grant, Policy, RequestStage, Target
from audit.models import Event
from tests.approvals.test_injection import Page
from tests.conftest import Clock
from tests.debugflow.routes import Place, routes, settle, signed_in, undone
from tests.world import World, publish, stage

MARK = "<script>alert(1)</script>"
HOSTILE = (
    MARK,
    "\u202egpj",
    "\u200b\U0001f525",
    "\" onfocus='alert(1)",
    "{{ 7|add:7 }}{% debug %}",
    "\"><img src=x onerror='alert(1)'>",
    "a\r\nX-Evil: 1",
    "</title></textarea>",
    "&lt;script&gt;",
)
ALL_AT_ONCE = "".join(HOSTILE)
LONG = "x" * 60


def hostile(kind: str, most: int = 150) -> str:
    """Everything at once, cut to what a column holds, and told apart by its kind."""
    return f"{kind}{ALL_AT_ONCE}{LONG}"[:most]


@pytest.fixture
def place(world: World, clock: Clock) -> Place:
    """The place of the routes in which everything has the worst name there is."""
    publish(world, stage(world, hostile("stage", 80), "dba"), stage(world, "Security", "security"))
    _rename(world)
    found = settle(world, clock)
    text = f"{ALL_AT_ONCE} {LONG}"
    AccessRequest.objects.update(reason=text, ticket=text[:100])
    Grant.objects.update(last_error=text)
    RequestStage.objects.update(name=hostile("stage", 80))
    LogEntry.objects.log_actions(world.ada.pk, [world.target], CHANGE, text)
    return found


def _rename(world: World) -> None:
    people = type(world.ada).objects
    for person in people.all():
        name = person.username
        people.filter(pk=person.pk).update(
            username=hostile(name), first_name=hostile("first"), last_name=hostile("last")
        )
    for group in Group.objects.all():
        Group.objects.filter(pk=group.pk).update(name=hostile(group.name))
    labels = {hostile("label", 60): hostile("value", 60)}
    Target.objects.update(name=hostile("target", 63), description=ALL_AT_ONCE, labels=labels)
    for level in AccessLevel.objects.all():
        named = {"name": hostile(level.name, 63), "description": ALL_AT_ONCE}
        AccessLevel.objects.filter(pk=level.pk).update(**named)
    Policy.objects.update(name=hostile("policy", 63))
    for thing in (*world.people.values(), world.target, world.read, world.write, world.policy):
        thing.refresh_from_db()


@pytest.mark.slow
@pytest.mark.parametrize("who", ["ada", "alice", "bob", "olga"])
def test_every_page_shows_hostile_names_as_text(place: Place, who: str):
    client, shown = signed_in(place, who), set()
    for route in routes():
        with undone():
            answer = client.get(place.address(route), follow=True)
        kind = answer.headers.get("Content-Type", "")
        assert answer.status_code < 500, route
        if answer.status_code != 200 or not kind.startswith("text/html"):
            continue
        assert_inert(answer, route)
        if html.escape(MARK) in answer.content.decode():
            shown.add(route)
    assert {"/", "/grants/<pk>/", "/requests/<pk>/"} <= shown
    assert len(shown) > (30 if who == "ada" else 4)


def assert_inert(answer: Any, route: str) -> None:
    page = answer.content.decode()
    assert MARK not in page, route
    assert "14{%" not in page, route  # {{ 7|add:7 }}, were it a template
    assert Page(answer).acts == [], route
    assert "X-Evil" not in answer.headers, route


@pytest.mark.slow
def test_forms_show_them_again_as_text(place: Place):
    """A page that refuses what was typed repeats it."""
    ada, alice = signed_in(place, "ada"), signed_in(place, "alice")
    typed = ALL_AT_ONCE.replace("\r\n", " ")
    pages = {
        "/sign-in/": signed_in(place, "nobody").post(
            "/sign-in/", {"username": typed[:150], "password": "x", "next": typed}
        ),
        "/ask/": alice.post(
            f"/ask/{place.world.read.pk}/",
            {"duration": typed, "reason": typed, "ticket": typed, "start": typed},
        ),
        "/grants/": signed_in(place, "bob").post(
            place.address("/grants/<pk>/revoke/"), {"reason": typed * 50}
        ),
        "/admin/group": ada.post("/admin/auth/group/add/", {"name": typed * 5}),
        "/admin/user": ada.post("/admin/accounts/user/add/", {"username": typed}),
        "/admin/search": ada.get("/admin/audit/event/", {"q": typed, "action": typed}),
        "/admin/target": ada.post(
            place.address("/admin/approvals/target/<object_id>/change/"), {"name": typed}
        ),
        "/queue/": alice.get("/queue/", {"from": typed, "show": typed}),
        "/no/such/": ada.get("/no/such/<script>alert(1)</script>/"),
    }
    for route, answer in pages.items():
        assert answer.status_code < 500, route
        page = answer.content.decode()
        assert MARK not in page, route
        assert "<img src=x" not in page, route


@pytest.mark.slow
def test_the_api_says_them_as_json_and_nothing_else(place: Place):
    alice = signed_in(place, "alice")
    for route in routes():
        if not route.startswith("/api/") or route == "/api/v1/docs/":  # a page to try it
            continue
        with undone():
            answer = alice.get(place.address(route))
        if answer.status_code == 200:
            assert answer["Content-Type"] == "application/json", route
            assert answer["X-Content-Type-Options"] == "nosniff", route
    detail = alice.get(place.address("/api/v1/requests/<pk>/")).json()
    assert ALL_AT_ONCE in detail["reason"]


@pytest.mark.slow
def test_names_of_those_who_act_reach_the_log_to_the_letter(place: Place):
    names = set(Event.objects.values_list("actor_name", flat=True))
    assert place.world.alice.username in names
    assert MARK in place.world.alice.username


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["\u202egpj", "d\u200bba", "dba\n", "a\x07b", "\u2066dba", "a\u2028b"]
)
def test_a_group_has_no_name_that_reads_otherwise_than_it_is(world: World, name: str):
    ada = Client()
    ada.force_login(world.ada)
    page = ada.post("/admin/auth/group/add/", {"name": f"x{name}x"})
    assert page.status_code == 200
    assert "characters that nobody sees" in page.content.decode()
    assert ada.post("/admin/auth/group/add/", {"name": "Größe, 数据库 🔥"}).status_code == 302
