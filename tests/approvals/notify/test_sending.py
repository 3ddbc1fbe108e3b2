"""Handing over: what fails is tried again, holds up nothing else, and is never just dropped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from datetime import time as clock_time
from datetime import timedelta
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from django.contrib.auth import get_user_model

from approvals import notify
from approvals.errors import NotAllowed, WrongState
from approvals.models import Delivery, Notice
from approvals.notify import email, expanding, inbox, resending, sending
from approvals.notify.base import Outcome
from approvals.states import DeliveryStanding
from audit import clock as database_clock
from audit.models import Event
from debugflow.embedded.server import free_port
from debugflow.embedded.state import CHECKOUT
from tests.approvals.notify.telling import opened, tell, told, wish
from tests.approvals.smtp import Mailbox, deaf_server, name, text_of
from tests.conftest import Control
from tests.world import World

DAY = 86400


def mails(**only: Any) -> list[Delivery]:
    return list(Delivery.objects.filter(channel="email", **only).order_by("pk"))


def standings() -> Counter[DeliveryStanding]:
    return Counter(row.standing for row in mails())


@pytest.mark.django_db
class TestAMail:
    def test_it_says_what_it_is_about_and_where_to_go(self, world: World, mailbox: Mailbox):
        world.submit()
        assert tell() == 3
        [message] = mailbox.to("bob@example.com")
        subject = "[debugflow] alice asks for read-only on orders for 1 h"
        assert message["Subject"] == subject
        for kind in ("plain", "html"):
            said = text_of(message, kind)
            assert "Orders hang since 10:40." in said
            assert "Approve or deny it in “Database”" in said
            assert "https://debugflow.example.com/inbox/from/" in said
            assert "decides nothing" in said

    def test_hostile_text_stays_text(self, world: World, mailbox: Mailbox):
        world.submit(reason="<b>x</b>\r\nBcc: all@example.com")
        tell()
        [message] = mailbox.to("bob@example.com")
        assert message["Bcc"] is None
        assert "&lt;b&gt;x&lt;/b&gt; Bcc: all@example.com" in text_of(message, "html")
        assert "<b>x</b> Bcc: all@example.com" in text_of(message)

    def test_no_secret_is_in_it(self, world: World, mailbox: Mailbox):
        grant = opened(world)
        tell()
        password = grant.connection.get("password", "")
        said = "".join(message.as_string() for _, message in mailbox.taken)
        assert grant.secret not in said
        assert not password or password not in said

    def test_without_a_mail_server_none_is_owed(self, world: World, settings: Any):
        settings.EMAIL_HOST = ""
        world.submit()
        tell()
        assert mails() == []
        assert told("asked") == ["bob", "dan", "dora"], "they have their inbox"

    def test_who_has_no_address_has_the_inbox(self, world: World, mailbox: Mailbox):
        get_user_model().objects.filter(pk=world.bob.pk).update(email=" ")
        world.submit()
        tell()
        assert mailbox.recipients == ["dan@example.com", "dora@example.com"]
        assert "bob" in told("asked")


@pytest.mark.django_db
class TestFailing:
    def test_one_bad_address_blocks_nobody(self, world: World, mailbox: Mailbox):
        mailbox.refused["bob@example.com"] = "550 no such user"
        world.submit()
        tell()
        assert mailbox.recipients == ["dan@example.com", "dora@example.com"]
        [row] = mails(person=world.bob)
        assert row.standing == DeliveryStanding.RETRYING
        assert row.last_error == "550 no such user"

    @pytest.mark.slow
    def test_it_is_tried_ever_more_slowly_for_two_days_and_then_given_up(
        self, world: World, mailbox: Mailbox, clock: Any
    ):
        mailbox.refused["bob@example.com"] = "451 later"
        world.submit()
        tell()
        gaps = []
        for _ in range(60):
            [row] = mails(person=world.bob)
            if row.next_try_at is None:
                break
            gaps.append((row.next_try_at - database_clock.now()).total_seconds())
            clock.forward(gaps[-1] + 1)
            sending.send_due("email")
        assert row.standing == DeliveryStanding.WITHDRAWN, "the request's time has run out by then"
        assert gaps[0] < 40
        assert 1000 < max(gaps) <= 3 * 3600 * 1.2

    @pytest.mark.slow
    def test_given_up_is_an_event_and_can_be_sent_again(
        self, world: World, mailbox: Mailbox, clock: Any
    ):
        mailbox.refused["alice@example.com"] = "451 later"
        opened(world)
        tell()
        clock.forward(2 * DAY)
        sending.send_due("email")
        [row] = mails(person=world.alice, notice__fact="approved")
        assert row.standing == DeliveryStanding.DEAD
        [event] = Event.objects.filter(action="delivery.failed")
        assert event.data["recipient"] == "alice"
        assert event.thread == row.notice.thread
        with pytest.raises(NotAllowed):
            resending.resend(row.pk, by=world.alice)
        mailbox.refused.clear()
        resending.resend(row.pk, by=world.ada)
        with pytest.raises(WrongState):
            resending.resend(row.pk, by=world.ada)
        assert sending.send_due("email") == 1
        [row] = mails(person=world.alice, notice__fact="approved")
        assert row.standing == DeliveryStanding.SENT
        actions = Event.objects.filter(subject_type="delivery").order_by("id")
        assert list(actions.values_list("action", flat=True)) == [
            "delivery.failed",
            "resend.refused",
            "delivery.resent",
            "resend.refused",
        ]

    def test_an_entry_of_an_inbox_is_not_sent_again(self, world: World):
        world.submit()
        tell()
        row = inbox.entries(world.bob).latest("pk")
        with pytest.raises(WrongState):
            resending.resend(row.pk, by=world.ada)
        assert inbox.unread(world.bob).count() == 1

    @pytest.mark.slow
    def test_a_deaf_server_is_not_waited_for_by_each(self, world: World, settings: Any):
        world.submit()
        with deaf_server(settings):
            tell()
        assert standings() == {DeliveryStanding.RETRYING: 3}
        assert {row.last_error for row in mails()} == {mails()[0].last_error}

    def test_what_comes_late_goes_only_to_those_whom_it_still_concerns(
        self, world: World, mailbox: Mailbox, clock: Any
    ):
        mailbox.refused["bob@example.com"] = "451 later"
        mailbox.refused["dan@example.com"] = "451 later"
        request = world.submit()
        tell()
        world.vote(request, "bob")
        mailbox.refused.clear()
        mailbox.taken.clear()
        clock.forward(90)
        sending.send_due("email")
        assert [message["Subject"] for _, message in mailbox.taken] == []
        for who in (world.bob, world.dan):
            [row] = mails(person=who, notice__fact="asked")
            assert row.standing == DeliveryStanding.WITHDRAWN

    def test_who_is_gone_meanwhile_gets_nothing(self, world: World, mailbox: Mailbox):
        world.submit()
        expanding.expand_due()
        get_user_model().objects.filter(pk=world.bob.pk).update(is_active=False)
        sending.send_due("email")
        assert mailbox.recipients == ["dan@example.com", "dora@example.com"]

    def test_one_that_breaks_a_channel_breaks_itself_alone(
        self, world: World, mailbox: Mailbox, monkeypatch: Any
    ):
        letter = email._letter

        def breaks(parcel: Any) -> Any:
            if parcel.person == world.dan:
                raise ZeroDivisionError
            return letter(parcel)

        monkeypatch.setattr(email, "_letter", breaks)
        world.submit()
        tell()
        assert mailbox.recipients == ["bob@example.com", "dora@example.com"]
        [row] = mails(person=world.dan)
        assert row.last_error == "ZeroDivisionError:"

    def test_whom_it_concerns_cannot_be_told_any_more_and_it_goes_out(
        self, world: World, mailbox: Mailbox, clock: Any
    ):
        """A fact that a later version knows and this one does not, for example."""
        world.submit()
        expanding.expand_due()
        Notice.objects.update(fact="of_tomorrow")
        clock.forward(90)
        assert sending.send_due("email") == 3

    def test_a_defect_of_a_channel_is_logged_and_not_raised(self, world: World, mailbox: Mailbox):
        assert sending.send_due("pigeon") == 0


@pytest.mark.django_db
class TestClaims:
    def test_what_somebody_else_sends_is_left_to_them(
        self, world: World, mailbox: Mailbox, clock: Any
    ):
        world.submit()
        expanding.expand_due()
        sending._claim(notify.get("email"))
        assert sending.send_due("email") == 0
        clock.forward(61)
        assert sending.send_due("email") == 3, "they have died over it"

    def test_whoever_was_paused_too_long_writes_nothing(
        self, world: World, mailbox: Mailbox, clock: Any
    ):
        world.submit()
        expanding.expand_due()
        [late, *_], _ = sending._claim(notify.get("email"))
        clock.forward(61)
        sending.send_due("email")
        sending._settle([late], Outcome(why="too late"))
        assert Delivery.objects.get(pk=late.pk).standing == DeliveryStanding.SENT

    def test_what_was_not_begun_in_time_is_given_back(
        self, world: World, mailbox: Mailbox, clock: Any
    ):
        world.submit()
        expanding.expand_due()
        channel = notify.get("email")
        claimed, _ = sending._claim(channel)
        assert sending._send(channel, claimed, time.monotonic() - 1) == 0
        assert {row.attempts for row in mails()} == {0}
        assert sending.send_due("email") == 3

    @pytest.mark.slow
    def test_what_is_urgent_goes_first(self, world: World, mailbox: Mailbox, monkeypatch: Any):
        monkeypatch.setattr(sending, "BATCH", 1)
        request = world.submit()
        world.vote(request, "bob")
        world.vote(request, "carol")
        world.submit("amir")
        expanding.expand_due()
        sending.send_due("email")
        subjects = [str(message["Subject"]) for _, message in mailbox.taken]
        assert subjects[-1].startswith("[debugflow] Approved:")
        assert len(subjects) == 4


@pytest.mark.django_db
class TestQuietHours:
    @pytest.fixture
    def at(self, clock: Any) -> Any:
        def forward(hour: int, minute: int = 0) -> None:
            """Until the database's clock shows this time in UTC."""
            now = database_clock.now()
            then = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
            clock.forward((then - now).total_seconds() % DAY)

        return forward

    @pytest.mark.slow
    def test_what_needs_no_action_waits_until_they_end(
        self, world: World, mailbox: Mailbox, clock: Any, at: Any
    ):
        at(21)
        wish(world.alice, quiet_from=clock_time(22), quiet_until=clock_time(7))
        at(23)
        request = world.submit()
        tell()
        world.vote(request, "bob", "deny")
        mailbox.taken.clear()
        tell()
        assert mailbox.to("alice@example.com") == []
        clock.forward(8 * 3600 + 1)
        tell()
        assert len(mailbox.to("alice@example.com")) == 1

    def test_they_are_of_the_persons_own_clock(
        self, world: World, mailbox: Mailbox, clock: Any, at: Any
    ):
        type(world.alice).objects.filter(pk=world.alice.pk).update(time_zone="Asia/Tokyo")
        wish(world.alice, quiet_from=clock_time(22), quiet_until=clock_time(7))
        at(13, 30)  # 22:30 there
        world.vote(world.submit(), "bob", "deny")
        tell()
        assert mailbox.to("alice@example.com") == []
        at(22, 1)
        tell()
        assert len(mailbox.to("alice@example.com")) == 1

    def test_who_is_asked_is_asked(self, world: World, mailbox: Mailbox, at: Any):
        wish(world.bob, quiet_from=clock_time(22), quiet_until=clock_time(7))
        at(23)
        world.submit()
        tell()
        assert len(mailbox.to("bob@example.com")) == 1


