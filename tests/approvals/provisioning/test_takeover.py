"""A clean-up that cannot be starved: by how much there is, by locks, by what may not be moved."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from approvals.errors import ProvisionError
from approvals.provisioning.base import Account, Cleaned
from approvals.provisioning.postgresql import clean
from debugflow.embedded.postgres import EmbeddedPostgres

from .conftest import ALICES, NEWEST, WRITE, Connection, Target, prepared, refused

QUARANTINE = "dbgf_quarantine"


BOTH = pytest.mark.parametrize("work", ["oldest", "newest"], indirect=True)
"""For what one of them might do differently; the others are told of the newest alone."""


@pytest.fixture
def work(request: pytest.FixtureRequest) -> Iterator[Target]:
    """The target, with room for what follows."""
    yield from roomy(request.getfixturevalue(getattr(request, "param", "newest")))


def roomy(target: Target) -> Iterator[Target]:
    """mallory may look into schema `work`, and holders may make schemas."""
    target.tell("GRANT USAGE ON SCHEMA work TO mallory")
    target.tell("GRANT CREATE ON DATABASE orders TO orders_rw, debugflow_admin")
    yield target
    target.close_all()
    target.tell("REVOKE USAGE ON SCHEMA work FROM mallory")
    target.tell("REVOKE CREATE ON DATABASE orders FROM orders_rw, debugflow_admin")
    target.tell(EMPTY_LARGE, EMPTY_TABLES, f"DROP OWNED BY {QUARANTINE} CASCADE")
    target.tell(f"GRANT USAGE, CREATE ON SCHEMA work TO {QUARANTINE}")


# In steps: what was too much for one transaction is too much to be dropped by one.
EMPTY_LARGE = """
DO $$ BEGIN WHILE EXISTS (SELECT FROM pg_largeobject_metadata) LOOP
  PERFORM lo_unlink(oid) FROM (SELECT oid FROM pg_largeobject_metadata LIMIT 1000) a;
  COMMIT; END LOOP; END $$"""
EMPTY_TABLES = """
DO $$ DECLARE name regclass; BEGIN
  FOR name IN SELECT oid FROM pg_class WHERE relnamespace = 'work'::regnamespace AND relkind = 'r'
  LOOP EXECUTE format('DROP TABLE IF EXISTS %s CASCADE', name); COMMIT; END LOOP; END $$"""


def made(target: Target, *statements: str, database: str = "orders") -> Account:
    """alice's account, with what she made; already cut."""
    account = target.opened(WRITE)
    with target.sign_in(account.account, database=database) as alice:
        for statement in statements:
            alice.execute(statement.encode())
    target.provisioner.cut(account)
    return account


def owner(target: Target, table: str) -> str:
    found: str = target.ask(
        f"SELECT relowner::regrole::text FROM pg_class WHERE relname = '{table}'"
    )
    return found


def failed(target: Target, account: Account) -> ProvisionError:
    with pytest.raises(ProvisionError) as caught:
        target.provisioner.clean(account)
    return caught.value


def finished(target: Target, account: Account) -> Cleaned:
    cleaned = target.provisioner.clean(account)
    assert target.provisioner.observe(account).gone
    return cleaned


# Locks for some 300 things at once; a server's default is some 10,000.
CRAMPED = {
    "fsync": "off",
    "max_connections": "20",
    "max_locks_per_transaction": "10",
    "max_wal_senders": "0",
    "max_worker_processes": "1",
    "autovacuum_worker_slots": "1",
    "autovacuum_max_workers": "1",
}


def test_more_locks_than_the_server_has_are_never_needed_at_once(server_directory: Path) -> None:
    tables = (
        "DO $$ BEGIN FOR t IN 1..600 LOOP EXECUTE format('CREATE TABLE work.t%s (i int)', t);"
        " IF t % 50 = 0 THEN COMMIT; END IF; END LOOP; END $$"
    )
    with EmbeddedPostgres(server_directory / "cramped", settings=CRAMPED) as server:
        cramped = prepared(server, NEWEST)
        account = made(cramped, tables)
        with cramped.bob() as bob:
            assert refused(bob, f"REASSIGN OWNED BY {account.account} TO {QUARANTINE}") == "53200"
        cleaned = finished(cramped, account)
    assert cleaned.quarantined.count == 600
    assert len(cleaned.quarantined.names) == 50


