"""Law 8: the database itself keeps Events as they were, against the application and the owner."""

import psycopg
import pytest
from django.db import Error, connection, transaction
from psycopg import sql

from audit import log
from audit.log import Actor, Subject
from audit.models import Event, leaf_hash

MALLORY = Actor("user", "666", "mallory")

REFUSED = "42501"  # insufficient_privilege
BY_TRIGGER = "2F002"  # modifying_sql_data_not_permitted

INSERT = sql.SQL(
    """
    INSERT INTO audit_event (at, action, actor_type, actor_id, actor_name, on_behalf_of_id,
        on_behalf_of_name, subject_type, subject_id, subject_label, thread, request_id, address,
        agent, policy_version, scope_hash, data, canonical, leaf_hash, xid)
    VALUES (now(), 'story.told', '', '', '', '', '', '', '', '', '', '', '', '', '', '', '{}',
        %(entry)s, %(leaf)s, %(xid)s)
    RETURNING xid::text, pg_current_xact_id()::text
    """
)


def refusal(statement: str) -> str | None:
    """The SQLSTATE with which the application's login is refused, if it is."""
    with pytest.raises(Error) as refused, transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)
    return getattr(refused.value.__cause__, "sqlstate", None)


def inserted(
    mallory: psycopg.Connection, *, entry: bytes = b"{}", leaf: bytes | None = None, xid: str = "1"
) -> tuple[str, str]:
    """Insert an Event as the owner; the `xid` it got, and that of the transaction."""
    values = {"entry": entry, "leaf": leaf or leaf_hash(entry), "xid": xid}
    row = mallory.execute(INSERT, values).fetchone()
    assert row is not None
    return row


@pytest.fixture
def event(db):
    return log.record("story.told", actor=MALLORY, subject=Subject("request", "12", "orders"))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_event SET action = 'story.forged'",
        "UPDATE audit_event SET action = action WHERE false",
        "DELETE FROM audit_event",
        "TRUNCATE audit_event",
        "SELECT id FROM audit_event FOR UPDATE",
        "INSERT INTO audit_event SELECT * FROM audit_event ON CONFLICT (id) DO UPDATE SET agent=''",
        "ALTER TABLE audit_event DISABLE TRIGGER ALL",
        "ALTER TABLE audit_event DISABLE TRIGGER audit_event_rows",
        "ALTER TABLE audit_event DROP CONSTRAINT audit_event_leaf_hash",
        "ALTER TABLE audit_event ADD COLUMN note text",
        "ALTER TABLE audit_event RENAME TO audit_event_old",
        "ALTER TABLE audit_event OWNER TO CURRENT_USER",
        "DROP TABLE audit_event",
        "DROP TRIGGER audit_event_rows ON audit_event",
        "DROP FUNCTION audit_refuse() CASCADE",
        "CREATE TRIGGER late BEFORE INSERT ON audit_event EXECUTE FUNCTION audit_refuse()",
        "CREATE RULE quiet AS ON INSERT TO audit_event DO INSTEAD NOTHING",
        "CREATE OR REPLACE FUNCTION audit_stamp() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN END'",
        "CREATE TABLE audit_leaf (id bigint REFERENCES audit_event)",
        "CREATE TEMP TABLE heir () INHERITS (audit_event)",
        "SET LOCAL session_replication_role = replica",
    ],
)
def test_the_application_cannot_change_or_disarm_the_log(event, statement):
    assert refusal(statement) == REFUSED
    assert Event.objects.get().mismatches() == []


def test_the_application_cannot_become_the_owner(event):
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = 'audit_event'::regclass"
        )
        owner = cursor.fetchone()[0]
    assert refusal(f'SET LOCAL ROLE "{owner}"') == REFUSED


def test_the_application_holds_no_privilege_but_to_read_and_to_add(db):
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT DISTINCT privilege_type FROM pg_class c, aclexplode(relacl)
            WHERE c.oid = 'audit_event'::regclass AND grantee <> relowner ORDER BY 1
            """
        )
        assert cursor.fetchall() == [("INSERT",), ("SELECT",)]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_event SET action = 'story.forged'",
        "DELETE FROM audit_event",
        "TRUNCATE audit_event",
        "TRUNCATE audit_event CASCADE",
    ],
)
def test_the_owner_is_refused_by_trigger(db, migrations_url, statement):
    with psycopg.connect(migrations_url) as mallory:
        inserted(mallory)
        with pytest.raises(psycopg.Error, match="audit_event refuses") as refused:
            mallory.execute(statement)
        mallory.rollback()
    assert refused.value.sqlstate == BY_TRIGGER


def test_the_owner_cannot_play_a_replica_for_which_triggers_rest(db, migrations_url):
    with psycopg.connect(migrations_url) as mallory:
        with pytest.raises(psycopg.Error) as refused:
            mallory.execute("SET session_replication_role = replica")
        mallory.rollback()
        armed = mallory.execute(
            "SELECT tgenabled FROM pg_trigger WHERE tgrelid = 'audit_event'::regclass"
        ).fetchall()
    assert refused.value.sqlstate == REFUSED
    # A for ALWAYS: nor would they rest for the superuser who can play one.
    assert armed == [("A",)] * 3


def test_the_database_refuses_a_leaf_hash_of_other_bytes(db, migrations_url):
    with psycopg.connect(migrations_url) as mallory:
        with pytest.raises(psycopg.errors.CheckViolation, match="audit_event_leaf_hash"):
            inserted(mallory, entry=b"{}", leaf=leaf_hash(b"[]"))
        mallory.rollback()


def test_the_database_stamps_the_transaction_whatever_the_writer_claims(db, migrations_url):
    with psycopg.connect(migrations_url) as mallory:
        stamped, actual = inserted(mallory, xid="1")
        mallory.rollback()
    assert stamped == actual != "1"
