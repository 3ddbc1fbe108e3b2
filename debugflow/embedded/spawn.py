"""Starts server processes that end with us, however we end. What they are lives elsewhere.

Run as a script, this file is the *lifeline*: a tiny process that reads the names of our children
from its standard input. We hold the other end, so end of file means that we are gone, by kill -9
too, and it ends what we left. (PR_SET_PDEATHSIG would do less: it fires when the *thread* that
started the child ends, it cannot end a stopped process gently, and only Linux has it.)
As a script it must run with `-I -S`, hence the standard library only.
"""

import atexit
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, cast

GRACE = 5.0  # seconds between the polite signal and SIGKILL
POLL = 0.02  # seconds between two looks at a process that is starting or ending


def spawn(
    argv: Sequence[str],
    *,
    cwd: Path,
    output: IO[bytes] | int,
    env: Mapping[str, str] | None = None,
    uid: int | None = None,
    gid: int | None = None,
    end: signal.Signals = signal.SIGTERM,
) -> subprocess.Popen[bytes]:
    """Start `argv` in a session of its own; `end` is the signal that asks it to stop.

    Its own session keeps the terminal's Ctrl-C from it: whoever started it decides the order.
    """
    process = subprocess.Popen(  # noqa: S603 - argv is the caller's, and no shell reads it
        argv,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        user=uid,
        group=gid,
        extra_groups=None if uid is None else [],
    )
    _lifeline.watch(process.pid, end)
    return process


def signal_group(pgid: int, signum: signal.Signals) -> None:
    """Signal a process group; one that is already gone is what we wanted."""
    try:
        os.killpg(pgid, signum)
    except ProcessLookupError:
        return


def end_group(process: subprocess.Popen[bytes], *, signum: signal.Signals, grace: float) -> None:
    """Ask the group to end, and after `grace` seconds make it; returns when it is reaped."""
    if process.poll() is None:
        signal_group(process.pid, signum)
        signal_group(process.pid, signal.SIGCONT)  # a stopped process hears nothing else
    try:
        process.wait(grace)
    except subprocess.TimeoutExpired:
        signal_group(process.pid, signal.SIGKILL)
        process.wait()


def born(pid: int) -> str | None:
    """When `pid` started, in the kernel's ticks; None if it is gone or a zombie.

    Pids are used again, so a pid alone does not name a process. Without /proc (macOS) it has to.
    """
    if not Path("/proc/self/stat").exists():
        return _exists(pid)
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()  # proc(5): field 3 is the state, 22 the start time
    return None if fields[0] == "Z" else fields[19]


def _exists(pid: int) -> str | None:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    return "alive"


class _Lifeline:
    """Our end of the lifeline; started with the first child."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._end: IO[bytes] | None = None
        self._owner = 0

    def watch(self, pid: int, end: signal.Signals) -> None:
        with self._guard:
            if self._end is None or self._owner != os.getpid():
                self._end = self._open()
            self._end.write(f"{pid} {born(pid)} {end.value}\n".encode())

    def close(self) -> None:
        """Let the lifeline end what is left, and reap it."""
        if self._process is None or self._end is None or self._owner != os.getpid():
            return
        self._end.close()
        self._process.wait()
        self._process = self._end = None

    def _open(self) -> IO[bytes]:
        """A lifeline of this process's own: a forked child's children are not its parent's."""
        self._process = subprocess.Popen(  # noqa: S603 - our own file
            [sys.executable, "-I", "-S", __file__],
            bufsize=0,  # a line is on its way before the child can outlive us
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._owner = os.getpid()
        return cast("IO[bytes]", self._process.stdin)


_lifeline = _Lifeline()
atexit.register(_lifeline.close)


def _left(children: Mapping[int, tuple[str, int]]) -> list[int]:
    return [pid for pid, (start, _) in children.items() if born(pid) == start]


def _end_all(children: Mapping[int, tuple[str, int]]) -> None:
    """End every group whose leader still is the process we were told of."""
    groups = _left(children)
    for pid in groups:
        signal_group(pid, signal.Signals(children[pid][1]))
        signal_group(pid, signal.SIGCONT)
    deadline = time.monotonic() + GRACE
    while _left(children) and time.monotonic() < deadline:
        time.sleep(POLL)
    for pid in groups:
        signal_group(pid, signal.SIGKILL)  # the leader may have left children behind


def _hold() -> None:
    children: dict[int, tuple[str, int]] = {}
    for line in sys.stdin:
        pid, start, end = line.split()
        children[int(pid)] = (start, int(end))
    _end_all(children)


if __name__ == "__main__":
    _hold()