def test_an_attempt_without_time_for_all_keeps_what_it_did_and_says_what_is_left(
    work: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clean, "BATCHES_UNTIL", clean.CLEAN_DEADLINE - 0.4)
    account = made(work, "SELECT count(lo_create(0)) FROM generate_series(1, 20000)")
    left, attempts = 20_000, 0
    while isinstance(outcome := attempt(work, account), ProvisionError):
        attempts += 1
        assert outcome.code == "clean_unfinished"
        assert outcome.details["cleaned"].quarantined.count > 0
        left -= outcome.details["cleaned"].quarantined.count
        assert f"{left} things" in outcome.message
    assert attempts > 0
    assert outcome.quarantined.count == left
    assert work.provisioner.observe(account).gone


def attempt(target: Target, account: Account) -> Cleaned | ProvisionError:
    try:
        return target.provisioner.clean(account)
    except ProvisionError as error:
        return error


@BOTH
def test_an_accomplices_lock_holds_up_one_table_and_no_other(work: Target) -> None:
    account = made(
        work,
        "CREATE TABLE work.bait (i int)",
        "CREATE TABLE work.other (i int)",
        "GRANT ALL ON work.bait, work.other TO mallory",
    )
    with work.sign_in("mallory", "mallory") as mallory:
        mallory.execute("BEGIN")
        mallory.execute("LOCK TABLE work.bait IN ACCESS EXCLUSIVE MODE")
        began = time.monotonic()
        error = failed(work, account)
        assert time.monotonic() - began < 8
        assert error.code == "clean_blocked"
        assert f"process {mallory.info.backend_pid} of mallory" in error.message
        assert error.details["cleaned"].quarantined.names == ("orders: table work.other",)
        assert (owner(work, "bait"), owner(work, "other")) == (account.account, QUARANTINE)
        assert work.ask("SELECT has_table_privilege('mallory', 'work.other', 'SELECT')") is False
        mallory.execute("ROLLBACK")  # nobody ended her
        assert finished(work, account).quarantined.names == ("orders: table work.bait",)
        assert refused(mallory, "SELECT * FROM work.bait") == "42501"


def test_one_who_only_reads_loses_her_rights_while_she_holds_the_table(work: Target) -> None:
    account = made(work, "CREATE TABLE work.bait (i int)", "GRANT ALL ON work.bait TO mallory")
    with work.sign_in("mallory", "mallory") as mallory:
        mallory.execute("BEGIN")
        mallory.execute("SELECT * FROM work.bait")
        assert failed(work, account).code == "clean_blocked"
        assert refused(mallory, "SELECT * FROM work.bait") == "42501"
        mallory.execute("ROLLBACK")
    finished(work, account)


def test_a_lock_in_a_prepared_transaction_is_told_as_such(work: Target) -> None:
    account = made(work, "CREATE TABLE work.bait (i int)", "GRANT ALL ON work.bait TO mallory")
    with work.sign_in("mallory", "mallory") as mallory:
        mallory.execute("BEGIN")
        mallory.execute("LOCK TABLE work.bait IN ACCESS SHARE MODE")
        mallory.execute("PREPARE TRANSACTION 'mallorys'")
        try:
            error = failed(work, account)
        finally:
            mallory.execute("ROLLBACK PREPARED 'mallorys'")
    assert (error.code, "pg_prepared_xacts" in error.message) == ("clean_blocked", True)
    finished(work, account)


def test_whoever_keeps_the_role_from_being_dropped_is_named(work: Target) -> None:
    """A grant to alice that has not been committed yet holds her role."""
    account = made(work)
    work.tell("GRANT CREATE ON SCHEMA work TO mallory")
    try:
        with work.sign_in("mallory", "mallory") as mallory:
            mallory.execute("BEGIN")
            mallory.execute("CREATE TABLE work.gift (i int)")
            mallory.execute(f"GRANT SELECT ON work.gift TO {account.account}".encode())
            error = failed(work, account)
            mallory.execute("ROLLBACK")
    finally:
        work.tell("REVOKE CREATE ON SCHEMA work FROM mallory")
    assert error.code == "clean_blocked"
    assert "of mallory" in error.message
    finished(work, account)


