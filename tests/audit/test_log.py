"""Law 7: a change and its Event stand or fall together; a refusal's Event stands by itself."""

import enum
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.contenttypes.models import ContentType
from django.db import connection, transaction

from audit import context, log
from audit.actions import UnknownAction
from audit.log import ANONYMOUS, SYSTEM, Actor, NotAtomic, Subject, Unrecordable
from audit.models import Event, leaf_hash

ALICE = Actor("user", "1", "alice")
BOB = Actor("user", "2", "bob")
MALLORY = Actor("user", "666", "mallory")
REQUEST = Subject("request", "12", "alice: orders, read-only", "request:12")


class Colour(enum.Enum):
    RED = "red"


class Verdict(str, enum.Enum):  # noqa: UP042 (its str() is its name, which is the point)
    APPROVE = "approve"


class Account:
    """As much of a user as an Actor needs."""

    def __init__(self, pk: int | None) -> None:
        self.pk = pk

    def get_username(self) -> str:
        return "alice"


class Target:
    """Something of ours that says what it is called in the log."""

    def audit_subject(self) -> Subject:
        return Subject("target", "7", "orders-prod")


class Refused(Exception):
    """A verb says no."""


def told(**data: Any) -> Event:
    return log.record("story.told", actor=ALICE, subject=REQUEST, **data)


def elsewhere(look: Callable[[], Any]) -> Any:
    """What another connection sees."""

    def look_and_close() -> Any:
        try:
            return look()
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(look_and_close).result()


def change_then(error: Exception | None) -> None:
    ContentType.objects.create(app_label="story", model="changed")
    told(before="pending", after="approved")
    if error:
        raise error


def test_a_change_and_its_event_commit_together(committed):
    with transaction.atomic():
        change_then(None)
        assert elsewhere(Event.objects.count) == 0
    assert elsewhere(Event.objects.count) == 1
    assert elsewhere(ContentType.objects.filter(app_label="story").count) == 1


def test_a_refused_change_leaves_no_event_but_the_refusal(committed):
    with pytest.raises(Refused), transaction.atomic():
        change_then(Refused())
    log.record_refusal("story.refused", actor=MALLORY, subject=REQUEST, code="not_eligible")

    left = elsewhere(lambda: list(Event.objects.all()))
    assert [(event.action, event.actor_name) for event in left] == [("story.refused", "mallory")]
    assert left[0].data == {"code": "not_eligible"}
    assert not elsewhere(ContentType.objects.filter(app_label="story").exists)


def test_a_refusal_may_carry_what_any_event_may(db):
    refusal = log.record_refusal(
        "story.refused", actor=BOB, subject=REQUEST, code="stale", scope_hash="ab12", seen="cd34"
    )
    assert refusal.scope_hash == "ab12"
    assert refusal.data == {"code": "stale", "seen": "cd34"}


def test_a_refusal_inside_the_doomed_transaction_is_an_error(db):
    with pytest.raises(RuntimeError, match="durable"), transaction.atomic():
        log.record_refusal("story.refused", actor=MALLORY, subject=REQUEST, code="not_eligible")
    assert not Event.objects.exists()


def test_an_event_outside_a_transaction_is_an_error(committed):
    with pytest.raises(NotAtomic):
        told()
    assert not Event.objects.exists()


def test_an_undeclared_action_is_an_error(db):
    with pytest.raises(UnknownAction):
        log.record("story.misspelt", actor=ALICE, subject=REQUEST)


def test_an_event_tells_who_what_for_whom_and_from_where(db):
    with context.bind(request_id="r-12345678", address="192.0.2.7", agent="Firefox"):
        log.record(
            "story.told",
            actor=BOB,
            on_behalf_of=ALICE,
            subject=REQUEST,
            policy_version="3",
            scope_hash="ab12",
            comment="fine by me",
        )
    event = Event.objects.get()
    assert (event.actor_type, event.actor_id, event.actor_name) == ("user", "2", "bob")
    assert (event.on_behalf_of_id, event.on_behalf_of_name) == ("1", "alice")
    assert (event.subject_type, event.subject_id, event.thread) == ("request", "12", "request:12")
    assert (event.request_id, event.address, event.agent) == ("r-12345678", "192.0.2.7", "Firefox")
    assert (event.policy_version, event.scope_hash) == ("3", "ab12")
    assert event.data == {"comment": "fine by me"}
    assert event.mismatches() == []


