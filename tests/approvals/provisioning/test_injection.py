"""Hostile names on the target: whatever a thing is called, it is a name and nothing else.

Canaries stand where an injected statement could reach them: a role that the admin account may
drop, and a table that it may drop as the quarantine role.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import psycopg
import pytest
from psycopg import sql

from approvals.errors import Invalid
from approvals.provisioning.base import Account
from approvals.provisioning.postgresql import PostgreSQL
from tests.approvals.corpus import ALL, TEXTS, TOO_MUCH

from .conftest import (
    ADMIN_PASSWORD,
    READ,
    WRITE,
    NotedFence,
    Target,
    account_of,
    refused,
)

DATABASES = ("orders", "billing")
NAMES = list(TEXTS.values())
# The same, some of them joined: what quotes one quotes the other, and a server is asked less often.
COMBINED = {
    "quotes": "'\"''\"\"\\'E'\\x27$$",
    "statements": "\"; DROP ROLE canary; --'; DROP TABLE x; /*",
    "formats": "%s %(x)s {} {0} %I ${x} {{7*7}}",
    "look-alike": "сanary <b>",
    "reserved": "user",
    "63 bytes": "x" + "é" * 31,
}


@pytest.fixture
def ground(target: Target) -> Iterator[Target]:
    """The target with its canaries, and with levels that may make anything in two databases."""
    admin = "GRANT canary TO debugflow_admin WITH ADMIN OPTION"
    target.tell("CREATE ROLE canary", admin, database="postgres")
    for database in DATABASES:
        target.tell(*_opened_wide(database), database=database)
    yield target
    for database in DATABASES:
        target.tell(*_closed_again(database), database=database)
    target.tell("DROP ROLE canary")


def _opened_wide(database: str) -> list[str]:
    return [
        "CREATE SCHEMA IF NOT EXISTS work",
        "CREATE TABLE work.canary AS SELECT generate_series(1, 3) AS i",
        "ALTER TABLE work.canary OWNER TO dbgf_quarantine",
        "GRANT USAGE ON SCHEMA work TO mallory",
        "CREATE FOREIGN DATA WRAPPER elsewhere",
        "GRANT USAGE ON FOREIGN DATA WRAPPER elsewhere TO orders_rw",
        f"GRANT CREATE ON DATABASE {database} TO orders_rw, debugflow_admin",
    ]


def _closed_again(database: str) -> list[str]:
    return [
        f"REVOKE CREATE ON DATABASE {database} FROM orders_rw, debugflow_admin",
        "DROP OWNED BY dbgf_quarantine CASCADE",
        "DROP FOREIGN DATA WRAPPER elsewhere CASCADE",
        "REVOKE USAGE ON SCHEMA work FROM mallory",
        "GRANT USAGE, CREATE ON SCHEMA work TO dbgf_quarantine",
    ]


def assert_unharmed(target: Target) -> None:
    assert target.ask("SELECT count(*) FROM pg_roles WHERE rolname = 'canary'") == 1
    assert target.ask("SELECT count(*) FROM orders") == 2000
    for database in DATABASES:
        assert target.ask("SELECT count(*) FROM work.canary", database=database) == 3


# Every kind of thing that a holder can make, under one name. {name} comes quoted.
MAKES = """
CREATE SCHEMA {schema};
CREATE TABLE {schema}.{name} ({name} int, CONSTRAINT {name} CHECK ({name} > 0));
CREATE INDEX ON {schema}.{name} ({name});
CREATE STATISTICS {schema}.{other} ON {name}, ({name} + 1) FROM {schema}.{name};
CREATE VIEW {schema}.{view} AS SELECT {name} FROM {schema}.{name};
CREATE MATERIALIZED VIEW {schema}.{made} AS SELECT {name} FROM {schema}.{name};
CREATE SEQUENCE {schema}.{sequence};
CREATE TYPE {schema}.{type} AS ENUM ({text});
CREATE TYPE {schema}.{pair} AS ({name} int, {other} text);
CREATE DOMAIN {schema}.{domain} AS {schema}.{type} CHECK (VALUE <> {text});
CREATE FUNCTION {schema}.{name}({name} {schema}.{type}, {other} int) RETURNS int
  LANGUAGE sql SECURITY DEFINER SET application_name = {text} RETURN 1;
