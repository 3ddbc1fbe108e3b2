"""What a level is: refused when unsafe, listed in words, and different as soon as it differs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from approvals.errors import Invalid

from .conftest import OLDEST, READ, WRITE, Target

SUPPORT = {"role": "support"}


@contextmanager
def level(target: Target, *statements: str) -> Iterator[None]:
    """A level of bob's making, called support, prepared like the others."""
    options = "ADMIN TRUE, INHERIT FALSE, SET FALSE" if target.major > OLDEST else "ADMIN OPTION"
    target.tell(
        "CREATE ROLE support",
        f"GRANT support TO debugflow_admin WITH {options}",
        "CREATE SCHEMA shop",
        "CREATE TABLE shop.items (id int, price int)",
        "CREATE VIEW shop.cheap AS SELECT id FROM shop.items WHERE price < 10",
        "GRANT USAGE ON SCHEMA shop TO support",
        *statements,
    )
    try:
        yield
    finally:
        target.tell(
            "DROP SCHEMA IF EXISTS shop CASCADE",
            "REASSIGN OWNED BY support TO postgres",
            "DROP OWNED BY support CASCADE",
            "DROP ROLE support",
        )


def problems(target: Target) -> str:
    with pytest.raises(Invalid) as caught:
        target.provisioner.summarise(SUPPORT)
    assert caught.value.code == "unsafe_level"
    return "\n".join(caught.value.details["problems"])


def test_a_plain_level_is_listed_in_words(target: Target) -> None:
    lines = target.provisioner.summarise(READ)
    assert lines[0] == "member of orders_ro"
    assert "orders: SELECT on 2 tables of schema public: customers, orders" in lines
    assert "orders: USAGE on 1 schema: public" in lines
    assert any(line.startswith("server: CONNECT") and "billing" in line for line in lines)
    assert not [line for line in lines if "information_schema" in line or "pg_catalog" in line]


def test_it_is_the_same_every_time(target: Target) -> None:
    assert target.provisioner.summarise(WRITE) == target.provisioner.summarise(WRITE)


@pytest.mark.parametrize(
    ("statement", "word"),
    [
        ("ALTER ROLE support LOGIN", "LOGIN"),
        ("ALTER ROLE support SUPERUSER", "superuser"),
        ("ALTER ROLE support CREATEROLE", "CREATEROLE"),
        ("ALTER ROLE support CREATEDB", "CREATEDB"),
        ("ALTER ROLE support REPLICATION", "REPLICATION"),
        ("ALTER ROLE support BYPASSRLS", "BYPASSRLS"),
        ("ALTER TABLE shop.items OWNER TO support", "owns 1 objects in orders"),
        ("GRANT SELECT ON shop.items TO support WITH GRANT OPTION", "SELECT on table shop.items"),
        ("GRANT SELECT (id) ON shop.items TO support WITH GRANT OPTION", "column shop.items.id"),
        ("GRANT USAGE ON SCHEMA shop TO support WITH GRANT OPTION", "USAGE on schema shop"),
        ("GRANT CONNECT ON DATABASE orders TO support WITH GRANT OPTION", "database orders"),
        ("GRANT SET ON PARAMETER work_mem TO support WITH GRANT OPTION", "parameter work_mem"),
        ("GRANT USAGE ON LANGUAGE plpgsql TO support WITH GRANT OPTION", "language plpgsql"),
        ("GRANT CREATE ON TABLESPACE pg_default TO support WITH GRANT OPTION", "tablespace"),
        ("GRANT EXECUTE ON FUNCTION pg_read_file(text) TO support WITH GRANT OPTION", "pg_read"),
        (
            "ALTER DEFAULT PRIVILEGES IN SCHEMA shop GRANT SELECT ON TABLES TO support"
            " WITH GRANT OPTION",
            "future table shop.made by postgres",
        ),
        ("GRANT orders_ro TO support WITH ADMIN OPTION", "ADMIN OPTION"),
        ("GRANT pg_read_all_data TO support", "pg_read_all_data gives more"),
        ("GRANT pg_signal_backend TO support", "pg_signal_backend gives more"),
        ("GRANT pg_execute_server_program TO support", "pg_execute_server_program gives more"),
        ("GRANT dbgf_quarantine TO support", "quarantine role"),
        ("GRANT TRIGGER ON shop.items TO support", "TRIGGER"),
        ("GRANT REFERENCES ON shop.items TO support", "REFERENCES"),
        ("GRANT CREATE ON SCHEMA shop TO support", "GRANT USAGE, CREATE ON SCHEMA shop"),
        (
            "GRANT CREATE ON SCHEMA shop TO support, dbgf_quarantine",
            "dbgf_quarantine needs USAGE and CREATE on schema shop",
        ),
    ],
)
def test_an_unsafe_level_is_refused(target: Target, statement: str, word: str) -> None:
    with level(target, statement):
        assert word in problems(target)


def test_a_level_that_we_may_not_hand_out_is_refused(newest: Target) -> None:
    """Before 16 whoever may make roles may hand out any."""
    with level(newest, "REVOKE support FROM debugflow_admin"):
        assert "needs ADMIN OPTION on it" in problems(newest)


def test_where_holders_may_make_schemas_we_must_be_able_to_give_them_away(newest: Target) -> None:
    with level(newest, "GRANT CREATE ON DATABASE orders TO support"):
        assert "GRANT CREATE ON DATABASE orders TO debugflow_admin" in problems(newest)


