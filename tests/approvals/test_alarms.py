"""Alarms: who is told of what, when, how often, and what a mail server or a name can do to it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connection, connections
from guardian.shortcuts import assign_perm

from approvals import access, administration, alarms, closing, mails, opening
from approvals.errors import ProvisionError
from approvals.mails import NOT_CONFIGURED, one_line
from approvals.models import AccessRequest, Alarm, AlarmKind, Grant, Reconciliation, Target
from approvals.sentences import event_sentence
from audit import clock as database_clock
from audit.models import Event
from tests.approvals.smtp import Mailbox, deaf_server, dripping_server, mail_server, name, text_of
from tests.world import World

HOUR = 3600
ENDED = 3600 + 6  # seconds after which an access of an hour is overdue


@pytest.fixture
def mailbox(settings: Any) -> Iterator[Mailbox]:
    with mail_server(settings) as running:
        yield running


def opened(world: World, who: str = "alice", **wish: Any) -> Grant:
    grant = world.approved(who, **wish)
    opening.open_grant(grant.pk, worker="w")
    return Grant.objects.get(pk=grant.pk)


@pytest.fixture
def late(world: World, clock: Any) -> Grant:
    """alice's access, past its end with nobody there to take it away."""
    grant = opened(world)
    clock.forward(ENDED)
    return grant


def look(clock: Any, seconds: float = 25) -> int:
    """As the sweeper does it: alarms are looked after, and some time later the mails are sent."""
    alarms.keep()
    clock.forward(seconds)
    alarms.keep()
    return alarms.mail_due()


def end(grant: Grant) -> None:
    closing.close_grant(grant.pk, worker="w")
    assert Grant.objects.get(pk=grant.pk).state == "ended"


def several(grant: Grant, count: int) -> None:
    """As many more like it: rows copied, since chains of votes are not what is tested."""
    stages = list(grant.request.stages.all())
    for _ in range(count):
        request = AccessRequest.objects.get(pk=grant.request_id)
        request.pk = None
        request.save(force_insert=True)
        for stage in stages:
            stage.pk, stage.request = None, request
            stage.save(force_insert=True)
        copy = Grant.objects.get(pk=grant.pk)
        copy.pk, copy.request = None, request
        copy.save(force_insert=True)


def change(person: Any, **fields: Any) -> None:
    """Past every form: whatever a column takes may be in it."""
    get_user_model().objects.filter(pk=person.pk).update(**fields)


def actions() -> list[str]:
    names = Event.objects.filter(action__startswith="alarm.").order_by("id")
    return list(names.values_list("action", flat=True))


def test_an_access_past_its_end_is_told_to_its_owner_and_the_admins_within_a_minute(
    world: World, late: Grant, clock: Any, mailbox: Mailbox
):
    before = database_clock.now()
    assert look(clock) == 2
    assert (database_clock.now() - before).total_seconds() < 60
    assert mailbox.recipients == ["ada@example.com", "olga@example.com"]
    [message] = mailbox.to("olga@example.com")
    assert message["To"] == "olga@example.com"
    assert "ada" not in message.as_string()
    assert message["Subject"] == "[debugflow] orders: access past its end (1)"
    assert message["From"] == "debugflow@example.com"
    assert message["Auto-Submitted"] == "auto-generated"
    for kind in ("plain", "html"):
        said = text_of(message, kind)
        assert f"read-only for alice ({late.account}) was to end on" in said
        assert f"https://debugflow.example.com/grants/{late.pk}/" in said


@pytest.mark.slow
def test_one_that_is_over_before_anybody_was_told_is_told_to_nobody(
    late: Grant, clock: Any, mailbox: Mailbox
):
    alarms.keep()
    end(late)
    assert look(clock, 2 * HOUR) == 0
    assert mailbox.taken == []
    assert actions() == ["alarm.raised", "alarm.ended"]


@pytest.mark.slow
def test_it_is_repeated_every_hour_and_told_once_when_it_is_over(
    late: Grant, clock: Any, mailbox: Mailbox
):
    look(clock)
    assert look(clock, HOUR - 60) == 0
    assert look(clock, 60) == 2
    end(late)
    assert look(clock, 61) == 2
    assert look(clock, 2 * HOUR) == 0
    subjects = [message["Subject"] for message in mailbox.to("olga@example.com")]
    assert subjects == ["[debugflow] orders: access past its end (1)"] * 2 + [
        "[debugflow] orders: over: access past its end (1)"
    ]
    alarm = Alarm.objects.get()
    assert (alarm.mails, alarm.next_mail_at, alarm.last_error) == (3, None, "")


