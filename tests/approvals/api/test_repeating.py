"""The same call sent twice: carried out once, and answered alike."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.db import OperationalError

from approvals import answers, workflow
from approvals.api import repeating
from approvals.api import serializers as out
from approvals.models import AccessRequest, Answer, Vote
from approvals.sweeper import Sweeper
from audit.models import Event
from tests.approvals.api.conftest import As, asked, opened, program, refused
from tests.approvals.test_races import at_once
from tests.conftest import Clock
from tests.world import World

KEY = {"Idempotency-Key": "a-key-of-alice-1"}
DAY = 86400


def test_asking_again_with_the_key_gets_the_first_answer(world: World, as_: As):
    first = as_("alice").post("requests/", asked(world), **KEY)
    assert first.status_code == 201
    again = as_("alice").post("requests/", asked(world), **KEY)
    assert (again.status_code, again.json()) == (201, first.json())
    for header in ("Location", "Content-Type", "Cache-Control"):
        assert again[header] == first[header]
    assert again["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first
    assert AccessRequest.objects.count() == 1
    assert not Event.objects.filter(action="submit.refused").exists()


def test_without_a_key_it_is_asked_again(world: World, as_: As):
    as_("alice").post("requests/", asked(world))
    refused(as_("alice").post("requests/", asked(world)), 409, "asked_already")


def test_the_order_of_members_makes_no_other_body(world: World, as_: As):
    body = asked(world)
    as_("alice").post("requests/", body, **KEY)
    turned = dict(reversed(body.items()))
    assert as_("alice").post("requests/", turned, **KEY).status_code == 201


def test_the_key_for_another_call_is_refused(world: World, as_: As):
    alice = as_("alice")
    request = alice.post("requests/", asked(world), **KEY).json()
    refused(alice.post("requests/", asked(world, reason="Else."), **KEY), 422, "key_reused")
    refused(alice.post(f"requests/{request['id']}/cancel/", **KEY), 422, "key_reused")
    assert AccessRequest.objects.get().state == "pending"


def test_a_key_is_its_persons_own_whatever_they_sign_in_with(world: World, as_: As):
    mine = as_("alice").post("requests/", asked(world), **KEY).json()
    other = as_("amir").post("requests/", asked(world), **KEY).json()
    assert mine["id"] != other["id"]
    assert program(world).post("requests/", asked(world), **KEY).json() == mine


def test_a_vote_sent_twice_is_one(world: World, as_: As):
    request = world.submit()
    body = {"decision": "approve", "scope_hash": request.scope_hash}
    path = f"requests/{request.pk}/vote/"
    first = as_("bob").post(path, body, **KEY)
    world.vote(request, "carol")
    again = as_("bob").post(path, body, **KEY)
    assert again.json() == first.json()
    assert Vote.objects.filter(voter=world.bob).count() == 1


def test_a_refusal_is_an_answer_too(world: World, as_: As):
    request = world.submit()
    body = {"decision": "approve", "scope_hash": request.scope_hash}
    path = f"requests/{request.pk}/vote/"
    first = as_("alice").post(path, body, **KEY)
    again = as_("alice").post(path, body, **KEY)
    assert refused(again, 403, "self_approval") == refused(first, 403, "self_approval")
    assert Event.objects.filter(action="vote.refused").count() == 1


def test_what_is_refused_at_the_door_takes_no_key(world: World, as_: As):
    alice = as_("alice")
    alice.token, token = "", alice.token
    refused(alice.post("requests/", asked(world), **KEY), 403, "csrf_failed")
    alice.token = token
    assert alice.post("requests/", asked(world), **KEY).status_code == 201


@pytest.mark.parametrize("key", ["", " ", "a b", "ü", "x" * 256])
def test_what_is_no_key_is_refused(world: World, as_: As, key: str):
    answer = as_("alice").post("requests/", asked(world), **{"Idempotency-Key": key})
    refused(answer, 400, "malformed")
    assert not AccessRequest.objects.exists()


def test_no_credential_is_kept(world: World, as_: As):
    grant = opened(world.approved())
    alice = as_("alice")
    refused(alice.post(f"grants/{grant.pk}/reveal/", **KEY), 400, "shown_once")
    wish = {"name": "nightly", "scopes": ["read"], "days": 1}
    refused(alice.post("tokens/", wish, **KEY), 400, "shown_once")
    body = {"username": "alice", "password": "a long password"}
    refused(alice.post("session/", body, **KEY), 400, "shown_once")
    assert alice.post(f"grants/{grant.pk}/reveal/").status_code == 200
    assert not Answer.objects.exists()


def test_while_the_first_is_under_way_the_second_waits(world: World, as_: As):
    body = asked(world)
    claimed = answers.claim(KEY["Idempotency-Key"], by=world.alice, fingerprint=mark(body))
    assert isinstance(claimed, answers.Claim)
    refused(as_("alice").post("requests/", body, **KEY), 409, "key_in_progress")
    answers.free(claimed)
    assert as_("alice").post("requests/", body, **KEY).status_code == 201


def mark(body: Any) -> str:
    call: Any = type("Call", (), {"method": "POST", "path": "/api/v1/requests/", "data": body})
    return repeating._fingerprint(call)


def test_one_that_broke_off_is_not_carried_out_again(world: World, as_: As, clock: Clock):
    """The process that had it has died, and whether before or after the commit nobody knows."""
    answers.claim(KEY["Idempotency-Key"], by=world.alice, fingerprint=mark(asked(world)))
    clock.forward(answers.MAKING_MOST.total_seconds())
    refused(as_("alice").post("requests/", asked(world), **KEY), 409, "key_lost")
    assert not AccessRequest.objects.exists()


def test_what_failed_can_be_tried_again(world: World, as_: As, monkeypatch: pytest.MonkeyPatch):
    def lost(*args: Any, **kwargs: Any) -> None:
        raise OperationalError("the database went away")

    alice = as_("alice")
    alice.client.raise_request_exception = False
    with monkeypatch.context() as failing:
        failing.setattr(workflow, "submit", lost)
        assert alice.post("requests/", asked(world), **KEY).status_code == 500
    assert alice.post("requests/", asked(world), **KEY).status_code == 201


def test_a_day_later_the_key_is_a_new_one(world: World, as_: As, clock: Clock):
    as_("alice").post("requests/", asked(world), **KEY)
    clock.forward(DAY - 60)
    assert answers.forget_old() == 0
    assert as_("alice").post("requests/", asked(world), **KEY).status_code in (201, 403)
    clock.forward(60)
    assert answers.forget_old() == 1
    assert not Answer.objects.exists()


@pytest.mark.slow
@pytest.mark.usefixtures("committed")
def test_many_at_once_are_carried_out_once(world: World):
    by = program(world)
    body = asked(world)
    lock = threading.Lock()
    told: list[int] = []

    def call() -> None:
        answer = by.post("requests/", body, **KEY)
        with lock:
            told.append(answer.status_code)
        if answer.status_code == 409:
            refused(answer, 409, "key_in_progress")

    at_once(*[call] * 6)
    assert set(told) <= {201, 409}
    assert 201 in told
    assert AccessRequest.objects.count() == 1
    assert Event.objects.filter(action="accessrequest.submitted").count() == 1
    assert not Event.objects.filter(action="submit.refused").exists()


def test_a_sweeper_forgets_old_answers():
    works = [chore._work for chore in Sweeper(interval=1)._chores]
    assert answers.forget_old in works


def test_what_failed_after_it_was_committed_is_not_done_again(
    world: World, as_: As, clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    """Printing the answer fails, once; the comment stands."""
    request, alice = world.submit(), as_("alice")
    alice.client.raise_request_exception = False

    def broken(*_: object) -> None:
        monkeypatch.undo()
        raise OperationalError("the server closed the connection")

    monkeypatch.setattr(out.CommentOut, "get_author", broken)
    path = f"requests/{request.pk}/comments/"
    assert alice.post(path, {"comment": "Once."}, **KEY).status_code == 500
    refused(alice.post(path, {"comment": "Once."}, **KEY), 409, "key_in_progress")
    clock.forward(answers.MAKING_MOST.total_seconds())
    refused(alice.post(path, {"comment": "Once."}, **KEY), 409, "key_lost")
    assert Event.objects.filter(action="comment.added").count() == 1
