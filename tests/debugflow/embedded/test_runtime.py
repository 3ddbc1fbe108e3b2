"""The control plane of one directory: two servers, three roles, and who may do what."""

import os
import signal

import psycopg
import pytest
import redis
from cryptography.fernet import Fernet
from psycopg import errors

from debugflow.embedded.runtime import (
    APP,
    DATABASE,
    MIGRATOR,
    OWNER,
    Runtime,
    create_roles,
    uses_real_servers,
)
from debugflow.embedded.state import EmbeddedError, scratch

FAST = {"fsync": "off", "log_statement": "all"}

HOLD = """
import sys, time
from pathlib import Path
from debugflow.embedded.runtime import Runtime
runtime = Runtime(Path(sys.argv[1]), settings={"fsync": "off"})
runtime.start()
runtime.environment()
print(runtime.postgres.pid, runtime.valkey.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def runtime():
    with scratch() as directory, Runtime(directory, settings=FAST) as running:
        yield running


@pytest.fixture
def app(runtime):
    with psycopg.connect(runtime.environment()["DATABASE_URL"], autocommit=True) as connection:
        yield connection


@pytest.fixture
def migrator(runtime):
    url = runtime.migrations_environment()["MIGRATIONS_DATABASE_URL"]
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def table(migrator):
    migrator.execute("CREATE TABLE story (id serial PRIMARY KEY, text text)")
    yield
    migrator.execute("DROP TABLE story")


def settle(runtime) -> None:
    passwords = {role: runtime._secret(role) for role in (APP, MIGRATOR)}
    create_roles(
        runtime.postgres.url(),
        database=DATABASE,
        owner=OWNER,
        migrator=MIGRATOR,
        app=APP,
        passwords=passwords,
    )


def test_the_environment_is_complete_and_knows_no_migrator(runtime):
    env = runtime.environment()
    assert set(env) == {
        "DATABASE_URL",
        "REDIS_URL",
        "SECRET_KEY",
        "DEBUGFLOW_ENCRYPTION_KEYS",
        "DEBUGFLOW_STATE_DIR",
    }
    assert MIGRATOR not in "".join(env.values())
    assert len(env["SECRET_KEY"]) >= 50
    Fernet(env["DEBUGFLOW_ENCRYPTION_KEYS"])
    with redis.Redis.from_url(env["REDIS_URL"]) as client:
        assert client.ping()


def test_what_the_migrator_makes_belongs_to_the_owner(migrator, table):
    row = migrator.execute("SELECT tableowner FROM pg_tables WHERE tablename = 'story'").fetchone()
    assert row == (OWNER,)


def test_the_app_works_with_rows_and_owns_nothing(app, table):
    app.execute("INSERT INTO story (text) VALUES ('once')")
    app.execute("UPDATE story SET text = 'twice'")
    assert app.execute("SELECT text FROM story").fetchone() == ("twice",)
    app.execute("DELETE FROM story")
    for statement in (
        "TRUNCATE story",
        "DROP TABLE story",
        "CREATE TABLE other ()",
        "CREATE SCHEMA other",
        "CREATE TEMPORARY TABLE other ()",
        f"SET ROLE {OWNER}",
        f"SET ROLE {MIGRATOR}",
        f"GRANT {OWNER} TO {APP}",
        "CREATE ROLE mallory",
        "CREATE DATABASE other",
    ):
        with pytest.raises(errors.InsufficientPrivilege):
            app.execute(statement)


def test_the_owner_cannot_log_in_and_strangers_cannot_connect(runtime):
    with psycopg.connect(runtime.postgres.url(), autocommit=True) as superuser:
        superuser.execute("CREATE ROLE mallory LOGIN PASSWORD 'mallory'")
        superuser.execute(f"ALTER ROLE {OWNER} PASSWORD 'known'")
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        psycopg.connect(runtime.postgres.url(DATABASE, "mallory", "mallory"))
    with pytest.raises(psycopg.OperationalError, match="not permitted to log in"):
        psycopg.connect(runtime.postgres.url(DATABASE, OWNER, "known"))


def test_what_a_migration_took_from_the_app_stays_taken(runtime, app, migrator, table):
    migrator.execute(f"REVOKE UPDATE, DELETE ON story FROM {APP}")
    settle(runtime)
    app.execute("INSERT INTO story (text) VALUES ('kept')")
    with pytest.raises(errors.InsufficientPrivilege):
        app.execute("DELETE FROM story")


def test_rights_that_the_app_should_not_have_are_taken_back(runtime, app):
    with psycopg.connect(runtime.postgres.url(), autocommit=True) as superuser:
        superuser.execute(f"ALTER ROLE {APP} CREATEROLE CREATEDB")
    settle(runtime)
    with pytest.raises(errors.InsufficientPrivilege):
        app.execute("CREATE ROLE mallory2")


def test_an_app_that_could_become_another_role_is_refused(runtime):
    with psycopg.connect(runtime.postgres.url(), autocommit=True) as superuser:
        superuser.execute(f"GRANT {OWNER} TO {APP}")
        try:
            with pytest.raises(EmbeddedError, match=f"{APP} is a member of {OWNER}"):
                settle(runtime)
        finally:
            superuser.execute(f"REVOKE {OWNER} FROM {APP}")


def test_no_password_is_in_the_servers_log(runtime):
    settle(runtime)
    log = runtime.postgres.log.read_text()
    assert f'ROLE "{APP}"' in log
    for role in (APP, MIGRATOR):
        assert runtime._secret(role) not in log


def test_a_second_start_is_refused_and_names_directory_and_process(runtime):
    with pytest.raises(EmbeddedError, match=f"process {os.getpid()}") as refused:
        Runtime(runtime.directory).start()
    assert str(runtime.directory) in str(refused.value)
    with psycopg.connect(runtime.environment()["DATABASE_URL"]) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.slow
def test_two_directories_run_at_once_and_share_nothing(runtime, place):
    with Runtime(place, settings=FAST) as other:
        mine, theirs = runtime.environment(), other.environment()
        assert not set(mine.values()) & set(theirs.values())
        swapped = runtime.postgres.url(DATABASE, APP, other._secret(APP))
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(swapped)


@pytest.mark.slow
def test_after_kill_9_the_next_start_finds_everything_as_it_was(place, program, gone):
    owner = program(HOLD, place)
    pids = [int(word) for word in owner.stdout.readline().split()]
    kept = {path.name: path.read_text() for path in (place / "secrets").iterdir()}
    os.kill(owner.pid, signal.SIGKILL)
    assert all(gone(pid) for pid in pids)
    with Runtime(place, settings=FAST) as runtime:
        with psycopg.connect(runtime.environment()["DATABASE_URL"]) as connection:
            assert connection.execute("SELECT current_user").fetchone() == (APP,)
    assert {path.name: path.read_text() for path in (place / "secrets").iterdir()} == kept


def test_real_servers_are_used_when_both_are_named_and_half_a_choice_is_refused():
    both = {"DATABASE_URL": "postgresql://db/x", "REDIS_URL": "redis://broker"}
    assert uses_real_servers(both)
    assert not uses_real_servers({})
    for name in both:
        with pytest.raises(EmbeddedError, match=f"Only {name} is set"):
            uses_real_servers({name: both[name]})
