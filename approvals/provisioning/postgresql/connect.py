"""Connections to a target: bounded in time, SCRAM only, deaf to what others put in the search path.

What is said over them is in the modules beside this one.
"""

from __future__ import annotations

import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.rows import TupleRow

from approvals.errors import ProvisionError

from .config import ServerConfig
from .failures import translated

Db = psycopg.Connection[TupleRow]
Query = LiteralString | sql.SQL | sql.Composed

CONNECT_TIMEOUT = 2
"""Seconds for connecting and signing in; the least that libpq takes."""
TCP_USER_TIMEOUT = 3
"""Seconds that sent bytes may stay unacknowledged before the kernel gives the peer up."""
STATEMENT_TIMEOUT = 3
"""Seconds for one statement of a cut or a read-back."""

RENAME = "SELECT set_config('role', 'none', false), set_config('application_name', %s, false)"


class Deadline:
    """A moment on the monotonic clock at which every connection under it is shut.

    The server's own time-outs do not help against a server that has stopped answering.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self._end - time.monotonic())

    @property
    def passed(self) -> bool:
        """Whether the moment has come."""
        return not self.left

    def check(self, doing: str) -> None:
        """Raise `ProvisionError` (code `timeout`) once the moment has come."""
        if self.passed:
            raise ProvisionError(
                f"The target took more than {self.seconds:g} s for {doing}.", code="timeout"
            )

    @contextmanager
    def over(self, db: Db) -> Iterator[None]:
        """Shut the connection's socket at the deadline, wherever its user waits then."""
        # A descriptor of our own: libpq's may be closed, and its number taken by another, when
        # the timer fires.
        with socket.socket(fileno=os.dup(db.fileno())) as own:
            timer = threading.Timer(self.left, _shut, [own])
            timer.daemon = True
            timer.start()
            try:
                yield
            finally:
                timer.cancel()
                timer.join()


def _shut(own: socket.socket) -> None:
    try:
        own.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # the peer was faster


class Dialer:
    """Opens connections to one target as its admin account."""

    def __init__(self, config: ServerConfig, password: str, trust_anchor: str = "") -> None:
        self.config = config
        self._password = password
        self._trust_anchor = trust_anchor
        self._lock = threading.Lock()
        self._idle: dict[tuple[str, float], list[Db]] | None = None
        self.replicas = [
            Dialer(config.at(place), password, trust_anchor) for place in config.replicas
        ]

    def __repr__(self) -> str:
        return f"Dialer({self.config.host}:{self.config.port})"

    @contextmanager
    def session(
        self,
        name: str,
        deadline: Deadline,
        *,
        database: str = "",
        statement_timeout: float = STATEMENT_TIMEOUT,
    ) -> Iterator[Db]:
        """Yield a connection in autocommit mode, called `name`, closed at `deadline` at latest.

        `statement_timeout` is in seconds. Every error of the driver comes out as
        `ProvisionError`, code `unreachable`, `timeout` or `target_failed`.
        """
        deadline.check("connecting")
        with translated([self._password]):
            with self._connection(name, deadline, (database, statement_timeout)) as db:
                with deadline.over(db):
                    yield from _until(deadline, db)

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Keep connections for the next session inside, and close them at the end."""
        self._idle = {}
        try:
            with ExitStack() as others:
                for replica in self.replicas:
                    others.enter_context(replica.keeping())
                yield
        finally:
            with self._lock:
                idle, self._idle = self._idle, None
            for db in [db for kept in (idle or {}).values() for db in kept]:
                db.close()

    @contextmanager
    def _connection(self, name: str, deadline: Deadline, key: tuple[str, float]) -> Iterator[Db]:
        """A kept connection under its new name, or a new one; kept again if all went well."""
        db = self._taken(name, deadline, key) or self._connect(name, *key)
        try:
            yield db
        except BaseException:
            db.close()
            raise
        self._put_back(db, key)

    def _taken(self, name: str, deadline: Deadline, key: tuple[str, float]) -> Db | None:
        with self._lock:
            kept = (self._idle or {}).get(key)
            db = kept.pop() if kept else None
        if db is None:
            return None
        try:
            with deadline.over(db):
                db.execute(RENAME, [name])
        except psycopg.Error:
            db.close()
            deadline.check("answering")
            return None  # it was lost while nobody used it
        return db

    def _put_back(self, db: Db, key: tuple[str, float]) -> None:
        idle = db.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        with self._lock:
            if self._idle is not None and idle and not db.closed:
                self._idle.setdefault(key, []).append(db)
                return
        db.close()

    def _connect(self, name: str, database: str, statement_timeout: float) -> Db:
        if not self._password:
            raise ProvisionError(
                "The admin account's password is not set.", code="no_secret", permanent=True
            )
        with self._trust() as trust:
            return psycopg.connect(
                autocommit=True,
                **self._address(),
                **trust,
                dbname=database or self.config.admin_database,
                password=self._password,
                application_name=name,
                options=_options(statement_timeout),
            )

    def _address(self) -> dict[str, Any]:
        return {
            "host": self.config.host,
            "port": self.config.port,
            "user": self.config.user,
            "sslmode": self.config.sslmode,
            # libpq sends its password in clear to a false server that asks for it, unless told.
            "require_auth": "scram-sha-256",
            "gssencmode": "disable",
            "client_encoding": "UTF8",
            "connect_timeout": CONNECT_TIMEOUT,
            "tcp_user_timeout": TCP_USER_TIMEOUT * 1000,
        }

    @contextmanager
    def _trust(self) -> Iterator[Mapping[str, Any]]:
        """Yield where libpq finds the trust anchor: it takes a file, and reads it on connecting."""
        if self.config.sslmode == "disable":
            yield {}
        elif not self._trust_anchor:
            yield {"sslrootcert": "system"} if self.config.sslmode == "verify-full" else {}
        else:
            with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
                file.write(self._trust_anchor)
                file.flush()
                yield {"sslrootcert": file.name}


def _options(statement_timeout: float) -> str:
    """Return settings that hold from the first statement on.

    The empty search path keeps functions and operators that a holder made out of our statements.
    The idle time-out ends an opener that is stopped inside its transaction, if all else fails.
    """
    settings = {
        "search_path": "",
        "statement_timeout": f"{round(statement_timeout * 1000)}",
        "idle_in_transaction_session_timeout": "30000",
        "default_transaction_read_only": "off",
        "default_transaction_isolation": "read\\ committed",
        "timezone": "UTC",
    }
    return " ".join(f"-c {name}={value}" for name, value in settings.items())


def _until(deadline: Deadline, db: Db) -> Iterator[Db]:
    """Say that time was up when the deadline is what broke the connection."""
    try:
        yield db
    except psycopg.OperationalError:
        deadline.check("answering")
        raise


def all_rows(db: Db, query: Query, **values: Any) -> list[TupleRow]:
    """Return every row of `query`."""
    return db.execute(query, values).fetchall()


def value(db: Db, query: Query, **values: Any) -> Any:
    """Return the first column of the first row, or `None` when there is no row."""
    row = db.execute(query, values).fetchone()
    return row[0] if row else None
