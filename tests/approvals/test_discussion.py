"""The discussion of a request: who may say something, who is asked to look, and that it decides
nothing."""

from __future__ import annotations

import re
from typing import Any

import pytest

from approvals import discussion, workflow
from approvals.errors import Invalid, NotAllowed, WrongState
from approvals.models import Mention, Vote
from approvals.states import RequestState
from audit.log import timeline
from audit.models import Event
from tests.pages import signed_in
from tests.world import World

pytestmark = pytest.mark.django_db


def say(request: Any, by: Any, text: str, after: int = 0) -> Event:
    return discussion.comment(request.pk, by=by, text=text, after=after)


def told(request: Any) -> list[str]:
    return [event.action for event in timeline(f"request:{request.pk}")]


def asked_to_look(person: Any) -> list[tuple[int, str]]:
    mentions = discussion.open_mentions(person)
    return [(mention.request_id, mention.author.username) for mention in mentions]


class TestSaying:
    def test_it_is_an_event_of_the_timeline_and_no_vote(self, world: World):
        request = world.submit()
        before = request.scope_hash
        event = say(request, world.bob, "  I approve of this. \n")
        request.refresh_from_db()
        assert (event.action, event.actor_name) == ("comment.added", "bob")
        assert event.data == {"comment": "I approve of this.", "mentions": [], "unseen": []}
        assert event.mismatches() == []
        assert told(request)[-1] == "comment.added"
        assert not Vote.objects.exists()
        assert (request.state, request.scope_hash) == (RequestState.PENDING, before)

    @pytest.mark.parametrize("name", ["alice", "bob", "carol", "olga", "ada"])
    def test_whoever_sees_the_request_may(self, world: World, name: str):
        request = world.submit()
        assert say(request, world.people[name], "Which replica?").actor_name == name

    @pytest.mark.parametrize("name", ["mallory", "amir"])
    def test_nobody_else_may(self, world: World, name: str):
        request = world.submit()
        with pytest.raises(NotAllowed) as refused:
            say(request, world.people[name], "Let me in.")
        assert refused.value.code == "not_yours"
        assert told(request)[-1] == "comment.refused"

    def test_after_it_is_decided_too(self, world: World):
        request = world.submit()
        world.vote(request, "bob", "deny")
        assert say(request, world.alice, "Understood.").data["comment"] == "Understood."

    @pytest.mark.parametrize(
        ("text", "why"),
        [("", "Write"), (" \n ", "Write"), ("x" * 2001, "2000"), ("a\x00b", "NUL")],
    )
    def test_what_cannot_be_said(self, world: World, text: str, why: str):
        request = world.submit()
        with pytest.raises(Invalid) as refused:
            say(request, world.bob, text)
        assert why in refused.value.fields["comment"][0]

    def test_of_what_does_not_exist(self, world: World):
        with pytest.raises(WrongState) as refused:
            discussion.comment(10**9, by=world.bob, text="Hello?")
        assert refused.value.code == "gone"

    def test_the_same_form_sent_twice_says_it_once(self, world: World):
        request = world.submit()
        seen = timeline(f"request:{request.pk}").last()
        assert seen
        first = say(request, world.bob, "Which replica?", seen.pk)
        assert say(request, world.bob, "Which replica?", seen.pk).pk == first.pk
        assert say(request, world.bob, "Which replica?", first.pk).pk != first.pk
        assert told(request).count("comment.added") == 2


