"""The cut: whatever alice has going on, afterwards she is out and stays out."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import psycopg
import pytest

from approvals.errors import ProvisionError
from approvals.provisioning.base import Account
from approvals.provisioning.postgresql.sessions import SETTLE

from .conftest import (
    ALICES,
    READ,
    WRITE,
    Connection,
    NotedFence,
    Target,
    account_of,
    is_cut,
    wait_until_activity,
)


def assert_out(target: Target, account: Account) -> None:
    """Nobody is in, nobody gets in, and the read-back says so."""
    observed = target.provisioner.observe(account)
    assert (observed.sessions, observed.can_sign_in) == (0, False)
    with pytest.raises(psycopg.OperationalError):
        target.sign_in(account.account)


def test_an_idle_session_is_ended(target: Target) -> None:
    account = target.opened()
    with target.sign_in(account.account) as alice:
        target.provisioner.cut(account)
        assert is_cut(alice)
    assert_out(target, account)


def test_a_running_statement_is_ended_and_does_not_commit(target: Target) -> None:
    account = target.opened(WRITE)
    alice = target.sign_in(account.account)
    running = "WITH slept AS (SELECT pg_sleep(60)) UPDATE orders SET total = -1 FROM slept"
    with ThreadPoolExecutor(1) as pool:
        outcome = pool.submit(alice.execute, running)
        wait_until_activity(target, "query LIKE 'WITH slept%' AND state = 'active'")
        target.provisioner.cut(account)
        with pytest.raises(psycopg.OperationalError):
            outcome.result(timeout=5)
    alice.close()
    assert target.ask("SELECT count(*) FROM orders WHERE total = -1") == 0
    assert_out(target, account)


def test_an_open_cursor_fetches_no_more(target: Target) -> None:
    account = target.opened()
    with target.sign_in(account.account) as alice:
        alice.execute("BEGIN")
        alice.execute("DECLARE rows CURSOR FOR SELECT * FROM customers")
        assert len(alice.execute("FETCH 500 FROM rows").fetchall()) == 500
        target.provisioner.cut(account)
        with pytest.raises(psycopg.OperationalError):
            alice.execute("FETCH 500 FROM rows")
    assert_out(target, account)


def test_a_lock_on_her_own_role_does_not_keep_her_in(target: Target) -> None:
    """NOLOGIN has to wait for the row she holds; ending her session frees it."""
    account = target.opened()
    with target.sign_in(account.account) as alice:
        alice.execute("BEGIN")
        alice.execute("ALTER ROLE CURRENT_USER PASSWORD 'mine now'")
        began = time.monotonic()
        target.provisioner.cut(account)
        assert time.monotonic() - began < 3, "the lock was waited out instead of broken"
        assert is_cut(alice)
    assert_out(target, account)


def test_a_lock_left_in_a_prepared_transaction_does_not_keep_her_account_open(
    target: Target,
) -> None:
    """No session is left to end, yet the row stays locked until the transaction is rolled back."""
    account = target.opened()
    with target.sign_in(account.account) as alice:
        alice.execute("BEGIN")
        alice.execute("ALTER ROLE CURRENT_USER PASSWORD 'mine now'")
        alice.execute("PREPARE TRANSACTION 'trap; DROP TABLE orders'")
    target.provisioner.cut(account)
    assert_out(target, account)
    target.end(account)


def test_one_who_became_another_role_is_ended_too(target: Target) -> None:
    """bob gave her a role behind our back; SET ROLE outlives revocation, not termination."""
    account = target.opened()
    target.tell(f"GRANT orders_rw TO {account.account}")  # which lets her SET ROLE to it
    with target.sign_in(account.account) as alice:
        alice.execute("SET ROLE orders_rw")
        target.provisioner.cut(account)
        assert is_cut(alice)
    target.end(account)


def test_a_session_whose_role_was_dropped_is_found_by_its_oid(target: Target) -> None:
    account = target.opened()
    with target.sign_in(account.account) as alice:
        target.tell(f"DROP ROLE {account.account}")
        alice.execute("SELECT 1")  # it lives on, without a name
        assert target.provisioner.observe(account).sessions == 1
        target.provisioner.cut(account)
        assert is_cut(alice)
    target.end(account)


def test_a_renamed_role_is_still_ours(target: Target) -> None:
    account = target.opened()
    target.tell(f"ALTER ROLE {account.account} RENAME TO innocent")
    assert target.provisioner.observe(account).can_sign_in
    target.end(account)
    assert target.ask("SELECT count(*) FROM pg_roles WHERE rolname = 'innocent'") == 0


def test_a_strangers_role_under_our_name_is_not_cut(target: Target) -> None:
    account = target.opened()
    target.end(account)
    target.tell(f"CREATE ROLE {account.account} LOGIN PASSWORD 'strangers'")
    with target.sign_in(account.account, "strangers") as stranger:
        target.end(account)
        assert not is_cut(stranger)
    target.sign_in(account.account, "strangers").close()


def test_an_account_in_two_databases_is_ended_in_both(target: Target) -> None:
    account = target.opened()
    with (
        target.sign_in(account.account) as here,
        target.sign_in(account.account, database="billing") as there,
    ):
        target.provisioner.cut(account)
        assert is_cut(here)
        assert is_cut(there)


@dataclass
class Storm:
    """alice's script that signs in again and again, from several threads."""

    target: Target
    account: str
    stop: threading.Event = field(default_factory=threading.Event)
    connections: list[Connection] = field(default_factory=list)
    refusals: int = 0

    def rage(self) -> None:
        while not self.stop.is_set():
            try:
                self.connections.append(self.target.sign_in(self.account))
            except psycopg.OperationalError:
                self.refusals += 1

    def __enter__(self) -> Storm:
        self.threads = [threading.Thread(target=self.rage) for _ in range(3)]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join()
        for connection in self.connections:
            connection.close()

    def wait_for(self, *, refusals: int) -> None:
        while self.refusals < refusals:
            time.sleep(0.005)