def test_each_alarm_is_told_to_the_audit_log_with_what_it_was_about(
    late: Grant, clock: Any, mailbox: Mailbox
):
    look(clock)
    end(late)
    alarms.keep()
    raised, ended = Event.objects.filter(action__startswith="alarm.").order_by("id")
    assert raised.thread == ended.thread == f"request:{late.request_id}"
    assert event_sentence(raised).startswith("debugflow raised an alarm: read-only for alice (dbgf")
    assert ended.data["mails"] == 1
    assert ended.data["lasted_s"] >= 25


@pytest.mark.slow
def test_ending_that_fails_becomes_an_alarm_with_its_last_error(
    world: World, clock: Any, mailbox: Mailbox
):
    grant = opened(world)
    world.server.fail_next("cut", ProvisionError("The target does not answer: no route to host."))
    clock.forward(HOUR)
    closing.close_grant(grant.pk, worker="w")
    assert Grant.objects.get(pk=grant.pk).stuck_since
    look(clock, 31)
    look(clock, 25)
    kinds = Alarm.objects.values_list("kind", flat=True)
    assert sorted(kinds) == [AlarmKind.OVERDUE, AlarmKind.STUCK]
    message = mailbox.to("olga@example.com")[-1]
    assert "ending access keeps failing (1)" in message["Subject"]
    assert "Last error: The target does not answer: no route to host." in text_of(message)


def abandoned(grant: Grant, world: World) -> None:
    """Two people gave it up, as the verb leaves it."""
    Grant.objects.filter(pk=grant.pk).update(stuck_since=database_clock.now())
    for who in (world.olga, world.ada):
        grant.abandonments.create(person=who, reason="Gone for good.", at=database_clock.now())
    Grant.objects.filter(pk=grant.pk).update(abandoned_at=database_clock.now())


@pytest.mark.slow
def test_an_abandoned_one_is_one_alarm_repeated_daily(
    world: World, late: Grant, clock: Any, mailbox: Mailbox
):
    world.server.fail_next("cut", ProvisionError("No route to host."), times=9)
    closing.close_grant(late.pk, worker="w")
    abandoned(late, world)
    look(clock, 40)
    alarm = Alarm.objects.get(ended_at=None)
    assert alarm.kind == AlarmKind.ABANDONED
    assert "may still be open" in alarm.text
    assert look(clock, 23 * HOUR) == 0
    assert look(clock, HOUR) == 2
    assert len(mailbox.to("olga@example.com")) == 2


def differing(world: World, target: Target | None = None, **fields: Any) -> Reconciliation:
    row, _ = Reconciliation.objects.update_or_create(
        target=target or world.target, defaults={"next_at": database_clock.now(), **fields}
    )
    return row


def test_a_target_that_differs_is_an_alarm_of_its_own_until_it_does_not(
    world: World, clock: Any, mailbox: Mailbox
):
    differing(world, findings=["dbgf_4 is a superuser"])
    look(clock)
    [message] = mailbox.to("olga@example.com")
    assert message["Subject"] == "[debugflow] orders: a target differs from the ledger (1)"
    assert "dbgf_4 is a superuser" in text_of(message)
    assert Event.objects.get(action="alarm.raised").thread == f"target:{world.target.pk}"
    differing(world, findings=[])
    look(clock, 61)
    assert "over: " in mailbox.to("olga@example.com")[-1]["Subject"]


def test_removals_that_wait_for_consent_are_named(world: World, clock: Any, mailbox: Mailbox):
    names = ["dbgf_7", "dbgf_8"]
    differing(world, held_back=names, held_back_since=database_clock.now())
    look(clock)
    said = text_of(mailbox.to("olga@example.com")[0])
    assert "2 removals wait for consent: dbgf_7, dbgf_8" in said


def test_a_comparison_that_fails_once_is_no_alarm_and_one_that_keeps_failing_is(
    world: World, clock: Any
):
    differing(world, ran_at=database_clock.now(), last_error="Connection refused.")
    assert alarms.keep() == 0
    clock.forward(601)
    assert alarms.keep() == 1
    assert "cannot be compared with the ledger: Connection refused." in Alarm.objects.get().text