@pytest.mark.django_db
class TestTheDigest:
    @pytest.mark.slow
    def test_what_needs_no_action_comes_together(self, world: World, mailbox: Mailbox, clock: Any):
        wish(world.alice, digest_at=clock_time(9))
        world.vote(world.submit(), "bob", "deny")
        world.vote(world.submit(level=world.write), "bob", "deny")
        tell()
        assert mailbox.to("alice@example.com") == []
        clock.forward(DAY)
        tell()
        [message] = mailbox.to("alice@example.com")
        assert message["Subject"] == "[debugflow] 2 things to know of"
        assert "bob denied read-only on orders" in text_of(message)
        assert "bob denied read-write on orders" in text_of(message, "html")
        assert "once a day" in text_of(message)

    @pytest.mark.slow
    def test_a_long_one_names_some_and_counts_the_rest(
        self, world: World, mailbox: Mailbox, clock: Any, monkeypatch: Any
    ):
        monkeypatch.setattr(email, "LISTED", 1)
        wish(world.alice, digest_at=clock_time(9))
        world.vote(world.submit(), "bob", "deny")
        world.vote(world.submit(level=world.write), "bob", "deny")
        expanding.expand_due()
        clock.forward(DAY)
        tell()
        [message] = mailbox.to("alice@example.com")
        assert "And 1 more: https://debugflow.example.com/inbox/" in text_of(message)

    def test_what_is_urgent_does_not_wait_for_it(self, world: World, mailbox: Mailbox):
        wish(world.bob, digest_at=clock_time(9))
        world.submit()
        tell()
        assert len(mailbox.to("bob@example.com")) == 1

    def test_a_channel_that_is_off_is_off(self, world: World, mailbox: Mailbox):
        world.submit()
        expanding.expand_due()
        wish(world.bob, channels_off=["email"])
        wish(world.dan, channels_off=["email"])
        sending.send_due("email")
        assert mailbox.recipients == ["dora@example.com"]


