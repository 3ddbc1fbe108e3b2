"""What every embedded server does alike: start, wait until ready, stop, be killed, start again.

Which program it is, and how one asks whether it is ready, lives in `postgres` and `valkey`.
"""

import os
import random
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Self

from debugflow.embedded.spawn import POLL, end_group, spawn
from debugflow.embedded.state import Account, DirectoryLock, EmbeddedError, make_directory

HOST = "127.0.0.1"
PORTS = range(15_000, 32_000)
PORT_ATTEMPTS = 10
READY_WITHIN = 60.0  # seconds; crash recovery is part of a start
STOPPED_WITHIN = 30.0  # seconds
LEFTOVERS_WITHIN = 5.0  # seconds
LOG_TAIL = 4_000  # bytes of the log that an error message shows


class EmbeddedServer(ABC):
    """One server process over one directory, listening on 127.0.0.1 alone."""

    program: ClassVar[str]  # the executable's name, as the kernel knows it
    stop_signal: ClassVar[signal.Signals]

    def __init__(self, directory: Path, *, port: int = 0) -> None:
        """Port 0 picks a free one at the first start and keeps it, so that URLs stay good."""
        self.directory = directory.absolute()
        self._port = port
        self._lock = DirectoryLock(self.directory)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        """Raises EmbeddedError when none is picked yet."""
        if not self._port:
            raise EmbeddedError(f"The server of {self.directory} has not been started.")
        return self._port

    @property
    def pid(self) -> int:
        """Raises EmbeddedError when the server was not started or has been stopped."""
        if self._process is None:
            raise EmbeddedError(f"The server of {self.directory} is not running.")
        return self._process.pid

    @property
    def log(self) -> Path:
        """The file that the server's own messages go to."""
        return self.directory / f"{self.program}.log"

    def start(self) -> None:
        """Start and wait until it answers with our password.

        Raises EmbeddedError with the end of the log when it does not.
        """
        make_directory(self.directory)
        self._lock.acquire()
        try:
            self._end_leftovers()
            self._prepare()
            self._launch()
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Stop in good order; nothing happens when it is not running."""
        self._stop(self.stop_signal)

    def kill(self) -> None:
        """End it as a power cut would: SIGKILL, for all of its processes. None runs after it."""
        if self._process is not None:
            end_group(self._process, signum=signal.SIGKILL, grace=STOPPED_WITHIN)
        deadline = time.monotonic() + STOPPED_WITHIN
        # Killed is not gone yet, and one may have been started while we looked.
        while (left := processes_in(self._home, self.program)) and time.monotonic() < deadline:
            for pid in left:
                _signal(pid, signal.SIGKILL)
            time.sleep(POLL)
        self._forget()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    @property
    def _home(self) -> Path:
        """The server's own working directory: how its processes are found again."""
        return self.directory

    @property
    def _account(self) -> Account | None:
        return None

    @abstractmethod
    def _prepare(self) -> None:
        """Write what the server needs before it starts."""

    @abstractmethod
    def _argv(self, port: int) -> list[str]: ...

    @abstractmethod
    def _answers(self, port: int) -> bool:
        """Whether the server on `port` is ready and knows our password."""

    def _stop(self, signum: signal.Signals) -> None:
        if self._process is None:
            return
        end_group(self._process, signum=signum, grace=STOPPED_WITHIN)
        self._forget()

    def _forget(self) -> None:
        self._process = None
        self._lock.release()

    def _launch(self) -> None:
        for _ in range(PORT_ATTEMPTS):
            port = self._port or free_port()
            told = self._run_until_ready(port)
            if told is None:
                self._port = port
                return
            if self._port or "Address already in use" not in told:
                raise EmbeddedError(self._complaint(port, told))
        raise EmbeddedError(self._complaint(port, told or ""))

    def _run_until_ready(self, port: int) -> str | None:
        """None when it is ready, else what it logged."""
        account = self._account
        with self.log.open("ab") as log:
            begin = log.tell()
            self._process = spawn(
                self._argv(port),
                cwd=self._home,
                output=log,
                env=clean_environment(),
                uid=account.uid if account else None,
                gid=account.gid if account else None,
                end=self.stop_signal,
            )
        deadline = time.monotonic() + READY_WITHIN
        while self._process.poll() is None and time.monotonic() < deadline:
            if self._answers(port):
                return None
            time.sleep(POLL)
        return self._log_since(begin)

    def _log_since(self, begin: int) -> str:
        with self.log.open("rb") as log:
            log.seek(begin)
            return log.read()[-LOG_TAIL:].decode(errors="replace")

    def _complaint(self, port: int, told: str) -> str:
        return (
            f"{self.program} did not start on {HOST}:{port} over {self.directory}.\n{told.rstrip()}"
            f"\nThe whole log is {self.log}. If the data cannot be saved, `make clean` removes it; "
            "DEBUGFLOW_STATE_DIR chooses another directory, DATABASE_URL and REDIS_URL real servers"
            "."
        )

    def _end_leftovers(self) -> None:
        """End what an earlier run, killed before it could clean up, left over our directory.

        Ours for certain: we hold the directory's lock, and it works in our directory.
        """
        for signum in (self.stop_signal, signal.SIGKILL):
            for pid in processes_in(self._home, self.program):
                _signal(pid, signum)
                _signal(pid, signal.SIGCONT)
            if self._is_empty_within(LEFTOVERS_WITHIN):
                return
        raise EmbeddedError(f"A {self.program} over {self.directory} cannot be ended.")

    def _is_empty_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while processes_in(self._home, self.program):
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL)
        return True


def processes_in(home: Path, program: str) -> list[int]:
    """The processes of `program` that work in the directory `home`, a deleted one included.

    Without /proc (macOS) none is found, and the server's own lock file has the last word.
    """
    real = os.path.realpath(home)
    homes = {real, f"{real} (deleted)"}
    pids = [int(entry.name) for entry in Path("/proc").glob("[0-9]*")]
    return [pid for pid in pids if _link(pid, "cwd") in homes and _runs(pid, program)]


def _runs(pid: int, program: str) -> bool:
    return Path(_link(pid, "exe").removesuffix(" (deleted)")).name == program


def _link(pid: int, name: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/{name}")
    except OSError:  # gone, a zombie, or another user's
        return ""


def _signal(pid: int, signum: signal.Signals) -> None:
    try:
        os.kill(pid, signum)
    except ProcessLookupError:
        return


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now.

    Below the ports that the kernel hands to outgoing connections (from 32768 on): a client that
    keeps trying a stopped server's port there can end up connected to itself, and block it.
    """
    for port in random.sample(PORTS, k=200):
        with socket.socket() as probe:
            if _binds(probe, port):
                return port
    raise EmbeddedError(f"No free port between {PORTS.start} and {PORTS.stop}.")


def _binds(probe: socket.socket, port: int) -> bool:
    try:
        probe.bind((HOST, port))
    except OSError:
        return False
    return True


def clean_environment() -> Mapping[str, str]:
    """The environment for a server: English messages, and no PGDATA or the like from ours."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8", "TZ": "UTC"}
