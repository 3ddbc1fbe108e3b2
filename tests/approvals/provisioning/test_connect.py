"""Targets that are dead, dumb or false: bounded in time, and never told the password."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from approvals.errors import ProvisionError
from approvals.provisioning.base import Account, Finding
from approvals.provisioning.postgresql import PostgreSQL
from approvals.provisioning.postgresql.config import ServerConfig
from approvals.provisioning.postgresql.connect import Deadline, Dialer, value
from approvals.provisioning.postgresql.failures import provision_error

from .conftest import ADMIN_PASSWORD, NotedFence, Target, is_cut
from .tls import TlsFront, self_signed

ACCOUNT = Account(grant_id=1, account="dbgf_1", traces=[{"oid": 1}])


@pytest.fixture
def target(newest: Target) -> Target:
    """One server for all: how we connect depends on libpq, not on the server's version."""
    return newest


def at(port: int) -> PostgreSQL:
    config = {"host": "127.0.0.1", "port": port, "database": "x", "user": "a", "sslmode": "disable"}
    return PostgreSQL(config, {"password": ADMIN_PASSWORD})


def dialer(target: Target) -> Dialer:
    return Dialer(ServerConfig.model_validate(target.config), ADMIN_PASSWORD)


@contextmanager
def listening(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server of ours on a free port; `serve` gets the first connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=lambda: serve(server.accept()[0]))
        thread.start()
        yield server.getsockname()[1]
        thread.join(10)


def test_a_refused_port_fails_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    began = time.monotonic()
    with pytest.raises(ProvisionError) as caught:
        at(port).cut(ACCOUNT)
    assert time.monotonic() - began < 1
    assert (caught.value.code, caught.value.permanent) == ("unreachable", False)


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["cut", "clean", "observe"])
def test_a_black_hole_fails_within_its_time_out(verb: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:  # accepts, and never answers
        began = time.monotonic()
        with pytest.raises(ProvisionError) as caught:
            getattr(at(server.getsockname()[1]), verb)(ACCOUNT)
    assert 1.5 < time.monotonic() - began < 4
    assert caught.value.permanent is False


def test_a_target_that_falls_silent_is_left_at_the_deadline(target: Target) -> None:
    began = time.monotonic()
    with (
        pytest.raises(ProvisionError) as caught,
        dialer(target).session("test", Deadline(0.5), statement_timeout=60) as db,
    ):
        db.execute("SELECT pg_sleep(60)")
    assert time.monotonic() - began < 3
    assert caught.value.code == "timeout"


def test_past_the_deadline_nothing_is_begun(target: Target) -> None:
    with (
        pytest.raises(ProvisionError, match="connecting"),
        dialer(target).session("test", Deadline(0)),
    ):
        pass


def test_the_deadlines_timer_ends_with_the_connection(target: Target) -> None:
    before = threading.active_count()
    with dialer(target).session("test", Deadline(60)) as db:
        assert threading.active_count() == before + 1
        value(db, "SELECT 1")
    assert threading.active_count() == before


def test_a_false_server_that_asks_for_the_password_in_clear_gets_nothing() -> None:
    heard = bytearray()

    def ask(connection: socket.socket) -> None:
        with connection:
            connection.settimeout(5)
            heard.extend(connection.recv(4096))
            connection.sendall(b"R" + (8).to_bytes(4, "big") + (3).to_bytes(4, "big"))
            while more := connection.recv(4096):
                heard.extend(more)

    with listening(ask) as port, pytest.raises(ProvisionError) as caught:
        at(port).observe(ACCOUNT)
    assert b"user" in heard
    assert ADMIN_PASSWORD.encode() not in heard
    assert ADMIN_PASSWORD not in str(caught.value)


def checked(target: Target, front: TlsFront, anchor: str, **change: object) -> list[Finding]:
    config = target.config | {"sslmode": "verify-full", "port": front.port} | change
    return PostgreSQL(config, {"password": ADMIN_PASSWORD}, anchor).test()


def test_the_trust_anchor_decides_whom_we_talk_to(target: Target, tmp_path: Path) -> None:
    strangers, _ = self_signed("127.0.0.1")
    before = set(Path(tempfile.gettempdir()).glob("*.pem"))
    with TlsFront(target.server.port, "127.0.0.1", tmp_path) as front:
        assert all(one.ok for one in checked(target, front, front.certificate))
        for anchor in (strangers, ""):
            (finding,) = checked(target, front, anchor)
            assert "certificate verify failed" in finding.fix
    assert set(Path(tempfile.gettempdir()).glob("*.pem")) == before, "an anchor was left about"


def test_a_certificate_for_another_host_is_refused(target: Target, tmp_path: Path) -> None:
    with TlsFront(target.server.port, "192.0.2.1", tmp_path) as front:
        (finding,) = checked(target, front, front.certificate)
        assert "does not match host name" in finding.fix
        found = checked(target, front, front.certificate, sslmode="verify-ca")
        assert found[0].ok


def test_a_target_without_tls_is_not_talked_to_in_clear(target: Target) -> None:
    config = target.config | {"sslmode": "require"}
    (finding,) = PostgreSQL(config, {"password": ADMIN_PASSWORD}).test()
    assert "does not support SSL" in finding.fix


def test_without_a_password_nothing_is_tried(target: Target) -> None:
    with pytest.raises(ProvisionError) as caught:
        PostgreSQL(target.config, {}).observe(ACCOUNT)
    assert (caught.value.code, caught.value.permanent) == ("no_secret", True)


def test_a_wrong_password_is_not_repeated(target: Target) -> None:
    with pytest.raises(ProvisionError) as caught:
        PostgreSQL(target.config, {"password": "canary-wrong"}).open(target.order(), NotedFence())
    assert "canary-wrong" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("error", "permanent"),
    [
        (psycopg.errors.InsufficientPrivilege("x"), True),
        (psycopg.errors.InvalidPassword("x"), True),
        (psycopg.errors.UndefinedObject("x"), True),
        (psycopg.errors.DuplicateObject("x"), False),
        (psycopg.errors.UniqueViolation("x"), False),
        (psycopg.errors.QueryCanceled("x"), False),
        (psycopg.errors.TooManyConnections("x"), False),
        (psycopg.errors.AdminShutdown("x"), False),
        (psycopg.OperationalError("x"), False),
    ],
)
def test_what_a_retry_can_mend_is_told_from_what_it_cannot(
    error: psycopg.Error, permanent: bool
) -> None:
    assert provision_error(error, []).permanent is permanent