def test_one_that_cannot_be_compared_any_more_says_why_and_what_it_was_before(
    world: World, clock: Any, mailbox: Mailbox
):
    """The old findings stay until a comparison says otherwise, and are not why it fails."""
    ran_at = database_clock.now()
    differing(world, ran_at=ran_at, findings=["dbgf_4 is a superuser"], last_error="No route.")
    look(clock)
    [alarm] = Alarm.objects.all()
    assert alarm.text == (
        "it cannot be compared with the ledger: No route. "
        f"(compared last on {ran_at:%d %b %Y, %H:%M:%S} UTC); dbgf_4 is a superuser"
    )


def test_a_mail_says_how_it_began_since_when_and_what_it_is_by_now(
    world: World, clock: Any, mailbox: Mailbox
):
    differing(world, findings=["dbgf_4 is a superuser"])
    look(clock)
    began = Alarm.objects.get()
    differing(world, ran_at=database_clock.now(), last_error="No route to host.")
    look(clock, HOUR)
    first, second = (text_of(message) for message in mailbox.to("olga@example.com"))
    assert "By now" not in first
    for said in (first, second):
        assert "ledger: dbgf_4 is a superuser\r\n" in said
        assert f"Since {began.began_at:%d %b %Y, %H:%M:%S} UTC" in said
    assert "By now: it cannot be compared with the ledger: No route to host. (compared" in second
    now_is = Alarm.objects.get()
    assert (now_is.pk, now_is.text) == (began.pk, began.text)


@pytest.mark.slow
def test_two_hundred_at_once_are_one_mail_to_each_that_names_twenty(
    late: Grant, clock: Any, mailbox: Mailbox
):
    several(late, 199)
    assert look(clock) == 2
    assert Alarm.objects.count() == 200
    [message] = mailbox.to("olga@example.com")
    assert "access past its end (200)" in message["Subject"]
    said = text_of(message)
    assert said.count("was to end on") == 20
    assert "and 180 more" in said


@pytest.mark.slow
def test_more_of_the_same_is_told_together_ten_minutes_later(
    late: Grant, clock: Any, mailbox: Mailbox
):
    look(clock)
    several(late, 1)
    assert look(clock, 60) == 0
    several(late, 2)
    assert look(clock, 541) == 2
    assert "access past its end (4)" in mailbox.to("olga@example.com")[-1]["Subject"]
    assert look(clock, 600) == 0


@pytest.mark.slow
def test_one_that_comes_and_goes_does_not_become_a_flood(
    world: World, clock: Any, mailbox: Mailbox
):
    for _ in range(10):
        differing(world, findings=["a role drifted"])
        look(clock, 30)
        differing(world, findings=[])
        look(clock, 30)
    assert 1 <= len(mailbox.to("olga@example.com")) <= 3


@pytest.mark.slow
def test_only_whoever_owns_the_target_or_administers_is_told(
    world: World, late: Grant, clock: Any, mailbox: Mailbox
):
    assign_perm("approvals.own_target", world.dan, world.target)  # by himself, not by a group
    assign_perm("approvals.own_target", world.bob, world.target)
    assign_perm("approvals.watch_target", world.amir, world.target)
    assign_perm("approvals.change_target", world.carol)  # holds it, and is no staff
    assign_perm("approvals.change_target", world.chen)
    change(world.bob, is_active=False)
    change(world.dan, email="  ")
    change(world.chen, is_staff=True)
    look(clock)
    told = ["ada@example.com", "chen@example.com", "olga@example.com"]
    assert mailbox.recipients == told
    assert [str(one) for one in access.owners(world.target)] == ["dan", "olga"]


def test_one_address_of_two_people_is_told_once(
    world: World, late: Grant, clock: Any, mailbox: Mailbox
):
    change(world.ada, email="Olga@Example.com")
    assert look(clock) == 1


@pytest.mark.slow
def test_nobody_to_tell_is_said(world: World, late: Grant, clock: Any, mailbox: Mailbox):
    get_user_model().objects.update(email="")
    assert look(clock) == 0
    alarm = Alarm.objects.get()
    assert "nobody to tell" in alarm.last_error
    assert alarm.mails == 0


@pytest.mark.slow
def test_without_a_mail_server_the_alarm_says_so(late: Grant, clock: Any):
    assert look(clock) == 0
    assert NOT_CONFIGURED in Alarm.objects.get().last_error


@pytest.mark.slow
def test_whom_the_server_refuses_does_not_keep_the_others_from_being_told(
    late: Grant, clock: Any, mailbox: Mailbox
):
    mailbox.refused["olga@example.com"] = "550 No such\tuser here"
    assert look(clock) == 1
    assert mailbox.recipients == ["ada@example.com"]
    alarm = Alarm.objects.get()
    assert alarm.last_error == "olga@example.com: 550 No such user here"
    assert (alarm.mails, alarm.failures) == (1, 0)
    assert look(clock, HOUR - 60) == 0


