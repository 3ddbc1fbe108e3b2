"""Who is told of what, in which words: the story of a request, and of what can go wrong with it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.urls import resolve

from approvals import alarms, discussion, escalation, grants, opening, tokens, workflow
from approvals.errors import ProvisionError
from approvals.models import Notice
from approvals.notify import outbox
from approvals.notify.expanding import NOBODY
from approvals.notify.facts import FACTS, TABLE
from approvals.tokens import TokenWish
from audit import actions, clock, log
from audit.log import SYSTEM, timeline
from tests.approvals.notify.telling import close, facts_of, opened, tell, told, wish, words_of
from tests.approvals.test_less import less
from tests.world import World, publish, stage

pytestmark = pytest.mark.django_db


class TestTheTable:
    def test_every_action_of_it_is_declared(self):
        named = {action for fact in TABLE for action in fact.actions}
        assert named <= actions.declared()

    def test_no_name_is_there_twice(self):
        assert len(FACTS) == len(TABLE)

    def test_what_needs_somebody_is_urgent(self):
        assert [fact.name for fact in TABLE if fact.required and not fact.urgent] == []


class TestARequest:
    def test_whoever_can_decide_is_asked_and_nobody_else(self, world: World):
        world.submit()
        tell()
        assert told("asked") == ["bob", "dan", "dora"]
        said = words_of("asked")
        assert said.startswith("alice asks for read-only on orders for 1 h | Orders hang since")
        assert "Approve or deny it in “Database”, by " in said

    def test_the_next_stage_is_asked_when_it_opens_and_the_others_need_not_act(self, world: World):
        request = world.submit()
        tell()
        world.vote(request, "bob")
        tell()
        assert told("asked") == ["bob", "carol", "chen", "dan", "dora", "dora"]
        assert told("not_needed") == ["dan", "dora"], "bob has voted"
        assert words_of("not_needed").startswith("“Database” has passed without you: alice asks")

    def test_alice_is_told_how_much_less_she_has(self, world: World):
        request = world.submit(level=world.write)
        world.vote(request, "bob", less=less(world.read, 1800))
        world.vote(request, "carol")
        tell()
        assert words_of("approved").startswith(
            "Approved with less: read-only on orders for alice for 30 min, instead of read-write "
            "for 1 h | "
        )

    def test_whoever_voted_before_they_could_be_asked_is_not_asked(self, world: World):
        publish(world, stage(world, "Both", "dba", "security"))
        request = world.submit()
        world.vote(request, "bob")
        tell()
        assert "bob" not in told("asked")

    def test_nobody_is_asked_about_what_is_decided_by_then(self, world: World):
        request = world.submit()
        workflow.cancel(request.pk, by=world.alice)
        tell()
        assert told("asked") == []
        assert not Notice.objects.exclude(last_error="").exists(), "and that is no error"

    def test_who_left_the_group_or_is_gone_is_not_asked(self, world: World):
        world.submit()
        world.groups["dba"].user_set.remove(world.dan)
        get_user_model().objects.filter(pk=world.dora.pk).update(is_active=False)
        tell()
        assert told("asked") == ["bob"]

    def test_nobody_left_to_ask_is_an_error_that_can_be_seen(self, world: World):
        request = world.submit()
        world.groups["dba"].user_set.clear()
        tell()
        assert told("asked") == []
        assert Notice.objects.get(fact="asked").last_error == NOBODY
        [event] = timeline(f"request:{request.pk}").filter(action="notice.reached_nobody")
        assert event.data == {"fact": "asked"}

    def test_approved_is_told_to_whoever_asked(self, world: World):
        world.approved()
        tell()
        assert told("approved") == ["alice"]
        assert words_of("approved").startswith("Approved: read-only on orders for alice for 1 h |")

    def test_denied_comes_with_the_reason(self, world: World):
        request = world.submit()
        tell()
        world.vote(request, "bob", "deny", comment="Use the replica.")
        tell()
        assert told("denied") == ["alice"]
        assert words_of("denied").startswith(
            "bob denied read-only on orders for alice | Use the replica. |"
        )
        assert told("not_needed") == ["dan", "dora"]
        assert words_of("not_needed").startswith("It was denied: alice asks")

    def test_what_one_did_oneself_one_is_not_told(self, world: World):
        request = world.submit()
        tell()
        workflow.cancel(request.pk, by=world.alice)
        tell()
        assert facts_of(world.alice) == []
        assert told("not_needed") == ["bob", "dan", "dora"]

    def test_what_ran_out_of_time_is_told_to_both_sides(self, world: World, clock: Any):
        request = world.submit()
        tell()
        clock.forward(30 * 86400)
        workflow.expire(request.pk)
        tell()
        assert told("undecided") == ["alice"]
        assert "Nobody decided in time." in words_of("undecided")
        assert words_of("not_needed").startswith("Its time has run out: alice asks")

    def test_reminders_and_escalations_follow_their_events(self, world: World):
        request = world.submit()
        tell()
        database = request.stages.get(name="Database")
        log.record("requeststage.reminded", actor=SYSTEM, subject=database)
        tell()
        assert told("reminded") == ["bob", "dan", "dora"]
        assert words_of("reminded").startswith("Still to be decided: alice asks for read-only")
        erin = get_user_model().objects.create_user("erin", "erin@example.com")
        world.groups["dba"].user_set.add(erin)
        database.candidates.create(user=erin, group=world.groups["dba"])
        log.record("requeststage.escalated", actor=SYSTEM, subject=database)
        tell()
        assert told("escalated") == ["erin"], "the others have been asked"

    def test_who_is_asked_only_once_it_is_escalated_is_asked_once(self, world: World, clock: Any):
        """After an outage of those who tell: the first notice asks everybody, and none is lost."""
        owners = world.groups["owners"]
        publish(world, stage(world, "Database", "dba", escalate_after=600, escalation_group=owners))
        request = world.submit()
        clock.forward(600)
        escalation.tend(request.pk)
        tell()
        assert told("asked") == ["bob", "dan", "dora", "olga"]
        assert told("escalated") == []
        assert Notice.objects.get(fact="escalated").last_error == ""

    def test_a_stalled_stage_is_told_to_administrators(self, world: World):
        request = world.submit()
        subject = request.stages.get(name="Database")
        log.record("requeststage.stalled", actor=SYSTEM, subject=subject)
        tell()
        assert told("stalled") == ["ada"]


class TestServices:
    def test_a_programs_account_is_told_nothing(self, world: World):
        request = world.submit()
        made = TokenWish(name="bot", scopes=["read"], days=7, service="bot")
        bot = tokens.make(world.ada.pk, by=world.ada, wish=made).row.account
        request.stages.get(name="Database").candidates.create(user=bot, group=world.groups["dba"])
        world.groups["dba"].user_set.add(bot)
        tell()
        assert "bot" not in told("asked")


class TestAccess:
    def test_it_can_be_used_and_is_about_to_end_and_has_ended(self, world: World, clock: Any):
        grant = opened(world)
        tell()
        assert facts_of(world.alice) == ["approved", "usable"]
        assert "the credential once" in words_of("usable")
        assert grant.secret not in words_of("usable")
        clock.forward(3600 - 660)
        assert outbox.note_endings() == 0, "eleven minutes before"
        clock.forward(120)
        assert outbox.note_endings() == 1
        assert outbox.note_endings() == 0, "once for each end"
        tell()
        assert "ends in 9 min" in words_of("ending")
        clock.forward(1800)
        close(grant)
        tell()
        assert facts_of(world.alice)[2:] == ["ending", "ended"]
        assert words_of("ended").startswith(
            "read-only on orders for alice has ended: ran its time |"
        )

    def test_a_short_access_is_told_of_its_end_when_a_fifth_is_left(self, world, clock):
        opened(world, duration=600)
        clock.forward(470)
        assert outbox.note_endings() == 0
        clock.forward(30)
        assert outbox.note_endings() == 1

    def test_an_end_that_is_moved_is_told_anew(self, world: World, clock: Any):
        grant = opened(world)
        assert grant.expires_at is not None
        clock.forward(3300)
        assert outbox.note_endings() == 1
        type(grant).objects.filter(pk=grant.pk).update(
            expires_at=grant.expires_at - timedelta(seconds=60)
        )
        assert outbox.note_endings() == 1

    def test_an_end_that_has_come_meanwhile_is_not_announced(self, world: World, clock: Any):
        grant = opened(world)
        clock.forward(3300)
        outbox.note_endings()
        grants.release(grant.pk, by=world.alice)
        tell()
        assert told("ending") == []

    def test_who_took_it_away_and_why(self, world: World):
        grant = opened(world)
        grants.revoke(grant.pk, by=world.bob, reason="The incident is over.")
        close(grant)
        tell()
        assert facts_of(world.alice) == ["approved", "revoked"], "it cannot be used any more"
        assert words_of("revoked").startswith(
            "bob took read-only on orders for alice away | The incident is over. |"
        )
        assert told("ended") == [], "it was told when it was taken away"

    def test_one_that_never_opened_is_taken_away_once(self, world: World):
        grant = world.approved()
        grants.revoke(grant.pk, by=world.bob, reason="No.")
        tell()
        assert told("revoked") == ["alice"]

    def test_whoever_releases_knows_it(self, world: World):
        grant = opened(world)
        tell()
        grants.release(grant.pk, by=world.alice)
        close(grant)
        tell()
        assert facts_of(world.alice) == ["approved", "usable"]

    def test_what_could_not_be_opened(self, world: World, clock: Any):
        grant = world.approved()
        world.server.fail_next("open", ProvisionError(permanent=True), times=1)
        opening.open_grant(grant.pk, worker="w")
        tell()
        assert "failed" in facts_of(world.alice)

    def test_what_is_stuck_is_told_to_owners_and_admins_and_not_by_a_second_mail(
        self, world: World, clock: Any, mailbox: Any
    ):
        grant = opened(world)
        tell()
        mailbox.taken.clear()
        clock.forward(3700)
        alarms.keep()
        tell()
        assert told("alarm") == ["ada", "olga"]
        assert told("alarm", "email") == []
        assert words_of("alarm").startswith("orders: read-only for alice (dbgf_")
        assert mailbox.recipients == []
        close(grant)
        alarms.keep()
        tell()
        assert told("alarm_over") == ["ada", "olga"]

    def test_giving_up_asks_one_more_person_and_never_the_holder(self, world: World, clock: Any):
        grant = opened(world)
        world.server.fail_next("cut", ProvisionError(), times=3)
        grants.revoke(grant.pk, by=world.olga, reason="Enough.")
        close(grant)
        clock.forward(40)
        close(grant)
        grants.abandon(grant.pk, by=world.olga, reason="The target is gone.")
        tell()
        assert told("abandon_asked") == ["ada"]


class TestComments:
    def test_whoever_is_named_is_told_and_whoever_asked(self, world: World):
        request = world.submit()
        tell()
        discussion.comment(request.pk, by=world.bob, text="Which replica, @dan?")
        tell()
        assert told("mentioned") == ["dan"]
        assert told("commented") == ["alice"]
        assert words_of("mentioned").startswith(
            "bob named you about read-only on orders for alice | Which replica, @dan? |"
        )

    def test_nobody_is_told_twice_of_one_comment(self, world: World):
        request = world.submit()
        discussion.comment(request.pk, by=world.bob, text="@alice, which replica?")
        tell()
        assert facts_of(world.alice) == ["mentioned"]

    def test_who_cannot_see_it_is_not_told(self, world: World):
        request = world.submit()
        discussion.comment(request.pk, by=world.bob, text="Ask @mallory.")
        tell()
        assert facts_of(world.mallory) == []


class TestWords:
    def test_other_peoples_text_is_one_harmless_line(self, world: World):
        request = world.submit(reason="One\r\nBcc: all\u202egpj.exe" + "x" * 1900)
        tell()
        notice = Notice.objects.get(fact="asked")
        assert notice.quote.startswith("One Bcc: all␦gpj.exe")
        assert len(notice.quote) == 300
        assert request.reason not in notice.text

    def test_every_notice_leads_to_a_page(self, world: World):
        opened(world)
        tell()
        for notice in Notice.objects.exclude(link=""):
            assert resolve(notice.link.partition("?")[0])


class TestDefects:
    def test_one_that_cannot_be_told_holds_up_no_other(self, world: World):
        world.submit()
        now = clock.now()
        Notice.objects.create(
            fact="usable",
            key="broken",
            subject_type="grant",
            subject_id="999999",
            thread="request:999999",
            at=now,
            urgent=True,
            next_try_at=now,
        )
        tell()
        assert told("asked") == ["bob", "dan", "dora"]
        broken = Notice.objects.get(key="broken")
        assert broken.last_error.startswith("LookupError: grant 999999")
        assert broken.attempts == 1
        assert broken.next_try_at is not None
        assert broken.next_try_at > now
        later = clock.now()
        Notice.objects.filter(pk=broken.pk).update(at=later - timedelta(days=3), next_try_at=later)
        tell()
        assert Notice.objects.get(key="broken").next_try_at is None, "not for ever"


class TestWishes:
    def test_whoever_does_not_wish_to_be_asked_is_spared(self, world: World):
        wish(world.bob, unasked=True)
        world.submit()
        tell()
        assert told("asked") == ["dan", "dora"]

    def test_but_not_when_nobody_else_is_left(self, world: World):
        for name in ("bob", "dan", "dora"):
            wish(world.people[name], unasked=True)
        world.submit()
        tell()
        assert told("asked") == ["bob", "dan", "dora"]

    def test_nor_from_an_escalation(self, world: World):
        wish(world.bob, unasked=True)
        request = world.submit()
        tell()
        subject = request.stages.get(name="Database")
        log.record("requeststage.escalated", actor=SYSTEM, subject=subject)
        tell()
        assert told("escalated") == ["bob"]