CREATE PROCEDURE {schema}.{other}({name} {schema}.{domain}) LANGUAGE sql SECURITY DEFINER AS '';
CREATE AGGREGATE {schema}.{sum}(int) (SFUNC = int4pl, STYPE = int);
CREATE OPERATOR {schema}.+ (LEFTARG = {schema}.{type}, RIGHTARG = int, FUNCTION = {schema}.{name});
CREATE COLLATION {schema}.{name} FROM "C";
CREATE TEXT SEARCH DICTIONARY {schema}.{name} (TEMPLATE = simple);
CREATE TEXT SEARCH CONFIGURATION {schema}.{name} (COPY = simple);
CREATE SERVER {name} FOREIGN DATA WRAPPER elsewhere OPTIONS (host {text});
CREATE USER MAPPING FOR CURRENT_USER SERVER {name} OPTIONS ("user" {text});
CREATE FOREIGN TABLE {schema}.{far} ({name} int) SERVER {name};
CREATE PUBLICATION {name} FOR TABLE {schema}.{name};
CREATE TRIGGER {name} BEFORE INSERT ON {schema}.{name}
  EXECUTE FUNCTION suppress_redundant_updates_trigger();
CREATE POLICY {name} ON {schema}.{name} USING (true);
CREATE RULE {name} AS ON DELETE TO {schema}.{name} DO INSTEAD NOTHING;
GRANT ALL ON SCHEMA {schema} TO mallory, PUBLIC;
GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO mallory WITH GRANT OPTION;
GRANT UPDATE ({name}) ON {schema}.{name} TO mallory, PUBLIC;
GRANT ALL ON ALL SEQUENCES IN SCHEMA {schema} TO mallory;
GRANT ALL ON ALL ROUTINES IN SCHEMA {schema} TO mallory;
GRANT ALL ON TYPE {schema}.{type}, {schema}.{domain} TO mallory;
GRANT ALL ON FOREIGN SERVER {name} TO mallory;
ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT ALL ON TABLES TO mallory;
COMMENT ON TABLE {schema}.{name} IS {text};
"""


def makes(name: str) -> bytes:
    """The statements for one name; things beside `name` are called the same, one letter off."""
    others = ("other", "view", "made", "sequence", "type", "pair", "domain", "sum", "far")
    near = {key: sql.Identifier(_near(name, place)) for place, key in enumerate(others)}
    text = sql.Literal(name.encode()[:60].decode(errors="ignore"))
    schema = sql.Identifier(schema_called(name))
    statements = sql.SQL(MAKES).format(name=sql.Identifier(name), schema=schema, text=text, **near)
    return statements.as_bytes(None)


def schema_called(name: str) -> str:
    """The server keeps schemas called pg_… for itself."""
    return f"s{name}" if name.startswith("pg_") else name


def _near(name: str, place: int) -> str:
    return name.encode()[:61].decode(errors="ignore") + chr(ord("a") + place)


def in_both(target: Target, account: Account) -> Iterator[psycopg.Connection[Any]]:
    for database in DATABASES:
        with target.sign_in(account.account, database=database) as alice:
            yield alice


def test_all_that_she_made_is_taken_over_whatever_it_is_called(ground: Target) -> None:
    account = ground.opened(WRITE)
    for alice in in_both(ground, account):
        for name in NAMES:
            alice.execute(makes(name))
    ground.end(account)
    assert_unharmed(ground)
    for database in DATABASES:
        assert schemas_of_quarantine(ground, database) == sorted(map(schema_called, NAMES))
        assert ground.ask(PASSED_ON, database=database) == 0
        assert ground.ask("SELECT count(*) FROM pg_default_acl", database=database) == 0
        armed = "SELECT count(*) FROM pg_proc WHERE prosecdef"
        assert ground.ask(armed, database=database) == 0


PASSED_ON = """
WITH lists AS (
  SELECT relacl AS acl, relowner AS owner FROM pg_class UNION ALL
  SELECT attacl, relowner FROM pg_attribute JOIN pg_class c ON c.oid = attrelid UNION ALL
  SELECT coalesce(proacl, acldefault('f', proowner)), proowner FROM pg_proc UNION ALL
  SELECT nspacl, nspowner FROM pg_namespace UNION ALL
  SELECT typacl, typowner FROM pg_type UNION ALL
  SELECT srvacl, srvowner FROM pg_foreign_server)
