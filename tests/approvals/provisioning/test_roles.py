"""Opening: alice gets exactly the frozen rights, once, or nothing at all is left behind."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from approvals.errors import Fenced, ProvisionError
from approvals.provisioning.base import Account, ExtendOrder, Opened

from .conftest import (
    ADMIN_PASSWORD,
    ALICES,
    READ,
    WRITE,
    NotedFence,
    Target,
    account_of,
    is_cut,
    refused,
    wait_until_activity,
)


def test_alice_reads_and_may_do_nothing_else(target: Target) -> None:
    account = target.opened()
    with target.sign_in(account.account) as alice:
        assert alice.execute("SELECT count(*) FROM orders").fetchone() == (2000,)
        assert refused(alice, "DELETE FROM orders") == "42501"
        assert refused(alice, "CREATE TABLE mine (i int)") == "42501"
        assert refused(alice, "CREATE TABLE work.mine (i int)") == "42501"
        assert refused(alice, "CREATE ROLE friend") == "42501"
    target.end(account)


def test_alice_cannot_become_the_level(newest: Target) -> None:
    """Before 16 she can, for as long as her session lasts; see `test_versions`."""
    account = newest.opened()
    with newest.sign_in(account.account) as alice:
        assert refused(alice, "SET ROLE orders_ro") == "42501"
    newest.end(account)


def test_alice_cannot_pass_the_level_on(target: Target) -> None:
    account = target.opened()
    with target.sign_in(account.account) as alice:
        assert refused(alice, "GRANT orders_ro TO mallory") == "42501"
        assert refused(alice, f"GRANT {account.account} TO mallory") == "42501"
        alice.execute("GRANT SELECT ON orders TO mallory")  # a warning: nothing was granted
    assert target.ask("SELECT has_table_privilege('mallory', 'orders', 'SELECT')") is False
    target.end(account)


def test_the_holder_is_told_where_to_connect_and_no_secret(target: Target) -> None:
    opened = target.provisioner.open(target.order(), NotedFence())
    assert opened.connection["database"] == "orders"
    assert opened.connection["port"] == target.server.port
    assert not {ALICES, ADMIN_PASSWORD} & {str(value) for value in opened.connection.values()}


def test_the_servers_own_expiry_is_the_control_planes_time_plus_the_duration(
    target: Target,
) -> None:
    order, fence = target.order(), NotedFence()
    before = datetime.now(UTC)
    opened = target.provisioner.open(order, fence)
    assert (
        timedelta(0) <= opened.valid_until - before - timedelta(seconds=600) < timedelta(seconds=30)
    )
    until = target.ask(f"SELECT rolvaliduntil FROM pg_roles WHERE rolname = '{order.account}'")
    assert until == opened.valid_until
    assert fence.undo[0]["valid_until"] == until.isoformat()


def test_past_its_expiry_the_server_lets_nobody_in(target: Target) -> None:
    account = target.opened()
    target.extend(account, datetime.now(UTC) - timedelta(seconds=1))
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        target.sign_in(account.account)


def test_an_extension_moves_the_expiry(target: Target) -> None:
    account = target.opened()
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=3)
    fence = NotedFence()
    target.extend(account, until, fence)
    found = target.ask(f"SELECT rolvaliduntil FROM pg_roles WHERE rolname = '{account.account}'")
    assert found == until
    assert fence.undo == [{"valid_until": until.isoformat()}]


def test_alice_goes_on_in_her_session_and_is_cut_at_the_new_end(target: Target) -> None:
    """The one she had before: with what she had in it, and the password she knows."""
    account = target.opened()
    with target.sign_in(account.account) as alice:
        alice.execute("CREATE TEMP TABLE notes AS SELECT 1 AS one")
        pid = alice.info.backend_pid
        until = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=6)
        target.extend(account, until)
        target.extend(account, until)
        assert alice.execute("SELECT one FROM notes").fetchone() == (1,)
        assert alice.info.backend_pid == pid
        target.sign_in(account.account).close()
        query = f"SELECT rolvaliduntil FROM pg_roles WHERE rolname = '{account.account}'"
        assert target.ask(query) == until
        time.sleep(max(0.0, (until - datetime.now(UTC)).total_seconds()) + 0.1)
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            target.sign_in(account.account)
        target.provisioner.cut(account)
        assert is_cut(alice)
    target.end(account)


def test_an_extension_that_is_overtaken_is_rolled_back(target: Target) -> None:
    account = target.opened()
    query = f"SELECT rolvaliduntil FROM pg_roles WHERE rolname = '{account.account}'"
    before = target.ask(query)

    def overtaken() -> None:
        raise Fenced

    with pytest.raises(Fenced):
        target.extend(account, datetime.now(UTC) + timedelta(hours=3), NotedFence(before=overtaken))
    assert target.ask(query) == before


def test_a_close_ends_an_extension_before_its_commit(target: Target) -> None:
    """Stopped after its fence has held, it moves nothing once the cut has looked."""
    account = target.opened()
    query = f"SELECT rolvaliduntil FROM pg_roles WHERE rolname = '{account.account}'"
    before = target.ask(query)
    fence = NotedFence(before=lambda: target.provisioner.cut(account))
    with pytest.raises(ProvisionError):
        target.extend(account, datetime.now(UTC) + timedelta(hours=3), fence)
    assert target.ask(query) == before
    assert not target.provisioner.observe(account).can_sign_in


def test_a_level_that_changed_since_its_approval_is_not_extended(target: Target) -> None:
    account, summary = target.opened(), target.provisioner.summarise(READ)
    until = datetime.now(UTC) + timedelta(hours=3)
    order = ExtendOrder(account=account, rights=READ, summary=summary, valid_until=until)
    target.tell("GRANT UPDATE ON orders TO orders_ro")
    try:
        with pytest.raises(ProvisionError) as caught:
            target.provisioner.extend(order, NotedFence())
    finally:
        target.tell("REVOKE UPDATE ON orders FROM orders_ro")
    assert (caught.value.code, caught.value.permanent) == ("scope_changed", True)
    assert caught.value.details["changes"]


def test_an_account_that_is_gone_or_a_strangers_is_not_extended(target: Target) -> None:
    account = target.opened()
    target.end(account)
    assert _refusal_to_extend(target, account) == ("gone", True)
    target.tell(f"CREATE ROLE {account.account}")
    assert _refusal_to_extend(target, account) == ("gone", True)


def _refusal_to_extend(target: Target, account: Account) -> tuple[str, bool]:
    with pytest.raises(ProvisionError, match="no role") as caught:
        target.extend(account, datetime.now(UTC))
    return caught.value.code, caught.value.permanent


def test_a_level_that_changed_since_its_approval_is_not_opened(target: Target) -> None:
    order = target.order()
    target.tell("GRANT UPDATE ON orders TO orders_ro")
    try:
        with pytest.raises(ProvisionError) as caught:
            target.provisioner.open(order, NotedFence())
    finally:
        target.tell("REVOKE UPDATE ON orders FROM orders_ro")
    assert (caught.value.code, caught.value.permanent) == ("scope_changed", True)
    assert any(
        line.startswith("+") and "UPDATE" in line for line in caught.value.details["changes"]
    )
    assert exists(target, order.account) is False


def test_a_level_that_became_unsafe_is_not_opened(target: Target) -> None:
    order = target.order()
    target.tell("GRANT SELECT ON orders TO orders_ro WITH GRANT OPTION")
    try:
        with pytest.raises(ProvisionError, match="GRANT OPTION") as caught:
            target.provisioner.open(order, NotedFence())
    finally:
        target.tell("REVOKE GRANT OPTION FOR SELECT ON orders FROM orders_ro")
    assert (caught.value.code, caught.value.permanent) == ("scope_changed", True)


def test_a_strangers_role_under_our_name_is_left_alone(target: Target) -> None:
    order = target.order()
    target.tell(f"CREATE ROLE {order.account} LOGIN PASSWORD 'strangers'")
    with pytest.raises(ProvisionError) as caught:
        target.provisioner.open(order, NotedFence())
    assert (caught.value.code, caught.value.permanent) == ("name_taken", True)
    target.sign_in(order.account, "strangers").close()
    assert (
        target.ask(
            "SELECT count(*) FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member"
            f" WHERE rolname = '{order.account}'"
        )
        == 0
    )


def test_an_attempt_whose_answer_was_lost_is_continued(target: Target) -> None:
    order, fence = target.order(WRITE), NotedFence()
    target.provisioner.open(order, fence)
    again = target.order(WRITE, grant=order.grant_id, known=fence.undo)
    target.provisioner.open(again, fence)
    assert fence.undo[0]["oid"] == fence.undo[1]["oid"]
    target.sign_in(order.account).close()
    target.end(account_of(order, fence))


def test_a_fence_that_does_not_hold_leaves_nothing(target: Target) -> None:
    def lost() -> None:
        raise Fenced

    order = target.order()
    with pytest.raises(Fenced):
        target.provisioner.open(order, NotedFence(before=lost))
    assert exists(target, order.account) is False


def test_an_opener_cut_before_its_commit_never_commits(target: Target) -> None:
    """The grant ends while an open stands just before COMMIT: its undo is noted, nothing more."""
    order, fence = target.order(), NotedFence()

    def end_comes_first() -> None:
        target.provisioner.cut(Account(grant_id=order.grant_id, account=order.account, traces=[]))

    fence.before = end_comes_first
    with pytest.raises(ProvisionError) as caught:
        target.provisioner.open(order, fence)
    assert caught.value.permanent is False
    assert len(fence.undo) == 1
    assert exists(target, order.account) is False
    assert target.provisioner.observe(account_of(order, fence)).gone


def test_two_openers_of_one_account_end_as_one_role(target: Target) -> None:
    """A zombie commits while another opens: that one fails for now, then takes its role over."""
    order, zombie, mine = target.order(), NotedFence(), NotedFence()
    with ThreadPoolExecutor(1) as pool:
        others: list[Future[Opened]] = []

        def let_the_other_catch_up() -> None:
            others.append(pool.submit(target.provisioner.open, order, mine))
            waits = "application_name LIKE 'dbgf-open-%' AND wait_event_type = 'Lock'"
            wait_until_activity(target, waits)

        zombie.before = let_the_other_catch_up
        target.provisioner.open(order, zombie)
        with pytest.raises(ProvisionError, match=r"already exists|duplicate") as caught:
            others[0].result(timeout=10)
    assert caught.value.permanent is False
    again = target.order(grant=order.grant_id, known=zombie.undo)
    target.provisioner.open(again, mine)
    assert mine.undo[0]["oid"] == zombie.undo[0]["oid"]
    target.end(account_of(order, mine))


def test_no_password_reaches_the_servers_log(target: Target) -> None:
    begin = target.server.log.stat().st_size
    order = target.order()
    target.provisioner.open(order, NotedFence())
    log = target.server.log.read_bytes()[begin:].decode()
    assert f'CREATE ROLE "{order.account}"' in log
    assert "SCRAM-SHA-256$" in log
    assert ALICES not in log
    assert ADMIN_PASSWORD not in log


def test_no_password_shows_in_what_is_printed(target: Target) -> None:
    assert ALICES not in repr(target.order())
    assert ADMIN_PASSWORD not in repr(target.provisioner)


def exists(target: Target, name: str) -> bool:
    return bool(target.ask(f"SELECT count(*) FROM pg_roles WHERE rolname = '{name}'"))