@BOTH
def test_what_the_quarantine_role_may_not_own_is_dropped_and_told(work: Target) -> None:
    work.tell(
        "CREATE FOREIGN DATA WRAPPER rumour",
        "GRANT USAGE ON FOREIGN DATA WRAPPER rumour TO orders_rw",
    )
    try:
        account = made(
            work,
            "CREATE TABLE work.notes (i int)",
            "CREATE PUBLICATION hers FOR TABLE work.notes",
            "CREATE SERVER far FOREIGN DATA WRAPPER rumour",
            "CREATE USER MAPPING FOR PUBLIC SERVER far OPTIONS (password 'x')",
            "CREATE FOREIGN TABLE work.far_away (i int) SERVER far",
            "GRANT USAGE ON FOREIGN SERVER far TO mallory",
        )
        cleaned = finished(work, account)
    finally:
        work.tell("DROP FOREIGN DATA WRAPPER rumour CASCADE")
    assert set(cleaned.dropped.names) == {"orders: publication hers", "orders: server far"}
    assert owner(work, "notes") == QUARANTINE
    assert work.ask("SELECT count(*) FROM pg_publication") == 0
    assert work.ask("SELECT count(*) FROM pg_user_mappings") == 0


def test_what_may_not_be_moved_is_named_with_what_helps(work: Target) -> None:
    """In a schema of mallory's only she or the DBA can let the quarantine role in."""
    account = work.opened(WRITE)
    work.tell("CREATE SCHEMA lair AUTHORIZATION mallory", "GRANT ALL ON SCHEMA lair TO orders_rw")
    try:
        with work.sign_in(account.account) as alice:
            alice.execute("CREATE FUNCTION lair.hidden() RETURNS int LANGUAGE sql AS 'SELECT 1'")
            alice.execute("CREATE TABLE work.notes (i int)")
        work.provisioner.cut(account)
        error = failed(work, account)
        assert "function lair.hidden(): permission denied for schema lair" in error.message
        assert "1 thing of the account's in orders" in error.message
        assert owner(work, "notes") == QUARANTINE
        work.tell(f"GRANT USAGE, CREATE ON SCHEMA lair TO {QUARANTINE}")
        assert finished(work, account).quarantined.names == ("orders: function lair.hidden()",)
    finally:
        work.tell("DROP SCHEMA lair CASCADE")


EVERY_KIND = [
    "CREATE TABLE work.parts (i serial, at date) PARTITION BY RANGE (at)",
    "CREATE TABLE work.part PARTITION OF work.parts DEFAULT",
    "CREATE SEQUENCE work.counter",
    "CREATE VIEW work.seen AS SELECT i FROM work.parts",
    "CREATE MATERIALIZED VIEW work.kept AS SELECT i FROM work.parts",
    "CREATE TYPE work.pair AS (a int, b int)",
    "CREATE DOMAIN work.small AS int CHECK (VALUE < 10)",
    "CREATE TYPE work.span AS RANGE (subtype = int)",
    'CREATE FUNCTION work.door(work.pair[], "odd name" int) RETURNS int LANGUAGE sql'
    " SECURITY DEFINER AS 'SELECT 1'",
    "CREATE PROCEDURE work.act(a int, OUT b int) LANGUAGE sql AS 'SELECT 1'",
    "CREATE AGGREGATE work.total(int) (sfunc = int4pl, stype = int)",
    "CREATE AGGREGATE work.tally(*) (sfunc = int8inc, stype = int8, initcond = '0')",
    "CREATE OPERATOR work.=== (leftarg = int, rightarg = int, function = int4eq)",
    'CREATE COLLATION work.plain FROM "C"',
    "CREATE STATISTICS work.both ON i, at FROM work.part",
    "CREATE TEXT SEARCH CONFIGURATION work.words (COPY = pg_catalog.simple)",
    "CREATE TEXT SEARCH DICTIONARY work.dictionary (TEMPLATE = pg_catalog.simple)",
    "CREATE CONVERSION work.turn FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8",
    "CREATE SCHEMA hers",
    "CREATE TABLE hers.deep (i int)",
]


TAKEN_OVER = {
    "aggregate work.tally()",
    "aggregate work.total(integer)",
    "collation work.plain",
    "conversion work.turn",
    "function work.door(work.pair[],integer)",
    "large object 4712",
    "materialized view work.kept",
    "operator work.===(integer,integer)",
    "procedure work.act(integer)",
    "schema hers",
    "sequence work.counter",
    'statistics object work."both"',
    "table hers.deep",
    "table work.part",
    "table work.parts",
    "text search configuration work.words",
    "text search dictionary work.dictionary",
    "type work.pair",
    "type work.small",
    "type work.span",
    "view work.seen",
}


