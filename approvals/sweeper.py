"""The sweeper: find what is due in the database, see that it is done, and never stop.

Needs PostgreSQL and the targets, nothing else. Any number may run; they are told apart by leases
and skipped locks only. It claims; threads do the work. Cuts have threads of their own, so that
they wait for nothing else; at most two of a kind at once per target, one for a target that is
failing, so that a dead one cannot hold up the others.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import groupby
from typing import Any

import structlog
from django.db import connections

from approvals import closing, leases, opening, workflow
from approvals.models import StepKind
from audit import context

logger = structlog.get_logger(__name__)

THREADS_MOST = 64
BATCH = 6  # grants of one target that a thread takes on at once, for the sake of its connections


class _Crew:
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


class Sweeper:
    """One loop and its threads. `interval` is the seconds between two looks."""

    def __init__(self, *, interval: float = 0.5, threads: int = 16, name: str = "") -> None:
        self.interval = interval
        self.threads = min(threads, THREADS_MOST)
        self.name = name or f"{socket.gethostname()}:{os.getpid()}"
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._failing: set[int] = set()
        self._rest_after = 0.0
        self._expiring: Future[None] | None = None
        self._cuts = _Crew(self.threads, "cut", batch=BATCH)
        self._rest = _Crew(self.threads, "sweep", batch=BATCH)

    def run(self) -> None:
        """Sweep until `stop`. A database that is away is waited for."""
        while not self._stopping.is_set():
            with context.bind(request_id=f"sweep-{self.name}"):
                found = self.tick()
            if not found:
                self._wake.wait(self.interval)
            self._wake.clear()
        for crew in (self._cuts, self._rest):
            crew.pool.shutdown(wait=True)

    def stop(self) -> None:
        """Claim nothing more; `run` returns when what is in flight has ended."""
        self._stopping.set()
        self._wake.set()

    def tick(self) -> int:
        """One look: claim what is due and hand it to the threads. Returns how much it claimed.

        Cuts come first: while there are more, the rest is looked for once an interval, and where a
        target has more cuts due than there is room for, nothing else is begun there.
        """
        claimed = self._look(self._begin_cuts)
        if claimed and time.monotonic() < self._rest_after:
            return claimed
        self._rest_after = time.monotonic() + self.interval
        return claimed + self._look(self._begin_others) + self._look(self._begin_expiring)

    def _look(self, part: Callable[[], int]) -> int:
        """One part of a look. Whatever goes wrong in it stops neither the others nor the loop."""
        try:
            return part()
        except Exception:
            logger.exception("a part of the sweep failed", part=part.__name__)
            return 0
        finally:
            connections.close_all()

    def _begin_cuts(self) -> int:
        return self._claim(self._cuts, self._claim_cuts, closing.run_all)

    def _begin_others(self) -> int:
        cutting = frozenset(closing.cuts_due().values_list("target", flat=True))
        cleanups = self._claim(self._rest, self._claim_cleanups, closing.run_all, not_at=cutting)
        opens = self._claim(self._rest, self._claim_opens, opening.run_all, not_at=cutting)
        return cleanups + opens

    def _begin_expiring(self) -> int:
        """Close overdue requests, on a thread: it may have to wait for the database."""
        if self._expiring is None or self._expiring.done():
            self._expiring = self._rest.pool.submit(self._expire)
        return 0

    def _expire(self) -> None:
        try:
            with context.bind(request_id=f"sweep-{self.name}"):
                expire_requests()
        finally:
            connections.close_all()

    def _claim(
        self,
        crew: _Crew,
        claim: Callable[[leases.Room], list[Any]],
        work: Callable[[list[Any]], bool],
        not_at: frozenset[int] = frozenset(),
    ) -> int:
        room = crew.room(self._failing, not_at)
        if room.free <= 0:
            return 0
        jobs = claim(room)
        for target, batch in groupby(sorted(jobs, key=_target), key=_target):
            crew.took(target)
            try:
                crew.pool.submit(self._work, crew, work, target, list(batch))
            except RuntimeError:  # no thread is to be had: the lease runs out
                crew.landed(target)
                raise
        return len(jobs)

    def _claim_cuts(self, room: leases.Room) -> list[closing.Job]:
        return closing.claim(StepKind.CUT, worker=self.name, room=room)

    def _claim_cleanups(self, room: leases.Room) -> list[closing.Job]:
        return closing.claim(StepKind.CLEAN, worker=self.name, room=room)

    def _claim_opens(self, room: leases.Room) -> list[opening.Job]:
        # One at a time: an opening may take half of its budget.
        return opening.claim(worker=self.name, room=replace(room, batch=1))

    def _work(
        self, crew: _Crew, work: Callable[[list[Any]], bool], target: int, jobs: list[Any]
    ) -> None:
        succeeded = False
        try:
            with context.bind(request_id=f"sweep-{self.name}"):
                succeeded = work(jobs)
        except Exception:
            # Whatever it was, the lease runs out and the next look finds the row again.
            logger.exception("a sweep failed", grants=[job.grant.pk for job in jobs])
        finally:
            connections.close_all()
            crew.landed(target)
            (self._failing.discard if succeeded else self._failing.add)(target)
            self._wake.set()


def _target(job: Any) -> int:
    return int(job.target_id)


def expire_requests(most: int = 100) -> int:
    """Close up to `most` undecided requests whose time or ground is gone; returns how many."""
    ids = list(workflow.over().order_by("pending_until").values_list("pk", flat=True)[:most])
    return sum(_expired(pk) for pk in ids)


def _expired(pk: int) -> bool:
    try:
        return workflow.expire(pk) is not None
    except Exception:
        # One that cannot be closed must not keep the others open.
        logger.exception("a request could not be closed", request=pk)
        return False
