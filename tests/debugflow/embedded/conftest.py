"""Real servers in directories of their own, and programs that may be killed in our stead."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from debugflow.embedded.spawn import born
from debugflow.embedded.state import CHECKOUT, scratch


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that the servers' system user can reach, with an awkward name on purpose."""
    with scratch() as directory:
        awkward = directory / "a place ünder test"
        awkward.mkdir()
        awkward.chmod(directory.stat().st_mode)
        yield awkward


@pytest.fixture
def program() -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Starts Python code in a process of its own; its first line of output says it is ready."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str, *arguments: object, **options: object) -> "subprocess.Popen[str]":
        process: subprocess.Popen[str] = subprocess.Popen(  # type: ignore[call-overload]
            [options.pop("python", sys.executable), "-c", code, *map(str, arguments)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(CHECKOUT), *sys.path])},
            **options,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with process:
            process.kill()


@pytest.fixture
def gone() -> Callable[[int], bool]:
    """Whether a process is gone, or goes within 15 seconds."""

    def ends(pid: int) -> bool:
        deadline = time.monotonic() + 15
        while born(pid) is not None and time.monotonic() < deadline:
            time.sleep(0.02)
        return born(pid) is None

    return ends


@pytest.fixture
def lifeline_of() -> Callable[[int], int]:
    """Finds the lifeline that a process holds the other end of."""

    def find(pid: int) -> int:
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if int(parent) == pid and b"embedded/spawn.py" in command:
                return int(entry.name)
        raise LookupError(f"process {pid} has no lifeline")

    return find
