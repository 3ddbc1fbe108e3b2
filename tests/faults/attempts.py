"""One attempt of ours in a process of its own that stops at an instant and says so.

Unlike the children of `children` it can be told of another way to its servers, or be started in
another place altogether; it takes a second to come.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.faults.place import ROOT, eventually

SCRIPT = """
import signal, sys, django
django.setup()
from tests.faults import work

class Reached:
    def send(self, instant):
        print(instant, flush=True)

verb, grant, instant = sys.argv[1:]
work.attempt(verb, int(grant), signal.SIGSTOP, instant, Reached())
"""
WITHIN = 60.0  # seconds


class Attempt:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def stands_still(self) -> bool:
        """It says where it is just before it stops."""
        return "\nState:\tT" in Path(f"/proc/{self._process.pid}/status").read_text()

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def ends(self) -> int:
        """Wait for its end; its exit code."""
        return self._process.wait(WITHIN)


@contextmanager
def stopped_at(
    instant: str, verb: str, grant: int, environment: Mapping[str, str], *before: str
) -> Iterator[Attempt]:
    """An attempt that has come to the instant and stands still; `before` is what starts it."""
    command: Sequence[str] = (*before, sys.executable, "-c", SCRIPT, verb, str(grant), instant)
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout
        told = process.stdout.readline().strip()
        assert told == instant, f"it came to {told!r} and not to {instant!r}"
        attempt = Attempt(process)
        eventually(attempt.stands_still)
        yield attempt
    finally:
        process.kill()
        process.wait(10)
        if process.stdout:
            process.stdout.close()
