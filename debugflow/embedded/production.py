"""A PostgreSQL that plays production: an `orders` database with rows in it, prepared for debugflow.

It is prepared as an owner of a real one would do it: by the SQL that debugflow prints for them.
What debugflow is told about it is the demo data's affair (`seed_demo`).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, LiteralString, Self

import psycopg
from psycopg import sql

from approvals.provisioning.postgresql import PostgreSQL
from debugflow.embedded.postgres import EmbeddedPostgres
from debugflow.embedded.server import free_port
from debugflow.embedded.state import kept_secret, make_directory

DATABASE: Final = "orders"
ADMIN: Final = "debugflow_admin"
READ_ONLY: Final = {"role": "orders_readonly"}
READ_WRITE: Final = {"role": "orders_readwrite"}
CUSTOMERS, ORDERS, PAYMENTS = 400, 3000, 2400

# Four seats that a full server keeps for debugflow, so that it can still end sessions.
SETTINGS: Final = {"reserved_connections": "4", "max_connections": "100"}

TABLES: Final = (
    """
    CREATE TABLE customers (
        id integer PRIMARY KEY,
        name text NOT NULL,
        email text NOT NULL UNIQUE,
        country text NOT NULL,
        since date NOT NULL
    )
    """,
    """
    CREATE TABLE orders (
        id integer PRIMARY KEY,
        customer integer NOT NULL REFERENCES customers,
        status text NOT NULL CHECK (status IN ('paid', 'packed', 'shipped', 'stuck')),
        total numeric(10, 2) NOT NULL,
        placed_at timestamptz NOT NULL
    )
    """,
    """
    CREATE TABLE payments (
        id integer PRIMARY KEY,
        "order" integer NOT NULL REFERENCES orders,
        method text NOT NULL,
        amount numeric(10, 2) NOT NULL,
        captured boolean NOT NULL
    )
    """,
)

# The same rows on every run: each value follows from its row's number.
ROWS: Final = (
    """
    INSERT INTO customers
    SELECT i, first || ' ' || last, lower(first || '.' || last) || i || '@example.com',
           (ARRAY['DE', 'FR', 'NL', 'PL', 'SE', 'ES'])[1 + i %% 6], date '2021-01-01' + i %% 1400
    FROM (SELECT i,
        (ARRAY['Ines', 'Jonas', 'Mira', 'Tomasz', 'Sofia', 'Emil', 'Noor', 'Lena', 'Hugo', 'Ada',
               'Paul', 'Zofia', 'Anton', 'Clara', 'Ravi', 'Yuki', 'Elias'])[1 + i %% 17] AS first,
        (ARRAY['Berg', 'Novak', 'Martin', 'Jansen', 'Kowalski', 'Lindqvist', 'Garcia', 'Weber',
               'Dubois', 'Visser', 'Mazur', 'Holm', 'Ortega'])[1 + i %% 13] AS last
        FROM generate_series(1, %(customers)s) i) people
    """,
    """
    INSERT INTO orders
    SELECT i, 1 + (i * 37) %% %(customers)s,
           CASE WHEN i %% 97 = 0 THEN 'stuck'
                ELSE (ARRAY['paid', 'packed', 'shipped', 'shipped'])[1 + i %% 4] END,
           5 + (i * 7919) %% 40000 / 100.0, timestamptz '2025-01-01 08:00Z' + i * interval '73 min'
    FROM generate_series(1, %(orders)s) i
    """,
    """
    INSERT INTO payments
    SELECT o.id, o.id, (ARRAY['card', 'invoice', 'transfer'])[1 + o.id %% 3], o.total,
           o.status <> 'stuck'
    FROM orders o WHERE o.id <= %(payments)s
    """,
)

# What only the owner can decide: which rights a level has. None with grant option.
RIGHTS: Final = (
    "REVOKE ALL ON DATABASE orders, postgres, template1 FROM PUBLIC",
    "GRANT CONNECT ON DATABASE orders TO orders_readonly, orders_readwrite",
    "GRANT USAGE ON SCHEMA public TO orders_readonly, orders_readwrite",
    "GRANT SELECT ON ALL TABLES IN SCHEMA public TO orders_readonly, orders_readwrite",
    "GRANT INSERT, UPDATE, DELETE ON orders, payments TO orders_readwrite",
)


class Production:
    """The server of one directory; its data stays between runs."""

    def __init__(self, directory: Path, *, settings: Mapping[str, str] | None = None) -> None:
        """`settings` are more of PostgreSQL's configuration parameters."""
        self.directory = make_directory(directory.absolute())
        self.server = EmbeddedPostgres(
            self.directory, port=self._kept_port(), settings={**SETTINGS, **(settings or {})}
        )

    @property
    def config(self) -> dict[str, Any]:
        """The target's configuration. Without TLS: it never leaves this machine."""
        return {
            "host": "127.0.0.1",
            "port": self.server.port,
            "database": DATABASE,
            "user": ADMIN,
            "sslmode": "disable",
        }

    @property
    def admin_url(self) -> str:
        """Where and as whom debugflow signs in: no superuser."""
        return self.server.url(DATABASE, ADMIN, self._admin_password())

    def start(self) -> None:
        """Start it and fill it, if that has not been done."""
        self.server.start()
        with self.superuser("postgres") as server:
            if not server.execute("SELECT 1 FROM pg_database WHERE datname = 'orders'").fetchone():
                server.execute("CREATE DATABASE orders TEMPLATE template0")
        with self.superuser() as inside, inside.transaction():
            if inside.execute("SELECT to_regclass('customers')").fetchone() == (None,):
                self._fill(inside)

    def stop(self) -> None:
        """Stop it; its data stays."""
        self.server.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def superuser(self, database: str = DATABASE) -> psycopg.Connection[Any]:
        """A connection as the server's own superuser, whom debugflow never is."""
        return psycopg.connect(self.server.url(database), autocommit=True)

    def ask(self, query: LiteralString, **values: object) -> list[tuple[Any, ...]]:
        """The rows of a query, as the superuser sees them."""
        with self.superuser() as server:
            return server.execute(query, values).fetchall()

    def _fill(self, inside: psycopg.Connection[Any]) -> None:
        """Tables, rows, the printed preparation, the levels' rights: all or nothing."""
        for statement in TABLES:
            inside.execute(statement)
        counts = {"customers": CUSTOMERS, "orders": ORDERS, "payments": PAYMENTS}
        for statement in ROWS:
            inside.execute(statement, counts)
        prepared = PostgreSQL.prepare_sql(
            self.config, [READ_ONLY, READ_WRITE], databases=["template1"]
        )
        inside.execute(prepared.encode())
        for statement in RIGHTS:
            inside.execute(statement)
        self._set_admin_password(inside)

    def _set_admin_password(self, inside: psycopg.Connection[Any]) -> None:
        """As psql's \\password does it: the server gets a verifier, and its log no password."""
        verifier = inside.pgconn.encrypt_password(
            self._admin_password().encode(), ADMIN.encode(), b"scram-sha-256"
        )
        statement = sql.SQL("ALTER ROLE {} PASSWORD {}")
        inside.execute(statement.format(sql.Identifier(ADMIN), sql.Literal(verifier.decode())))

    def _admin_password(self) -> str:
        return kept_secret(self.directory / "admin.password")

    def _kept_port(self) -> int:
        """The same port on every run: debugflow may hold open grants at this address."""
        return int(kept_secret(self.directory / "port", make=lambda: str(free_port())))


def leftovers(production: Production, accounts: Sequence[str], oids: Sequence[int]) -> list[str]:
    """What is left on the server of temporary accounts: the role, sessions, memberships."""
    rows = production.ask(
        "SELECT 'role ' || rolname FROM pg_roles"
        " WHERE rolname = ANY(%(accounts)s) OR oid = ANY(%(oids)s::oid[])"
        " UNION ALL SELECT 'session ' || pid FROM pg_stat_activity"
        " WHERE usename = ANY(%(accounts)s) OR usesysid = ANY(%(oids)s::oid[])"
        " UNION ALL SELECT 'membership in ' || roleid::regrole FROM pg_auth_members"
        " WHERE member = ANY(%(oids)s::oid[])",
        accounts=list(accounts),
        oids=list(oids),
    )
    return [text for (text,) in rows]
