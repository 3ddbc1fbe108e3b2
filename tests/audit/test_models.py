"""An Event cannot be changed through the ORM, and says itself when its columns were."""

import json
from datetime import UTC, datetime

import psycopg
import pytest
import rfc8785
from django.db import transaction

from audit import log
from audit.log import Actor, Subject
from audit.models import COLUMNS, AppendOnly, Event, leaf_hash, timestamp

ALICE = Actor("user", "1", "alice")
REQUEST = Subject("request", "12", "alice: orders, read-only", "request:12")


def told() -> Event:
    with transaction.atomic():
        return log.record("story.told", actor=ALICE, subject=REQUEST, urgent=True, minutes=30)


def rewritten(event: Event, entry: bytes) -> Event:
    """`event` as it would be with other canonical bytes and a hash that fits them."""
    event.canonical, event.leaf_hash = entry, leaf_hash(entry)
    return event


@pytest.mark.parametrize(
    "change",
    [
        lambda event: event.save(),
        lambda event: event.save(update_fields=["action"]),
        lambda event: event.delete(),
        lambda event: Event.objects.update(action="story.forged"),
        lambda event: Event.objects.filter(pk=event.pk).delete(),
        lambda event: Event.objects.bulk_create([Event()]),
        lambda event: Event.objects.bulk_update([event], ["action"]),
    ],
)
def test_the_orm_only_adds_events(db, change):
    event = told()
    with pytest.raises(AppendOnly, match="only ever added"):
        change(event)
    assert Event.objects.get().action == "story.told"


def test_a_taken_id_is_an_error_and_never_an_update(db):
    event = told()
    copy = Event(**{name: getattr(event, name) for name in (*COLUMNS, "canonical", "leaf_hash")})
    with pytest.raises(Exception, match="audit_event_pkey"), transaction.atomic():
        copy.save()


def test_the_leaf_hash_is_that_of_rfc_9162():
    # The hash of the empty leaf, from the test vectors of certificate-transparency-go.
    empty = "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert leaf_hash(b"").hex() == empty


def test_times_have_one_spelling():
    assert timestamp(datetime(2026, 1, 2, tzinfo=UTC)) == "2026-01-02T00:00:00.000000Z"
    with pytest.raises(ValueError, match="time zone"):
        timestamp(datetime(2026, 1, 2))


def test_a_hash_of_other_bytes_is_noticed(db):
    event = told()
    event.leaf_hash = leaf_hash(bytes(event.canonical) + b" ")
    assert event.mismatches() == ["leaf_hash"]


@pytest.mark.parametrize(
    "forge",
    [
        lambda told: b"not JSON",
        lambda told: b"[]",
        lambda told: b"\xff",
        lambda told: b"[" * 100_000,
        lambda told: json.dumps(told).encode(),  # the same members, spaced
        lambda told: rfc8785.dumps(told)[:-1] + b',"v":1}',  # a member twice
        lambda told: rfc8785.dumps({**told, "v": 2}),
        lambda told: rfc8785.dumps({**told, "extra": 1}),
        lambda told: rfc8785.dumps({k: told[k] for k in told if k != "agent"}),
    ],
)
def test_bytes_that_are_not_a_whole_canonical_event_are_noticed(db, forge):
    event = told()
    forged = forge(json.loads(bytes(event.canonical)))
    assert rewritten(event, forged).mismatches() == ["canonical"]


@pytest.mark.parametrize("data", [{"urgent": 1, "minutes": 30}, {"minutes": 10**20}, [{}] * 3])
def test_data_that_python_might_take_for_the_same_is_noticed(db, data):
    event = told()
    event.data = data
    assert event.mismatches() == ["data"]


def test_whatever_column_the_owner_of_the_table_changes_is_noticed(committed, migrations_url):
    told()
    forged = dict.fromkeys(COLUMNS, "'forged'")
    forged |= {"id": "id + 1000", "at": "at + interval '1 us'", "data": """'{"urgent": 1}'"""}
    for name, value in forged.items():
        before = Event.objects.get()
        with psycopg.connect(migrations_url) as mallory:
            mallory.execute("ALTER TABLE audit_event DISABLE TRIGGER USER")
            mallory.execute(f"UPDATE audit_event SET {name} = {value}")
        assert name in Event.objects.get().mismatches()
        with psycopg.connect(migrations_url) as mallory:
            restore(mallory, name, before)
        assert Event.objects.get().mismatches() == []


def restore(mallory: psycopg.Connection, name: str, before: Event) -> None:
    value = json.dumps(before.data) if name == "data" else getattr(before, name)
    mallory.execute(f"UPDATE audit_event SET {name} = %s", [value])
