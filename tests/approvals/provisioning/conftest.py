"""Production targets of its own, prepared exactly as `prepare_sql` prints it.

`target` is the oldest server that is supported and the newest, one after the other; `oldest` and
`newest` are for what only one of them has or lacks.

The admin account is the one from there: no superuser. alice holds the access, bob is the DBA (the
target's superuser), mallory is anyone else with an account on the target.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from approvals.provisioning.base import Account, ExtendOrder, OpenOrder
from approvals.provisioning.postgresql import PostgreSQL
from debugflow.embedded.postgres import EmbeddedPostgres
from tests.passwords import hash_lightly

from .debian import DebianPostgres, missing

OLDEST, NEWEST = 15, 18

ADMIN, ADMIN_PASSWORD = "debugflow_admin", "admin-canary-7Qx"
READ = {"role": "orders_ro"}
WRITE = {"role": "orders_rw", "connection_limit": 20}
ALICES = "alice-canary-9Zp"

SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "max_connections": "60",
    "max_prepared_transactions": "80",
    "log_statement": "all",
}
LIMITS = {"orders": 40, "billing": 8, "template1": 2}
SINCE_16 = {"reserved_connections": "5"}

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
    major: int
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

    def prepare_sql(self, **options: Any) -> str:
        """What `prepare_sql` prints for this server and its two levels."""
        return PostgreSQL.prepare_sql(self.config, [READ, WRITE], major=self.major, **options)

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

    def extend(self, account: Account, until: datetime, fence: NotedFence | None = None) -> None:
        """Move the expiry of an access that reads."""
        summary = self.provisioner.summarise(READ)
        order = ExtendOrder(account=account, rights=READ, summary=summary, valid_until=until)
        self.provisioner.extend(order, fence or NotedFence())

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
def targets(server_directory: Path) -> Iterator[Callable[[int], Target]]:
    """The target of a major version, started at its first use."""
    with ExitStack() as running:

        @cache
        def of(major: int) -> Target:
            return prepared(running.enter_context(_server(server_directory, major)), major)

        yield of


def _server(directory: Path, major: int) -> EmbeddedPostgres:
    if major == NEWEST:
        return EmbeddedPostgres(directory / "target", settings=SETTINGS | SINCE_16)
    if why := missing():
        pytest.skip(why)
    return DebianPostgres(directory / f"target-{major}", settings=SETTINGS)


def prepared(server: EmbeddedPostgres, major: int) -> Target:
    target = Target(server, major)
    target.tell("CREATE DATABASE orders", "CREATE DATABASE billing", database="postgres")
    prepared = target.prepare_sql(databases=["billing"])
    target.tell(prepared)
    passwords = {ADMIN: ADMIN_PASSWORD, server.superuser: server.superuser_password}
    hash_lightly(server.url(), passwords)
    target.tell(*TABLES, "GRANT USAGE, CREATE ON SCHEMA work TO dbgf_quarantine")
    if major < 16:  # no seats can be reserved there
        target.tell(*(f"ALTER DATABASE {name} CONNECTION LIMIT {n}" for name, n in LIMITS.items()))
    return target


@pytest.fixture(params=[OLDEST, NEWEST])
def target(request: pytest.FixtureRequest, targets: Callable[[int], Target]) -> Iterator[Target]:
    """The target, with no temporary account on it afterwards, whatever the test left."""
    yield from _lent(targets(request.param))


@pytest.fixture
def oldest(targets: Callable[[int], Target]) -> Iterator[Target]:
    yield from _lent(targets(OLDEST))


@pytest.fixture
def newest(targets: Callable[[int], Target]) -> Iterator[Target]:
    yield from _lent(targets(NEWEST))


def _lent(target: Target) -> Iterator[Target]:
    yield target
    target.close_all()
    _roll_back_prepared(target)
    for (name,) in _leftover_accounts(target):
        _force_out(target, name)


def _roll_back_prepared(target: Target) -> None:
    """They outlive a session and a failed test, and their locks would stop what follows."""
    with target.bob() as db:
        left = db.execute("SELECT gid, database FROM pg_prepared_xacts").fetchall()
    for gid, database in left:
        with target.bob(database) as db:
            db.execute(sql.SQL("ROLLBACK PREPARED {}").format(gid))


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
