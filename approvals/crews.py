"""The threads that carry out what a sweeper claims: crews for work at targets, and chores.

What is claimed, when and in which order is in `sweeper`.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor

import structlog
from django.db import connections

from approvals import leases
from audit import context

logger = structlog.get_logger(__name__)


class Crew:
    """Threads for one kind of work, and what they have in flight per target."""

    def __init__(self, threads: int, name: str, *, batch: int) -> None:
        self.threads = threads
        self.batch = batch
        self.pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._lock = threading.Lock()
        self._in_flight: Counter[int] = Counter()

    def room(self, failing: Collection[int], not_at: frozenset[int]) -> leases.Room:
        with self._lock:
            return leases.Room(
                free=self.threads - self._in_flight.total(),
                batch=self.batch,
                in_flight=Counter(self._in_flight),
                failing=frozenset(failing),
                not_at=not_at,
            )

    def took(self, target: int) -> None:
        with self._lock:
            self._in_flight[target] += 1

    def landed(self, target: int) -> None:
        with self._lock:
            self._in_flight[target] -= 1
            if self._in_flight[target] <= 0:
                del self._in_flight[target]

    @property
    def idle(self) -> bool:
        with self._lock:
            return not self._in_flight


class Chore:
    """Something to be done every so often on a thread of its own, since it may have to wait.

    Never twice at once, and whatever goes wrong in it is logged and tried again the next time.
    """

    def __init__(self, work: Callable[[], object], *, every: float, name: str) -> None:
        """`every` is in seconds, from one beginning to the next."""
        self.every = every
        self.name = name
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="chore")
        self._work = work
        self._running: Future[None] | None = None
        self._after = 0.0

    def begin(self) -> None:
        """Begin it, if it is time and it does not run."""
        running = self._running is not None and not self._running.done()
        if running or time.monotonic() < self._after:
            return
        self._after = time.monotonic() + self.every
        self._running = self.pool.submit(self._run)

    def _run(self) -> None:
        try:
            with context.bind(request_id=self.name):
                self._work()
        except Exception:
            logger.exception("a chore failed", chore=getattr(self._work, "__name__", ""))
        finally:
            connections.close_all()