SELECT count(*) FROM lists, LATERAL aclexplode(acl) x
WHERE owner = 'dbgf_quarantine'::regrole AND x.grantee <> owner
"""


def schemas_of_quarantine(target: Target, database: str) -> list[str]:
    with target.bob(database) as bob:
        query = "SELECT nspname FROM pg_namespace WHERE nspowner = 'dbgf_quarantine'::regrole"
        return sorted(name for (name,) in bob.execute(query))


def test_whatever_she_called_what_she_prepared_it_is_rolled_back(ground: Target) -> None:
    account = ground.opened(WRITE)
    with ground.sign_in(account.account) as alice:
        for gid in NAMES:
            alice.execute("BEGIN")
            alice.execute("UPDATE orders SET total = 0 WHERE id = %s", [NAMES.index(gid) + 1])
            alice.execute(sql.SQL("PREPARE TRANSACTION {}").format(sql.Literal(gid)))
    assert len(ground.provisioner.observe(account).leftovers) >= len(NAMES)
    ground.end(account)
    assert ground.ask("SELECT count(*) FROM pg_prepared_xacts") == 0
    assert ground.ask("SELECT count(*) FROM orders WHERE total = 0") == 0
    assert_unharmed(ground)


def test_whatever_she_calls_her_session_it_is_ended_and_no_other(ground: Target) -> None:
    """The names of our own sessions included: whose one is goes by the role."""
    account, other = ground.opened(), ground.opened()
    others = ground.sign_in(other.account)
    ours = [f"dbgf-open-{other.grant_id}", f"dbgf-cut-{account.grant_id}"]
    with ground.sign_in(account.account) as alice:
        for name in [*NAMES, *ours]:
            alice.execute("SELECT set_config('application_name', %s, false)", [name])
        assert ground.provisioner.observe(account).sessions == 1
        others.execute("SELECT set_config('application_name', %s, false)", [opener(account)])
        ground.end(account)
        assert refused(alice, "SELECT 1") in ("57P01", "")
    others.execute("SELECT 1")
    ground.end(other)


def opener(account: Account) -> str:
    return f"dbgf-open-{account.grant_id}"


@pytest.mark.parametrize("name", COMBINED.values(), ids=COMBINED)
def test_an_account_that_was_renamed_is_ended_under_its_new_name(ground: Target, name: str) -> None:
    account = ground.opened(WRITE)
    with ground.sign_in(account.account) as alice:
        alice.execute("CREATE TABLE work.hers (i int)")
        alice.execute("BEGIN")
        alice.execute("UPDATE orders SET total = 0 WHERE id = 1")
        alice.execute("PREPARE TRANSACTION 'later'")
    with ground.bob() as bob:
        rename = sql.SQL("ALTER ROLE {} RENAME TO {}")
        bob.execute(rename.format(sql.Identifier(account.account), sql.Identifier(name)))
    assert ground.provisioner.observe(account).can_sign_in
    ground.end(account)
    assert ground.ask("SELECT total FROM orders WHERE id = 1") == 1
    assert_unharmed(ground)


@pytest.mark.parametrize("name", COMBINED.values(), ids=COMBINED)
def test_where_everything_bears_such_a_name_access_opens_and_ends(
    ground: Target, name: str
) -> None:
    """Database, admin account, its database, quarantine and level; prepared by what we print."""
    strange = Strange(ground, name)
    strange.prepare()
    try:
        strange.live()
    finally:
        strange.remove()
    assert_unharmed(ground)


class Strange:
    """A second installation on the same server, in which everything is called alike."""

    def __init__(self, target: Target, name: str) -> None:
        self.target = target
        self.database, self.admin, self.quarantine, self.level = (
            _near(name, place) for place in range(4)
        )
        self.config = target.config | {
            "database": self.database,
            "admin_database": self.database,
            "user": self.admin,
            "quarantine": self.quarantine,
        }
        self.rights = {"role": self.level}
        self.provisioner = PostgreSQL(self.config, {"password": ADMIN_PASSWORD})

    def tell(self, statement: str, database: str = "", **names: str) -> None:
        quoted = {key: sql.Identifier(name) for key, name in names.items()}
        with self.target.bob(database or self.database) as bob:
            bob.execute(sql.SQL(statement).format(**quoted))

    def prepare(self) -> None:
        self.tell("CREATE DATABASE {name}", "postgres", name=self.database)
        printed = PostgreSQL.prepare_sql(
            self.config, [self.rights], major=self.target.major, makes_in=["public"]
        )
        with self.target.bob(self.database) as bob:
            bob.execute(printed.encode())
            bob.execute(printed.encode())  # and again
        self.tell(f"ALTER ROLE {{name}} PASSWORD '{ADMIN_PASSWORD}'", name=self.admin)
        self.tell("GRANT USAGE, CREATE ON SCHEMA public TO {name}", name=self.level)

    def live(self) -> None:
        wrong = [one.what for one in self.provisioner.test() if not one.ok]
        # This server has no certificate, and other databases without a limit.
        assert [what for what in wrong if "certificate" not in what and "seat" not in what] == []
        order = self.target.order(READ)
        order = type(order)(
            **vars(order)
            | {"rights": self.rights, "summary": self.provisioner.summarise(self.rights)}
        )
        fence = NotedFence()
        connection = self.provisioner.open(order, fence).connection
        with self.target.sign_in(order.account, database=connection["database"]) as alice:
            alice.execute("CREATE TABLE hers (i int)")
            self.provisioner.cut(account_of(order, fence))
        self.provisioner.clean(account_of(order, fence))
        assert self.provisioner.observe(account_of(order, fence)).gone

    def remove(self) -> None:
        self.tell("DROP DATABASE {name} WITH (FORCE)", "postgres", name=self.database)
        for role in (self.level, self.quarantine, self.admin):
            self.tell("DROP OWNED BY {name}", "orders", name=role)
            self.tell("DROP ROLE {name}", "orders", name=role)


def test_what_others_called_things_is_listed_and_changes_nothing(ground: Target) -> None:
    """Rights on them reach the summary, and with it the pages and the scope."""
    for database in DATABASES:
        with ground.bob(database) as bob:
            for name in NAMES:
                bob.execute(makes(name))
    try:
        lines = ground.provisioner.summarise(WRITE)
        assert_readable(lines)
    finally:
        for database in DATABASES:
            with ground.bob(database) as bob:
                for name in NAMES:
                    drop = "DROP SCHEMA {1} CASCADE; DROP SERVER {0} CASCADE; DROP PUBLICATION {0}"
                    names = sql.Identifier(name), sql.Identifier(schema_called(name))
                    bob.execute(sql.SQL(drop).format(*names))
    assert_unharmed(ground)


def test_lines_for_pg_hba_quote_as_that_file_does() -> None:
    config = {"host": "db", "database": "orders", "user": 'a" all 0.0.0.0/0 trust'}
    text = PostgreSQL.prepare_sql(config, [READ], addresses=["10.0.0.5/32"])
    assert '--   hostssl  all  "a"" all 0.0.0.0/0 trust"  10.0.0.5/32  scram-sha-256' in text


def test_a_comma_in_a_name_makes_no_second_one(newest: Target) -> None:
    """Else rights could change and read the same."""
    told = []
    for first, second in (('"a, b"', "c"), ("a", '"b, c"')):
        newest.tell(f"CREATE TABLE public.{first} ()", f"CREATE TABLE public.{second} ()")
        newest.tell(f"GRANT SELECT ON public.{first}, public.{second} TO orders_ro")
        told.append(newest.provisioner.summarise(READ))
        newest.tell(f"DROP TABLE public.{first}, public.{second}")
    assert told[0] != told[1]


def assert_readable(lines: tuple[str, ...]) -> None:
    """No name may act on a terminal, start a line of its own, or turn the reader's eye."""
    assert [line for line in lines if not line.isprintable()] == []


