"""Moves what the embedded servers keep over to a newer PostgreSQL, and keeps it before migrations.

The old is never changed: a cluster is copied by pg_upgrade, which keeps the oids of roles (by them
debugflow knows its accounts on the demonstration's target), and put in place by renames. Killed at
any instant, the next start or the next upgrade goes on with one of the two, whole.
"""

import os
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import psycopg

from debugflow.embedded.postgres import EmbeddedPostgres, data_major, program_major
from debugflow.embedded.server import HOST, clean_environment
from debugflow.embedded.state import (
    CHECKOUT,
    Account,
    EmbeddedError,
    make_directory,
    run_as,
    server_account,
)

OURS: Final = {
    "accounts": CHECKOUT / "debugflow" / "accounts" / "migrations",
    "approvals": CHECKOUT / "approvals" / "migrations",
    "audit": CHECKOUT / "audit" / "migrations",
}


def upgrade(directory: Path, *, programs: Path) -> Path | None:
    """Move the cluster in `directory` over; `programs` are those of the version that made it.

    Returns where its data is kept, or None when it is of this version already, or there is none.
    Raises EmbeddedError, with all as it was, when that does not work.
    """
    data, server = directory / "data", EmbeddedPostgres(directory)
    if not data.exists():
        return _last_kept(directory) if server.finish_upgrade() else None
    if data_major(data) == program_major(server.program_path("postgres")):
        return None
    _refuse_other_programs(data, programs)
    # Recovered, where it was killed, and stopped in good order: pg_upgrade takes no other.
    with EmbeddedPostgres(directory, programs=programs):
        pass
    _make_ready(server, data, programs)
    kept = directory / f"data-{data_major(data)}-{_stamp()}"
    data.rename(kept)
    server.finish_upgrade()
    return kept


def _last_kept(directory: Path) -> Path:
    """What the upgrade that was killed had put aside."""
    return max(directory.glob("data-*"), key=lambda kept: kept.name.rpartition("-")[2])


def _make_ready(server: EmbeddedPostgres, data: Path, programs: Path) -> None:
    """Copy the data over, and only when all is there call it upgraded."""
    shutil.rmtree(server.upgraded, ignore_errors=True)  # of an attempt since which data was written
    draft = server.draft_cluster()
    try:
        _copy(server, data, draft / "data", programs)
        (draft / "data").rename(server.upgraded)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _refuse_other_programs(data: Path, programs: Path) -> None:
    needed, given = data_major(data), program_major(str(programs / "postgres"))
    if given != needed:
        raise EmbeddedError(
            f"{data} was made by PostgreSQL {needed}; the programs in {programs} are of {given}."
        )


def _copy(server: EmbeddedPostgres, old: Path, new: Path, programs: Path) -> None:
    account = server_account()
    if not _has_checksums(programs, old):
        # They are on by default from 18 on, and pg_upgrade wants both alike.
        _run(account, [server.program_path("pg_checksums"), "--disable", f"--pgdata={new}"])
    with tempfile.TemporaryDirectory(prefix="dbgf-") as sockets:  # their paths have 107 bytes
        if account is not None:
            os.chown(sockets, account.uid, account.gid)
        argv = [server.program_path("pg_upgrade"), f"--username={server.superuser}"]
        argv += [f"--old-bindir={programs}", f"--old-datadir={old}", f"--new-datadir={new}"]
        argv += [f"--socketdir={sockets}"]
        # It leaves its own working directory's files behind only where it fails.
        _run(account, argv, cwd=sockets, password=server.superuser_password)


def _has_checksums(programs: Path, data: Path) -> bool:
    told = _run(server_account(), [str(programs / "pg_controldata"), str(data)])
    return "Data page checksum version:           0" not in told


def _run(account: Account | None, argv: list[str], *, cwd: str = "/", password: str = "") -> str:
    """Run a program as the server's user; returns what it said. Raises EmbeddedError with that."""
    env = {**clean_environment(), **({"PGPASSWORD": password} if password else {})}
    ended = run_as(account, argv, env=env, cwd=cwd)
    if ended.returncode != 0:
        raise EmbeddedError(f"{Path(argv[0]).name} failed:\n{ended.stdout[-4000:]}")
    return ended.stdout


def keep_before_migrating(server: EmbeddedPostgres, database: str, *, to: Path) -> Path | None:
    """Dump the (running) server's database into `to` if there are migrations that it has not had.

    Returns the dump; None for a database that is empty or up to date. Raises EmbeddedError.
    """
    if not _is_behind(server.url(database)):
        return None
    kept = make_directory(to) / f"before-migrating-{_stamp()}.dump"
    argv = [server.program_path("pg_dump"), "--format=custom", f"--file={kept}"]
    argv += [f"--host={HOST}", f"--port={server.port}", f"--username={server.superuser}"]
    kept.touch(mode=0o600)
    _run(None, [*argv, database], password=server.superuser_password)
    return kept


def _is_behind(url: str) -> bool:
    with psycopg.connect(url) as session:
        if session.execute("SELECT to_regclass('django_migrations')").fetchone() == (None,):
            return False
        applied = set(session.execute("SELECT app, name FROM django_migrations").fetchall())
    return not _written() <= applied


def _written() -> set[tuple[str, str]]:
    return {(app, file.stem) for app, place in OURS.items() for file in place.glob("0*.py")}


def _stamp() -> str:
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
