"""Runs named processes side by side and shows what they say, each line under its name.

It restarts nothing: a dead process is reported and stays down. What to run is the caller's.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Self, TextIO

from debugflow.embedded.spawn import end_group, signal_group, spawn

GRACE = 10.0  # seconds from SIGTERM to SIGKILL
COLOURS = (36, 33, 32, 35, 34, 31)  # cyan, yellow, green, magenta, blue, red
NAME_WIDTH = 8
LAST_LINES_WITHIN = 1.0  # seconds; a grandchild in a session of its own may hold the pipe open


@dataclass(frozen=True)
class _Running:
    process: "subprocess.Popen[bytes]"
    awaiter: threading.Thread


class Supervisor:
    """The processes of one terminal; they end with us, even when we are killed."""

    def __init__(self, out: TextIO | None = None, *, log_dir: Path | None = None) -> None:
        """Lines go to `out` (the standard output) or, per process, to `log_dir`/NAME.log."""
        self._out = out or sys.stdout
        self._log_dir = log_dir
        self._colours = self._out.isatty() and not os.environ.get("NO_COLOR")
        self._guard = threading.Lock()
        self._running: dict[str, _Running] = {}
        self._stopping = threading.Event()

    def start(
        self, name: str, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path | None = None
    ) -> "subprocess.Popen[bytes]":
        """Start a process; raises ValueError while one of that name is alive."""
        if self.alive(name):
            raise ValueError(f"{name} is running already.")
        output = self._output(name)
        process = spawn(argv, cwd=cwd or Path.cwd(), output=output, env=env)
        if not isinstance(output, int):
            output.close()
        pipe = process.stdout
        reader = None if pipe is None else self._thread(self._copy, name, pipe)
        awaiter = self._thread(self._await, name, process, reader)
        for thread in (reader, awaiter):
            if thread is not None:
                thread.start()
        # Last: Ctrl-C up to here leaves the process to the lifeline, and `stop` only whole entries.
        self._running[name] = _Running(process, awaiter)
        return process

    def kill(self, name: str, signum: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to the process and its children; raises KeyError for an unknown name."""
        signal_group(self._running[name].process.pid, signum)

    def alive(self, name: str) -> bool:
        """Whether a process of that name was started and has not ended."""
        running = self._running.get(name)
        return running is not None and running.process.poll() is None

    def stop(self, *, grace: float = GRACE) -> None:
        """Stop all: SIGTERM to every one at once, SIGKILL to what is left after `grace` seconds."""
        self._stopping.set()
        everyone = list(self._running.values())
        for running in everyone:
            if running.process.poll() is None:
                signal_group(running.process.pid, signal.SIGTERM)
        deadline = time.monotonic() + grace
        for running in everyone:
            left = max(0.0, deadline - time.monotonic())
            end_group(running.process, signum=signal.SIGTERM, grace=left)
            running.awaiter.join()

    def wait(self) -> None:
        """Wait until every process has ended, or Ctrl-C, SIGTERM or SIGHUP; then stop all."""
        with signals_as_interrupt(), suppress(KeyboardInterrupt):
            for running in list(self._running.values()):
                running.awaiter.join()
        self.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def say(self, name: str, text: str) -> None:
        """Print one line under a name, whole, whichever thread it comes from."""
        with self._guard:
            self._out.write(f"{self._prefix(name)} {text}\n")
            self._out.flush()

    def _output(self, name: str) -> IO[bytes] | int:
        if self._log_dir is None:
            return subprocess.PIPE
        self._log_dir.mkdir(parents=True, exist_ok=True)
        return (self._log_dir / f"{name}.log").open("ab")

    def _prefix(self, name: str) -> str:
        plain = f"{name:<{NAME_WIDTH}} |"
        if not self._colours:
            return plain
        place = list(self._running).index(name) if name in self._running else len(self._running)
        return f"\x1b[{COLOURS[place % len(COLOURS)]}m{plain}\x1b[0m"

    @staticmethod
    def _thread(target: Callable[..., None], *args: object) -> threading.Thread:
        return threading.Thread(target=target, args=args, daemon=True)

    def _copy(self, name: str, pipe: IO[bytes]) -> None:
        with pipe:
            for line in pipe:
                self.say(name, line.decode(errors="replace").rstrip())

    def _await(
        self, name: str, process: "subprocess.Popen[bytes]", reader: threading.Thread | None
    ) -> None:
        """Report the end, after the last words, and end the children it left."""
        code = process.wait()
        signal_group(process.pid, signal.SIGKILL)
        if reader is not None:
            reader.join(LAST_LINES_WITHIN)
        if not self._stopping.is_set():
            self.say(name, f"{_ending(code)}; it stays down")


def _ending(code: int) -> str:
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


@contextmanager
def signals_as_interrupt() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the program as Ctrl-C does, by KeyboardInterrupt.

    So that `with` and `finally` clean up. Only the main thread can set it up (Python's rule).
    """
    wanted = (signal.SIGTERM, signal.SIGHUP)
    before = {signum: signal.signal(signum, _interrupt) for signum in wanted}
    try:
        yield
    finally:
        for signum, action in before.items():
            signal.signal(signum, action)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(signal.Signals(signum).name)