@pytest.mark.slow
def test_a_storm_of_sign_ins_ends_with_the_cut(target: Target) -> None:
    for _ in range(3):
        account = target.opened(WRITE)
        with Storm(target, account.account) as storm:
            while not storm.connections:
                time.sleep(0.005)
            target.provisioner.cut(account)
            got_in = len(storm.connections)
            assert target.provisioner.observe(account).sessions == 0
            storm.wait_for(refusals=storm.refusals + 10)
            assert all(is_cut(connection) for connection in storm.connections)
            # One per thread may have been on its way back to us when the cut ended.
            assert len(storm.connections) <= got_in + len(storm.threads)
        assert_out(target, account)
        target.end(account)


def test_an_opener_under_way_is_ended_first(target: Target) -> None:
    """A stopped opener holds its transaction open; after the cut it cannot commit."""
    order, fence = target.order(), NotedFence()
    standing, go_on = threading.Event(), threading.Event()

    def stand_still() -> None:
        standing.set()
        assert go_on.wait(20)

    fence.before = stand_still
    with ThreadPoolExecutor(1) as pool:
        opening = pool.submit(target.provisioner.open, order, fence)
        assert standing.wait(10)
        account = account_of(order, fence)
        target.provisioner.cut(account)
        go_on.set()
        with pytest.raises(ProvisionError, match="target"):
            opening.result(timeout=20)
    assert target.provisioner.observe(account_of(order, fence)).gone
    assert target.ask(f"SELECT count(*) FROM pg_roles WHERE rolname = '{order.account}'") == 0


def test_an_opener_of_another_grant_is_not_disturbed(target: Target) -> None:
    mine, others, fence = target.opened(), target.order(), NotedFence()
    fence.before = lambda: target.provisioner.cut(mine)
    target.provisioner.open(others, fence)
    assert not is_cut(target.sign_in(others.account))


def test_cutting_again_and_cutting_nothing_are_fine(target: Target) -> None:
    account = target.opened()
    target.provisioner.cut(account)
    target.provisioner.cut(account)
    target.end(account)
    target.provisioner.cut(account)
    target.provisioner.cut(Account(grant_id=account.grant_id, account=account.account, traces=[]))
    assert target.provisioner.observe(account).gone


