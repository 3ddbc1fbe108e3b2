"""The clean-up: alice's objects are in quarantine, and nothing of hers works for anyone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from approvals.errors import ProvisionError
from approvals.provisioning.base import Account

from .conftest import OLDEST, WRITE, Target, is_cut, refused

MAKES = [
    "CREATE TABLE work.notes (id serial, body text)",
    "INSERT INTO work.notes (body) SELECT name FROM customers LIMIT 5",
    "GRANT ALL ON work.notes TO mallory WITH GRANT OPTION",
    "GRANT SELECT ON work.notes TO PUBLIC",
    "GRANT UPDATE (body) ON work.notes TO mallory",
    'CREATE VIEW work."leak ""1" AS SELECT body FROM work.notes',
    'GRANT SELECT ON work."leak ""1" TO PUBLIC',
    "CREATE FUNCTION work.door(int) RETURNS bigint LANGUAGE sql SECURITY DEFINER"
    " AS 'SELECT count(*) FROM work.notes'",
    "GRANT EXECUTE ON FUNCTION work.door(int) TO mallory",
    "CREATE TYPE work.mood AS ENUM ('ok')",
    "CREATE TEMPORARY TABLE scratch (i int)",
    "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC",
]


@pytest.fixture
def work(target: Target) -> Iterator[Target]:
    """The target, with schema `work` open to mallory and empty again afterwards."""
    target.tell("GRANT USAGE ON SCHEMA work TO mallory")
    yield target
    target.tell("REVOKE USAGE ON SCHEMA work FROM mallory", "DROP OWNED BY dbgf_quarantine CASCADE")
    target.tell("GRANT USAGE, CREATE ON SCHEMA work TO dbgf_quarantine")


def made(target: Target, *statements: str) -> Account:
    account = target.opened(WRITE)
    with target.sign_in(account.account) as alice:
        for statement in statements:
            alice.execute(statement.encode())
    return account


def test_before_the_clean_up_the_read_back_says_what_is_left(work: Target) -> None:
    account = made(work, "CREATE TABLE work.notes (i int)")
    work.provisioner.cut(account)
    observed = work.provisioner.observe(account)
    assert (observed.sessions, observed.can_sign_in) == (0, False)
    assert not observed.gone
    assert any(account.account in line for line in observed.leftovers)
    assert any("in orders" in line for line in observed.leftovers)
    work.end(account)


def test_what_she_made_belongs_to_quarantine(work: Target) -> None:
    account = made(work, *MAKES)
    work.end(account)
    owners = "SELECT string_agg(DISTINCT {0}::regrole::text, ',') FROM {1} WHERE {2} = {3}"
    schema = "'work'::regnamespace"
    for column, catalog, namespace in [
        ("relowner", "pg_class", "relnamespace"),
        ("proowner", "pg_proc", "pronamespace"),
        ("typowner", "pg_type", "typnamespace"),
    ]:
        query = owners.format(column, catalog, namespace, schema)
        assert work.ask(query) == "dbgf_quarantine"
    assert work.ask("SELECT count(*) FROM work.notes") == 5, "evidence is kept"


def test_what_she_passed_on_is_taken_back(work: Target) -> None:
    account = made(work, *MAKES)
    with work.sign_in("mallory", "mallory") as mallory:
        assert mallory.execute("SELECT work.door(1)").fetchone() == (5,)
        mallory.execute("SELECT * FROM work.notes")
        work.end(account)
        assert refused(mallory, "SELECT * FROM work.notes") == "42501"
        assert refused(mallory, "UPDATE work.notes SET body = ''") == "42501"
        assert refused(mallory, 'SELECT * FROM work."leak ""1"') == "42501"
        assert refused(mallory, "SELECT work.door(1)") == "42501"


def test_a_function_of_hers_runs_as_its_owner_no_more(work: Target) -> None:
    work.end(made(work, *MAKES))
    query = "SELECT count(*) FROM pg_proc WHERE pronamespace = 'work'::regnamespace AND prosecdef"
    assert work.ask(query) == 0


def test_her_default_privileges_are_gone(work: Target) -> None:
    work.end(made(work, *MAKES))
    assert work.ask("SELECT count(*) FROM pg_default_acl") == 0


def test_large_objects_are_taken_over_and_closed(work: Target) -> None:
    account = made(work, "SELECT lo_create(4711)", "GRANT SELECT ON LARGE OBJECT 4711 TO mallory")
    work.end(account)
    query = "SELECT {} FROM pg_largeobject_metadata WHERE oid = 4711"
    assert work.ask(query.format("lomowner::regrole::text")) == "dbgf_quarantine"
    assert "mallory" not in (work.ask(query.format("lomacl::text")) or "")


def test_schemas_of_hers_move_with_what_is_in_them(work: Target) -> None:
    work.tell("GRANT CREATE ON DATABASE orders TO orders_rw, debugflow_admin")
    try:
        account = made(
            work,
            "CREATE SCHEMA hers",
            "CREATE FUNCTION hers.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "GRANT ALL ON SCHEMA hers TO PUBLIC",
        )
        work.end(account)
    finally:
        work.tell("REVOKE CREATE ON DATABASE orders FROM orders_rw, debugflow_admin")
    assert work.ask("SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'hers'") == (
        "dbgf_quarantine"
    )
    assert work.ask("SELECT has_schema_privilege('mallory', 'hers', 'USAGE')") is False


def test_prepared_transactions_are_rolled_back_where_they_are(work: Target) -> None:
    account = made(
        work, "BEGIN", "UPDATE orders SET total = -5 WHERE id = 1", "PREPARE TRANSACTION 'it''s'"
    )
    assert any("prepared" in line for line in work.provisioner.observe(account).leftovers)
    work.tell(f"ALTER ROLE {account.account} NOLOGIN")  # a cut may have rolled it back already
    work.provisioner.clean(account)
    assert work.provisioner.observe(account).gone
    assert work.ask("SELECT count(*) FROM pg_prepared_xacts") == 0
    assert work.ask("SELECT total FROM orders WHERE id = 1") == 1


def test_rights_that_bob_gave_her_elsewhere_are_found(work: Target) -> None:
    """In a database nobody told us of. Only who gave them can take them back: we say where."""
    account = work.opened()
    work.tell("CREATE TABLE IF NOT EXISTS bills (i int)", database="billing")
    work.tell(f"GRANT SELECT ON bills TO {account.account}", database="billing")
    work.provisioner.cut(account)
    with pytest.raises(ProvisionError, match="database billing"):
        work.provisioner.clean(account)
    assert any("billing" in line for line in work.provisioner.observe(account).leftovers)
    work.tell(f"REVOKE SELECT ON bills FROM {account.account}", database="billing")
    work.end(account)


def test_a_crash_half_way_is_finished_by_the_next_attempt(work: Target) -> None:
    account = made(work, *MAKES[:5])
    work.provisioner.cut(account)
    with work.bob() as bob:
        bob.execute("BEGIN")
        bob.execute("LOCK TABLE work.notes IN ACCESS SHARE MODE")
        with ThreadPoolExecutor(1) as pool:
            ending = pool.submit(_end_a_waiting_cleaner, work)
            with pytest.raises(ProvisionError):
                work.provisioner.clean(account)
            ending.result(timeout=10)
        bob.execute("ROLLBACK")
    assert not work.provisioner.observe(account).gone
    work.end(account)


def _end_a_waiting_cleaner(target: Target) -> None:
    """End the clean-up's session in `orders` as soon as it waits for bob's lock."""
    query = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE application_name LIKE 'dbgf-clean-%' AND wait_event_type = 'Lock'"
    )
    deadline = time.monotonic() + 10
    while not target.ask(query):
        assert time.monotonic() < deadline, "the clean-up never waited"
        time.sleep(0.02)


def test_without_a_quarantine_role_nothing_is_lost_and_we_say_why(work: Target) -> None:
    account = made(work, "CREATE TABLE work.notes (i int)")
    work.provisioner.cut(account)
    work.tell("ALTER ROLE dbgf_quarantine RENAME TO elsewhere")
    try:
        with pytest.raises(ProvisionError, match="target prepare"):
            work.provisioner.clean(account)
    finally:
        work.tell("ALTER ROLE elsewhere RENAME TO dbgf_quarantine")
    assert work.ask("SELECT count(*) FROM work.notes") == 0
    work.end(account)


def test_the_admin_account_keeps_no_membership_of_hers(work: Target) -> None:
    account = made(work, *MAKES)
    work.end(account)
    with work.bob() as bob:
        roles = bob.execute(
            "SELECT roleid::regrole::text FROM pg_auth_members"
            " WHERE member = 'debugflow_admin'::regrole ORDER BY 1"
        ).fetchall()
    seat = {"pg_use_reserved_connections"} if work.major > OLDEST else set()
    assert {name for (name,) in roles} == seat | {
        "dbgf_quarantine",
        "orders_ro",
        "orders_rw",
        "pg_signal_backend",
    }


def test_code_left_in_public_is_not_run_by_us(work: Target) -> None:
    """A function that fits our calls better than the server's own would run with our rights."""
    trap = (
        "CREATE FUNCTION public.pg_terminate_backend(int) RETURNS boolean LANGUAGE plpgsql"
        " AS $$ BEGIN RAISE EXCEPTION 'ran as %', current_user; END $$"
    )
    work.tell(trap, "ALTER ROLE debugflow_admin SET search_path = public, pg_catalog")
    try:
        work.end(made(work, "CREATE TABLE work.notes (i int)"))
    finally:
        work.tell("DROP FUNCTION public.pg_terminate_backend(int)")
        work.tell("ALTER ROLE debugflow_admin RESET search_path")
    with pytest.raises(psycopg.errors.UndefinedFunction):
        work.ask("SELECT public.pg_terminate_backend(1)")