FIELDS = ("host", "database", "user", "admin_database", "quarantine")


@pytest.mark.parametrize("field", FIELDS)
def test_a_configuration_is_refused_or_taken_to_the_letter(
    field: str, subtests: pytest.Subtests
) -> None:
    good = {"host": "db", "database": "orders", "user": "admin"}
    for what, text in ALL.items():
        with subtests.test(what):
            taken = _is_taken({**good, field: text}, READ)
            if field == "host":  # of an alphabet of its own
                assert taken is bool(re.fullmatch(r"[A-Za-z0-9._:-]{1,253}", text))
            else:
                assert taken is (what not in TOO_MUCH and text.isprintable())


@pytest.mark.parametrize("field", ["role", "database"])
def test_the_rights_of_a_level_are_refused_or_taken_to_the_letter(
    field: str, subtests: pytest.Subtests
) -> None:
    good = {"host": "db", "database": "orders", "user": "admin"}
    for what, text in ALL.items():
        with subtests.test(what):
            optional = field == "database" and not text
            sound = what not in TOO_MUCH and text.isprintable()
            assert _is_taken(good, {**READ, field: text}) is (sound or optional)


def _is_taken(config: Mapping[str, Any], level: Mapping[str, Any]) -> bool:
    """Whether SQL is printed for it; a refusal has to be readable, whatever was refused."""
    try:
        PostgreSQL.prepare_sql(config, [level])
    except Invalid as error:
        if not error.message.isprintable():
            raise
        return False
    return True
