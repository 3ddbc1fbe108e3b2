"""What the DBA runs, and what "test connection" says before and after."""

from __future__ import annotations

import pytest

from approvals.errors import Invalid
from approvals.provisioning.postgresql import PostgreSQL

from .conftest import ADMIN, READ, Target


def wrong(target: Target) -> dict[str, str]:
    """What is wrong and how to mend it; TLS aside, which this target does without."""
    found = target.provisioner.test()
    return {one.what: one.fix for one in found if not one.ok and "certificate" not in one.what}


def test_after_the_printed_sql_nothing_is_wrong(target: Target) -> None:
    assert wrong(target) == {}


def test_a_target_without_a_checked_certificate_is_pointed_out(target: Target) -> None:
    assert [
        one.fix for one in target.provisioner.test() if "certificate" in one.what and not one.ok
    ]


def test_the_printed_sql_may_be_run_again(target: Target) -> None:
    target.tell(target.prepare_sql())
    assert wrong(target) == {}


@pytest.mark.parametrize(
    ("undo", "fix"),
    [
        (f"ALTER ROLE {ADMIN} NOCREATEROLE", f"ALTER ROLE {ADMIN} CREATEROLE"),
        (f"REVOKE pg_signal_backend FROM {ADMIN}", f"GRANT pg_signal_backend TO {ADMIN}"),
        (f"REVOKE dbgf_quarantine FROM {ADMIN}", f"GRANT dbgf_quarantine TO {ADMIN}"),
        ("ALTER ROLE dbgf_quarantine CREATEDB", "from dbgf_quarantine"),
        ("ALTER ROLE dbgf_quarantine RENAME TO gone", "CREATE ROLE dbgf_quarantine"),
        (f"REVOKE orders_ro, orders_rw FROM {ADMIN}", "WITH ADMIN OPTION"),
        ("REVOKE CONNECT ON DATABASE template1 FROM PUBLIC", "GRANT CONNECT ON DATABASE template1"),
        (f"ALTER ROLE {ADMIN} SUPERUSER", "far less"),
    ],
)
def test_whatever_is_missing_is_named_with_what_mends_it(
    target: Target, undo: str, fix: str
) -> None:
    missing(target, undo, fix)


def test_a_seat_that_is_not_kept_for_us_is_named(newest: Target) -> None:
    """Servers before 16 keep seats for superusers only."""
    seat = "pg_use_reserved_connections"
    missing(newest, f"REVOKE {seat} FROM {ADMIN}", f"GRANT {seat} TO {ADMIN}")


def missing(target: Target, undo: str, fix: str) -> None:
    """Take something away, see it named with its fix, and give it back."""
    target.tell(undo)
    try:
        found = wrong(target)
    finally:
        _prepared_again(target)
    assert any(fix in said for said in found.values()), found
    assert wrong(target) == {}


def _prepared_again(target: Target) -> None:
    if target.ask("SELECT count(*) FROM pg_roles WHERE rolname = 'gone'"):
        target.tell("ALTER ROLE gone RENAME TO dbgf_quarantine")
    target.tell(
        f"ALTER ROLE {ADMIN} NOSUPERUSER CREATEROLE",
        "ALTER ROLE dbgf_quarantine NOCREATEDB",
        "GRANT CONNECT ON DATABASE template1 TO PUBLIC",
        target.prepare_sql(),
    )


def test_a_target_that_lets_us_not_in_is_one_finding(target: Target) -> None:
    found = PostgreSQL(target.config, {"password": "wrong"}).test()
    assert [one.ok for one in found] == [False]
    assert "wrong" not in found[0].fix


def test_before_16_memberships_have_no_options() -> None:
    config = {"host": "db", "database": "orders", "user": "admin"}
    text = PostgreSQL.prepare_sql(config, [READ], major=15)
    assert 'GRANT "orders_ro" TO "admin" WITH ADMIN OPTION;' in text
    assert "INHERIT TRUE" not in text
    assert "reserved" not in text


def test_strange_names_stay_names() -> None:
    name = 'a"; DROP ROLE x; --'
    text = PostgreSQL.prepare_sql(
        {"host": "db", "database": name, "user": "o'brien"}, [{"role": name}]
    )
    assert 'GRANT "a""; DROP ROLE x; --" TO "o\'brien"' in text
    assert "rolname = ''o''''brien''" in text


@pytest.mark.parametrize(
    "change",
    [
        {"host": "a,b"},
        {"host": "/tmp"},
        {"host": "db user=postgres"},
        {"port": 0},
        {"sslmode": "prefer"},
        {"user": ""},
        {"database": "a\nb"},
        {"database": "x" * 64},
        {"password": "canary"},
    ],
)
def test_a_wrong_configuration_is_refused_without_echoing_it(change: dict[str, object]) -> None:
    config = {"host": "db", "database": "orders", "user": "admin", **change}
    with pytest.raises(Invalid) as caught:
        PostgreSQL(config, {})
    assert next(iter(change)) in caught.value.message
    assert "canary" not in caught.value.message


@pytest.mark.parametrize("role", ["dbgf_12", "", "x" * 64, "a\0b"])
def test_a_level_cannot_bear_such_a_name(target: Target, role: str) -> None:
    with pytest.raises(Invalid):
        target.provisioner.summarise({"role": role})


def test_the_address_is_printable_and_unambiguous() -> None:
    config = {"host": "db.example", "database": "orders", "user": "admin"}
    assert PostgreSQL.address(config) == "db.example:5432/orders"
    assert PostgreSQL.address({**config, "host": "::1"}) == "[::1]:5432/orders"
