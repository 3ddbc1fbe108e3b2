"""Slack: what is said there, what changes in place, and what a failure of Slack's does."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import pytest
from django.core import signing

from approvals import proposals, tokens, workflow
from approvals.errors import NotAllowed
from approvals.models import Delivery, SlackWorkspace
from approvals.notify import expanding, preferences
from approvals.notify.preferences import Wishes
from approvals.notify.slack import accounts, messages, workspace
from approvals.notify.slack.client import Slack as Client
from approvals.notify.slack.messages import Choice, Told
from approvals.states import DeliveryStanding
from audit import clock as database_clock
from audit.models import Event
from debugflow.diagnosis import servers
from tests.approvals.notify.slack_server import TOKEN, Standin, _blocks, _text, _view
from tests.approvals.notify.slacking import (
    SITE,
    buttons,
    connect,
    member,
    read,
    set_up,
    slack_for,
    tell,
)
from tests.approvals.test_proposals import agree, longer
from tests.approvals.test_second_look import two as two
from tests.conftest import Clock
from tests.world import World

pytestmark = pytest.mark.django_db
BOB, CAROL, DAN, ALICE = (member(name) for name in ("bob", "carol", "dan", "alice"))


@pytest.fixture
def slack(world: World, settings: Any, monkeypatch: Any) -> Iterator[Standin]:
    with slack_for(settings, monkeypatch) as standin:
        with proposals.at_the_console():  # elsewhere it takes two
            set_up(world)
        yield standin


def rows(who: str = "bob") -> list[Delivery]:
    found = Delivery.objects.filter(channel="slack", person__username=who)
    return list(found.select_related("notice").order_by("pk"))


def deny(proposal: Any, person: Any) -> None:
    proposals.deny(proposal.pk, by=person, digest=proposal.digest, note="Too long.")


def actions(kind: str) -> list[str]:
    told = Event.objects.filter(subject_type=kind).order_by("id")
    return list(told.values_list("action", flat=True))


class TestWhatIsSaid:
    def test_who_what_how_long_and_why_with_buttons(self, world: World, slack: Standin):
        connect(world, slack, "bob", "alice")
        world.submit(ticket="OPS-7", reason="Orders hang.\nSince 10:40.")
        assert tell() == 1, "carol is asked later, and dan is not connected"
        [message] = slack.to(BOB)
        told = read(message)
        for words in (
            "alice asks for read-only on orders for 1 h",
            "For\nalice",
            "How long\n1 h",
            "Level\nread-only",
            "Target\norders (production)",
            "Risk\nLow",
            "Ticket\nOPS-7",
            "“Orders hang. Since 10:40.”",
            "Approve or deny it in “Database”",
        ):
            assert words in told
        assert buttons(message) == ["approve", "deny", "open"]
        assert message["text"].startswith("alice asks for read-only on orders for 1 h. Approve")
        assert f"{SITE}/inbox/from/" in str(message["blocks"])

    def test_what_somebody_wrote_formats_nothing_and_calls_nobody(
        self, world: World, slack: Standin
    ):
        """The stand-in refuses whatever is not escaped, or could format."""
        connect(world, slack, "bob")
        world.submit(reason="<!channel> *now* <https://evil.example|Approve> & \u202eback :fire:")
        tell()
        told = read(slack.to(BOB)[0])
        assert "&lt;!channel&gt; *now* &lt;https://evil.example|Approve&gt; &amp; ␦back" in told

    def test_at_high_risk_it_is_decided_on_its_page(
        self, world: World, slack: Standin, monkeypatch: Any
    ):
        """No level of high risk can be saved before there is a gateway, so the bound is lowered."""
        monkeypatch.setattr(tokens, "VOTE_RISKS", ("low",))
        connect(world, slack, "bob")
        world.submit(level=world.write)
        tell()
        [message] = slack.to(BOB)
        assert buttons(message) == ["open"]
        assert "At this risk it is decided on its page." in read(message)

    def test_what_needs_no_decision_has_no_such_buttons(self, world: World, slack: Standin):
        connect(world, slack, "alice")
        world.vote(world.submit(), "bob", "deny", comment="Use the replica.")
        tell()
        [message] = slack.to(ALICE)
        assert "bob denied read-only on orders for alice" in read(message)
        assert "“Use the replica.”" in read(message)
        assert buttons(message) == ["open"]

    def test_without_an_address_of_the_site_nothing_links(
        self, world: World, slack: Standin, settings: Any
    ):
        settings.SITE_URL = ""
        connect(world, slack, "bob")
        world.submit()
        tell()
        assert buttons(slack.to(BOB)[0]) == ["approve", "deny"]

    def test_what_needs_no_action_comes_once_a_day(
        self, world: World, slack: Standin, clock: Clock
    ):
        connect(world, slack, "alice")
        at = (database_clock.now() + timedelta(hours=2)).time().replace(microsecond=0)
        preferences.save(world.alice.pk, by=world.alice, wishes=Wishes(digest_at=at))
        for level in (world.read, world.write):
            world.vote(world.submit(level=level), "bob", "deny")
        assert tell() == 0
        clock.forward(2 * 3600)
        assert tell() == 1
        [message] = slack.to(ALICE)
        assert "2 things to know of" in read(message)
        assert buttons(message) == ["open"]

    def test_nothing_is_longer_than_slack_takes(self):
        big = dict.fromkeys(("person", "request", "stage", "whose", "replaces"), 2**62)
        choice = Choice(scope_hash="f" * 64, outcome="f" * 64, **big)
        for text in ("<" * 3000, "&" * 3000, "x" * 3000, "a\n\tb" * 900, "𝕏" * 3000):
            facts = [("Level", text)] * 6
            told = Told(
                headline=text, facts=facts, quote=text, below=text, link=SITE, choice=choice
            )
            said = messages.message(told)
            _text(said.text, 4000)
            _blocks(said.blocks, 50)
            _blocks(messages.digest([text] * 100, SITE).blocks, 50)
            _view(dict(messages.denial(text, choice.packed(), 2000)))
            assert messages.harmless(text, 150).replace("&lt;", "").count("&l") == 0

    def test_what_is_packed_comes_back_to_that_person_and_nothing_else_does(self):
        numbers = {"person": 7, "request": 1, "stage": 2, "whose": 7, "replaces": 0}
        choice = Choice(scope_hash="ab", outcome="cd", **numbers)
        packed = choice.packed()
        assert Choice.unpacked(packed, of=7) == choice
        other_shape = signing.dumps({"request": 1}, salt=messages.SALT)
        elsewhere = signing.dumps(asdict(choice))
        for text, of in ((packed, 8), (packed[:-1], 7), ("", 7), (other_shape, 7), (elsewhere, 7)):
            with pytest.raises(NotAllowed):
                Choice.unpacked(text, of=of)


class TestInPlace:
    @pytest.mark.parametrize(
        ("settle", "says"),
        [
            (lambda world, asked: world.vote(asked, "bob"), "You approved it. It waits in “Secur"),
            (lambda world, asked: world.vote(asked, "dan"), "“Database” has passed without you."),
            (lambda world, asked: world.vote(asked, "dan", "deny"), "It is denied."),
            (lambda world, asked: workflow.cancel(asked.pk, by=world.alice), "It was taken back."),
        ],
    )
    def test_what_is_settled_elsewhere_is_said_in_the_message_that_asked(
        self, world: World, slack: Standin, settle: Any, says: str
    ):
        connect(world, slack, "bob")
        asked = world.submit()
        tell()
        settle(world, asked)
        tell()
        [message] = slack.to(BOB)
        assert says in read(message)
        assert buttons(message) == ["open"]

    def test_whoever_voted_is_told_the_end_there_too(self, world: World, slack: Standin):
        connect(world, slack, "bob")
        asked = world.submit()
        tell()
        for who in ("bob", "carol"):
            world.vote(asked, who)
        tell()
        [message] = slack.to(BOB)
        assert "You approved it. It is approved." in read(message)
        assert slack.updates == 1, "both at once"

    def test_time_that_runs_out_takes_the_buttons_away(
        self, world: World, slack: Standin, clock: Clock
    ):
        connect(world, slack, "bob")
        asked = world.submit()
        tell()
        clock.forward(86401)
        workflow.expire(asked.pk)
        tell()
        assert "Its time has run out." in read(slack.to(BOB)[0])

    def test_whoever_left_meanwhile_keeps_no_buttons(self, world: World, slack: Standin):
        connect(world, slack, "bob")
        asked = world.submit(reason="Secret until edited.")
        tell()
        type(world.bob).objects.filter(pk=world.bob.pk).update(is_active=False)
        world.vote(asked, "dan")
        tell()
        assert buttons(slack.to(BOB)[0]) == ["open"]

    def test_a_reminder_is_a_message_of_its_own_and_both_are_settled(
        self, world: World, slack: Standin
    ):
        connect(world, slack, "bob")
        asked = world.submit()
        tell()
        [first] = rows()
        # As a reminder leaves it: another notice about the same stage.
        notice = first.notice
        notice.pk, notice.fact, notice.key, notice.next_try_at = (
            None, "reminded", "again", database_clock.now(),
        )  # fmt: skip
        notice.save()
        tell()
        assert [buttons(one) for one in slack.to(BOB)] == [["approve", "deny", "open"]] * 2
        world.vote(asked, "bob")
        tell()
        assert [buttons(one) for one in slack.to(BOB)] == [["open"]] * 2

    def test_what_is_settled_while_the_message_is_being_changed_is_said_as_well(
        self, world: World, slack: Standin
    ):
        connect(world, slack, "bob")
        asked = world.submit()
        tell()
        # As another worker leaves it that has just asked what there is to say.
        claimed = database_clock.now() + timedelta(seconds=60)
        Delivery.objects.filter(channel="slack").update(sent_at=None, next_try_at=claimed)
        world.vote(asked, "dan", "deny")
        tell()
        assert "It is denied." in read(slack.to(BOB)[0])

    def test_what_is_settled_while_the_message_is_on_its_way_is_said_as_well(
        self, world: World, slack: Standin, monkeypatch: Any
    ):
        connect(world, slack, "bob")
        asked, post = world.submit(), Client.post

        def slowly(self: Client, *what: Any) -> str:
            handle = post(self, *what)
            world.vote(asked, "dan", "deny")
            expanding.expand_due()
            return handle

        monkeypatch.setattr(Client, "post", slowly)
        tell()
        [message] = slack.to(BOB)
        assert "It is denied." in read(message)
        assert buttons(message) == ["open"]
        assert slack.updates == 1
        assert [row.standing for row in rows()] == [DeliveryStanding.SENT]

    @pytest.mark.parametrize(
        ("end", "says"),
        [
            (lambda two, it: agree(it, two.people["eve"]), "eve agreed, and it is done."),
            (lambda two, it: deny(it, two.people["eve"]), "eve denied it."),
            (lambda two, it: proposals.withdraw(it.pk, by=two.ada), "It was withdrawn."),
        ],
    )
    def test_a_proposal_that_has_ended_says_how(
        self, two: World, slack: Standin, end: Any, says: str
    ):
        two.people["eve"] = type(two.ada).objects.create_superuser("eve", password="a long one")
        connect(two, slack, "adam")
        proposal = longer(two)
        tell()
        [before] = slack.to(member("adam"))
        assert "agree to it or deny it" in read(before)
        end(two, proposal)
        tell()
        [message] = slack.to(member("adam"))
        assert says in read(message)
        assert "agree to it or deny it" not in read(message)

    def test_what_was_sent_is_not_changed_for_whoever_has_disconnected(
        self, world: World, slack: Standin
    ):
        connect(world, slack, "bob")
        asked = world.submit()
        tell()
        accounts.end(world.bob.pk, by=world.ada)
        world.vote(asked, "dan", "deny")
        tell()
        assert slack.updates == 0
        assert [row.standing for row in rows()] == [DeliveryStanding.SENT]

    def test_a_message_that_is_gone_is_left_alone(self, world: World, slack: Standin):
        connect(world, slack, "bob")
        asked = world.submit()
        tell()
        slack.messages.clear()
        world.vote(asked, "bob")
        tell()
        [row] = rows()
        assert (row.standing, row.handle) == (DeliveryStanding.SENT, "")
        assert slack.to(BOB) == []


class TestFailures:
    @pytest.mark.slow
    def test_slack_says_how_long_to_wait_and_is_left_alone_so_long(
        self, world: World, slack: Standin, clock: Clock
    ):
        connect(world, slack, "bob", "dan")
        slack.fail("chat.postMessage", "ratelimited", status=429, Retry_After="240")
        before = slack.calls.count("chat.postMessage")
        world.submit()
        assert tell() == 0
        world.submit(level=world.write)
        assert tell() == 0
        assert slack.calls.count("chat.postMessage") == before + 1, "nor for dan, nor anew"
        now = database_clock.now()
        for row in (*rows("bob"), *rows("dan")):
            assert row.standing == DeliveryStanding.RETRYING
            assert row.next_try_at is not None
            assert timedelta(seconds=239) < row.next_try_at - now < timedelta(seconds=300)
        clock.forward(300)
        assert tell() == 4
        assert SlackWorkspace.objects.get().last_error == "", "this is no illness"

    def test_a_dead_token_is_told_once_and_what_waited_goes_out_with_a_new_one(
        self, world: World, slack: Standin, caplog: Any
    ):
        connect(world, slack, "bob", "dan")
        slack.dead = "token_revoked"
        world.submit()
        with caplog.at_level(logging.WARNING):
            assert tell() == 0
        row = SlackWorkspace.objects.get()
        assert row.last_error == "Slack says token_revoked."
        assert "Slack does not take the token" in caplog.text
        assert TOKEN not in caplog.text
        [finding] = servers.slack()
        assert not finding.ok
        Delivery.objects.filter(channel="slack").update(next_try_at=database_clock.now())
        tell()
        assert actions("slackworkspace") == ["slackworkspace.created", "slackworkspace.fell_ill"]
        slack.dead = ""
        set_up(world)
        assert tell() == 2
        [finding] = servers.slack()
        assert finding.ok

    def test_one_that_works_again_by_itself_is_told_too(self, world: World, slack: Standin):
        connect(world, slack, "bob")
        slack.dead = "missing_scope"
        world.submit()
        tell()
        slack.dead = ""
        Delivery.objects.filter(channel="slack").update(next_try_at=database_clock.now())
        assert tell() == 1
        assert actions("slackworkspace")[-1] == "slackworkspace.recovered"

    def test_whoever_is_not_there_is_given_up_and_holds_up_nobody(
        self, world: World, slack: Standin
    ):
        connect(world, slack, "bob", "dan")
        slack.members.remove(BOB)
        world.submit()
        assert tell() == 1
        assert [one.standing for one in rows("bob")] == [DeliveryStanding.DEAD]
        assert [one.standing for one in rows("dan")] == [DeliveryStanding.SENT]

    def test_trouble_of_slacks_own_is_tried_again(self, world: World, slack: Standin):
        connect(world, slack, "bob")
        slack.fail("chat.postMessage", "internal_error", status=503)
        world.submit()
        tell()
        assert [one.standing for one in rows()] == [DeliveryStanding.RETRYING]

    def test_whoever_disconnects_or_is_switched_off_is_reached_no_more(
        self, world: World, slack: Standin
    ):
        connect(world, slack, "bob")
        accounts.end(world.bob.pk, by=world.bob)
        world.submit()
        assert tell() == 0
        assert rows() == []

    def test_nothing_is_sent_where_it_is_switched_off(self, world: World, slack: Standin):
        connect(world, slack, "bob")
        asked = world.submit()
        tell()
        workspace.save(1, by=world.ada, wish=workspace.Wish(enabled=False), identity=None)
        world.vote(asked, "dan")
        world.submit(level=world.write)
        before = len(slack.calls)
        tell()
        assert len(slack.calls) == before
        assert [row.standing for row in rows()] == [DeliveryStanding.SENT]