def test_a_targets_words_are_cleaned() -> None:
    error = psycopg.OperationalError("no\x1b[31m \n\0 s3cret" + "x" * 10_000)
    message = provision_error(error, ["s3cret", ""]).message
    assert message.isprintable()
    assert "s3cret" not in message
    assert len(message) < 600


def pid(db: psycopg.Connection[tuple[object, ...]]) -> object:
    return value(db, "SELECT pg_backend_pid()")


def test_kept_connections_are_used_again_under_their_new_name_and_closed(target: Target) -> None:
    with (made := dialer(target)).keeping():
        with made.session("dbgf-cut-1", Deadline(5)) as db:
            first = pid(db)
            db.execute("SET ROLE dbgf_quarantine")
        with made.session("dbgf-cut-2", Deadline(5)) as db:
            assert pid(db) == first
            assert value(db, "SELECT current_setting('application_name')") == "dbgf-cut-2"
            assert value(db, "SELECT current_user") == "debugflow_admin"
            with made.session("dbgf-cut-2", Deadline(5)) as other:
                assert pid(other) != first
    with target.bob() as bob:
        count = bob.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name ~ '^dbgf'"
        )
        assert count.fetchone() == (0,)
    with made.session("dbgf-cut-3", Deadline(5)) as db:
        assert pid(db) != first


def test_a_kept_connection_that_was_lost_is_replaced(target: Target) -> None:
    with (made := dialer(target)).keeping():
        with made.session("dbgf-cut-1", Deadline(5)) as db:
            first = pid(db)
        target.tell(f"SELECT pg_terminate_backend({first}, 5000)")
        with made.session("dbgf-cut-1", Deadline(5)) as db:
            assert pid(db) != first


def test_a_kept_connection_whose_server_has_stopped_is_left_at_the_deadline(
    target: Target,
) -> None:
    with (made := dialer(target)).keeping():
        with made.session("dbgf-cut-1", Deadline(5)) as db:
            stopped = db.info.backend_pid
        os.kill(stopped, signal.SIGSTOP)
        began = time.monotonic()
        try:
            with (
                pytest.raises(ProvisionError) as caught,
                made.session("dbgf-cut-2", Deadline(0.5)),
            ):
                pass
            took = time.monotonic() - began
        finally:
            os.kill(stopped, signal.SIGCONT)
    assert took < 2
    assert caught.value.code == "timeout"


def test_a_session_that_failed_is_not_kept(target: Target) -> None:
    with (made := dialer(target)).keeping():
        with made.session("dbgf-cut-1", Deadline(5)) as db:
            first = pid(db)
        with pytest.raises(ProvisionError), made.session("dbgf-cut-1", Deadline(5)) as db:
            db.execute("SELECT 1/0")
        with made.session("dbgf-cut-1", Deadline(5)) as db:
            assert pid(db) != first


def test_many_cut_over_the_same_connections_are_each_cut(target: Target) -> None:
    accounts = [target.opened() for _ in range(4)]
    sessions = [target.sign_in(account.account) for account in accounts]
    provisioner = target.provisioner
    with provisioner.kept_open():
        for account in accounts:
            provisioner.cut(account)
        for account in accounts:
            provisioner.clean(account)
            assert provisioner.observe(account).gone
    assert all(is_cut(session) for session in sessions)
