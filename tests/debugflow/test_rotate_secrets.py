"""Law 12: keys are replaced while everything runs, and afterwards the old one is of no use."""

from __future__ import annotations

import ast
import threading
from io import StringIO
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.core.management import CommandError, call_command
from django.db import connections, transaction

from approvals import administration, closing, grants, opening, rotation, secrets, targets
from approvals.models import Grant, Target
from approvals.sentences import event_sentence
from audit.models import Event
from tests.conftest import DATABASE, Control
from tests.test_lint import called, sources
from tests.world import World

OLD, NEW, OTHER = (Fernet.generate_key().decode() for _ in range(3))
CANARY = "canary-in-the-coal-mine-7Kq"


@pytest.fixture
def keys(settings: Any) -> Any:
    """Everything is written under OLD; each test says what comes first afterwards."""
    settings.ENCRYPTION_KEYS = [OLD]
    return settings


@pytest.fixture
def place(keys: Any, world: World) -> World:
    """The target's admin password is the canary, and alice's access is open, its secret unseen."""
    world.server.admin_password = CANARY
    clear = {"password": CANARY}
    administration.save_target(world.target, by=world.ada, clear_secrets=clear)
    opening.open_grant(world.approved().pk, worker="w")
    return world


def rotate() -> str:
    out = StringIO()
    call_command("rotate_secrets", stdout=out)
    return out.getvalue()


def test_afterwards_the_old_key_is_needed_for_nothing(place: World, keys: Any):
    keys.ENCRYPTION_KEYS = [NEW, OLD]
    said = rotate()
    assert "target: 1 encrypted anew" in said
    assert "grant: 1 encrypted anew" in said
    assert "Run it again until it encrypts none" in said
    assert "can be dropped" in rotate()
    keys.ENCRYPTION_KEYS = [NEW]
    grant = Grant.objects.get()
    password = grants.reveal(grant.pk, by=place.alice).password
    assert place.server.sign_in(grant.account, password).alive
    grants.release(grant.pk, by=place.alice)
    closing.close_grant(grant.pk, worker="w")
    assert Grant.objects.get().state == "ended"
    another = place.approved("amir")
    opening.open_grant(another.pk, worker="w")
    assert Grant.objects.get(pk=another.pk).state == "active"


def test_without_it_the_old_key_was_needed(place: World, keys: Any):
    keys.ENCRYPTION_KEYS = [NEW]
    another = place.approved("amir")
    opening.open_grant(another.pk, worker="w")
    assert "cannot be read" in Grant.objects.get(pk=another.pk).last_error


def test_a_second_run_writes_nothing(place: World, keys: Any):
    keys.ENCRYPTION_KEYS = [NEW, OLD]
    rotate()
    before = [Target.objects.get().secrets, Grant.objects.get().secret, Event.objects.count()]
    assert "0 encrypted anew, 2 were so already." in rotate()
    assert [
        Target.objects.get().secrets,
        Grant.objects.get().secret,
        Event.objects.count(),
    ] == before


def test_the_audit_log_is_told_how_many_and_no_secret(place: World, keys: Any):
    keys.ENCRYPTION_KEYS = [NEW, OLD]
    rotate()
    events = Event.objects.filter(action="secrets.rotated").order_by("id")
    assert [event.data["rotated"] for event in events] == [1, 1]
    assert event_sentence(events[0]) == (
        "debugflow encrypted 1 stored secrets anew, under the newest key."
    )
    assert CANARY not in str([event.data for event in events])


def test_one_that_no_key_reads_is_named_and_kept_and_the_others_are_done(place: World, keys: Any):
    Grant.objects.update(secret=Fernet(OTHER.encode()).encrypt(b"lost").decode())
    lost = Grant.objects.get()
    keys.ENCRYPTION_KEYS = [NEW, OLD]
    with pytest.raises(CommandError, match=rf"secret of grant {lost.pk} .*none of the keys"):
        rotate()
    assert Grant.objects.get().secret == lost.secret
    assert secrets.is_current(Target.objects.get().secrets["password"])


def test_one_that_was_moved_to_another_row_is_named(place: World, keys: Any):
    sealed = secrets.seal("moved", table="target", key="999", field="password")
    Target.objects.update(secrets={"password": sealed})
    keys.ENCRYPTION_KEYS = [NEW, OLD]
    with pytest.raises(CommandError, match=r"password of target \d+ \(orders\): .*moved"):
        rotate()
    assert Target.objects.get().secrets == {"password": sealed}


