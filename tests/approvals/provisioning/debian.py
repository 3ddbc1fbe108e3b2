"""PostgreSQL 15, the oldest that is supported, from Debian's packages; not a test.

No wheel has it. As a script it installs the server where that can be done, and says so where not;
the tests do the same on their first use. No cluster of Debian's own is made or started.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from debugflow.embedded.postgres import EmbeddedPostgres
from debugflow.embedded.server import clean_environment
from debugflow.embedded.state import EmbeddedError, run_as
from tests import packages

PACKAGE = "postgresql-15"
PROGRAMS = Path("/usr/lib/postgresql/15/bin")
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
    return packages.missing(PACKAGE, PROGRAMS / "postgres", meanwhile=_no_cluster_is_made())


@contextmanager
def _no_cluster_is_made() -> Iterator[None]:
    NO_CLUSTER.parent.mkdir(parents=True, exist_ok=True)
    NO_CLUSTER.write_text("create_main_cluster = false\n")
    try:
        yield
    finally:
        NO_CLUSTER.unlink()


if __name__ == "__main__":
    why = missing()
    sys.stdout.write(f"{why}. Its tests will be left out.\n" if why else f"{PROGRAMS} is there.\n")
