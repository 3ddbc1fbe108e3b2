"""Read replicas: alice has a session there as well, and is out of both when she is cut."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydantic import ValidationError

from approvals.errors import ProvisionError
from approvals.provisioning.base import Account
from approvals.provisioning.postgresql import PostgreSQL
from approvals.provisioning.postgresql.config import ServerConfig

from .conftest import ADMIN_PASSWORD, ALICES, READ, SETTINGS, SINCE_16, Connection, Target, is_cut
from .standby import Standby


@pytest.fixture(scope="module")
def running(targets: Any, server_directory: Path) -> Iterator[Standby]:
    primary = targets(18).server
    with Standby(server_directory / "replica", primary, settings=SETTINGS | SINCE_16) as standby:
        yield standby


@pytest.fixture
def replica(running: Standby, newest: Target) -> Iterator[Standby]:
    """The replica of `newest`, which follows it again afterwards."""
    yield running
    tell(running, "SELECT pg_wal_replay_resume()")


def tell(standby: Standby, statement: str) -> Any:
    with psycopg.connect(standby.url("orders"), autocommit=True) as db:
        row = db.execute(statement.encode()).fetchone()
    return row[0] if row else None


def provisioner(target: Target, *ports: int) -> PostgreSQL:
    places = [{"host": "127.0.0.1", "port": port} for port in ports]
    return PostgreSQL(target.config | {"replicas": places}, {"password": ADMIN_PASSWORD})


def wait_for(standby: Standby, account: Account) -> None:
    query = f"SELECT count(*) FROM pg_roles WHERE rolname = '{account.account}'"
    deadline = time.monotonic() + 10
    while not tell(standby, query):
        assert time.monotonic() < deadline, "the replica does not follow"
        time.sleep(0.01)


def sign_in_there(standby: Standby, account: Account) -> Connection:
    url = standby.url("orders", account.account, ALICES)
    return psycopg.connect(url, autocommit=True, connect_timeout=5)


@contextmanager
def in_both(target: Target, standby: Standby) -> Iterator[tuple[Account, Connection, Connection]]:
    """alice's account, with a session on the primary and one on the replica."""
    account = target.opened(READ)
    wait_for(standby, account)
    with target.sign_in(account.account) as here, sign_in_there(standby, account) as there:
        assert there.execute("SELECT count(*) FROM orders").fetchone() == (2000,)
        yield account, here, there


def test_she_is_out_of_both_and_gets_in_nowhere(newest: Target, replica: Standby) -> None:
    ours = provisioner(newest, replica.port)
    with in_both(newest, replica) as (account, here, there):
        assert ours.observe(account).sessions == 2
        ours.cut(account)
        assert is_cut(here)
        assert is_cut(there)
    with pytest.raises(psycopg.OperationalError, match="not permitted to log in"):
        sign_in_there(replica, account)
    observed = ours.observe(account)
    assert (observed.sessions, observed.can_sign_in) == (0, False)
    ours.clean(account)
    assert ours.observe(account).gone


def test_without_naming_the_replica_she_would_have_stayed(newest: Target, replica: Standby) -> None:
    with in_both(newest, replica) as (account, here, there):
        newest.provisioner.cut(account)
        assert is_cut(here)
        assert not is_cut(there)
        provisioner(newest, replica.port).cut(account)
        assert is_cut(there)
    newest.end(account)


