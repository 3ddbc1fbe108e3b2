"""What differs on PostgreSQL 15, where a member of a role may always act as that role.

Everything else is tested on both servers, in the modules beside this one.
"""

from __future__ import annotations

import threading
import time

import psycopg
import pytest

from approvals.errors import Invalid, ProvisionError
from approvals.provisioning import postgresql
from approvals.provisioning.base import Account

from .conftest import (
    ADMIN,
    ADMIN_PASSWORD,
    OLDEST,
    READ,
    WRITE,
    Connection,
    NotedFence,
    Target,
    account_of,
    is_cut,
    refused,
    wait_until_activity,
)
from .debian import PROGRAMS, DebianPostgres

BACK_DOORS = [
    "CREATE TABLE work.hers (i int)",
    "GRANT SELECT ON work.hers TO mallory",
    "CREATE VIEW work.peek AS SELECT * FROM orders",
    "GRANT SELECT, UPDATE ON work.peek TO mallory",
    "CREATE FUNCTION work.door() RETURNS bigint LANGUAGE sql SECURITY DEFINER"
    " AS 'SELECT count(*) FROM public.orders'",
    "SELECT lo_create(815)",
]
OPEN_DOORS = ["SELECT * FROM work.hers", "SELECT * FROM work.peek", "SELECT work.door()"]


def acting_as(target: Target, account: Account, role: str) -> Connection:
    alice = target.sign_in(account.account)
    alice.execute(f"SET ROLE {role}".encode())
    return alice


def test_these_are_the_servers_they_are_called(oldest: Target, newest: Target) -> None:
    """Else everything here would hold for nothing."""
    for target in (oldest, newest):
        with target.bob() as bob:
            assert bob.info.server_version // 10000 == target.major
    assert isinstance(oldest.server, DebianPostgres)
    assert oldest.major == OLDEST == int(PROGRAMS.parent.name)


def test_who_acts_as_the_level_is_out_with_the_cut(oldest: Target) -> None:
    account = oldest.opened()
    with acting_as(oldest, account, "orders_ro") as alice:
        assert alice.execute("SELECT count(*) FROM orders").fetchone() == (2000,)
        assert refused(alice, "DELETE FROM orders") == "42501"
        assert refused(alice, "GRANT orders_ro TO mallory") == "42501"
        oldest.provisioner.cut(account)
        assert is_cut(alice)
    with pytest.raises(psycopg.OperationalError, match="not permitted to log in"):
        oldest.sign_in(account.account)
    oldest.end(account)


def test_a_revoked_membership_alone_would_not_have_ended_it(oldest: Target) -> None:
    """Why the session has to end: SET ROLE outlives the membership and the login itself."""
    account = oldest.opened()
    with acting_as(oldest, account, "orders_ro") as alice:
        oldest.tell(f"DROP ROLE {account.account}")
        assert alice.execute("SELECT count(*) FROM orders").fetchone() == (2000,)
        oldest.end(account)
        assert is_cut(alice)


def test_the_admin_account_is_worth_more_there(oldest: Target, newest: Target) -> None:
    """CREATEROLE may join any role but a superuser; the documentation warns of it."""
    programs = "GRANT pg_execute_server_program TO CURRENT_USER"
    with newest.sign_in(ADMIN, ADMIN_PASSWORD) as admin:
        assert refused(admin, programs) == "42501"
        assert refused(admin, "ALTER ROLE mallory PASSWORD 'x'") == "42501"
        assert refused(admin, "SELECT * FROM orders") == "42501"
    with oldest.sign_in(ADMIN, ADMIN_PASSWORD) as admin:
        admin.execute(f"BEGIN; {programs}; ALTER ROLE mallory PASSWORD 'x'")
        admin.execute("SELECT * FROM orders")
        admin.execute("ROLLBACK")
        assert refused(admin, "ALTER ROLE postgres NOLOGIN") == "42501"