def test_the_bytes_kept_are_canonical_and_are_what_was_hashed(db):
    with transaction.atomic():
        at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        pk = told(at=at, ä=1, a=[True, None]).pk
    event = Event.objects.get(pk=pk)
    entry = bytes(event.canonical)
    assert entry.startswith(b'{"action":"story.told","actor_id":"1","actor_name":"alice",')
    assert '"data":{"a":[true,null],"ä":1},"id":'.encode() in entry
    assert json.loads(entry)["at"] == "2026-01-02T03:04:05.000000Z"
    assert bytes(event.leaf_hash) == leaf_hash(entry)


def test_the_time_is_the_verbs_or_else_the_databases(db):
    verbs = datetime(2026, 1, 2, tzinfo=UTC)
    assert told(at=verbs).at == verbs
    with connection.cursor() as cursor:
        cursor.execute("SELECT dbnow()")
        earlier = cursor.fetchone()[0]
    assert timedelta(0) < told().at - earlier < timedelta(minutes=1)


def test_a_subject_may_name_itself_and_has_a_timeline_of_its_own(db):
    event = log.record("story.told", actor=SYSTEM, subject=Target())
    assert (event.subject_label, event.thread) == ("orders-prod", "target:7")


def test_a_timeline_is_its_threads_events_oldest_first(db):
    first, _, last = told(step=1), told(step=2), told(step=3)
    log.record("story.told", actor=ALICE, subject=Target())
    assert [event.data["step"] for event in log.timeline("request:12")] == [1, 2, 3]
    assert first.pk < last.pk
    assert not log.timeline("request:1").exists()


def test_two_events_that_tell_the_same_have_different_leaves(db):
    at = datetime(2026, 1, 2, tzinfo=UTC)
    assert told(at=at).leaf_hash != told(at=at).leaf_hash


def test_an_actor_is_an_account_as_text():
    assert Actor.of(Account(pk=1)) == ALICE
    assert ANONYMOUS.name == ""
    with pytest.raises(ValueError, match="ANONYMOUS"):
        Actor.of(Account(pk=None))


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC), "2026-01-02T03:04:05.000006Z"),
        (
            datetime(2026, 1, 2, 3, tzinfo=timezone(timedelta(hours=2))),
            "2026-01-02T01:00:00.000000Z",
        ),
        (("a", 1), ["a", 1]),
        ({"deep": [{"er": None}]}, {"deep": [{"er": None}]}),
        (Verdict.APPROVE, "approve"),
        (2**53 - 1, 2**53 - 1),
        ("line\nbreak \u2028 \U0001f600", "line\nbreak \u2028 \U0001f600"),
        (False, False),
    ],
)
def test_what_json_can_hold_exactly_is_kept(db, value, kept):
    event = Event.objects.get(pk=told(value=value).pk)
    assert event.data == {"value": kept}
    assert event.mismatches() == []


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (0.1, r"data\.value is a float"),
        ([1, {"a": Decimal(1)}], r"data\.value\[1\]\.a is a Decimal"),
        (timedelta(1), "timedelta"),
        (b"bytes", "bytes"),
        ({1, 2}, "set"),
        (Colour.RED, "Colour"),
        (datetime(2026, 1, 2), "without a time zone"),
        ({1: "a"}, "a key in data.value is text, not int"),
        ("sesame\x00", r"data\.value holds a NUL"),
        ({"sesame\x00": 1}, "holds a NUL"),
        ("sesame\ud800", "not Unicode"),
        (2**53, "beyond"),
    ],
)
def test_what_has_no_exact_form_is_refused_without_being_repeated(db, value, complaint):
    with pytest.raises(Unrecordable, match=complaint) as refusal:
        told(value=value)
    assert "sesame" not in str(refusal.value)
    assert not Event.objects.exists()