def test_without_a_key_it_says_how_to_make_one(place: World, keys: Any):
    keys.ENCRYPTION_KEYS = []
    with pytest.raises(CommandError, match=r"Fernet\.generate_key"):
        rotate()


def test_it_goes_on_where_it_was_stopped(place: World, keys: Any, monkeypatch: Any):
    keys.ENCRYPTION_KEYS = [NEW, OLD]
    monkeypatch.setattr(rotation, "BATCH", 1)
    next(rotation.rotate_all())
    assert secrets.is_current(Target.objects.get().secrets["password"])
    assert not secrets.is_current(Grant.objects.get().secret)
    assert [(done.table, done.rotated, done.current) for done in rotation.rotate_all()] == [
        ("target", 0, 1),
        ("grant", 1, 0),
    ]


def test_more_rows_than_a_batch_are_all_done(place: World, keys: Any, monkeypatch: Any):
    for number in range(3):
        target = Target(
            name=f"more{number}", kind="memory", environment="staging", config={"name": "orders"}
        )
        administration.save_target(target, by=place.ada, clear_secrets={"password": CANARY})
    monkeypatch.setattr(rotation, "BATCH", 2)
    keys.ENCRYPTION_KEYS = [NEW, OLD]
    rotate()
    assert all(secrets.is_current(row.secrets["password"]) for row in Target.objects.all())


def test_a_secret_that_is_replaced_meanwhile_is_not_put_back(
    committed: None, place: World, keys: Any
):
    """The new password waits on our row's lock, or we on its: the newest is what stays."""
    keys.ENCRYPTION_KEYS = [NEW, OLD]
    done = threading.Thread(target=_rotate_beside)
    with transaction.atomic():
        target = Target.objects.select_for_update(no_key=True).get(pk=place.target.pk)
        done.start()
        _until_somebody_waits()
        target.secrets = {"password": targets.seal(target, "password", "the newest")}
        target.save(update_fields=["secrets"])
    done.join(timeout=10)
    assert not done.is_alive()
    stored = Target.objects.get(pk=place.target.pk)
    assert targets.provisioner(stored).secret_values == {"password": "the newest"}


def _rotate_beside() -> None:
    try:
        list(rotation.rotate_all())
    finally:
        connections.close_all()


def _until_somebody_waits() -> None:
    with connections["default"].cursor() as cursor:
        for _ in range(500):
            cursor.execute(
                "SELECT pg_sleep(0.01), count(*) FROM pg_stat_activity WHERE pid IN"
                " (SELECT pid FROM pg_locks WHERE NOT granted)"
            )
            if cursor.fetchone()[1]:
                return
    raise AssertionError("nobody waits for the row")


def test_a_copy_of_the_database_holds_no_secret_in_clear(
    committed: None, place: World, keys: Any, control: Control
):
    keys.ENCRYPTION_KEYS = [NEW, OLD]
    rotate()
    password = grants.unsealed(Grant.objects.get())
    copy = copied(control)
    assert b"read-only" in copy
    assert CANARY.encode() not in copy
    assert password.encode() not in copy


def copied(control: Control) -> bytes:
    """Every row of every table, as its superuser would carry them away."""
    with control.superuser(DATABASE) as server:
        tables = server.execute(
            "SELECT format('%I.%I', schemaname, relname) FROM pg_stat_user_tables"
        ).fetchall()
        rows: list[bytes] = []
        for (table,) in tables:
            with server.cursor().copy(f"COPY {table} TO STDOUT".encode()) as found:
                rows.extend(bytes(row) for row in found)
    return b"".join(rows)


@pytest.mark.slow
def test_whatever_is_sealed_is_rotated():
    """A table that begins to hold secrets has to be looked after here as well."""
    sealed = set()
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if called(node) == "seal" and isinstance(node, ast.Call):
                words = {word.arg: word.value for word in node.keywords}
                if isinstance(table := words.get("table"), ast.Constant):
                    sealed.add(str(table.value))
    assert sealed - {"check"} == rotation.PLACES.keys()  # a system check seals one for a moment
