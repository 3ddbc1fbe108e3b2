"""Those who use up a target's connections, or keep it busy, do not keep alice in."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psycopg
import pytest

from approvals.errors import ProvisionError

from .conftest import ALICES, WRITE, Connection, Target, is_cut, wait_until_activity


@contextmanager
def full(target: Target) -> Iterator[list[Connection]]:
    """Every connection that mallory can get, whatever she has to ask for."""
    taken: list[Connection] = []
    databases = iter(["orders", "billing"])
    database = next(databases)
    try:
        while True:
            try:
                url = target.server.url(database, "mallory", "mallory")
                taken.append(psycopg.connect(url, autocommit=True))
            except psycopg.OperationalError:
                if (database := next(databases, "")) == "":
                    break
        yield taken
    finally:
        for connection in taken:
            connection.close()


def test_a_full_server_has_a_seat_for_the_cut(newest: Target) -> None:
    account = newest.opened(WRITE)
    with newest.sign_in(account.account) as alice, full(newest) as taken:
        assert len(taken) > 40
        newest.provisioner.cut(account)
        assert is_cut(alice)
    newest.end(account)


def test_without_a_seat_of_its_own_the_cut_fails_and_says_why(newest: Target) -> None:
    """What the test above rests on: it is the reserved seat that lets the cut in."""
    account = newest.opened(WRITE)
    newest.tell("REVOKE pg_use_reserved_connections FROM debugflow_admin")
    try:
        with newest.sign_in(account.account) as alice, full(newest):
            with pytest.raises(ProvisionError, match="remaining connection slots"):
                newest.provisioner.cut(account)
            assert not is_cut(alice)
    finally:
        newest.tell("GRANT pg_use_reserved_connections TO debugflow_admin WITH INHERIT TRUE")
    newest.end(account)


def test_before_16_limits_of_the_databases_keep_the_seats(oldest: Target) -> None:
    account = oldest.opened(WRITE)
    with oldest.sign_in(account.account) as alice, full(oldest) as taken:
        assert len(taken) > 40
        oldest.provisioner.cut(account)
        assert is_cut(alice)
    oldest.end(account)


def test_before_16_a_database_without_a_limit_is_found_and_named(oldest: Target) -> None:
    assert seat(oldest) == (True, "")
    oldest.tell("ALTER DATABASE billing CONNECTION LIMIT -1")
    try:
        ok, fix = seat(oldest)
        assert not ok
        assert "CONNECTION LIMIT" in fix
    finally:
        oldest.tell("ALTER DATABASE billing CONNECTION LIMIT 8")


def seat(target: Target) -> tuple[bool, str]:
    (found,) = [one for one in target.provisioner.test() if "seat" in one.what]
    return found.ok, found.fix


def test_a_long_sleep_without_time_outs_ends_at_once(target: Target) -> None:
    account = target.opened(WRITE)
    alice = target.sign_in(account.account)
    alice.execute("SET statement_timeout = 0")
    with ThreadPoolExecutor(1) as pool:
        sleeping = pool.submit(alice.execute, "SELECT pg_sleep(600)")
        wait_until_activity(target, "query LIKE '%pg_sleep(600)%' AND state = 'active'")
        target.provisioner.cut(account)
        with pytest.raises(psycopg.OperationalError):
            sleeping.result(timeout=5)
    target.end(account)


WEATHERED = (  # cut, refused, or her own three in each other's way
    psycopg.OperationalError,
    psycopg.errors.InternalError_,
    psycopg.errors.UniqueViolation,
)


def test_one_who_alters_her_own_role_all_the_time_is_cut(target: Target) -> None:
    """Each ALTER makes ours wait, or fail with "tuple concurrently updated"."""
    account = target.opened(WRITE)
    stop = threading.Event()

    def rage() -> int:
        count = 0
        while not stop.is_set():
            try:
                url = target.server.url("orders", account.account, ALICES)
                with psycopg.connect(url, autocommit=True) as db:
                    while True:
                        db.execute("ALTER ROLE CURRENT_USER SET work_mem = '1MB'")
                        count += 1
            except WEATHERED:
                continue
        return count

    with ThreadPoolExecutor(3) as pool:
        raging = [pool.submit(rage) for _ in range(3)]
        wait_until_activity(target, "query LIKE 'ALTER ROLE CURRENT_USER%'")
        try:
            target.provisioner.cut(account)
            observed = target.provisioner.observe(account)
        finally:
            stop.set()
    assert (observed.sessions, observed.can_sign_in) == (0, False)
    assert sum(one.result() for one in raging) > 0
    target.end(account)
