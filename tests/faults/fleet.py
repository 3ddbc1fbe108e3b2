"""Workers of ours to be killed at random, each replaced at once: forked, or whole processes."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Protocol, Self

from tests.faults.children import Child
from tests.faults.place import ROOT
from tests.faults.work import sweep

INTERVAL = 0.5  # seconds between two looks of a sweeper, as in production
CELERY = ("-m", "celery", "-A", "debugflow", "worker", "--pool", "threads", "-c", "4")


class Worker(Protocol):
    """Something that can be killed by SIGKILL and reaped."""

    def kill(self) -> object: ...


class Fleet(AbstractContextManager["Fleet"]):
    """Workers made by `makers`, one of each. All are killed at the end."""

    def __init__(self, makers: Sequence[Callable[[], Worker]]) -> None:
        self._makers = makers
        self._workers: list[Worker] = []
        self.killed = 0

    def __enter__(self) -> Self:
        self._workers = [make() for make in self._makers]
        return self

    def __exit__(self, *error: object) -> None:
        for worker in self._workers:
            worker.kill()

    def strike(self, chances: random.Random) -> None:
        """Kill one of them, whatever it is doing, and start another in its place."""
        place = chances.randrange(len(self._workers))
        self._workers[place].kill()
        self._workers[place] = self._makers[place]()
        self.killed += 1


class Process:
    """A process with an interpreter of its own, started as an installation starts it."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


def forked(count: int) -> Fleet:
    """Sweepers that are back within milliseconds. Whoever has them has prepared `children`."""
    return Fleet([lambda: Child(sweep, INTERVAL)] * count)


def installed(environment: Mapping[str, str]) -> Fleet:
    """Two `manage.py sweep` and two Celery workers; `environment` names database and broker."""
    queues = ("provision,notify,default", "revoke")
    workers = [(*CELERY, "-n", f"{queue[:6]}@faults", "-Q", queue) for queue in queues]
    commands: list[tuple[str, ...]] = [*[("manage.py", "sweep")] * 2, *workers]
    return Fleet([partial(Process, command, environment) for command in commands])
