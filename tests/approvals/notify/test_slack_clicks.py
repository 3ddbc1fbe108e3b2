"""What a click in Slack does: the same verb as that human, once, and only if Slack sent it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connections
from django.test import Client
from django.urls import reverse

from approvals import editing, tokens, workflow
from approvals.models import Grant, SlackCall, SlackWorkspace, Vote
from approvals.notify.slack import accounts, workspace
from approvals.wishes import Wish
from audit.models import Event
from tests.approvals.notify.slack_server import SECRET, Standin, sign, signed
from tests.approvals.notify.slacking import (
    buttons,
    call,
    connect,
    deliver,
    member,
    read,
    set_up,
    slack_for,
    tell,
)
from tests.approvals.test_delegating import lend
from tests.approvals.test_less import less
from tests.conftest import Clock
from tests.world import HOUR, World, publish, stage

BOB, CAROL, MALLORY = (member(name) for name in ("bob", "carol", "mallory"))


@pytest.fixture
def slack(world: World, settings: Any, monkeypatch: Any) -> Iterator[Standin]:
    with slack_for(settings, monkeypatch) as standin:
        set_up(world)
        yield standin


@pytest.fixture
def asked(world: World, slack: Standin) -> Any:
    """alice has asked, and bob has a message about it."""
    connect(world, slack, "bob")
    request = world.submit()
    tell()
    return request


def votes() -> list[tuple[str, str, str]]:
    found = Vote.objects.order_by("pk").values_list("voter__username", "decision", "comment")
    return [(str(who), str(what), str(why)) for who, what, why in found]


def newest(action: str) -> Event:
    return Event.objects.filter(action=action).latest("id")


@pytest.mark.django_db
class TestDeciding:
    def test_approving_counts_as_theirs_and_changes_the_message_at_once(
        self, asked: Any, slack: Standin
    ):
        answer = call(slack.press(BOB, "approve"))
        assert (answer.status_code, answer.content) == (200, b"")
        assert votes() == [("bob", "approve", "")]
        [message] = slack.to(BOB)
        assert "You approved it. It waits in “Security”." in read(message)
        assert buttons(message) == ["open"]
        assert slack.whispers == []
        cast, used = newest("vote.cast"), newest("slackaccount.used")
        assert cast.agent == f"Slack, {BOB} in T0DEBUGFLOW"
        assert (used.actor_name, used.data) == ("bob", {"did": "approve"})
        assert used.request_id == cast.request_id

    def test_denying_asks_why_first(self, asked: Any, slack: Standin):
        call(slack.press(BOB, "deny"))
        assert votes() == []
        assert "alice asks for read-only on orders for 1 h" in read(slack.views[0])
        answer = call(slack.submit(BOB, None))
        assert answer.json() == {
            "response_action": "errors",
            "errors": {"reason": "Say why, so that they know what to do instead."},
        }
        assert votes() == []
        answer = call(slack.submit(BOB, "Use the <replica>."))
        assert (answer.status_code, answer.content) == (200, b"")
        assert votes() == [("bob", "deny", "Use the <replica>.")]
        assert "You denied it. It is denied." in read(slack.to(BOB)[0])

    def test_that_slack_is_silent_afterwards_takes_nothing_back(self, asked: Any, slack: Standin):
        slack.dead = "internal_error"
        assert call(slack.press(BOB, "approve")).status_code == 200
        assert votes() == [("bob", "approve", "")]
        slack.dead = ""
        tell()
        assert "You approved it." in read(slack.to(BOB)[0]), "the outbox does it"

    def test_a_button_that_only_opens_a_page_does_nothing(self, asked: Any, slack: Standin):
        assert call(slack.press(BOB, "open")).status_code == 200
        assert not Event.objects.filter(action="slackaccount.used").exists()


def _edit(world: World, asked: Any, slack: Standin) -> None:
    wish = Wish(duration=900, reason="Shorter.")
    editing.edit(asked.pk, by=world.alice, wish=wish, scope_hash=asked.scope_hash)


def _pass_stage(world: World, asked: Any, slack: Standin) -> None:
    world.vote(asked, "dan")


def _leave(world: World, asked: Any, slack: Standin) -> None:
    world.groups["dba"].user_set.remove(world.bob)


def _switch_off(world: World, asked: Any, slack: Standin) -> None:
    type(world.bob).objects.filter(pk=world.bob.pk).update(is_active=False)


def _disconnect(world: World, asked: Any, slack: Standin) -> None:
    accounts.end(world.bob.pk, by=world.bob)


def _cancel(world: World, asked: Any, slack: Standin) -> None:
    workflow.cancel(asked.pk, by=world.alice)


REFUSED = [
    (_edit, "vote.refused", "scope_changed", "has changed since you looked at it"),
    (_pass_stage, "vote.refused", "wrong_stage", "“Database” has passed; now “Security” is open."),
    (_cancel, "vote.refused", "wrong_state", "there is nothing left to decide"),
    (_leave, "vote.refused", "not_eligible", "they can decide it"),
    (_switch_off, "slackaccount.refused", "slack_inactive", "is switched off"),
    (_disconnect, "slackaccount.refused", "slack_unknown", "Connect it in your settings"),
]


@pytest.mark.django_db
class TestRefusals:
    @pytest.mark.parametrize(("happens", "event", "code", "why"), REFUSED)
    def test_what_changed_since_the_message_refuses_the_click_and_says_why(
        self,
        world: World,
        asked: Any,
        slack: Standin,
        happens: Any,
        event: str,
        code: str,
        why: str,
    ):
        click = slack.press(BOB, "approve")
        happens(world, asked, slack)
        before = votes()
        assert call(click).status_code == 200
        assert votes() == before
        [(where, who, whisper)] = slack.whispers
        assert (where, who) == ("D0BOBXXXX", BOB)
        assert "This did not count." in whisper["text"]
        assert why in whisper["text"]
        assert newest(event).data["code"] == code
        if happens is not _disconnect:
            assert buttons(slack.to(BOB)[0]) == ["open"], "and the message says how it stands"

    def test_a_click_about_one_stage_counts_in_no_later_one(self, world: World, slack: Standin):
        """dora is asked in both."""
        connect(world, slack, "dora")
        request = world.submit()
        tell()
        click = slack.press(member("dora"), "approve")
        world.vote(request, "dan")
        call(click)
        assert [who for who, _, _ in votes()] == ["dan"]
        assert "now “Security” is open" in slack.whispers[0][2]["text"]

    def test_a_vote_given_meanwhile_is_not_replaced(self, world: World, slack: Standin):
        publish(world, stage(world, "Database", "dba", minimum=2))
        connect(world, slack, "bob")
        request = world.submit()
        tell()
        click = slack.press(BOB, "approve")
        world.vote(request, "bob", "approve")
        call(click)
        assert len(votes()) == 1
        assert newest("vote.refused").data["code"] == "voted_already"

    def test_a_button_is_of_whom_it_was_made_for(self, world: World, asked: Any, slack: Standin):
        """dora could decide it as well, with one of her own."""
        click = slack.press(BOB, "approve")
        connect(world, slack, "dora")
        click["user"]["id"] = member("dora")
        call(click)
        assert votes() == []
        assert newest("slackaccount.refused").data["code"] == "slack_button"

    def test_whoever_knows_the_signing_secret_makes_up_no_button(self, asked: Any, slack: Standin):
        choice = {"request": asked.pk, "stage": asked.stages.get(state="open").pk, "replaces": 0}
        made_up = json.dumps({**choice, "scope_hash": asked.scope_hash, "whose": 1, "outcome": ""})
        call(slack.press(BOB, "approve", value=made_up))
        assert votes() == []
        assert "damaged" in slack.whispers[0][2]["text"]
        slack.views.append({"private_metadata": made_up, "callback_id": "deny"})
        answer = call(slack.submit(BOB, "No."))
        assert "damaged" in answer.json()["errors"]["reason"]
        assert votes() == []

    def test_another_workspace_is_refused_whoever_it_names(self, asked: Any, slack: Standin):
        call(slack.press(BOB, "approve", team="T0ELSEWHERE"))
        assert votes() == []
        assert newest("slackaccount.refused").data["code"] == "slack_elsewhere"

    def test_nothing_of_high_risk_is_decided_whatever_was_pressed(
        self, world: World, asked: Any, slack: Standin, monkeypatch: Any
    ):
        click = slack.press(BOB, "approve")
        monkeypatch.setattr(tokens, "VOTE_RISKS", ())
        call(click)
        assert votes() == []
        assert newest("vote.refused").data["code"] == "token_risk"
        assert "At this risk somebody has to vote in person." in slack.whispers[0][2]["text"]

    def test_a_denial_that_comes_too_late_is_said_in_the_form(
        self, world: World, asked: Any, slack: Standin
    ):
        call(slack.press(BOB, "deny"))
        world.vote(asked, "dan")
        answer = call(slack.submit(BOB, "No."))
        assert "“Database” has passed" in answer.json()["errors"]["reason"]
        assert [who for who, _, _ in votes()] == ["dan"]


@pytest.fixture
def shorter(world: World, slack: Standin) -> Any:
    """carol is asked for 1 h of read-write, of which bob has left 30 min of read-only."""
    connect(world, slack, "carol")
    request = world.submit(level=world.write)
    world.vote(request, "bob", less=less(world.read, HOUR // 2))
    tell()
    return request


@pytest.mark.django_db
class TestLess:
    def test_what_it_opens_with_the_approvals_so_far_is_what_is_asked(
        self, shorter: Any, slack: Standin
    ):
        [message] = slack.to(CAROL)
        opens = "With the approvals so far it opens 30 min of read-only."
        for words in (opens, "30 min (asked: 1 h)", "read-only (asked: read-write)", "(asked: Med"):
            assert words in read(message)
        confirm = message["blocks"][-1]["elements"][0]["confirm"]["text"]["text"]
        assert confirm.startswith(f"{opens} alice asks for read-write on orders")
        call(slack.press(CAROL, "approve"))
        assert slack.whispers == []
        assert Grant.objects.get(request=shorter).duration == HOUR // 2

    @pytest.mark.parametrize("now", [HOUR // 4, None])
    def test_what_it_opens_otherwise_since_then_is_not_approved(
        self, world: World, slack: Standin, now: int | None
    ):
        """Nor is it without anybody's message having been changed yet."""
        publish(world, stage(world, "Both", "dba", "security"))
        connect(world, slack, "carol")
        request = world.submit()
        world.vote(request, "bob", less=less(duration=HOUR // 2))
        tell()
        click, denial = slack.press(CAROL, "approve"), slack.press(CAROL, "deny")
        world.vote(request, "bob", less=less(duration=now) if now else None)
        call(click)
        assert [who for who, _, _ in votes()] == ["bob", "bob"]
        assert "What it would open has changed" in slack.whispers[0][2]["text"]
        assert newest("vote.refused").data["code"] == "scope_changed"
        assert f"How long\n{'15 min (asked: 1 h)' if now else '1 h'} |" in read(slack.to(CAROL)[0])
        call(denial)
        call(slack.submit(CAROL, "Not at all."))
        assert votes()[-1] == ("carol", "deny", "Not at all."), "which opens nothing"

    def test_messages_that_ask_say_so_as_soon_as_somebody_approves_with_less(
        self, world: World, slack: Standin
    ):
        publish(world, stage(world, "Both", "dba", "security"))
        connect(world, slack, "carol")
        request = world.submit()
        tell()
        world.vote(request, "bob", less=less(duration=HOUR // 2))
        tell()
        assert "How long\n30 min (asked: 1 h)" in read(slack.to(CAROL)[0])
        call(slack.press(CAROL, "approve"))
        assert Grant.objects.get(request=request).duration == HOUR // 2

    def test_a_lower_level_of_a_higher_risk_is_decided_on_the_page(
        self, world: World, shorter: Any, slack: Standin, monkeypatch: Any
    ):
        """A rank says nothing of the risk. No level of high risk can be saved yet, so the bound is
        moved."""
        click = slack.press(CAROL, "approve")
        monkeypatch.setattr(tokens, "VOTE_RISKS", ("medium",))
        call(click)
        assert newest("vote.refused").data["code"] == "token_risk"
        assert buttons(slack.to(CAROL)[0]) == ["open"]


@pytest.mark.django_db
class TestLent:
    def test_whose_vote_it_is_is_said_and_is_theirs(self, world: World, slack: Standin):
        lend(world, "bob", "mallory")
        tell()
        connect(world, slack, "mallory")
        world.submit()
        tell()
        [message] = slack.to(MALLORY)
        assert "You vote for\nbob" in read(message)
        assert "You vote for bob." in str(message["blocks"][-1]["elements"][0]["confirm"])
        call(slack.press(MALLORY, "approve"))
        given = Vote.objects.values_list("voter__username", "on_behalf_of__username")
        assert list(given) == [("mallory", "bob")]

    def test_where_several_have_lent_theirs_it_is_chosen_on_the_page(
        self, world: World, slack: Standin
    ):
        for who in ("bob", "dan"):
            lend(world, who, "mallory")
        tell()
        connect(world, slack, "mallory")
        world.submit()
        tell()
        [message] = slack.to(MALLORY)
        assert buttons(message) == ["open"]
        assert "choose on its page whose you give" in read(message)

    def test_ones_own_vote_does_not_turn_into_somebody_elses(
        self, world: World, asked: Any, slack: Standin
    ):
        click = slack.press(BOB, "approve")
        lend(world, "dan", "bob")
        world.groups["dba"].user_set.remove(world.bob)
        call(click)
        assert votes() == []
        assert newest("vote.refused").data["code"] == "not_lent"
        assert "You vote for\ndan" in read(slack.to(BOB)[0])


@pytest.mark.django_db
class TestWhoseCallItIs:
    def test_what_slack_has_not_signed_just_now_does_nothing(self, asked: Any, slack: Standin):
        click, now = slack.press(BOB, "approve"), time.time()
        for how, changed in (
            ({"secret": SECRET[::-1]}, {}),
            ({"at": now - 301}, {}),
            ({"at": now + 301}, {}),
            ({}, {"X-Slack-Signature": "v0=" + "0" * 64}),
            ({}, {"X-Slack-Signature": "v1=" + "0" * 64}),
            ({}, {"X-Slack-Signature": "v0=" + "é" * 64}),
            ({}, {"X-Slack-Signature": ""}),
            ({}, {"X-Slack-Request-Timestamp": "1e9"}),
            ({}, {"X-Slack-Request-Timestamp": "-1"}),
            ({}, {"X-Slack-Request-Timestamp": ""}),
            ({}, {"X-Slack-Request-Timestamp": str(int(now) - 1)}),
        ):
            body, headers = signed(click, **how)
            answer = deliver(body, {**headers, **changed})
            assert (answer.status_code, answer.content) == (401, b""), (how, changed)
        assert votes() == []
        assert not SlackCall.objects.exists()

    def test_what_does_not_look_signed_costs_no_query(
        self, asked: Any, django_assert_num_queries: Any
    ):
        for headers in ({}, {"X-Slack-Signature": "v0=1", "X-Slack-Request-Timestamp": "1"}):
            with django_assert_num_queries(0):
                assert deliver(b"payload={}", headers).status_code == 401

    def test_a_changed_body_is_another_than_was_signed(self, asked: Any, slack: Standin):
        body, headers = signed(slack.press(BOB, "approve"))
        assert deliver(body.replace(b"approve", b"Approve"), headers).status_code == 401
        assert deliver(body + b" ", headers).status_code == 401
        assert votes() == []

    def test_the_same_bytes_count_once(self, world: World, asked: Any, slack: Standin):
        sent = signed(slack.press(BOB, "approve"))
        assert deliver(*sent).status_code == 200
        updates = slack.updates
        assert deliver(*sent).status_code == 200
        assert (len(votes()), slack.updates, slack.whispers) == (1, updates, [])
        assert Event.objects.filter(action="slackaccount.used").count() == 1

    def test_signatures_are_forgotten_when_they_are_too_old_to_be_taken(
        self, asked: Any, slack: Standin, clock: Clock
    ):
        call(slack.press(BOB, "open"))
        clock.forward(16 * 60)
        call(slack.press(BOB, "open", value="2"), at=time.time() + 16 * 60)
        assert SlackCall.objects.count() == 1

    def test_what_is_signed_and_no_interaction_is_a_bad_request(self, slack: Standin):
        for body in (b"", b"payload", b"payload=[]", b"payload={}", b"payload=%FF", b"a=1&" * 20):
            assert deliver(*sign(body)).status_code == 400, body

    def test_too_much_is_not_looked_at(self):
        body, headers = signed({"type": "x" * 300_000})
        assert deliver(body, headers).status_code == 413

    def test_it_takes_posts_without_our_own_token_and_nothing_else(
        self, asked: Any, slack: Standin
    ):
        strict = Client(enforce_csrf_checks=True)
        body, headers = signed(slack.press(BOB, "approve"))
        kind = "application/x-www-form-urlencoded"
        answer = strict.post(reverse("slack"), body, content_type=kind, headers=headers)
        assert answer.status_code == 200
        assert votes() == [("bob", "approve", "")]
        assert strict.get(reverse("slack")).status_code == 405

    def test_where_slack_is_off_or_gone_nobody_is_believed(
        self, world: World, asked: Any, slack: Standin
    ):
        sent = signed(slack.press(BOB, "approve"))
        off = workspace.Wish(enabled=False)
        workspace.save(1, by=world.ada, wish=off, identity=None)
        assert deliver(*sent).status_code == 401
        SlackWorkspace.objects.all().delete()
        assert deliver(*sent).status_code == 401
        assert votes() == []


@pytest.mark.usefixtures("committed")
def test_the_same_bytes_at_two_workers_at_once_count_once(
    world: World, settings: Any, monkeypatch: Any
):
    with slack_for(settings, monkeypatch) as slack:
        set_up(world)
        connect(world, slack, "bob")
        world.submit()
        tell()
        sent = signed(slack.press(BOB, "approve"))

        def work(_: int) -> int:
            try:
                return int(deliver(*sent).status_code)
            finally:
                connections.close_all()

        with ThreadPoolExecutor(4) as workers:
            assert list(workers.map(work, range(4))) == [200] * 4
        assert votes() == [("bob", "approve", "")]
        assert Event.objects.filter(action="slackaccount.used").count() == 1
        assert slack.whispers == []