def test_what_she_made_as_the_level_is_taken_over_too(oldest: Target) -> None:
    oldest.tell("GRANT USAGE ON SCHEMA work TO mallory")
    account, before = oldest.opened(WRITE), oldest.provisioner.summarise(WRITE)
    with acting_as(oldest, account, "orders_rw") as alice:
        for statement in BACK_DOORS:
            alice.execute(statement.encode())
    with oldest.sign_in("mallory", "mallory") as mallory:
        for door in OPEN_DOORS:
            mallory.execute(door.encode())
        oldest.end(account)
        assert {refused(mallory, door) for door in OPEN_DOORS} == {"42501"}
    assert owned_by(oldest, "orders_rw") == 0
    assert owned_by(oldest, "dbgf_quarantine") >= 4
    assert oldest.provisioner.summarise(WRITE) == before, "the level's own rights are untouched"
    with oldest.bob() as bob:
        bob.execute("DROP OWNED BY dbgf_quarantine CASCADE")
        bob.execute("GRANT USAGE, CREATE ON SCHEMA work TO dbgf_quarantine")
        bob.execute("REVOKE USAGE ON SCHEMA work FROM mallory")


def owned_by(target: Target, role: str) -> int:
    count: int = target.ask(
        f"SELECT count(*) FROM pg_shdepend WHERE refobjid = '{role}'::regrole AND deptype = 'o'"
    )
    return count


def test_until_then_nobody_else_is_given_the_level(oldest: Target) -> None:
    """Whoever owns a thing may pass it on, so that it would outlive the next holder as well."""
    account = oldest.opened()
    with acting_as(oldest, account, "orders_ro") as alice:
        alice.execute("SELECT lo_create(816)")
        with pytest.raises(Invalid, match="orders_ro owns 1 objects"):
            oldest.provisioner.summarise(READ)
    oldest.end(account)
    oldest.provisioner.summarise(READ)
    oldest.tell("SELECT lo_unlink(816)")


def test_what_she_prepared_as_the_level_keeps_nobody_in(oldest: Target) -> None:
    """Its owner is the level, and it holds the row that NOLOGIN has to write."""
    account = oldest.opened()
    with oldest.sign_in(account.account) as alice:
        for statement in (
            "BEGIN",
            "ALTER ROLE CURRENT_USER PASSWORD 'mine now'",
            "SET ROLE orders_ro",
            "PREPARE TRANSACTION 'trap'",
        ):
            alice.execute(statement.encode())
    oldest.provisioner.cut(account)
    with pytest.raises(psycopg.OperationalError):
        oldest.sign_in(account.account)
    oldest.end(account)


def test_what_she_prepared_as_the_level_is_never_committed(oldest: Target) -> None:
    account = oldest.opened(WRITE)
    with acting_as(oldest, account, "orders_rw") as alice:
        for statement in ("BEGIN", "DELETE FROM orders", "PREPARE TRANSACTION 'later'"):
            alice.execute(statement.encode())
    oldest.end(account)
    assert oldest.ask("SELECT count(*) FROM pg_prepared_xacts") == 0
    assert oldest.ask("SELECT count(*) FROM orders") == 2000


def test_an_open_that_takes_too_long_is_ended_by_us_alone(
    oldest: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before 17 the server has no limit for a whole transaction."""
    monkeypatch.setattr(postgresql, "OPEN_DEADLINE", 1.5)
    order, late = oldest.order(), threading.Event()
    fence = NotedFence(before=lambda: _until_its_session_is_gone(oldest, order.grant_id, late))
    with pytest.raises(ProvisionError) as caught:
        oldest.provisioner.open(order, fence)
    assert caught.value.code == "timeout"
    assert late.is_set()
    assert oldest.provisioner.observe(account_of(order, fence)).gone


def _until_its_session_is_gone(target: Target, grant_id: int, late: threading.Event) -> None:
    name = f"application_name = 'dbgf-open-{grant_id}'"
    wait_until_activity(target, name)
    end = time.monotonic() + 10
    while target.ask(f"SELECT count(*) FROM pg_stat_activity WHERE {name}"):
        assert time.monotonic() < end, "the deadline passed and nothing was ended"
        time.sleep(0.02)
    late.set()
