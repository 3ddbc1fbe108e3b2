"""Law 11: time is the database's, read after the lock is held, shifted by its owner alone."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from importlib import import_module

import psycopg
import pytest
from django.contrib.contenttypes.models import ContentType
from django.db import ProgrammingError, connection, transaction

from audit import clock
from audit.models import Event

HOUR = timedelta(hours=1)


def database(statement: str) -> datetime:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        moment: datetime = cursor.fetchone()[0]
        return moment


def vote_under_lock(pk: int) -> tuple[datetime, datetime]:
    """Bob's vote: lock, then read the time. Returns the transaction's time and the clock's."""
    try:
        with transaction.atomic():
            ContentType.objects.select_for_update().get(pk=pk)
            return database("SELECT now()"), clock.now()
    finally:
        connection.close()


def wait_for_a_waiter() -> None:
    """Return once another backend waits for a lock that this one holds."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_locks "
                "WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))"
            )
            if cursor.fetchone()[0]:
                return
        time.sleep(0.01)
    pytest.fail("nobody came to wait for the lock")


def test_a_vote_that_waited_for_its_lock_past_the_deadline_is_late(committed):
    row = ContentType.objects.create(app_label="story", model="request")
    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            ContentType.objects.select_for_update().get(pk=row.pk)
            bob = pool.submit(vote_under_lock, row.pk)
            wait_for_a_waiter()
            deadline = clock.now()
        transactions_time, clocks_time = bob.result(timeout=20)
    assert transactions_time < deadline, "now() would let the late vote pass"
    assert clocks_time > deadline


def test_the_clock_moves_within_a_transaction(db):
    assert database("SELECT now()") == database("SELECT now()")
    assert clock.now() < clock.now()
    assert clock.now().utcoffset() == timedelta(0)


def test_the_owner_can_shift_the_clock_and_everyone_reads_it_shifted(db, migrations_url):
    with psycopg.connect(migrations_url) as owner:
        owner.execute("UPDATE audit_clock SET shift = '1 hour'")
        row = owner.execute("SELECT dbnow() - clock_timestamp()").fetchone()
        owner.rollback()
    assert row is not None
    assert abs(row[0] - HOUR) < timedelta(seconds=1)


def test_nobody_but_the_owner_keeps_a_right_to_change_the_clock(db, migrations_url):
    """As after `migrate` in production: the test database itself lets the suite shift it."""
    application = connection.settings_dict["USER"]
    migration = import_module("audit.migrations.0003_clock")
    with psycopg.connect(migrations_url) as owner:
        owner.execute(f'GRANT ALL ON audit_clock TO "{application}", PUBLIC')
        owner.execute(migration.PRIVILEGES)
        left = owner.execute(
            "SELECT DISTINCT privilege_type FROM pg_class c, aclexplode(relacl) "
            "WHERE c.oid = 'audit_clock'::regclass AND grantee <> relowner"
        ).fetchall()
        owner.rollback()
    assert left == [("SELECT",)]


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM audit_clock",
        "TRUNCATE audit_clock",
        "INSERT INTO audit_clock DEFAULT VALUES",
        "INSERT INTO audit_clock (id) VALUES (false)",
        "UPDATE audit_clock SET shift = NULL",
    ],
)
def test_the_clock_has_exactly_one_row_and_it_tells_a_time(db, migrations_url, statement):
    with psycopg.connect(migrations_url) as owner:
        with pytest.raises(psycopg.Error):
            owner.execute(statement)
        owner.rollback()
        assert owner.execute("SELECT count(*) FROM audit_clock").fetchone() == (1,)


def test_a_temporary_table_of_the_same_name_does_not_shift_the_clock(db, control):
    """The application's login may make none; whoever may shifts nothing either."""
    with pytest.raises(ProgrammingError, match="temporary"), transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("CREATE TEMP TABLE audit_clock (id boolean, shift interval)")
    with control.superuser(connection.settings_dict["NAME"]) as owner:
        owner.execute("CREATE TEMP TABLE audit_clock AS SELECT true id, '-1 day'::interval shift")
        assert owner.execute("SELECT shift FROM audit_clock").fetchone() == (timedelta(days=-1),)
        now = owner.execute("SELECT dbnow() - clock_timestamp() > '-1 hour'").fetchone()
        assert now == (True,)


def test_a_due_scan_compares_with_the_clock_and_uses_the_index(db):
    due = Event.objects.filter(at__lte=clock.DbNow())
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        plan = due.explain()
        cursor.execute("EXPLAIN SELECT * FROM audit_event WHERE at <= dbnow()")
        bare = "\n".join(line for (line,) in cursor.fetchall())
    assert "Index Cond: (at <= (InitPlan" in plan
    assert "Index Cond" not in bare