@pytest.mark.slow
def test_a_server_that_refuses_everything_is_tried_again_ever_more_slowly(
    late: Grant, clock: Any, mailbox: Mailbox, settings: Any
):
    right = settings.EMAIL_PORT
    settings.EMAIL_PORT = 1
    gaps = []
    look(clock)
    for _ in range(6):
        alarm = Alarm.objects.get()
        assert "ConnectionRefusedError" in alarm.last_error
        assert alarm.next_mail_at is not None
        gaps.append(round((alarm.next_mail_at - database_clock.now()).total_seconds()))
        look(clock, gaps[-1] + 1)
    assert gaps == [60, 120, 240, 480, 900, 900]
    settings.EMAIL_PORT = right
    assert look(clock, 901) == 2
    alarm = Alarm.objects.get()
    assert (alarm.failures, alarm.last_error, alarm.mails) == (0, "", 1)


@pytest.mark.slow
def test_a_server_that_never_answers_is_let_go_of(late: Grant, clock: Any, settings: Any):
    with deaf_server(settings) as listener:
        begun = time.monotonic()
        assert look(clock) == 0
        assert time.monotonic() - begun < 10
        listener.accept()[0].close()
        with pytest.raises(BlockingIOError):  # one wait of EMAIL_TIMEOUT, not one for each person
            listener.accept()
    assert "timed out" in Alarm.objects.get().last_error


@pytest.mark.slow
def test_a_server_that_drips_an_answer_is_let_go_of(late: Grant, clock: Any, settings: Any):
    """Its next byte always comes in time, and its answer never."""
    with dripping_server(settings, every=0.2):
        begun = time.monotonic()
        assert look(clock) == 0
        assert time.monotonic() - begun < 5
    assert "timed out" in Alarm.objects.get().last_error


@pytest.mark.slow
def test_a_dead_mail_server_is_waited_for_once_not_for_every_target(
    world: World, clock: Any, settings: Any
):
    for place in ("billing", "stock"):
        target = Target(name=place, kind="memory", environment="staging", config={"name": place})
        administration.save_target(target, by=world.ada, clear_secrets={})
        differing(world, target=target, findings=["a role drifted"])
    with deaf_server(settings):
        look(clock)
        waiting = Alarm.objects.filter(next_mail_at__lte=database_clock.now())
        assert waiting.count() == 1  # for the next run, five seconds later
        alarms.mail_due()
        assert waiting.count() == 0


@pytest.mark.slow
def test_an_end_that_nobody_can_be_told_of_is_given_up_after_a_day(
    late: Grant, clock: Any, mailbox: Mailbox, settings: Any
):
    look(clock)
    end(late)
    settings.EMAIL_PORT = 1
    look(clock, 61)
    assert Alarm.objects.get().next_mail_at is not None
    look(clock, 25 * HOUR)
    assert Alarm.objects.get().next_mail_at is None


EVIL = "orders\r\nBcc: mallory@example.com\r\n\r\n<script>alert(1)</script>\u202e {{ 7|add:7 }}"


def test_hostile_text_forges_no_header_and_no_line(
    world: World, late: Grant, clock: Any, mailbox: Mailbox
):
    world.target.name = EVIL[:63]
    world.target.save(update_fields=["name"])
    change(world.alice, username=EVIL)
    Grant.objects.filter(pk=late.pk).update(last_error=EVIL)
    assert look(clock) == 2
    assert mailbox.recipients == ["ada@example.com", "olga@example.com"]
    [message] = mailbox.to("olga@example.com")
    assert "Bcc" not in message
    assert "orders Bcc: mallory@example.com" in message["Subject"]
    plain, html = text_of(message), text_of(message, "html")
    assert not any(line.startswith("Bcc") for line in plain.splitlines())
    assert "<script>" in plain
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "\u202e" not in plain + html
    assert "{{ 7|add:7 }}" in plain


@pytest.mark.slow
def test_a_hostile_address_is_refused_and_the_others_are_told(
    world: World, late: Grant, clock: Any, mailbox: Mailbox
):
    change(world.olga, email="olga@example.com\nBcc: mallory@example.com")
    assert look(clock) == 1
    assert mailbox.recipients == ["ada@example.com"]
    assert "Invalid address" in Alarm.objects.get().last_error