def test_what_it_inherits_counts_as_its_own(target: Target) -> None:
    dormant = " WITH INHERIT FALSE" if target.major > OLDEST else ""
    with level(target, "CREATE ROLE team CREATEDB", f"GRANT team TO support{dormant}"):
        try:
            assert "team may make databases" in problems(target)
        finally:
            target.tell("DROP ROLE team")


def test_every_problem_is_named_at_once(target: Target) -> None:
    with level(
        target, "ALTER ROLE support LOGIN CREATEDB", "ALTER TABLE shop.items OWNER TO support"
    ):
        found = problems(target)
        assert all(word in found for word in ("LOGIN", "CREATEDB", "owns"))


@pytest.mark.parametrize("name", ["no_such_role", "debugflow_admin", "dbgf_quarantine", "postgres"])
def test_roles_that_can_be_no_level(target: Target, name: str) -> None:
    with pytest.raises(Invalid):
        target.provisioner.summarise({"role": name})


def test_a_database_the_level_may_not_connect_to_is_refused(target: Target) -> None:
    with level(target, "REVOKE CONNECT ON DATABASE billing FROM PUBLIC"):
        try:
            with pytest.raises(Invalid, match="may not connect to billing"):
                target.provisioner.summarise({**SUPPORT, "database": "billing"})
        finally:
            target.tell("GRANT CONNECT ON DATABASE billing TO PUBLIC")


def test_monitoring_roles_are_allowed_and_named(target: Target) -> None:
    with level(target, "GRANT pg_monitor TO support"):
        assert "support inherits pg_monitor" in target.provisioner.summarise(SUPPORT)


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("GRANT SELECT ON shop.items TO support", "SELECT on 1 table of schema shop: items"),
        ("GRANT INSERT ON shop.items TO PUBLIC", "(as everyone may): items"),
        ("GRANT UPDATE (price) ON shop.items TO support", "UPDATE on 1 column of schema shop"),
        ("GRANT EXECUTE ON FUNCTION pg_read_file(text) TO support", "pg_read_file(text)"),
        ("GRANT EXECUTE ON FUNCTION pg_read_file(text) TO PUBLIC", "pg_read_file(text)"),
        ("GRANT SELECT ON pg_authid TO support", "pg_authid"),
        ("GRANT SELECT (rolpassword) ON pg_authid TO support", "pg_authid.rolpassword"),
        ("GRANT SET ON PARAMETER work_mem TO support", "SET on 1 parameter: work_mem"),
        ("GRANT pg_monitor TO support", "inherits pg_monitor"),
        ("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO support", "future table"),
        ("SELECT lo_create(4242); GRANT SELECT ON LARGE OBJECT 4242 TO support", "large object"),
        ("CREATE FUNCTION shop.f() RETURNS int LANGUAGE sql RETURN 1", "EXECUTE on 1 function"),
        (
            "CREATE FUNCTION shop.f() RETURNS int LANGUAGE sql SECURITY DEFINER RETURN 1",
            "1 SECURITY DEFINER function of schema shop (as everyone may): f() as postgres",
        ),
        ("CREATE TABLE shop.more (i int); GRANT ALL ON shop.more TO PUBLIC", "more"),
    ],
)
def test_any_new_right_changes_the_summary(target: Target, statement: str, expected: str) -> None:
    with level(target):
        before = target.provisioner.summarise(SUPPORT)
        target.tell(statement)
        try:
            new = set(target.provisioner.summarise(SUPPORT)) - set(before)
        finally:
            target.tell(
                "REVOKE ALL ON FUNCTION pg_read_file(text) FROM PUBLIC",
                "SELECT lo_unlink(oid) FROM pg_largeobject_metadata WHERE oid = 4242",
            )
        assert any(expected in line for line in new), new


def test_another_definition_under_the_same_name_changes_the_summary(target: Target) -> None:
    function = (
        "CREATE OR REPLACE FUNCTION shop.f() RETURNS int LANGUAGE sql SECURITY DEFINER RETURN {}"
    )
    steps = [
        "CREATE OR REPLACE VIEW shop.cheap AS SELECT id FROM shop.items",
        function.format(2),
        "ALTER TABLE shop.items ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY few ON shop.items USING (id < 10)",
        "ALTER POLICY few ON shop.items USING (id < 100)",
    ]
    with level(target, "GRANT SELECT ON ALL TABLES IN SCHEMA shop TO support", function.format(1)):
        seen = [target.provisioner.summarise(SUPPORT)]
        for step in steps:
            target.tell(step)
            seen.append(target.provisioner.summarise(SUPPORT))
        assert len(set(seen)) == len(steps) + 1


def test_a_long_list_is_cut_short_and_still_changes(target: Target) -> None:
    many = [f"CREATE TABLE shop.t{i:03} (i int)" for i in range(40)]
    with level(target, *many, "GRANT SELECT ON ALL TABLES IN SCHEMA shop TO support"):
        before = next(line for line in target.provisioner.summarise(SUPPORT) if "t000" in line)
        assert "and 21 more (SHA-256 " in before
        target.tell("REVOKE SELECT ON shop.t039 FROM support", "CREATE TABLE shop.t999 (i int)")
        target.tell("GRANT SELECT ON shop.t999 TO support")
        after = next(line for line in target.provisioner.summarise(SUPPORT) if "t000" in line)
        assert before != after