@BOTH
def test_things_of_every_kind_are_taken_over(work: Target) -> None:
    account = made(work, *EVERY_KIND, "SELECT lo_create(4712)")
    cleaned = finished(work, account)
    names = {name.removeprefix("orders: ") for name in cleaned.quarantined.names}
    assert names - {"type work.span_multirange"} == TAKEN_OVER
    assert cleaned.disarmed.names == ("orders: function work.door(work.pair[],integer)",)
    assert owner(work, "parts_i_seq") == QUARANTINE


def test_a_name_that_is_no_text_is_moved_all_the_same(target: Target) -> None:
    """In a database without an encoding a name may be any bytes, or break out of its quotes."""
    make = "CREATE DATABASE legacy TEMPLATE template0 ENCODING 'SQL_ASCII'"
    target.tell(
        f"{make} LOCALE 'C'" if target.major < 16 else f"{make} LOCALE_PROVIDER libc LOCALE 'C'",
        database="postgres",
    )
    try:
        target.tell(
            "GRANT CREATE ON SCHEMA public TO orders_rw, dbgf_quarantine", database="legacy"
        )
        account = target.opened(WRITE)
        url = target.server.url("legacy", account.account, ALICES)
        with psycopg.connect(url, autocommit=True, client_encoding="LATIN1") as alice:
            alice.execute('CREATE TABLE "caf\xe9""; DROP ROLE mallory; --" (i int)')
            alice.execute('GRANT ALL ON "caf\xe9""; DROP ROLE mallory; --" TO mallory')
        target.provisioner.cut(account)
        assert finished(target, account).quarantined.count == 1
        query = "SELECT coalesce(relacl::text, '') FROM pg_class WHERE relname LIKE 'caf%'"
        assert b"mallory" not in target.ask(query, database="legacy")
    finally:
        target.tell("DROP DATABASE legacy WITH (FORCE)", database="postgres")
    assert target.ask("SELECT count(*) FROM pg_roles WHERE rolname = 'mallory'") == 1


def test_policies_that_name_her_go_with_her_and_so_do_her_default_privileges(
    work: Target,
) -> None:
    account = made(
        work,
        "CREATE TABLE work.notes (i int)",
        "CREATE POLICY mine ON work.notes TO CURRENT_USER USING (true)",
        "ALTER DEFAULT PRIVILEGES IN SCHEMA work GRANT ALL ON TABLES TO mallory",
    )
    work.tell(f"CREATE POLICY bobs ON orders TO {account.account}, mallory USING (true)")
    try:
        finished(work, account)
        assert work.ask("SELECT polname || polroles::regrole[]::text FROM pg_policy") == (
            "bobs{mallory}"
        )
    finally:
        work.tell("DROP POLICY bobs ON orders")
    assert work.ask("SELECT count(*) FROM pg_default_acl") == 0


def test_large_objects_and_prepared_transactions_of_several_databases_are_found(
    work: Target,
) -> None:
    account = work.opened(WRITE)
    for database in ("orders", "billing"):
        with work.sign_in(account.account, database=database) as alice:
            alice.execute("SELECT lo_create(4713)")
            alice.execute("GRANT SELECT ON LARGE OBJECT 4713 TO mallory")
            alice.execute("BEGIN")
            alice.execute("SELECT lo_create(4714)")
            alice.execute(f"PREPARE TRANSACTION 'left in {database}'".encode())
    work.provisioner.cut(account)
    try:
        cleaned = finished(work, account)
        acl = "SELECT coalesce(lomacl::text, '') FROM pg_largeobject_metadata WHERE oid = 4713"
        for database in ("orders", "billing"):
            assert "mallory" not in work.ask(acl, database=database)
            assert work.ask("SELECT count(*) FROM pg_largeobject_metadata", database=database) == 1
    finally:
        work.tell(f"DROP OWNED BY {QUARANTINE}", database="billing")
    assert work.ask("SELECT count(*) FROM pg_prepared_xacts") == 0
    assert set(cleaned.quarantined.names) == {
        "orders: large object 4713",
        "billing: large object 4713",
    }


def test_what_a_live_session_keeps_for_itself_ends_with_it(work: Target) -> None:
    account = work.opened(WRITE)
    with work.sign_in(account.account) as alice:
        for statement in (
            "SELECT pg_advisory_lock(42)",
            "LISTEN gossip",
            "BEGIN",
            "CREATE TEMPORARY TABLE scratch (i int) ON COMMIT DELETE ROWS",
            "CREATE FUNCTION pg_temp.door() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "DECLARE kept CURSOR WITH HOLD FOR SELECT * FROM customers",
            "COMMIT",
        ):
            alice.execute(statement.encode())
        work.provisioner.cut(account)
        cleaned = finished(work, account)
    assert not cleaned, "what is temporary is nobody's to keep"
    assert work.ask("SELECT pg_try_advisory_lock(42)") is True
    temporary = "SELECT count(*) FROM pg_class WHERE relpersistence = 't'"
    assert work.ask(temporary) == 0


