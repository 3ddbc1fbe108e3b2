"""The outbox: a notice stands or falls with its change, and is told once, whoever comes by."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import IntegrityError, connection, connections, transaction
from django.test.utils import CaptureQueriesContext

from approvals import notify, workflow
from approvals.errors import NotAllowed
from approvals.models import Delivery, Notice
from approvals.notify import expanding, outbox, sending
from audit import log
from audit.log import SYSTEM, Subject
from tests.approvals.notify.telling import opened, tell, told
from tests.approvals.smtp import Mailbox
from tests.world import World


@pytest.mark.django_db
class TestWithTheChange:
    def test_a_change_that_is_rolled_back_is_told_to_nobody(self, world: World):
        with transaction.atomic():
            world.submit()
            assert Notice.objects.filter(fact="asked").count() == 1
            transaction.set_rollback(True)
        assert not Notice.objects.exists()

    def test_a_refusal_tells_nobody(self, world: World):
        request = world.submit()
        before = Notice.objects.count()
        with pytest.raises(NotAllowed):
            world.vote(request, "mallory")
        assert Notice.objects.count() == before

    def test_it_costs_a_verb_one_statement(self, world: World):
        """And a ring, when it commits."""
        with CaptureQueriesContext(connection) as seen:
            world.approved()
        written = [query for query in seen if "INSERT INTO approvals_notice" in query["sql"]]
        assert len(written) == 3, "of the request and of each vote"

    def test_what_nobody_needs_to_hear_of_costs_none(self, world: World):
        with CaptureQueriesContext(connection) as seen, transaction.atomic():
            log.record("policy.changed", actor=SYSTEM, subject=Subject("policy", "1", "x"))
        assert not [query for query in seen if "approvals_notice" in query["sql"]]

    def test_the_same_event_makes_a_notice_once(self, world: World):
        world.submit()
        event = log.timeline(Notice.objects.get(fact="asked").thread).get(
            action="requeststage.open"
        )
        with pytest.raises(IntegrityError), transaction.atomic():
            outbox.written([event])


@pytest.mark.django_db
class TestReplay:
    def test_what_is_expanded_twice_is_told_once(self, world: World):
        world.submit()
        tell()
        Notice.objects.update(next_try_at=Notice.objects.get(fact="asked").at)
        tell()
        assert told("asked") == ["bob", "dan", "dora"]

    def test_the_database_holds_it(self, world: World):
        world.submit()
        tell()
        row = Delivery.objects.filter(person=world.bob).first()
        assert row is not None
        row.pk = None
        with pytest.raises(IntegrityError), transaction.atomic():
            row.save(force_insert=True)


@pytest.mark.django_db
class TestForgetting:
    def test_what_is_long_ago_is_forgotten_and_what_is_owed_is_not(
        self, world: World, mailbox: Mailbox, clock: Any
    ):
        world.submit()
        tell()
        mailbox.refused["carol@example.com"] = "451 later"
        assert outbox.forget_old() == 0
        clock.forward(181 * 86400)
        world.submit("amir")
        expanding.expand_due()
        Notice.objects.update(at=Notice.objects.earliest("pk").at)
        assert outbox.forget_old() == 1
        assert Delivery.objects.filter(next_try_at__isnull=False).count() == 3
        assert outbox.forget_old() == 0


def at_once(count: int, work: Any) -> list[Any]:
    barrier = threading.Barrier(count)

    def run(_: int) -> Any:
        try:
            connection.ensure_connection()
            barrier.wait(timeout=10)
            return work()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


@pytest.mark.usefixtures("committed")
class TestAtOnce:
    def test_of_four_workers_each_notice_is_expanded_by_one(self, world: World):
        for who in ("alice", "amir"):
            world.submit(who)
        at_once(4, expanding.expand_due)
        assert told("asked") == sorted(["bob", "dan", "dora"] * 2)

    def test_of_four_sweepers_one_notes_an_end(self, world: World, clock: Any):
        opened(world)
        clock.forward(3300)
        assert sum(at_once(4, outbox.note_endings)) == 1
        assert Notice.objects.filter(fact="ending").count() == 1

    def test_of_four_processes_each_message_is_sent_by_one(self, world: World, mailbox: Mailbox):
        for who in ("alice", "amir"):
            world.submit(who)
        expanding.expand_due()
        # As four processes would: within one, `send_due` lets one thread at it.
        assert sum(at_once(4, lambda: sending._send_due(notify.get("email")))) == 6
        assert len(mailbox.taken) == 6

    def test_a_vote_neither_waits_for_telling_nor_is_waited_for(self, world: World):
        """Notices are locked by whoever expands them, and by no verb."""
        request = world.submit()
        other = threading.Event()

        def vote() -> None:
            try:
                world.vote(request, "bob")
            finally:
                connections.close_all()
                other.set()

        with transaction.atomic():
            list(Notice.objects.select_for_update())
            with ThreadPoolExecutor(1) as pool:
                pool.submit(vote).result(timeout=10)
        assert other.is_set()
        workflow.cancel(request.pk, by=world.alice)
