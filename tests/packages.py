"""Programs that no wheel has, from Debian's packages; not a test."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

FETCHED_WITHIN = 80
"""Seconds for all that needs the network; a test may take 120. What unpacks is never ended
half-way, which would leave the machine's packages in disorder."""
LOCK = Path("/run/lock/debugflow-test-packages")


def missing(
    package: str,
    program: Path,
    *,
    within: float = FETCHED_WITHIN,
    meanwhile: AbstractContextManager[None] | None = None,
) -> str:
    """Install the package if its program is not there; why it is not to be had, or nothing.

    `within` is the seconds that fetching it may take.
    """
    if program.exists():
        return ""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return f"there is no {program}, and only root on Debian can install {package}"
    with LOCK.open("a") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)  # two test processes may come here at once
        if program.exists():
            return ""
        with meanwhile or nullcontext():
            told = _install(package, within)
    return "" if program.exists() else f"{package} could not be installed: {told[-300:]}"


def _install(package: str, within: float) -> str:
    """Return the end of what apt-get said last."""
    argv = ["apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=20", "-o", "Acquire::Retries=1"]
    install = [*argv, "install", "--no-install-recommends", package]
    fetch = [*install, "--download-only"]
    end = time.monotonic() + within
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
        return False, "fetching it took too long"
    return ended.returncode == 0, ended.stdout.strip()
