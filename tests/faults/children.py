"""Processes of ours that begin within milliseconds: forked off one that has loaded Django already.

A restart after `kill -9` then costs no import. The one they are forked off has opened nothing, so
that each opens its own connections; what they do is in `work`.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LOADED = "tests.faults.loaded"
WITHIN = 30.0  # seconds for a child to come to its instant, or to its end

_fork = multiprocessing.get_context("forkserver")


def prepare(environment: Mapping[str, str]) -> None:
    """Load Django in the process that is forked later. Of several calls the first one counts."""
    before = dict(os.environ)
    # A child finds our modules by itself, wherever the tests were started.
    os.environ.update(environment, PYTHONPATH=os.pathsep.join([str(ROOT), *sys.path]))
    try:
        _fork.set_forkserver_preload([LOADED])
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(before)


class Child:
    """One forked process that runs `work(*arguments, reached)`; `reached` tells us where it is."""

    def __init__(self, work: Callable[..., None], *arguments: Any) -> None:
        self._told, reached = _fork.Pipe(duplex=False)
        self.process: ForkServerProcess = _fork.Process(
            target=work, args=(*arguments, reached), daemon=True
        )
        self.process.start()
        reached.close()

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def reaches(self) -> str:
        """Wait for what it says next. Raises EOFError if it ended without a word."""
        if not self._told.poll(WITHIN):
            raise TimeoutError("the process came to no instant")
        return str(self._told.recv())

    def ends(self) -> int:
        """Wait for its end; the exit code, negative for the signal that killed it."""
        self.process.join(WITHIN)
        if self.process.exitcode is None:
            raise TimeoutError("the process did not end")
        return self.process.exitcode

    def resume(self) -> int:
        """Let a stopped one go on; the exit code it ends with."""
        os.kill(self.pid, signal.SIGCONT)
        return self.ends()

    def kill(self) -> None:
        """Kill it, if it is still there, and reap it."""
        self.process.kill()
        self.process.join(WITHIN)
        self._told.close()


@contextmanager
def child(work: Callable[..., None], *arguments: Any) -> Iterator[Child]:
    """A child that is killed at the end, wherever it is then."""
    made = Child(work, *arguments)
    try:
        yield made
    finally:
        made.kill()


def outlive_nobody() -> None:
    """Wait, in a child, for the end of whoever had it forked; then end as well, at once."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)
