"""The servers that tests run on, and the cast that they tell of.

PostgreSQL is the embedded one, with the three roles of production: tests act as the application's
login, which may do no more than it may there. `db` rolls back; `committed` really commits and
gets a fresh clone of the database afterwards, since Events refuse to be truncated.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.core.management import call_command
from django.db import connection, connections
from pytest_django.plugin import DjangoDbBlocker

from debugflow.embedded.postgres import EmbeddedPostgres
from debugflow.embedded.runtime import APP, MIGRATOR, OWNER, create_roles
from debugflow.embedded.state import make_directory, scratch
from tests.ordering import spread
from tests.passwords import hash_lightly
from tests.snapshot import restored
from tests.world import World, build

TEMPLATE, DATABASE = "debugflow_template", "debugflow_test"
MEMORY, ROOM = Path("/dev/shm"), 4 * 2**30  # bytes that have to be free there
PASSWORDS = {APP: "app-password", MIGRATOR: "migrator-password"}
# Durability costs time and proves nothing here: a killed server's data is not used again.
UNSAFE_BUT_FAST = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "max_connections": "200",
}


@dataclass(frozen=True)
class Control:
    """The control plane's PostgreSQL of this test process."""

    postgres: EmbeddedPostgres

    def superuser(self, database: str = "postgres") -> psycopg.Connection[Any]:
        return psycopg.connect(self.postgres.url(database), autocommit=True)

    def url(self, user: str = APP, database: str = DATABASE) -> str:
        return self.postgres.url(database, user, PASSWORDS[user])

    def point_django_at(self, database: str, user: str, **options: Any) -> None:
        connections["default"].close()
        connections["default"].settings_dict.update(
            NAME=database,
            USER=user,
            PASSWORD=PASSWORDS[user],
            HOST="127.0.0.1",
            PORT=str(self.postgres.port),
            OPTIONS={"server_side_binding": True, "prepare_threshold": 3, **options},
        )

    def make_template(self) -> None:
        create_roles(
            self.postgres.url(),
            database=TEMPLATE,
            owner=OWNER,
            migrator=MIGRATOR,
            app=APP,
            passwords=PASSWORDS,
        )
        passwords = {self.postgres.superuser: self.postgres.superuser_password, **PASSWORDS}
        hash_lightly(self.postgres.url(), passwords)
        self.point_django_at(TEMPLATE, MIGRATOR, options=f"-c role={OWNER}")
        call_command("migrate", verbosity=0)
        connections.close_all()
        with self.superuser(TEMPLATE) as server:
            # Production's login may not shift the clock (a system check looks); tests have to.
            server.execute(f"GRANT UPDATE ON audit_clock TO {APP}")

    def fresh_database(self) -> None:
        connections.close_all()
        with self.superuser() as server:
            server.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
            server.execute(
                f"CREATE DATABASE {DATABASE} TEMPLATE {TEMPLATE} OWNER {OWNER} STRATEGY FILE_COPY"
            )
            # A clone has not its template's privileges.
            server.execute(f"REVOKE ALL ON DATABASE {DATABASE} FROM PUBLIC")
            server.execute(f"GRANT CONNECT ON DATABASE {DATABASE} TO {MIGRATOR}, {APP}")


@pytest.fixture(scope="session")
def server_directory() -> Iterator[Path]:
    """A directory that the system user of the embedded servers can reach."""
    with scratch(_in_memory()) as directory:
        yield directory


def _in_memory() -> Path | None:
    """Where a database of hundreds of files is cloned in 0.02 s; a busy disk needs a second."""
    if not os.access(MEMORY, os.W_OK) or shutil.disk_usage(MEMORY).free < ROOM:
        return None
    return make_directory(MEMORY / f"debugflow-tests-{os.geteuid()}")


@pytest.fixture(scope="session")
def prepared(
    server_directory: Path,
    tmp_path_factory: pytest.TempPathFactory,
    django_db_blocker: DjangoDbBlocker,
) -> Path:
    """The directory of a stopped server that holds the template: migrations take seconds, so that
    the first of several test processes makes it for all of them."""
    ours = tmp_path_factory.getbasetemp()
    run = ours.parent if "PYTEST_XDIST_WORKER" in os.environ else ours
    with (run / "prepared").open("a+") as told:
        fcntl.flock(told, fcntl.LOCK_EX)
        told.seek(0)
        if (place := told.read()) and Path(place).is_dir():
            return Path(place)
        made = server_directory / "prepared"
        with (
            EmbeddedPostgres(made, settings=UNSAFE_BUT_FAST) as postgres,
            django_db_blocker.unblock(),
        ):
            Control(postgres).make_template()
        told.write(str(made))
    return made


@pytest.fixture(scope="session")
def control(server_directory: Path, prepared: Path) -> Iterator[Control]:
    directory = server_directory / "control"
    # With its owner: as root that is the servers' system user.
    subprocess.run(["cp", "-a", str(prepared), str(directory)], check=True)
    with EmbeddedPostgres(directory, settings=UNSAFE_BUT_FAST) as postgres:
        yield Control(postgres)


@pytest.fixture(scope="session")
def django_db_setup(control: Control, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    with django_db_blocker.unblock():
        control.fresh_database()
        control.point_django_at(DATABASE, APP)
    yield
    with django_db_blocker.unblock():
        connections.close_all()


@pytest.fixture
def committed(
    django_db_setup: None, control: Control, django_db_blocker: DjangoDbBlocker
) -> Iterator[None]:
    """Commits are real and seen by other connections; the database is cloned anew afterwards."""
    with django_db_blocker.unblock():
        yield
        control.fresh_database()


@pytest.fixture
def migrations_url(control: Control) -> str:
    return f"{control.url(MIGRATOR)}?options=-c%20role%3D{OWNER}"


# Their tests start servers or processes of their own, however quick each is then.
SLOW_FOLDERS = ("tests/approvals/provisioning/", "tests/debugflow/embedded/", "tests/faults/")
COMMITS = "committed"  # the database is cloned anew after each


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.nodeid.startswith(SLOW_FOLDERS) or COMMITS in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers > 1:
        usual = float(config.getini("timeout"))
        items[:] = spread(items, workers, lambda item: _timeout(item) > usual)


def _timeout(item: pytest.Item) -> float:
    """The seconds that the test asks for, if it does."""
    mark = item.get_closest_marker("timeout")
    return float(mark.args[0]) if mark else 0.0


class Clock:
    """Moves the database's time, for this database and, under `db`, this transaction only."""

    def forward(self, seconds: float) -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE audit_clock SET shift = shift + make_interval(secs => %s)", [seconds]
            )


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def world(request: pytest.FixtureRequest) -> World:
    """The cast, in the database of `db` or, where the test asks for it, of `committed`."""
    if "committed" not in request.fixturenames:
        request.getfixturevalue("db")
    return restored(build)
