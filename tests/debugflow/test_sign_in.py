"""The sign-in page: where it leads, and that it takes over nothing that was there before."""

from __future__ import annotations

from http.cookies import SimpleCookie
from typing import Any

import pytest
from django.conf import settings
from django.test import Client

from audit.models import Event
from tests.world import World

NAME = settings.SESSION_COOKIE_NAME


@pytest.fixture
def alice(world: World) -> Client:
    """Her browser, not signed in yet; it takes the CSRF token seriously."""
    return Client(enforce_csrf_checks=True)


def sign_in(client: Client, password: str = "a long password", **more: str) -> Any:
    client.get("/sign-in/")
    token = client.cookies[settings.CSRF_COOKIE_NAME].value
    form = {"username": "alice", "password": password, "csrfmiddlewaretoken": token, **more}
    return client.post("/sign-in/", form)


def test_alice_signs_in_and_comes_to_the_page_she_wanted(alice: Client):
    wanted = alice.get("/grants/")
    assert wanted["Location"] == "/sign-in/?next=/grants/"
    assert 'value="/grants/"' in alice.get(wanted["Location"]).content.decode()
    response = sign_in(alice, next="/grants/")
    assert (response.status_code, response["Location"]) == (302, "/grants/")
    assert alice.get("/grants/").status_code == 200
    assert Event.objects.filter(action="account.signed_in", actor_name="alice").count() == 1


@pytest.mark.parametrize(
    "elsewhere",
    [
        "https://evil.example.com/",
        "//evil.example.com/",
        "///evil.example.com/",
        "/\\evil.example.com/",
        "\\\\evil.example.com",
        "http:evil.example.com",
        "https:///evil.example.com",
        "javascript:alert(1)",
        "data:text/html,hi",
        "\x08//evil.example.com",
        "http://testserver@evil.example.com/",
    ],
)
def test_nobody_is_sent_to_another_site(alice: Client, elsewhere: str):
    response = sign_in(alice, next=elsewhere)
    assert (response.status_code, response["Location"]) == (302, "/")
    again = alice.get("/sign-in/", {"next": elsewhere})  # signed in already: sent on at once
    assert (again.status_code, again["Location"]) == (302, "/")


def test_a_session_that_mallory_planted_is_not_taken_over(alice: Client):
    mallory = Client()
    planted = mallory.session
    planted["mine"] = "mallory's"
    planted.save()
    alice.cookies = SimpleCookie({NAME: str(planted.session_key)})
    response = sign_in(alice)
    assert response.status_code == 302
    assert alice.cookies[NAME].value not in ("", planted.session_key)
    mallory.cookies = SimpleCookie({NAME: str(planted.session_key)})
    assert mallory.get("/").status_code == 302


def test_signing_in_as_somebody_else_keeps_nothing_of_the_first(alice: Client):
    sign_in(alice)
    first, token = alice.cookies[NAME].value, alice.cookies[settings.CSRF_COOKIE_NAME].value
    alice.post("/sign-out/", {"csrfmiddlewaretoken": token})
    sign_in(alice, username="bob")
    old = Client()
    old.cookies = SimpleCookie({NAME: first})
    assert old.get("/").status_code == 302
    assert alice.cookies[NAME].value != first
    assert alice.cookies[settings.CSRF_COOKIE_NAME].value != token


def test_a_link_signs_nobody_out(alice: Client):
    sign_in(alice)
    assert alice.get("/sign-out/").status_code == 405
    assert alice.get("/").status_code == 200


def test_the_form_of_another_site_signs_nobody_in(alice: Client):
    form = {"username": "alice", "password": "a long password"}
    assert alice.post("/sign-in/", form).status_code == 403
    assert NAME not in alice.cookies


def test_wrong_unknown_and_inactive_are_told_the_same(alice: Client, world: World):
    world.amir.is_active = False
    world.amir.save()
    told = {
        sign_in(alice, password, username=name).content.decode().count("do not sign in")
        for name, password in [
            ("alice", "wrong"),
            ("nobody", "a long password"),
            ("amir", "a long password"),
        ]
    }
    assert told == {1}
    assert NAME not in alice.cookies
    assert Event.objects.filter(action="account.sign_in_failed").count() == 3


def test_a_refusal_keeps_where_she_wanted_to_go_and_not_her_password(alice: Client):
    page = sign_in(alice, "hunter2-hunter2", next="/grants/").content.decode()
    assert 'value="/grants/"' in page
    assert "hunter2" not in page
