"""PostgreSQL 15, the oldest that is supported, from Debian's packages; not a test.

No wheel has it. As a script it installs the server where that can be done, and says so where not;
the tests do the same on their first use. No cluster of Debian's own is made or started.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from debugflow.embedded.postgres import EmbeddedPostgres
from debugflow.embedded.server import clean_environment
from debugflow.embedded.state import EmbeddedError, run_as

PACKAGE = "postgresql-15"
PROGRAMS = Path("/usr/lib/postgresql/15/bin")
FETCHED_WITHIN = 80
"""Seconds for all that needs the network; a test may take 120. What unpacks is never ended
half-way, which would leave the machine's packages in disorder."""
LOCK = Path("/run/lock/debugflow-test-packages")
NO_CLUSTER = Path("/etc/postgresql-common/createcluster.d/debugflow-tests.conf")
"""Where Debian's scripts look whether the package shall make and start a cluster."""


class DebianPostgres(EmbeddedPostgres):
    """The embedded server with Debian's programs in place of the wheel's."""

    def _argv(self, port: int) -> list[str]:
        return [str(PROGRAMS / "postgres"), *super()._argv(port)[1:]]

    def _initdb(self, data: Path, password: Path) -> None:
        """As the wheel's, but for the built-in locale provider, which came with 17."""
        argv = [str(PROGRAMS / "initdb"), f"--pgdata={data}", f"--pwfile={password}"]
        argv += [f"--username={self.superuser}", "--auth=scram-sha-256", "--encoding=UTF8"]
        argv += ["--locale=C.UTF-8", "--no-instructions", "--no-sync"]
        ended = run_as(self._account, argv, env=clean_environment())
        if ended.returncode != 0:
            raise EmbeddedError(f"initdb failed in {self.directory}:\n{ended.stdout}")


def missing() -> str:
    """Install the package if it is not there; return why it is not to be had, or nothing."""
    if _there():
        return ""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return f"there is no {PROGRAMS}, and only root on Debian can install {PACKAGE}"
    with LOCK.open("a") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)  # two test processes may come here at once
        if _there():
            return ""
        with _no_cluster_is_made():
            told = _install()
    return "" if _there() else f"{PACKAGE} could not be installed: {told[-300:]}"


def _there() -> bool:
    return (PROGRAMS / "postgres").exists()


@contextmanager
def _no_cluster_is_made() -> Iterator[None]:
    NO_CLUSTER.parent.mkdir(parents=True, exist_ok=True)
    NO_CLUSTER.write_text("create_main_cluster = false\n")
    try:
        yield
    finally:
        NO_CLUSTER.unlink()


def _install() -> str:
    """Return the end of what apt-get said last."""
    argv = ["apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=20", "-o", "Acquire::Retries=1"]
    install = [*argv, "install", "--no-install-recommends", PACKAGE]
    fetch = [*install, "--download-only"]
    end = time.monotonic() + FETCHED_WITHIN
    fetched, said = _run(fetch, end)
    if not fetched:
        _run([*argv, "update"], end)
        fetched, said = _run(fetch, end)
    return _run([*install, "--no-download"])[1] if fetched else said


def _run(argv: list[str], end: float | None = None) -> tuple[bool, str]:
    """Whether it came to a good end before `end` on the monotonic clock, and what it said."""
    try:
        ended = subprocess.run(
            argv,
            check=False,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=None if end is None else max(1.0, end - time.monotonic()),
        )
    except subprocess.TimeoutExpired:
        return False, f"fetching it took more than {FETCHED_WITHIN} s"
    return ended.returncode == 0, ended.stdout.strip()


if __name__ == "__main__":
    why = missing()
    sys.stdout.write(f"{why}. Its tests will be left out.\n" if why else f"{PROGRAMS} is there.\n")
