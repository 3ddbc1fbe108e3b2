"""A production target of its own, prepared exactly as `prepare_sql` prints it.

The admin account is the one from there: no superuser. alice holds the access, bob is the DBA (the
target's superuser), mallory is anyone else with an account on the target.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from approvals.provisioning.base import Account, OpenOrder
from approvals.provisioning.postgresql import PostgreSQL
from debugflow.embedded.postgres import EmbeddedPostgres

ADMIN, ADMIN_PASSWORD = "debugflow_admin", "admin-canary-7Qx"
READ = {"role": "orders_ro"}
WRITE = {"role": "orders_rw", "connection_limit": 20}
ALICES = "alice-canary-9Zp"

SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "max_connections": "60",
    "reserved_connections": "5",
    "max_prepared_transactions": "10",
    "log_statement": "all",
}

Connection = psycopg.Connection[Any]


@dataclass
class NotedFence:
    """The control plane's side: keeps what it was given; `before` runs inside `hold`."""

    undo: list[Mapping[str, Any]] = field(default_factory=list)
    before: Callable[[], None] = lambda: None

    def now(self) -> datetime:
        return datetime.now(UTC)

    def hold(self, undo: Mapping[str, Any]) -> None:
        self.before()
        self.undo.append(undo)


@dataclass
class Target:
    """The target's server, seen from all sides."""

    server: EmbeddedPostgres
    _ids: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _signed_in: list[Connection] = field(default_factory=list)

    @property
    def config(self) -> dict[str, Any]:
        return {
            "host": "127.0.0.1",
            "port": self.server.port,
            "database": "orders",
            "user": ADMIN,
            "sslmode": "disable",
        }

    @property
    def provisioner(self) -> PostgreSQL:
        return PostgreSQL(self.config, {"password": ADMIN_PASSWORD})

    def bob(self, database: str = "orders") -> Connection:
        return psycopg.connect(self.server.url(database), autocommit=True)

    def tell(self, *statements: str, database: str = "orders") -> None:
        with self.bob(database) as db:
            for statement in statements:
                db.execute(statement.encode())

    def ask(self, query: str, database: str = "orders") -> Any:
        with self.bob(database) as db:
            row = db.execute(query.encode()).fetchone()
        return row[0] if row else None

    def sign_in(self, account: str, password: str = ALICES, database: str = "orders") -> Connection:
        url = self.server.url(database, account, password)
        db = psycopg.connect(url, autocommit=True, connect_timeout=5)
        self._signed_in.append(db)
        return db

    def close_all(self) -> None:
        while self._signed_in:
            self._signed_in.pop().close()

    def order(
        self,
        rights: Mapping[str, Any] = READ,
        *,
        grant: int = 0,
        known: Sequence[Mapping[str, Any]] = (),
    ) -> OpenOrder:
        grant_id = grant or next(self._ids)
        return OpenOrder(
            grant_id=grant_id,
            account=f"dbgf_{grant_id}",
            rights=rights,
            summary=self.provisioner.summarise(rights),
            password=ALICES,
            duration=600,
            known=known,
        )

    def opened(self, rights: Mapping[str, Any] = READ) -> Account:
        """alice's access, open."""
        fence, order = NotedFence(), self.order(rights)
        self.provisioner.open(order, fence)
        return account_of(order, fence)

    def end(self, account: Account) -> None:
        """Cut, clean, and check that nothing is left."""
        self.provisioner.cut(account)
        self.provisioner.clean(account)
        assert self.provisioner.observe(account).gone


def account_of(order: OpenOrder, fence: NotedFence) -> Account:
    return Account(grant_id=order.grant_id, account=order.account, traces=fence.undo)


def refused(db: Connection, statement: str) -> str:
    """Run what must fail and return its SQLSTATE."""
    with pytest.raises(psycopg.Error) as caught:
        db.execute(statement.encode())
    return caught.value.sqlstate or ""


def is_cut(db: Connection) -> bool:
    """Whether the server has closed this session."""
    try:
        db.execute("SELECT 1")
    except psycopg.OperationalError:
        return True
    return False


def wait_until_activity(target: Target, condition: str) -> None:
    """Wait until a session on the target is as `condition` on pg_stat_activity says."""
    query = f"SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND {condition}"
    deadline = time.monotonic() + 10
    while not target.ask(query):
        assert time.monotonic() < deadline, f"never saw {condition}"
        time.sleep(0.01)


TABLES = [
    "CREATE TABLE customers (id int PRIMARY KEY, name text)",
    "CREATE TABLE orders (id int PRIMARY KEY, customer int, total numeric)",
    "INSERT INTO customers SELECT i, 'customer ' || i FROM generate_series(1, 2000) i",
    "INSERT INTO orders SELECT i, i, i FROM generate_series(1, 2000) i",
    "CREATE SCHEMA work",
    "GRANT USAGE ON SCHEMA public TO orders_ro, orders_rw",
    "GRANT SELECT ON ALL TABLES IN SCHEMA public TO orders_ro",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO orders_rw",
    "GRANT USAGE, CREATE ON SCHEMA work TO orders_rw",
    "CREATE ROLE mallory LOGIN PASSWORD 'mallory'",
]


@pytest.fixture(scope="session")
def target_server(server_directory: Path) -> Iterator[Target]:
    with EmbeddedPostgres(server_directory / "target", settings=SETTINGS) as server:
        target = Target(server)
        target.tell("CREATE DATABASE orders", "CREATE DATABASE billing", database="postgres")
        prepared = PostgreSQL.prepare_sql(target.config, [READ, WRITE], databases=["billing"])
        target.tell(prepared, f"ALTER ROLE {ADMIN} PASSWORD '{ADMIN_PASSWORD}'")
        target.tell(*TABLES, "GRANT CREATE ON SCHEMA work TO dbgf_quarantine")
        yield target


@pytest.fixture
def target(target_server: Target) -> Iterator[Target]:
    """The target, with no temporary account on it afterwards, whatever the test left."""
    yield target_server
    target_server.close_all()
    for (name,) in _leftover_accounts(target_server):
        _force_out(target_server, name)


def _leftover_accounts(target: Target) -> list[tuple[str]]:
    with target.bob() as db:
        query = "SELECT rolname FROM pg_roles WHERE rolname ~ '^dbgf_[0-9]+$'"
        return db.execute(query).fetchall()


def _force_out(target: Target, name: str) -> None:
    ends = f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = '{name}'"
    target.tell(f'ALTER ROLE "{name}" NOLOGIN', ends)
    for database in ("orders", "billing", "postgres"):
        target.tell(f'DROP OWNED BY "{name}" CASCADE', database=database)
    target.tell(f'DROP ROLE "{name}"')
