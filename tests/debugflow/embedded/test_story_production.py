"""The target of the demonstration: filled once, prepared as printed, with no more rights."""

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import errors

from approvals.provisioning.postgresql import PostgreSQL
from debugflow.embedded.production import (
    ADMIN,
    CUSTOMERS,
    ORDERS,
    PAYMENTS,
    READ_ONLY,
    READ_WRITE,
    Production,
    leftovers,
)
from debugflow.embedded.state import scratch

FAST = {"fsync": "off", "log_statement": "all"}


@pytest.fixture(scope="module")
def production() -> Iterator[Production]:
    with scratch() as directory, Production(directory / "production", settings=FAST) as running:
        yield running


@pytest.fixture
def provisioner(production) -> PostgreSQL:
    return PostgreSQL(production.config, {"password": production._admin_password()})


def test_there_are_rows_to_look_at_and_something_is_stuck(production):
    for table, count in (("customers", CUSTOMERS), ("orders", ORDERS), ("payments", PAYMENTS)):
        assert production.ask(f"SELECT count(*) FROM {table}") == [(count,)]
    stuck = production.ask("SELECT id FROM orders WHERE status = 'stuck' ORDER BY id LIMIT 2")
    assert stuck == [(97,), (194,)]


def test_debugflows_account_is_no_superuser_and_all_it_needs_is_there(production, provisioner):
    rows = production.ask(
        "SELECT rolsuper, rolbypassrls FROM pg_roles WHERE rolname = %(n)s", n=ADMIN
    )
    assert rows == [(False, False)]
    problems = [finding.what for finding in provisioner.test() if not finding.ok]
    assert problems == ["does not check the server's certificate (sslmode disable)"]


def test_debugflows_account_cannot_read_the_data(production):
    with psycopg.connect(production.admin_url) as connection:
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute("SELECT * FROM customers")


def test_the_levels_are_fit_to_be_handed_out_and_one_may_write(provisioner):
    reads, writes = provisioner.summarise(READ_ONLY), provisioner.summarise(READ_WRITE)
    assert not any("UPDATE" in line.upper() for line in reads)
    assert any("UPDATE" in line.upper() for line in writes)


def test_a_second_start_keeps_data_port_and_password(production):
    production.ask("UPDATE orders SET status = 'paid' WHERE id = 97 RETURNING id")
    production.stop()
    production.start()
    assert Production(production.directory).admin_url == production.admin_url
    assert production.ask("SELECT status FROM orders WHERE id = 97") == [("paid",)]
    with psycopg.connect(production.admin_url) as connection:
        assert connection.info.user == ADMIN


def test_its_log_holds_no_password(production):
    log = production.server.log.read_text()
    assert f'ALTER ROLE "{ADMIN}"' in log
    assert production._admin_password() not in log


def test_leftovers_are_found_by_name_and_by_oid(production):
    assert leftovers(production, ["dbgf_9"], []) == []
    with production.superuser() as bob:
        bob.execute("CREATE ROLE dbgf_9 LOGIN PASSWORD 'x'")
        bob.execute("GRANT CONNECT ON DATABASE orders TO dbgf_9; GRANT orders_readonly TO dbgf_9")
        [(oid,)] = production.ask("SELECT oid FROM pg_roles WHERE rolname = 'dbgf_9'")
        with psycopg.connect(production.server.url("orders", "dbgf_9", "x")) as session:
            pid = session.info.backend_pid
            found = leftovers(production, [], [oid])
            assert set(found) == {"role dbgf_9", f"session {pid}", "membership in orders_readonly"}
            assert set(leftovers(production, ["dbgf_9"], [])) == {"role dbgf_9", f"session {pid}"}
        bob.execute("DROP OWNED BY dbgf_9; DROP ROLE dbgf_9")
