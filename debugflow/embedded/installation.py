"""Everything that `demo` and `up` run, over one directory: servers, target, data, processes."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO

from debugflow.embedded.processes import Processes
from debugflow.embedded.production import Production
from debugflow.embedded.runtime import DATABASE, Runtime
from debugflow.embedded.state import (
    CHECKOUT,
    DirectoryLock,
    EmbeddedError,
    make_directory,
    state_dir,
)
from debugflow.embedded.upgrade import keep_before_migrating

# What a child needs of our own environment. Nothing else: a SECRET_KEY_FILE or DEBUG that somebody
# has set for another installation would win over what this one is told.
PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT")
DEMO = {"DEBUGFLOW_DEMO": "True", "DEBUGFLOW_SECURE": "False", "PYTHONUNBUFFERED": "1"}


class Installation:
    """The demonstration's control plane and its target, ready to be used once started."""

    def __init__(
        self,
        directory: Path,
        *,
        port: int,
        out: TextIO,
        target_settings: Mapping[str, str] | None = None,
        told: Mapping[str, str] | None = None,
    ) -> None:
        """`port` is the web server's; `target_settings` are the target's PostgreSQL parameters;
        `told` is what our processes find in their environment besides."""
        self.told = dict(told or {})
        self.directory = make_directory(directory)
        self.runtime = Runtime(directory)
        self.production = Production(directory / "production", settings=target_settings)
        self.processes = Processes(directory / "logs", out=out, port=port)
        self._stack = ExitStack()

    @property
    def url(self) -> str:
        return self.processes.url

    def start(self) -> None:
        """Start the servers, migrate, start the processes, write the demo's data.

        Raises EmbeddedError naming what did not work, with the end of its log.
        """
        with ThreadPoolExecutor(max_workers=1) as beside:
            self._stack.callback(self.production.stop)
            target = beside.submit(self.production.start)
            self._stack.enter_context(self.runtime)
            keep_before_migrating(self.runtime.postgres, DATABASE, to=self.directory / "backups")
            self._manage("migrate", self.runtime.migrations_environment())
            target.result()
        environment = _child_environment({**self.runtime.environment(), **self.told})
        self._stack.callback(self.processes.stop)
        self.processes.start(environment)
        told = {"DEBUGFLOW_DEMO_TARGET_URL": self.production.admin_url}
        self._manage("seed_demo", {**environment, **told})
        self.processes.wait_until_ready()

    def stop(self) -> None:
        """Stop all in the reverse order; data stays."""
        self._stack.close()

    def logs(self) -> str:
        """The paths of all logs, and the last lines of the processes' own."""
        servers = (self.runtime.postgres, self.runtime.valkey, self.production.server)
        paths = "\n".join(f"── {server.log}" for server in servers)
        return f"{self.processes.tail()}\n{paths}"

    def _manage(self, command: str, environment: Mapping[str, str]) -> None:
        """Run a management command to its end, with secrets in its environment only."""
        ended = subprocess.run(  # noqa: S603 - our own file, and no shell reads it
            [sys.executable, "manage.py", command],
            check=False,
            cwd=CHECKOUT,
            env=_child_environment(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if ended.returncode != 0:
            raise EmbeddedError(f"`manage.py {command}` failed:\n{ended.stdout[-4000:].rstrip()}")


def _child_environment(told: Mapping[str, str]) -> dict[str, str]:
    ours = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return {**ours, **DEMO, **told}


@contextmanager
def installation(
    name: str, *, port: int, out: TextIO, afresh: bool = False
) -> Iterator[Installation]:
    """An installation in the state directory's `name`, stopped at the end, however that comes.

    `afresh` removes what an earlier run left there. Raises EmbeddedError while another run of
    this checkout holds the state directory.
    """
    place = state_dir()
    lock = DirectoryLock(place)
    lock.acquire()
    try:
        if afresh:
            _remove(place, name)
        made = Installation(place / name, port=port, out=out)
        try:
            yield made
        finally:
            made.stop()
    finally:
        lock.release()


def _remove(place: Path, name: str) -> None:
    """Remove a directory by renaming it first: what still runs in there may write on meanwhile."""
    if (place / name).exists():
        (place / name).rename(place / f"{name}.old-{os.getpid()}")
    for old in place.glob(f"{name}.old-*"):
        shutil.rmtree(old, ignore_errors=True)