class Deadly(Mailbox):
    """Kills the sender the moment it has taken its second mail, and takes all others."""

    victim = 0

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        said = await super().handle_DATA(server, session, envelope)
        if len(self.taken) == 2 and self.victim:
            os.kill(self.victim, signal.SIGKILL)
        return said


@contextmanager
def deadly_server(settings: Any) -> Any:
    mailbox = Deadly()
    controller = Controller(mailbox, hostname="127.0.0.1", port=free_port())
    controller.start()
    try:
        name(settings, controller.port)
        yield mailbox, controller.port
    finally:
        controller.stop()


SENDER = """
import sys, django
django.setup()
from approvals.notify import sending
sys.stdin.readline()
sending.send_due("email")
"""


@pytest.mark.slow
@pytest.mark.usefixtures("committed")
def test_killed_between_a_yes_and_its_note_one_is_sent_twice_and_none_is_lost(
    world: World, control: Control, settings: Any, clock: Any
):
    """At least once, honestly: the one that was under way, under the same name as before."""
    with deadly_server(settings) as (mailbox, port):
        for who in ("alice", "amir"):
            world.submit(who)
        expanding.expand_due()
        told = {
            "DATABASE_URL": control.url(),
            "DEBUGFLOW_DEMO": "True",
            "DJANGO_SETTINGS_MODULE": "debugflow.settings",
            "DEFAULT_FROM_EMAIL": settings.DEFAULT_FROM_EMAIL,
            "EMAIL_HOST": "127.0.0.1",
            "EMAIL_PORT": str(port),
            "EMAIL_USE_TLS": "False",
            "LOG_LEVEL": "ERROR",
        }
        with subprocess.Popen(
            [sys.executable, "-c", SENDER],
            cwd=CHECKOUT,
            env=os.environ | told,
            stdin=subprocess.PIPE,
        ) as sender:
            mailbox.victim = sender.pid
            sender.communicate(b"go\n", timeout=60)
            assert sender.returncode == -signal.SIGKILL
        mailbox.victim = 0
        assert standings() == {DeliveryStanding.SENT: 1, DeliveryStanding.WAITING: 5}
        clock.forward(61)
        assert sending.send_due("email") == 5
    names = Counter(str(message["Message-ID"]) for _, message in mailbox.taken)
    assert sorted(names.values()) == [1, 1, 1, 1, 1, 2]
    assert standings() == {DeliveryStanding.SENT: 6}


def test_the_pauses_double_and_have_a_bound():
    assert timedelta(seconds=20) < sending.retry(1) < timedelta(seconds=40)
    assert sending.retry(5) > sending.retry(2)
    assert sending.retry(40) < timedelta(hours=4)