def test_columns_are_text_without_nul(db):
    with pytest.raises(Unrecordable, match="subject_id is text, not int"):
        log.record("story.told", actor=ALICE, subject=Subject("request", 12, "orders"))  # type: ignore[arg-type]
    with pytest.raises(Unrecordable, match="actor_name holds a NUL"):
        log.record("story.told", actor=Actor("user", "1", "ali\x00ce"), subject=REQUEST)


def test_sixteen_writers_at_once_each_keep_their_own_story(committed):
    def write(writer: int) -> None:
        try:
            for step in range(10):
                origin = context.bind(request_id=f"writer-{writer}")
                with origin, transaction.atomic(), connection.cursor() as cursor:
                    told(writer=writer, step=step)
                    cursor.execute("SELECT pg_current_xact_id()::text")
                    written.add((writer, step, int(cursor.fetchone()[0])))
        finally:
            connection.close()

    written: set[tuple[int, int, int]] = set()
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(write, range(16)))

    events = list(Event.objects.all())
    assert {(e.data["writer"], e.data["step"], e.xid) for e in events} == written
    assert len(written) == 160
    assert all(event.request_id == f"writer-{event.data['writer']}" for event in events)
    assert [event.mismatches() for event in events] == [[]] * 160
    assert len({bytes(event.leaf_hash) for event in events}) == 160


def _tell_and_fail(number: int) -> None:
    log.record("story.told", actor=SYSTEM, subject=REQUEST, number=number)
    raise ZeroDivisionError


def test_a_batch_outside_a_transaction_is_refused(committed):
    with pytest.raises(log.NotAtomic), log.batch():
        pass


@pytest.mark.django_db
def test_a_batch_is_written_whole_in_order_and_not_after_an_error():
    with transaction.atomic(), log.batch():
        for number in range(3):
            log.record("story.told", actor=SYSTEM, subject=REQUEST, number=number)
        assert not Event.objects.exists()
    assert [event.data["number"] for event in Event.objects.order_by("id")] == [0, 1, 2]
    assert not any(event.mismatches() for event in Event.objects.all())

    with pytest.raises(ZeroDivisionError), transaction.atomic(), log.batch():
        _tell_and_fail(9)
    assert Event.objects.count() == 3


@pytest.mark.django_db
def test_what_a_savepoint_in_a_batch_rolled_back_is_not_told():
    with transaction.atomic(), log.batch():
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            _tell_and_fail(1)
        log.record("story.told", actor=SYSTEM, subject=REQUEST, number=2)
    assert [event.data["number"] for event in Event.objects.all()] == [2]


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The ids of what a listener was given, each time."""
    given: list[list[str]] = []
    monkeypatch.setattr(log, "_listeners", [])

    def listener(events: Any) -> None:
        assert connection.in_atomic_block
        given.append([str(event.data["what"]) for event in events if event.pk])

    log.listen(listener)
    log.listen(listener)
    return given


@pytest.mark.django_db
def test_a_listener_is_given_what_was_written_once_and_together(heard: list[list[str]]):
    with transaction.atomic():
        told(what="alone")
        with log.batch():
            told(what="first")
            told(what="second")
        with log.batch():
            pass
    assert heard == [["alone"], ["first", "second"]]


@pytest.mark.django_db
def test_what_a_listener_raises_undoes_the_change(monkeypatch: pytest.MonkeyPatch):
    def refuses(events: Any) -> None:
        raise Refused

    monkeypatch.setattr(log, "_listeners", [refuses])
    before = Event.objects.count()
    with pytest.raises(Refused), transaction.atomic():
        told(what="never")
    assert Event.objects.count() == before