class TestMentions:
    def test_whoever_is_named_is_asked_to_look_until_they_answer(self, world: World):
        request = world.submit()
        event = say(request, world.bob, "@carol, is this the same as last week? Or @alice.")
        assert event.data["mentions"] == ["alice", "carol"]
        assert asked_to_look(world.carol) == [(request.pk, "bob")]
        say(request, world.carol, "It is.")
        assert asked_to_look(world.carol) == []
        assert asked_to_look(world.alice) == [(request.pk, "bob")]

    @pytest.mark.slow
    def test_a_vote_is_an_answer_and_so_is_the_end(self, world: World):
        request = world.submit()
        say(request, world.alice, "@bob @carol please")
        world.vote(request, "bob")
        assert asked_to_look(world.bob) == []
        assert asked_to_look(world.carol) == [(request.pk, "alice")]
        say(request, world.alice, "@bob thanks; look again")
        assert asked_to_look(world.bob) == [(request.pk, "alice")]
        workflow.cancel(request.pk, by=world.alice)
        assert asked_to_look(world.bob) == asked_to_look(world.carol) == []

    def test_named_again_is_asked_once_by_the_last(self, world: World):
        request = world.submit()
        for by in (world.alice, world.dan, world.bob):
            say(request, by, "@carol?")
        assert asked_to_look(world.carol) == [(request.pk, "bob")]

    def test_who_cannot_see_it_is_not_told_and_sees_no_more_for_it(self, world: World):
        request = world.submit()
        event = say(request, world.bob, "@mallory @carol @nobody-there")
        assert (event.data["mentions"], event.data["unseen"]) == (["carol"], ["mallory"])
        assert asked_to_look(world.mallory) == []
        assert signed_in(world.mallory).get(f"/requests/{request.pk}/").status_code == 404

    def test_who_loses_sight_of_it_is_asked_no_more(self, world: World):
        request = world.submit()
        say(request, world.bob, "@ada look")
        assert asked_to_look(world.ada)
        world.ada.is_superuser = False
        world.ada.save()
        fresh = type(world.ada).objects.get(pk=world.ada.pk)
        assert asked_to_look(fresh) == []

    def test_oneself_the_deactivated_and_addresses_are_not_named(self, world: World):
        world.dan.is_active = False
        world.dan.save()
        request = world.submit()
        event = say(request, world.bob, "@bob @dan carol@carol (@chen) x@dora @@carol")
        assert event.data["mentions"] == ["chen"]

    def test_too_many_at_once_are_refused(self, world: World):
        request = world.submit()
        with pytest.raises(Invalid, match=r"cannot be used"):
            say(request, world.bob, " ".join(f"@somebody{n}" for n in range(21)))
        assert not Mention.objects.exists()


class TestPages:
    @pytest.mark.slow
    def test_it_is_said_on_the_page_and_shown_there(self, world: World):
        request = world.submit()
        client = signed_in(world.bob)
        page = f"/requests/{request.pk}/"
        shown = client.get(page).content.decode()
        last = re.search(r'name="after" value="(\d+)"', shown)
        assert last
        given = {"comment": "<b>@carol</b> which replica?", "after": last[1]}
        for _ in range(2):
            assert client.post(f"{page}comment/", given).status_code == 302
        body = client.get(page).content.decode()
        assert body.count("&lt;b&gt;@carol&lt;/b&gt; which replica?") == 1
        assert "bob commented." in body
        home = signed_in(world.carol).get("/").content.decode()
        assert "Asked to look" in home
        assert "bob named you" in home

    def test_what_was_typed_is_kept_where_it_is_refused(self, world: World):
        request = world.submit()
        answer = signed_in(world.bob).post(
            f"/requests/{request.pk}/comment/", {"comment": "y" * 2001, "after": "0"}
        )
        assert answer.status_code == 422
        body = answer.content.decode()
        assert "y" * 2001 in body
        assert "Keep it within 2000 characters." in body

    def test_it_is_said_who_is_not_told(self, world: World):
        request = world.submit()
        answer = signed_in(world.bob).post(
            f"/requests/{request.pk}/comment/", {"comment": "@mallory?"}, follow=True
        )
        assert "mallory cannot see this request" in answer.content.decode()

    def test_strangers_find_nothing_to_talk_about(self, world: World):
        request = world.submit()
        path = f"/requests/{request.pk}/comment/"
        assert signed_in(world.mallory).post(path, {"comment": "Hi"}).status_code == 404
        assert signed_in(world.bob).get(path).status_code == 405
