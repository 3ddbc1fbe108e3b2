"""Signing in and out, and what a browser of somebody else's cannot do."""

from __future__ import annotations

from http.cookies import SimpleCookie

import pytest
from django.conf import settings

from approvals.api.parsers import BODY_MAX
from audit.models import Event
from tests.approvals.api.conftest import PASSWORD, As, anonymous, asked, refused, send
from tests.world import World


def test_alice_signs_in_sees_herself_and_signs_out(world: World, as_: As):
    alice = as_("alice")
    me = alice.get("session/")
    assert me.status_code == 200
    assert {"id": world.alice.pk, "username": "alice"}.items() <= me.json().items()
    assert me["Cache-Control"] == "no-store"

    assert alice.delete("session/").status_code == 204
    refused(alice.get("session/"), 403, "not_authenticated")


def test_wrong_unknown_and_inactive_get_the_same_answer(world: World):
    world.amir.is_active = False
    world.amir.save()
    answers = [
        anonymous().post("/api/v1/session/", {"username": name, "password": word}, format="json")
        for name, word in [("alice", "wrong"), ("nobody", PASSWORD), ("amir", PASSWORD)]
    ]
    for answer in answers:
        refused(answer, 403, "bad_credentials")
        assert settings.SESSION_COOKIE_NAME not in answer.cookies
    assert len({answer.content for answer in answers}) == 1
    failures = Event.objects.filter(action="account.sign_in_failed")
    assert sorted(failures.values_list("subject_label", flat=True)) == ["alice", "amir", "nobody"]


def test_signing_in_takes_over_no_session_that_was_planted_before(world: World, as_: As):
    client = anonymous()
    planted = client.session
    planted["mine"] = "mallory's"
    planted.save()
    client.cookies = SimpleCookie({settings.SESSION_COOKIE_NAME: str(planted.session_key)})
    body = {"username": "alice", "password": PASSWORD}
    answer = client.post("/api/v1/session/", body, format="json")
    assert answer.status_code == 200
    assert answer.cookies[settings.SESSION_COOKIE_NAME].value != planted.session_key


def test_a_deactivated_holder_of_a_session_is_nobody(world: World, as_: As):
    alice = as_("alice")
    world.alice.is_active = False
    world.alice.save()
    refused(alice.get("requests/"), 403, "not_authenticated")


@pytest.mark.parametrize("token", ["", "x" * 64])
def test_a_change_without_the_csrf_token_is_refused(world: World, as_: As, token: str):
    alice = as_("alice")
    alice.token = token
    refused(alice.post("requests/", asked(world)), 403, "csrf_failed")
    refused(alice.delete("session/"), 403, "csrf_failed")
    refused(alice.post("session/", {"username": "a", "password": "b"}), 403, "csrf_failed")
    assert alice.get("requests/").json()["results"] == []


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]
)
def test_what_a_page_of_another_site_could_send_signs_nobody_in(world: World, content_type: str):
    body = b'{"username": "alice", "password": "a long password"}'
    answer = send(anonymous(), "session/", body, content_type)
    refused(answer, 415, "unsupported_media_type")
    assert settings.SESSION_COOKIE_NAME not in answer.cookies


def test_the_password_is_not_repeated_by_any_refusal(world: World):
    secret = "hunter2-hunter2"
    bodies = [
        f'{{"username": "alice", "password": "{secret}"',
        f'{{"username": "alice", "password": "{secret}\\u0000"}}',
        f'{{"username": "alice", "password": "{secret}"}}',
        f'{{"username": "alice", "password": "{secret}", "more": "{secret}"}}',
        f'{{"username": "alice", "password": ["{secret}"]}}',
    ]
    for body in bodies:
        answer = send(anonymous(), "session/", body.encode(), "application/json")
        assert 400 <= answer.status_code < 500
        assert secret not in answer.content.decode()


def test_a_megabyte_is_refused_unread(world: World, as_: As):
    big = b'{"reason": "' + b"x" * 2**20 + b'"}'
    refused(as_("alice").send("requests/", big), 413, "too_large")
    fits = b'{"reason": "' + b"x" * (BODY_MAX - 14) + b'"}'
    assert len(fits) == BODY_MAX
    refused(as_("alice").send("requests/", fits), 422, "invalid")
    refused(as_("alice").send("requests/", fits + b" "), 413, "too_large")