def test_a_dead_replica_fails_the_cut_by_name_and_delays_the_primary_by_nothing(
    newest: Target, replica: Standby
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hole:  # accepts, and never answers
        port = hole.getsockname()[1]
        ours = provisioner(newest, port, replica.port)
        with in_both(newest, replica) as (account, here, there), ThreadPoolExecutor(1) as pool:
            began = time.monotonic()
            cutting = pool.submit(ours.cut, account)
            for session in (here, there):
                while not is_cut(session):
                    time.sleep(0.01)
            assert time.monotonic() - began < 1, "it waited for the dead one"
            with pytest.raises(ProvisionError, match=f"Replica 127.0.0.1:{port}:") as caught:
                cutting.result(timeout=20)
            assert "cut on the primary" in caught.value.message
            began = time.monotonic()
            with pytest.raises(ProvisionError, match=f"127.0.0.1:{port}"):
                ours.cut(account)
            assert time.monotonic() - began < 1.5, "every cut would have waited for the dead one"
            with pytest.raises(ProvisionError, match=f"127.0.0.1:{port}"):
                ours.observe(account)
    newest.end(account)


def test_a_replica_that_is_behind_holds_the_cut_up_until_it_has_heard(
    newest: Target, replica: Standby, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without replay NOLOGIN is not there: whoever is ended comes back, and is ended again."""
    monkeypatch.setattr("approvals.provisioning.postgresql.cut.CUT_DEADLINE", 3)
    ours = provisioner(newest, replica.port)
    with in_both(newest, replica) as (account, _, there):
        tell(replica, "SELECT pg_wal_replay_pause()")
        with pytest.raises(ProvisionError, match="replication is behind") as caught:
            ours.cut(account)
        assert caught.value.code == "replica_behind"
        assert is_cut(there)
        with sign_in_there(replica, account) as again:
            assert ours.observe(account).sessions == 1
            assert ours.observe(account).can_sign_in
            tell(replica, "SELECT pg_wal_replay_resume()")
            wait_until_closed(replica, [account])
            ours.cut(account)
            assert is_cut(again)
    newest.end(account)


def test_a_replica_that_has_not_heard_of_the_account_at_all_is_waited_for(
    newest: Target, replica: Standby, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can sign in there yet; but once it has replayed the opening, somebody could."""
    monkeypatch.setattr("approvals.provisioning.postgresql.cut.CUT_DEADLINE", 2)
    tell(replica, "SELECT pg_wal_replay_pause()")
    ours, account = provisioner(newest, replica.port), newest.opened(READ)
    with pytest.raises(ProvisionError, match="replication is behind"):
        ours.cut(account)
    tell(replica, "SELECT pg_wal_replay_resume()")
    wait_for(replica, account)
    wait_until_closed(replica, [account])
    ours.cut(account)
    newest.end(account)


def test_many_are_out_of_both_at_once(newest: Target, replica: Standby) -> None:
    ours = provisioner(newest, replica.port)
    with several(newest, replica, 4) as (accounts, sessions):
        assert ours.cut_many(accounts) == {one.grant_id for one in accounts}
        assert all(is_cut(session) for session in sessions)
    for account in accounts:
        newest.end(account)


def test_a_replica_that_is_behind_keeps_nobody_in_on_the_primary_and_costs_each_little(
    newest: Target, replica: Standby
) -> None:
    """All are out of the primary before it is said of any that the replica has not heard."""
    ours = provisioner(newest, replica.port)
    with several(newest, replica, 3) as (accounts, sessions):
        tell(replica, "SELECT pg_wal_replay_pause()")
        began = time.monotonic()
        assert ours.cut_many(accounts) == frozenset()
        assert all(is_cut(session) for session in sessions)
        for account in accounts:
            assert newest.provisioner.observe(account).can_sign_in is False
            with pytest.raises(ProvisionError) as caught:
                ours.cut(account)
            assert (caught.value.code, caught.value.details["alone"]) == ("replica_behind", True)
        assert time.monotonic() - began < 8, "each waited for it as long as it may"
        tell(replica, "SELECT pg_wal_replay_resume()")
        wait_until_closed(replica, accounts)
        assert ours.cut_many(accounts) == {one.grant_id for one in accounts}
    for account in accounts:
        newest.end(account)


@contextmanager
def several(
    target: Target, standby: Standby, count: int
) -> Iterator[tuple[list[Account], list[Connection]]]:
    """Accounts, and a session of each on the primary and on the replica."""
    accounts = [target.opened(READ) for _ in range(count)]
    for account in accounts:
        wait_for(standby, account)
    there = [sign_in_there(standby, account) for account in accounts]
    try:
        yield accounts, [*there, *(target.sign_in(account.account) for account in accounts)]
    finally:
        for session in there:
            session.close()


def wait_until_closed(standby: Standby, accounts: list[Account]) -> None:
    names = ", ".join(f"'{account.account}'" for account in accounts)
    query = f"SELECT count(*) FROM pg_roles WHERE rolcanlogin AND rolname IN ({names})"
    deadline = time.monotonic() + 10
    while tell(standby, query):
        assert time.monotonic() < deadline, "the replica does not follow"
        time.sleep(0.01)


def test_with_the_primary_gone_her_sessions_on_the_replica_are_ended_all_the_same(
    newest: Target, replica: Standby
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    places = [{"host": "127.0.0.1", "port": replica.port}]
    config = newest.config | {"port": port, "replicas": places}
    with in_both(newest, replica) as (account, here, there):
        with pytest.raises(ProvisionError):
            PostgreSQL(config, {"password": ADMIN_PASSWORD}).cut(account)
        assert is_cut(there)
        assert not is_cut(here)
    newest.end(account)


def test_another_cluster_is_left_alone_whoever_has_the_number_there(
    newest: Target, oldest: Target
) -> None:
    """A number is one role here and another there: mallory's session is no business of ours."""
    account = newest.opened(READ)
    ours = provisioner(newest, oldest.server.port)
    number = oldest.ask("SELECT oid FROM pg_roles WHERE rolname = 'mallory'")
    same = Account(
        grant_id=account.grant_id,
        account=account.account,
        traces=[*account.traces, {"oid": number}],
    )
    with oldest.sign_in("mallory", "mallory") as mallory:
        with pytest.raises(ProvisionError, match="cluster of its own") as caught:
            ours.cut(same)
        assert caught.value.code == "not_a_replica"
        assert not is_cut(mallory)
    assert f"127.0.0.1:{oldest.server.port}" in caught.value.message
    newest.end(account)


def test_the_test_of_the_connection_has_a_line_for_each(
    newest: Target, oldest: Target, replica: Standby
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        dead = server.getsockname()[1]
    found = provisioner(newest, replica.port, oldest.server.port, dead).test()
    good, stranger, silent = [one for one in found if "replica" in one.what]
    assert good.ok
    assert (stranger.ok, "cluster of its own" in stranger.fix) == (False, True)
    assert (silent.ok, str(dead) in silent.what) == (False, True)


@pytest.mark.parametrize(
    "replicas",
    [
        [{"host": "a b"}],
        [{"host": "db1", "port": 0}],
        [{"host": "db2"}, {"host": "db2", "port": 5432}],
        [{"host": "db1", "port": 5432}],
        [{"host": f"r{n}"} for n in range(17)],
        [{"host": "db2", "password": "x"}],
    ],
)
def test_what_cannot_be_a_replica_is_refused(replicas: list[dict[str, Any]]) -> None:
    fields = {"host": "db1", "database": "orders", "user": "admin", "replicas": replicas}
    with pytest.raises(ValidationError):
        ServerConfig.model_validate(fields)


def test_leaving_one_out_would_hinder_the_end_and_adding_one_would_not() -> None:
    one, two = {"host": "r1", "port": 5432}, {"host": "r2", "port": 5432}
    without: dict[str, Any] = {"admin_database": "postgres", "quarantine": "q"}
    with_one, with_two = without | {"replicas": [one]}, without | {"replicas": [two, one]}
    assert PostgreSQL.hindering(without, with_one) == []
    assert PostgreSQL.hindering(with_one, with_two) == []
    assert PostgreSQL.hindering(with_two, with_one) == ["replicas"]
    assert PostgreSQL.hindering(with_one, without | {"quarantine": "r"}) == [
        "quarantine",
        "replicas",
    ]
