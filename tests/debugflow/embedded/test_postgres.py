"""The embedded PostgreSQL: passwords count, and no way to die hinders the next start."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from threading import Thread

import psycopg
import pytest

from debugflow.embedded import postgres, server
from debugflow.embedded.postgres import EmbeddedPostgres, binaries, copy_binaries
from debugflow.embedded.server import processes_in
from debugflow.embedded.spawn import born
from debugflow.embedded.state import EmbeddedError, scratch, server_account, state_dir, succeeds_as

FAST = {"fsync": "off"}
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs servers as another user")
with_proc = pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")

SERVE = """
import sys, time
from pathlib import Path
from debugflow.embedded.postgres import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]), settings={"fsync": "off"})
server.start()
print(server.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def shared():
    """One server for the tests that only look at it."""
    with scratch() as directory, EmbeddedPostgres(directory / "pg", settings=FAST) as pg:
        yield pg


@pytest.fixture
def cluster(shared, place):
    """The directory of a server that is not running, copied: ten times quicker than initdb."""
    with psycopg.connect(shared.url(), autocommit=True) as connection:
        connection.execute("CHECKPOINT")
    subprocess.run(["cp", "-a", shared.directory, place / "pg"], check=True)
    (place / "pg" / "data" / "postmaster.pid").unlink()
    return place / "pg"


def answer(url: str, query: str) -> object:
    with psycopg.connect(url) as connection:
        row = connection.execute(query).fetchone()
    return row and row[0]


def test_the_superuser_signs_in_and_settings_hold(shared):
    assert answer(shared.url(), "SHOW fsync") == "off"
    assert answer(shared.url(), "SELECT upper('é')") == "É"
    assert answer(shared.url(), "SHOW listen_addresses") == "127.0.0.1"
    assert answer(shared.url(), "SHOW unix_socket_directories") == ""


def test_nobody_is_trusted(shared):
    methods = "SELECT string_agg(DISTINCT auth_method, ',') FROM pg_hba_file_rules"
    assert answer(shared.url(), methods) == "scram-sha-256"
    mallory = shared.url(user="postgres", password="guessed")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(mallory)
    with pytest.raises(psycopg.OperationalError, match="no password supplied"):
        psycopg.connect(shared.url(user="postgres"), passfile="/dev/null")
    secret = shared.directory / "superuser.password"
    assert secret.stat().st_mode & 0o777 == 0o600
    assert secret.stat().st_uid == os.geteuid()


def test_urls_quote_what_they_are_given(place):
    pg = EmbeddedPostgres(place / "pg", port=15_432)
    url = pg.url("data base", user="a@b", password="p:/?#")
    assert url == "postgresql://a%40b:p%3A%2F%3F%23@127.0.0.1:15432/data%20base"


def test_a_server_that_never_started_has_no_pid_and_no_port(place):
    pg = EmbeddedPostgres(place / "pg")
    with pytest.raises(EmbeddedError, match="not running"):
        _ = pg.pid
    with pytest.raises(EmbeddedError, match="not been started"):
        pg.url()


def test_a_killed_server_comes_back_on_its_port_with_its_data(cluster):
    with EmbeddedPostgres(cluster, settings=FAST) as pg:
        url, pid = pg.url(), pg.pid
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
        pg.kill()
        assert born(pid) is None
        assert processes_in(cluster / "data", "postgres") == []
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(url)
        pg.start()
        assert pg.pid != pid
        assert answer(url, "SELECT number FROM kept") == 7


def test_stopping_is_orderly_and_may_be_repeated(cluster):
    pg = EmbeddedPostgres(cluster, settings=FAST)
    pg.start()
    with psycopg.connect(pg.url()):
        pg.stop()
    pg.stop()
    assert "database system is shut down" in pg.log.read_text()
    pg.start()
    pg.stop(fast=False)


def test_the_same_directory_twice_is_refused(shared):
    with pytest.raises(EmbeddedError, match=f"in use by process {os.getpid()}") as refused:
        EmbeddedPostgres(shared.directory).start()
    assert str(shared.directory) in str(refused.value)
    assert answer(shared.url(), "SELECT 1") == 1


def test_a_refused_start_shows_the_log_and_leaves_the_directory_free(cluster):
    with pytest.raises(EmbeddedError, match='parameter "no_such_thing"'):
        EmbeddedPostgres(cluster, settings={"no_such_thing": "1"}).start()
    with EmbeddedPostgres(cluster, settings=FAST) as pg:
        assert answer(pg.url(), "SELECT 1") == 1


def test_a_port_that_is_taken_is_refused_when_it_was_asked_for(cluster):
    with socket.create_server(("127.0.0.1", 0)) as other:
        pg = EmbeddedPostgres(cluster, port=other.getsockname()[1], settings=FAST)
        with pytest.raises(EmbeddedError, match="Address already in use"):
            pg.start()


def test_a_port_taken_between_pick_and_start_is_picked_again(cluster, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken, free = other.getsockname()[1], server.free_port()
        picks = iter([taken, free])
        monkeypatch.setattr(server, "free_port", lambda: next(picks))
        with EmbeddedPostgres(cluster, settings=FAST) as pg:
            assert pg.port == free


@as_root
def test_a_directory_that_the_system_user_cannot_reach_is_refused(tmp_path):
    tmp_path.chmod(0o700)
    with pytest.raises(EmbeddedError, match="cannot go into"):
        EmbeddedPostgres(tmp_path / "pg").start()
    assert tmp_path.stat().st_mode & 0o777 == 0o700


@as_root
def test_as_root_it_runs_as_the_system_user(shared):
    account = server_account()
    assert account is not None
    assert Path(f"/proc/{shared.pid}").stat().st_uid == account.uid != 0


def test_a_half_made_cluster_is_made_anew(place):
    left = place / "pg" / "initdb-killed"
    (left / "data").mkdir(parents=True)
    (place / "pg").chmod(place.stat().st_mode)
    with EmbeddedPostgres(place / "pg", settings=FAST) as pg:
        assert answer(pg.url(), "SELECT 1") == 1
    assert not left.exists()


@pytest.mark.slow
@with_proc
def test_the_server_dies_with_its_killed_owner_and_starts_again(cluster, program, gone):
    owner = program(SERVE, cluster)
    pid = int(owner.stdout.readline())
    os.kill(owner.pid, signal.SIGKILL)
    assert gone(pid)
    with EmbeddedPostgres(cluster, settings=FAST) as pg:
        assert answer(pg.url(), "SELECT 1") == 1


@pytest.mark.slow
@with_proc
@pytest.mark.parametrize("stopped", [False, True], ids=["running", "stopped"])
def test_a_server_left_alive_is_ended_and_its_data_kept(
    cluster, program, gone, lifeline_of, stopped
):
    owner = program(SERVE, cluster)
    pid = int(owner.stdout.readline())
    os.kill(lifeline_of(owner.pid), signal.SIGKILL)
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    if stopped:
        os.kill(pid, signal.SIGSTOP)
    assert born(pid) is not None
    with EmbeddedPostgres(cluster, settings=FAST) as pg:
        assert gone(pid)
        assert pg.pid != pid
        assert answer(pg.url(), "SELECT 1") == 1


@with_proc
def test_a_stale_pid_file_that_names_a_living_process_hinders_nothing(cluster):
    pg = EmbeddedPostgres(cluster, settings=FAST)
    pg.start()
    file = cluster / "data" / "postmaster.pid"
    lines = file.read_text().splitlines()
    pg.kill()
    account = server_account()
    bystander = subprocess.Popen(["sleep", "600"], user=account.uid if account else None)
    try:
        file.write_text("\n".join([str(bystander.pid), *lines[1:]]) + "\n")
        pg.start()
        assert answer(pg.url(), "SELECT 1") == 1
        assert bystander.poll() is None
    finally:
        pg.stop()
        bystander.kill()
        bystander.wait()


@pytest.mark.slow
def test_binaries_are_copied_whole_when_two_copy_at_once(place):
    package = binaries().parents[1]
    copying = [Thread(target=copy_binaries, args=(package,), kwargs={"to": place}) for _ in "ab"]
    for thread in copying:
        thread.start()
    for thread in copying:
        thread.join()
    copied = copy_binaries(package, to=place)
    for name in ("postgres", "initdb", "psql"):
        assert succeeds_as(server_account(), [str(copied / "pginstall/bin" / name), "--version"])
    assert sorted(path.name for path in place.iterdir()) == sorted(
        ["binaries.lock", copied.parent.name]
    )


@pytest.mark.slow
@as_root
def test_binaries_below_a_private_home_are_copied_to_where_they_can_run(
    place, cluster, tmp_path, monkeypatch
):
    package = binaries().parents[1]
    tmp_path.chmod(0o700)
    private = copy_binaries(package, to=tmp_path)
    monkeypatch.setattr(
        postgres, "find_spec", lambda _: type("Spec", (), {"submodule_search_locations": [private]})
    )
    monkeypatch.setenv("DEBUGFLOW_STATE_DIR", str(place))
    binaries.cache_clear()
    try:
        with EmbeddedPostgres(cluster, settings=FAST) as pg:
            assert place in binaries().parents
            assert answer(pg.url(), "SELECT 1") == 1
        assert tmp_path.stat().st_mode & 0o777 == 0o700
    finally:
        binaries.cache_clear()


@pytest.mark.slow
@as_root
def test_an_ordinary_user_needs_no_system_user(place, program):
    nobody = pwd.getpwnam("nobody")
    python = next(filter(None, map(_runs_for(nobody.pw_uid), _interpreters())), None)
    if python is None:
        pytest.skip("no interpreter of this version that another user may run")
    if subprocess.run(["test", "-r", __file__], user=nobody.pw_uid, cwd="/").returncode:
        pytest.skip("another user may not read this checkout")
    home = place / "nobody's"
    home.mkdir()
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    started = program(
        SERVE, home / "pg", python=python, user=nobody.pw_uid, group=nobody.pw_gid, cwd="/"
    )
    pid = int(started.stdout.readline())
    assert Path(f"/proc/{pid}").stat().st_uid == nobody.pw_uid


def _interpreters() -> list[str | None]:
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return [sys.executable, shutil.which(name, path="/usr/bin:/usr/local/bin")]


def _runs_for(uid: int):
    def check(python: str | None) -> str | None:
        if python is None:
            return None
        try:
            subprocess.run([python, "-c", ""], check=True, user=uid, cwd="/")
        except (OSError, subprocess.CalledProcessError):
            return None
        return python

    return check


def test_the_state_directory_can_be_reached_by_the_server():
    assert succeeds_as(server_account(), ["/bin/sh", "-c", 'cd -- "$0"', str(state_dir())])