def test_an_accomplice_with_an_access_of_his_own_is_not_ended(work: Target) -> None:
    """amir's own access goes on; his lock is reported like anyone's."""
    amir = work.opened(WRITE)
    account = made(
        work, "CREATE TABLE work.bait (i int)", f"GRANT ALL ON work.bait TO {amir.account}"
    )
    with work.sign_in(amir.account) as his:
        his.execute("BEGIN")
        his.execute("SELECT * FROM work.bait")
        assert f"of {amir.account}" in failed(work, account).message
        his.execute("ROLLBACK")
        finished(work, account)
        assert still_in(his)
    work.end(amir)


def still_in(db: Connection) -> bool:
    return db.execute("SELECT true").fetchone() == (True,)


# In quarantine it would open everything up again; anywhere else it does nothing.
ESCAPE = """
CREATE FUNCTION work.escape(i int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
  IF current_user = 'dbgf_quarantine' THEN
    EXECUTE 'GRANT SELECT ON work.copy TO PUBLIC';
  END IF; RETURN i; END $$"""


@BOTH
def test_no_code_of_hers_runs_as_the_quarantine_role(work: Target) -> None:
    """ANALYZE, which the server does by itself, computes a table's indexes as the table's owner."""
    account = made(
        work,
        "CREATE TABLE work.copy AS SELECT * FROM public.customers",
        ESCAPE,
        "CREATE INDEX ON work.copy (work.escape(id))",
        "ALTER FUNCTION work.escape(int) VOLATILE",
        "CREATE MATERIALIZED VIEW work.kept AS SELECT work.escape(1)",
    )
    finished(work, account)
    with work.bob() as bob:
        assert refused(bob, "ANALYZE work.copy") == "42501"
        assert refused(bob, "REINDEX TABLE work.copy") == "42501"
        assert refused(bob, "REFRESH MATERIALIZED VIEW work.kept") == "42501"
    assert work.ask("SELECT has_table_privilege('mallory', 'work.copy', 'SELECT')") is False


@BOTH
@pytest.mark.parametrize(
    "does", ["EXECUTE 'GRANT SELECT ON work.copy TO PUBLIC'", "PERFORM work.escape(1)"]
)
def test_nor_what_the_server_calls_without_asking_whether_it_may(work: Target, does: str) -> None:
    """A range's own measure, on ANALYZE. It had to be immutable once, and was altered since."""
    account = made(
        work,
        "CREATE TABLE work.copy (i int)",
        ESCAPE,
        "ALTER FUNCTION work.escape(int) VOLATILE",
        "CREATE FUNCTION work.apart(a int, b int) RETURNS float8 LANGUAGE plpgsql IMMUTABLE AS $$"
        f" BEGIN IF current_user = 'dbgf_quarantine' THEN {does}; END IF; RETURN a - b; END $$",
        "CREATE TYPE work.span AS RANGE (subtype = int, subtype_diff = work.apart)",
        "ALTER FUNCTION work.apart(int, int) VOLATILE",
        "CREATE TABLE work.spans AS SELECT work.span(i, i + 1) FROM generate_series(1, 99) i",
    )
    finished(work, account)
    with work.bob() as bob:
        assert refused(bob, "ANALYZE work.spans") in ("42501", "0A000")
    assert work.ask("SELECT has_table_privilege('mallory', 'work.copy', 'SELECT')") is False


@BOTH
def test_no_trigger_of_hers_fires_in_quarantine(work: Target) -> None:
    """Whoever writes to what she left, a superuser above all, would run her code as themselves."""
    account = made(
        work,
        "CREATE TABLE work.trap (i int) PARTITION BY RANGE (i)",
        "CREATE TABLE work.traps PARTITION OF work.trap DEFAULT",
        "CREATE FUNCTION work.sprung() RETURNS trigger LANGUAGE plpgsql"
        " AS $$ BEGIN RAISE EXCEPTION 'ran as %', current_user; END $$",
        "CREATE TRIGGER t BEFORE INSERT ON work.trap FOR EACH ROW EXECUTE FUNCTION work.sprung()",
    )
    finished(work, account)
    work.tell("INSERT INTO work.trap VALUES (1)")
    assert work.ask("SELECT count(*) FROM work.trap") == 1