def test_a_cut_reports_what_it_may_not_do(target: Target) -> None:
    """bob made the account a superuser: only a superuser can end it now, and we say so."""
    account = target.opened(READ)
    target.tell(f"ALTER ROLE {account.account} SUPERUSER")
    with target.sign_in(account.account) as alice:
        with pytest.raises(ProvisionError, match="admin account lacks a right"):
            target.provisioner.cut(account)
        assert not is_cut(alice)
        assert target.provisioner.observe(account).sessions == 1
    target.tell(f"ALTER ROLE {account.account} NOSUPERUSER")
    target.end(account)


def test_a_sign_in_that_was_half_way_is_refused(target: Target) -> None:
    """alice has been asked for her proof and waits with it until the cut is done."""
    account = target.opened()
    with HalfWay(target.server.port) as gate, ThreadPoolExecutor(1) as pool:
        url = target.server.url("orders", account.account, ALICES)
        late = url.replace(f":{target.server.port}/", f":{gate.port}/")
        signing_in = pool.submit(sign_in_plainly, late)
        assert gate.held.wait(10)
        began = time.monotonic()
        target.provisioner.cut(account)
        assert time.monotonic() - began < SETTLE + 2, "whoever stalls must not hold up the cut"
        began = time.monotonic()
        target.provisioner.cut(account)
        assert time.monotonic() - began < SETTLE, "nor every one of them"
        gate.go.set()
        with pytest.raises(psycopg.OperationalError, match="not permitted to log in"):
            signing_in.result(timeout=10)
    assert_out(target, account)


def sign_in_plainly(url: str) -> Connection:
    """Sign in without asking for encryption first, which `HalfWay` does not know."""
    return psycopg.connect(url, sslmode="disable", gssencmode="disable", connect_timeout=20)


class HalfWay:
    """Passes a sign-in on up to the client's proof, and that only when told to go on."""

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self.held, self.go = threading.Event(), threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self.serve)

    def serve(self) -> None:
        with (
            self.listener.accept()[0] as client,
            socket.create_connection(("127.0.0.1", self.upstream)) as server,
        ):
            for _ in range(2):  # start-up and SCRAM's first message, each with its answer
                server.sendall(client.recv(8192))
                client.sendall(server.recv(8192))
            proof = client.recv(8192)
            self.held.set()
            self.go.wait(20)
            server.sendall(proof)
            while answer := server.recv(8192):
                client.sendall(answer)

    def __enter__(self) -> HalfWay:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.go.set()
        self.thread.join(10)
        self.listener.close()


@pytest.mark.slow
def test_what_a_holder_prepared_is_rolled_back_whatever_they_called_it(target: Target) -> None:
    """In a database without an encoding the identifier may be any bytes."""
    make = "CREATE DATABASE legacy TEMPLATE template0 ENCODING 'SQL_ASCII'"
    target.tell(f"{make} LOCALE_PROVIDER libc LOCALE 'C'", database="postgres")
    try:
        account = target.opened(READ)
        url = target.server.url("legacy", account.account, ALICES)
        with psycopg.connect(url, autocommit=True, client_encoding="LATIN1") as db:
            for statement in (
                "BEGIN",
                "ALTER ROLE CURRENT_USER SET work_mem = '1MB'",
                "PREPARE TRANSACTION 'caf\xe9 \\x41'",
            ):
                db.execute(statement)
        target.end(account)
        assert target.ask("SELECT count(*) FROM pg_prepared_xacts") == 0
    finally:
        target.tell("DROP DATABASE legacy WITH (FORCE)", database="postgres")


@pytest.mark.slow
def test_a_session_that_does_not_react_is_told_soon_and_nobody_signs_in(target: Target) -> None:
    """PostgreSQL looks for no interrupt in some computations, and only a kill ends them."""
    account = target.opened(READ)
    db = target.sign_in(account.account)
    pid = db.info.backend_pid
    with ThreadPoolExecutor(1) as pool:
        os.kill(pid, signal.SIGSTOP)  # as deaf as such a computation, and ends when the test says
        try:
            began = time.monotonic()
            with pytest.raises(ProvisionError) as caught:
                target.provisioner.cut(account)
            assert caught.value.code == "session_does_not_react"
            assert time.monotonic() - began < 6
            with pytest.raises(psycopg.OperationalError):
                pool.submit(target.sign_in, account.account).result(timeout=10)
        finally:
            os.kill(pid, signal.SIGCONT)
    target.end(account)
