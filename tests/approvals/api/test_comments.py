"""The discussion of a request, as programs take part in it."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth import get_user_model

from approvals import discussion
from approvals.models import Vote
from audit.models import Event
from tests.approvals.api.conftest import As, program, refused
from tests.world import World


def path(request: Any) -> str:
    return f"requests/{request.pk}/comments/"


def said(request: Any) -> list[tuple[str, str]]:
    return [(event.actor_name, event.data["comment"]) for event in discussion.comments(request)]


@pytest.mark.slow
def test_bob_says_something_and_alice_reads_it(world: World, as_: As):
    request = world.submit()
    answer = as_("bob").post(path(request), {"comment": " Which replica, @alice? Or @mallory. "})
    assert answer.status_code == 201
    told = answer.json()
    assert told["author"] == {"id": world.bob.pk, "username": "bob"}
    assert told["comment"] == "Which replica, @alice? Or @mallory."
    assert (told["mentions"], told["unseen"]) == (["alice"], ["mallory"])
    page = as_("alice").get(path(request)).json()
    assert page["results"] == [told]
    assert not Vote.objects.exists()


@pytest.mark.slow
def test_they_are_listed_oldest_first_and_are_nothing_else(world: World, as_: As):
    request = world.submit()
    for who, comment in (("bob", "One."), ("alice", "Two.")):
        as_(who).post(path(request), {"comment": comment})
    world.vote(request, "bob")
    listed = as_("alice").get(path(request)).json()["results"]
    assert [(one["author"]["username"], one["comment"]) for one in listed] == said(request)
    assert said(request) == [("bob", "One."), ("alice", "Two.")]


@pytest.mark.slow
def test_whoever_is_named_finds_the_request_until_they_answer(world: World, as_: As):
    request = world.submit()
    world.submit("amir")
    as_("alice").post(path(request), {"comment": "@carol please look"})
    carol = as_("carol")

    def found() -> list[int]:
        rows = carol.get("requests/", mentioning_me="true").json()["results"]
        return [row["id"] for row in rows]

    assert found() == [request.pk]
    carol.post(path(request), {"comment": "I did."})
    assert found() == []


@pytest.mark.parametrize("who", ["mallory", "amir"])
def test_whoever_may_not_see_it_learns_nothing(world: World, as_: As, who: str):
    request = world.submit()
    refused(as_(who).post(path(request), {"comment": "Let me in."}), 404, "not_found")
    refused(as_(who).get(path(request)), 404, "not_found")
    assert said(request) == []


@pytest.mark.parametrize("comment", ["", " \n ", "x" * 2001, "a\x00b", 7, None, ["a"]])
def test_what_cannot_be_said(world: World, as_: As, comment: Any):
    request = world.submit()
    answer = as_("bob").post(path(request), {"comment": comment})
    problem = refused(answer, 422, "invalid")
    assert list(problem["fields"]) == ["comment"]
    assert said(request) == []


def test_the_same_words_may_be_said_again(world: World, as_: As):
    """A form that is sent twice is one thing, a call that is made twice another."""
    request = world.submit()
    for _ in range(2):
        assert as_("bob").post(path(request), {"comment": "Any news?"}).status_code == 201
    assert said(request) == [("bob", "Any news?")] * 2


def test_with_a_key_they_are_said_once(world: World, as_: As):
    request = world.submit()
    bob, key = as_("bob"), {"Idempotency-Key": "a-key-of-bobs"}
    first = bob.post(path(request), {"comment": "Any news?"}, **key)
    again = bob.post(path(request), {"comment": "Any news?"}, **key)
    assert (first.json(), again.status_code) == (again.json(), 201)
    assert again["Idempotent-Replayed"] == "true"
    refused(bob.post(path(request), {"comment": "Well?"}, **key), 422, "key_reused")
    assert said(request) == [("bob", "Any news?")]


def test_a_token_says_something_as_its_account_with_that_scope(world: World):
    request = world.submit()
    body = {"comment": "Alarm 12 is about this."}
    reader = program(world, "alice", "read")
    refused(reader.post(path(request), body), 403, "token_scope")
    assert program(world, "alice", "request").post(path(request), body).status_code == 201
    assert reader.get(path(request)).json()["results"][0]["author"]["username"] == "alice"
    used = Event.objects.get(action="token.used")
    assert used.request_id == Event.objects.get(action="comment.added").request_id


def test_a_service_takes_part_in_what_it_may_see(world: World):
    request = world.submit()
    bot = program(world, "ada", service="incident-bot")
    body = {"comment": "Alarm 12 is about this."}
    refused(bot.post(path(request), body), 404, "not_found")
    account = get_user_model().objects.get(username="incident-bot")
    account.groups.set([world.groups["owners"]])
    assert bot.post(path(request), body).json()["author"]["username"] == "incident-bot"
