"""Data of an older PostgreSQL, and of an older debugflow: told apart, kept, and moved over."""

import signal
import subprocess
import sys
from io import StringIO
from pathlib import Path

import psycopg
import pytest
from django.core.management import CommandError, call_command

from debugflow.embedded.postgres import EmbeddedPostgres, binaries, data_major
from debugflow.embedded.runtime import DATABASE
from debugflow.embedded.state import CHECKOUT, DirectoryLock, EmbeddedError, run_as
from debugflow.embedded.upgrade import keep_before_migrating, upgrade
from tests.approvals.provisioning import debian
from tests.conftest import TEMPLATE

FAST = {"fsync": "off", "full_page_writes": "off"}


@pytest.fixture(scope="module")
def old() -> Path:
    """The programs of an older PostgreSQL."""
    if reason := debian.missing():
        pytest.skip(reason)
    return debian.PROGRAMS


@pytest.fixture
def before(place: Path, old: Path) -> Path:
    """What an older version left in its directory: a role, a table, rows, a password."""
    with debian.DebianPostgres(place / "cluster", settings=FAST) as server:
        with psycopg.connect(server.url(), autocommit=True) as superuser:
            superuser.execute("CREATE ROLE dbgf_1 LOGIN")
            superuser.execute("CREATE DATABASE story")
        with psycopg.connect(server.url("story"), autocommit=True) as superuser:
            superuser.execute("CREATE TABLE chapter AS SELECT generate_series(1, 1000) AS number")
            superuser.execute("ALTER TABLE chapter OWNER TO dbgf_1")
    return place / "cluster"


def oid_of_role(server: EmbeddedPostgres) -> object:
    with psycopg.connect(server.url()) as superuser:
        return superuser.execute("SELECT oid FROM pg_roles WHERE rolname = 'dbgf_1'").fetchone()


def rows(server: EmbeddedPostgres) -> object:
    with psycopg.connect(server.url("story")) as superuser:
        return superuser.execute("SELECT count(*), sum(number) FROM chapter").fetchone()


def test_data_of_another_major_version_is_refused_and_the_way_out_told(before: Path):
    with pytest.raises(EmbeddedError, match="data of PostgreSQL 15, and this is 18") as refused:
        EmbeddedPostgres(before).start()
    assert "manage.py upgrade --programs" in str(refused.value)
    assert data_major(before / "data") == "15"


def test_it_is_moved_over_whole_and_the_old_is_kept(
    before: Path, old: Path, monkeypatch: pytest.MonkeyPatch
):
    with debian.DebianPostgres(before, settings=FAST) as server:
        oid = oid_of_role(server)
        server.kill()  # as a power cut would: it has to be recovered first
    state = before.parent
    monkeypatch.setenv("DEBUGFLOW_STATE_DIR", str(state))
    (state / "up").mkdir()
    (state / "up").chmod(state.stat().st_mode)
    cluster = before.rename(state / "up" / "control")
    out = StringIO()
    call_command("upgrade", programs=old, stdout=out)
    [kept] = cluster.glob("data-*")
    assert f"control: moved over. The old data is kept as {kept.name}" in out.getvalue()
    assert "production: nothing to do" in out.getvalue()
    assert data_major(kept) == "15"
    with EmbeddedPostgres(cluster, settings=FAST) as server:
        assert rows(server) == (1000, 500500)
        assert oid_of_role(server) == oid  # by which the ledger knows it
        with psycopg.connect(server.url()) as superuser:
            assert superuser.info.server_version // 10000 == 18
    assert upgrade(cluster, programs=old) is None
    assert {path for path in cluster.iterdir() if path.is_dir()} == {cluster / "data", kept}


# In a process of its own, which is killed in the place of its last rename.
DYING = """
import os, signal, sys
from pathlib import Path
from debugflow.embedded import upgrade

left, rename = int(sys.argv[3]), Path.rename

def dying(source, to):
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    return rename(source, to)

Path.rename = dying
upgrade.upgrade(Path(sys.argv[1]), programs=Path(sys.argv[2]))
"""


def killed_before_rename(number: int, cluster: Path, programs: Path) -> None:
    argv = [sys.executable, "-c", DYING, str(cluster), str(programs), str(number)]
    ended = subprocess.run(argv, check=False, cwd=CHECKOUT, capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr


def test_killed_at_any_instant_the_next_start_goes_on_with_what_is_whole(before: Path, old: Path):
    killed_before_rename(1, before, old)  # the copy is whole, and the old data still in its place
    assert data_major(before / "data") == "15"
    killed_before_rename(2, before, old)  # the old data is out of the way, the new not there yet
    assert not (before / "data").exists()
    [kept] = before.glob("data-*")
    with EmbeddedPostgres(before, settings=FAST) as server:
        assert rows(server) == (1000, 500500)
    assert {path for path in before.iterdir() if path.is_dir()} == {before / "data", kept}


def test_an_upgrade_goes_on_where_one_was_killed(place: Path):
    cluster = place / "cluster"
    with EmbeddedPostgres(cluster, settings=FAST) as server:
        pass
    (cluster / "data").rename(server.upgraded)
    for name in ("data-16-20300101T000000Z", "data-15-20310101T000000Z"):
        (cluster / name).mkdir()
    assert upgrade(cluster, programs=binaries()) == cluster / "data-15-20310101T000000Z"
    assert data_major(cluster / "data") == "18"
    assert not server.upgraded.exists()


def test_nothing_is_moved_while_something_runs_there(place: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DEBUGFLOW_STATE_DIR", str(place))
    lock = DirectoryLock(place)
    lock.acquire()
    try:
        with pytest.raises(CommandError, match="in use by process"):
            call_command("upgrade", programs=Path("/nowhere"), stdout=StringIO())
    finally:
        lock.release()


@pytest.mark.parametrize(
    ("programs", "told"),
    [
        (None, r"made by PostgreSQL 15; the programs in .* are of 18"),
        (Path("/nowhere"), "does not run here"),
    ],
)
def test_the_wrong_programs_are_refused_and_nothing_is_changed(
    before: Path, programs: Path | None, told: str
):
    with pytest.raises(EmbeddedError, match=told):
        upgrade(before, programs=programs or binaries())
    assert data_major(before / "data") == "15"
    assert [path.name for path in before.iterdir() if path.is_dir()] == ["data"]


def test_a_database_is_dumped_before_migrations_it_has_not_had(place: Path):
    with EmbeddedPostgres(place / "cluster", settings=FAST) as server:
        with psycopg.connect(server.url(), autocommit=True) as superuser:
            superuser.execute(f"CREATE DATABASE {DATABASE}")
        assert keep_before_migrating(server, DATABASE, to=place / "backups") is None  # empty
        with psycopg.connect(server.url(DATABASE), autocommit=True) as inside:
            inside.execute("CREATE TABLE django_migrations (app text, name text)")
            inside.execute("CREATE TABLE chapter AS SELECT 7 AS number")
        kept = keep_before_migrating(server, DATABASE, to=place / "backups")
        assert kept is not None
        assert kept.stat().st_mode & 0o077 == 0
        listed = run_as(None, [server.program_path("pg_restore"), "--list", str(kept)]).stdout
        assert "TABLE DATA public chapter" in listed


def test_a_database_that_is_up_to_date_is_not_dumped(place: Path, control, django_db_setup):
    assert keep_before_migrating(control.postgres, TEMPLATE, to=place / "backups") is None
    assert not (place / "backups").exists()