def test_one_who_is_let_in_again_after_the_cut_is_out_and_the_cut_is_to_be_made_again(
    work: Target,
) -> None:
    account = work.opened(WRITE)
    work.provisioner.cut(account)
    work.tell(f"ALTER ROLE {account.account} LOGIN")
    with work.sign_in(account.account) as alice:
        for _ in range(2):
            with pytest.raises(ProvisionError) as caught:
                work.provisioner.clean(account)
            assert caught.value.code == "not_cut"
            assert is_cut(alice)
        work.provisioner.cut(account)
    work.end(account)


def test_a_session_that_came_in_after_the_cut_ends_before_the_clean_up(work: Target) -> None:
    """As of a sign-in that was held up half-way, past the check of the role."""
    account = made(work, "CREATE TABLE work.notes (i int)")
    with work.sign_in(account.account) as alice:
        work.tell(f"ALTER ROLE {account.account} NOLOGIN")
        with pytest.raises(ProvisionError) as caught:
            work.provisioner.clean(account)
        assert caught.value.code == "not_cut"
        assert is_cut(alice)
    work.end(account)


def test_one_that_is_listed_only_when_the_role_is_gone_ends_too(work: Target) -> None:
    account = work.opened(WRITE)
    with work.sign_in(account.account) as alice:
        work.tell(f"DROP ROLE {account.account}")
        with pytest.raises(ProvisionError) as caught:
            work.provisioner.clean(account)
        assert caught.value.code == "not_cut"
        assert is_cut(alice)
    work.end(account)