@pytest.mark.parametrize(
    "text", ["a\nb", "a\r\n\tb", "a\x00b", "a\u2028b", "a\u200bb", "a\x1b[2Jb"]
)
def test_other_peoples_text_is_one_printable_line(text: str):
    assert one_line(text).isprintable()


@pytest.mark.slow
def test_a_mail_holds_no_secret(world: World, late: Grant, clock: Any, mailbox: Mailbox):
    look(clock)
    everything = "".join(message.as_string() for _, message in mailbox.taken)
    assert late.secret
    assert late.secret not in everything
    assert "admin" not in text_of(mailbox.to("olga@example.com")[0]).replace("administrator", "")


def test_what_fails_is_logged_and_never_raised(db: None, monkeypatch: Any, caplog: Any):
    monkeypatch.setattr(alarms, "_raise", _breaks)
    assert alarms.keep() == 0
    monkeypatch.setattr("approvals.alarm_mails._claim", _breaks)
    assert alarms.mail_due() == 0
    assert "alarms could not be looked after" in caplog.text
    assert "mails about alarms could not be sent" in caplog.text


def _breaks(*args: Any) -> Any:
    raise RuntimeError("broken")


def in_threads(count: int, work: Any) -> list[Any]:
    """The work done by so many at the same moment, each on a connection of its own."""
    barrier = threading.Barrier(count)

    def one(_: int) -> Any:
        barrier.wait(timeout=10)
        try:
            return work()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


@pytest.mark.slow
def test_four_sweepers_raise_each_alarm_once_and_send_each_mail_once(
    committed: None, world: World, late: Grant, clock: Any, mailbox: Mailbox, caplog: Any
):
    several(late, 30)
    assert sum(in_threads(4, alarms.keep)) == Alarm.objects.count() == 31
    assert actions() == ["alarm.raised"] * 31
    clock.forward(25)
    assert sum(in_threads(4, alarms.mail_due)) == 2
    assert mailbox.recipients == ["ada@example.com", "olga@example.com"]
    Grant.objects.update(cut_at=database_clock.now())
    assert sum(in_threads(4, alarms.keep)) == 31
    assert actions()[31:] == ["alarm.ended"] * 31
    assert caplog.records == []  # whoever comes second finds it done, which is no error


def test_an_alarm_keeps_no_cut_waiting_and_waits_for_none(
    committed: None, world: World, late: Grant
):
    """Whoever holds a grant for too long is what an alarm is about."""
    with connection.cursor() as cursor, ThreadPoolExecutor(1) as beside:
        cursor.execute("BEGIN")
        cursor.execute("SELECT FROM approvals_grant WHERE id = %s FOR UPDATE", [late.pk])
        try:
            assert beside.submit(in_threads, 1, alarms.keep).result(timeout=10) == [1]
        finally:
            cursor.execute("ROLLBACK")


@pytest.mark.slow
def test_one_that_ends_while_its_mail_is_on_its_way_is_told_to_be_over(
    late: Grant, clock: Any, mailbox: Mailbox, monkeypatch: Any
):
    def post(*args: Any, **options: Any) -> list[str]:
        end(late)
        alarms.keep()
        monkeypatch.setattr("approvals.alarm_mails.post", mails.post)
        return mails.post(*args, **options)

    monkeypatch.setattr("approvals.alarm_mails.post", post)
    look(clock)
    look(clock, 61)
    subjects = [message["Subject"] for message in mailbox.to("olga@example.com")]
    assert [subject.count("over: ") for subject in subjects] == [0, 1]


@pytest.mark.slow
def test_a_sender_that_dies_is_followed_by_another(
    late: Grant, clock: Any, mailbox: Mailbox, monkeypatch: Any
):
    with monkeypatch.context() as patched:
        patched.setattr("approvals.alarm_mails.post", _breaks)
        assert look(clock) == 0
    assert look(clock, 100) == 0
    assert look(clock, 100) == 2


@pytest.mark.slow
def test_a_moment_in_a_mail_is_the_same_for_all(late: Grant, clock: Any, mailbox: Mailbox):
    look(clock)
    said = text_of(mailbox.to("olga@example.com")[0])
    assert late.expires_at is not None
    assert f"{late.expires_at:%d %b %Y, %H:%M:%S} UTC" in said
    assert Alarm.objects.get().began_at > late.expires_at + timedelta(seconds=5)


def test_the_deaf_server_is_named_like_a_real_one(settings: Any):
    name(settings, 25)
    assert (settings.EMAIL_HOST, settings.EMAIL_PORT) == ("127.0.0.1", 25)
