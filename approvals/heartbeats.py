"""Who is alive: one row per process with a sweeper, written by that sweeper's own loop.

Losing these rows ends no access and opens none. What is made of them (health, metrics, alarms) is
decided elsewhere; the counting is in `tallies`.
"""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import structlog
from django.db import DEFAULT_DB_ALIAS, connection, connections, transaction
from django.db.models import QuerySet
from kombu import Exchange, Queue

from approvals import queue, tallies
from approvals.models import Heartbeat
from audit import clock

logger = structlog.get_logger(__name__)

BEAT_EVERY: Final = 2.0  # seconds
# A loop looks every second at most; five beats may fail before anybody is called.
SWEEPING_WITHIN: Final = timedelta(seconds=15)
CANARY_EVERY: Final = 15.0  # seconds
CANARY_EXPIRES: Final = 30  # seconds; one that waited longer proves nothing any more
# Three canaries may be lost, or wait behind the longest work there is (50 s), before that.
SERVING_WITHIN: Final = timedelta(seconds=60)
QUEUE_EXPIRES: Final = 120  # seconds after which the broker forgets a dead worker's queue
FOLD_EVERY: Final = 60.0  # seconds
FORGET_AFTER: Final = timedelta(hours=1)
# Holds what processes that are long gone had counted.
PAST: Final = uuid.UUID(int=0)
NAME_MAX: Final = 120
CANARY_TASK: Final = "approvals.tasks.canary"

_BEAT = """
    UPDATE approvals_heartbeat SET swept_at = dbnow(), skew_ms = %s, tallies = %s::jsonb
    WHERE process = (
        SELECT process FROM approvals_heartbeat WHERE process = %s::uuid FOR UPDATE SKIP LOCKED
    )
    RETURNING clock_timestamp()
"""
_BIRTH = """
    INSERT INTO approvals_heartbeat
        (skew_ms, tallies, process, name, is_worker, started_at, swept_at)
    VALUES (%s, %s::jsonb, %s::uuid, %s, %s, dbnow(), dbnow())
    ON CONFLICT (process) DO UPDATE SET swept_at = dbnow()
    RETURNING clock_timestamp()
"""


class Heart:
    """The heartbeat of this process. Not for several threads: its sweeper's loop alone beats.

    One per process, since each row holds all that the process counted. Of a Celery worker
    (`worker` is its node name) it sends a canary through the broker, too.
    """

    def __init__(self, *, worker: str = "", wall: Callable[[], float] = time.time) -> None:
        """`wall` tells the time of this machine, in seconds since the epoch."""
        self.process = uuid.uuid4()
        self.name = f"{this_host()}{os.getpid()} {worker}".strip()[:NAME_MAX]
        # Named after the process that makes it, so that a namesake takes none of its canaries.
        self.canaries = canary_queue(self.process) if worker else None
        self._wall = wall
        self._born = self._looked = False
        self._skew_ms = 0
        self._written: Counter[str] = Counter()
        self._before: Counter[str] = Counter()  # counted under an earlier row, which is folded
        self._beat_after = self._canary_after = self._fold_after = 0.0

    def looked(self) -> None:
        """Say that the loop looked for cuts. Without this there is no beat."""
        self._looked = True

    def beat(self) -> None:
        """Write the row, if the loop looked and it is time to. Raises DatabaseError.

        Never waits for a row's lock: then the next look tries again.
        """
        if not self._looked or time.monotonic() < self._beat_after:
            return
        self._looked = False
        if self._write():
            self._beat_after = time.monotonic() + BEAT_EVERY
            self._send_canary()
            self._fold()

    def stop(self) -> None:
        """Write down that this process ended in good order, with its last counts."""
        if self._born:
            rows = Heartbeat.objects.filter(process=self.process)
            rows.update(stopped_at=clock.DbNow(), tallies=dict(self._counts()))

    def _write(self) -> bool:
        counts = self._counts()
        if not (self._born and self._beat_with(counts)):
            if self._born and Heartbeat.objects.filter(process=self.process).exists():
                return False  # somebody holds the row
            self._be_born()
            counts = self._counts()
        self._written = counts
        return True

    def _beat_with(self, counts: Counter[str]) -> bool:
        return self._run(_BEAT, [self._skew_ms, json.dumps(counts), self.process])

    def _be_born(self) -> None:
        """Make the row. One that had gone was folded after a long pause: it counts from there on,
        under another id, or what was folded would be counted twice."""
        if self._born:
            self._before += self._written
            self._written = Counter()
            self.process = uuid.uuid4()
        values = [self._skew_ms, json.dumps(self._counts()), self.process]
        self._run(_BIRTH, [*values, self.name, self.canaries is not None])
        self._born = True

    def _run(self, statement: str, values: list[Any]) -> bool:
        """Run it and see how far this machine's clock is from the database's; False for no row."""
        sent = self._wall()
        with connection.cursor() as cursor:
            cursor.execute(statement, values)
            row = cursor.fetchone()
        if row is not None:
            self._skew_ms = skew_ms(sent, row[0].timestamp(), self._wall())
        return row is not None

    def _counts(self) -> Counter[str]:
        counts = Counter(tallies.counted())
        counts.subtract(self._before)
        return counts

    def _send_canary(self) -> None:
        if self.canaries is None or time.monotonic() < self._canary_after:
            return
        self._canary_after = time.monotonic() + CANARY_EVERY
        queue.bell().put(
            CANARY_TASK, str(self.process), queue=self.canaries, expires=CANARY_EXPIRES
        )

    def _fold(self) -> None:
        if time.monotonic() >= self._fold_after:
            self._fold_after = time.monotonic() + FOLD_EVERY
            fold()


def this_host() -> str:
    """How the names of this host's processes begin. A container is a host of its own."""
    return f"{socket.gethostname()[: NAME_MAX // 2]}:"


def skew_ms(sent: float, read: float, answered: float) -> int:
    """Milliseconds that this machine's clock is ahead of the database's, at least.

    The database read its clock at some moment between `sent` and `answered` (all in seconds): only
    what lies outside cannot be the way there and back, so that a slow answer is no skew.
    """
    return round(1000 * (max(0.0, sent - read) + min(0.0, answered - read)))


def canary_queue(process: uuid.UUID) -> Queue:
    """The queue that one worker alone consumes.

    On the nameless exchange, since the broker keeps a named one's bindings; unacknowledged, so
    that a dead worker's canary is not handed to others; with an expiry. So nothing of it is left.
    """
    name = f"canary.{process}"
    return Queue(name, Exchange(""), name, expires=QUEUE_EXPIRES, durable=False, no_ack=True)


def served(process: str) -> None:
    """A canary came through: the broker delivers to this worker and its pool has a free thread."""
    Heartbeat.objects.filter(process=process).update(served_at=clock.DbNow())


def sweeping() -> QuerySet[Heartbeat]:
    """The processes whose sweeper looks for what is due."""
    since = clock.DbNow() - SWEEPING_WITHIN
    return Heartbeat.objects.filter(stopped_at__isnull=True, swept_at__gt=since)


def serving() -> QuerySet[Heartbeat]:
    """The Celery workers that take work from the broker."""
    since = clock.DbNow() - SERVING_WITHIN
    return Heartbeat.objects.filter(stopped_at__isnull=True, is_worker=True, served_at__gt=since)


def fold() -> int:
    """Add the counts of processes that are long gone to one row and delete theirs; how many.

    Their sum stays what it was, whoever reads it when. Whoever is second leaves it to the first.
    """
    gone = Heartbeat.objects.exclude(process=PAST).filter(
        swept_at__lte=clock.DbNow() - FORGET_AFTER
    )
    if not gone.exists():
        return 0
    with transaction.atomic():
        _make_past()
        past = Heartbeat.objects.select_for_update(skip_locked=True).filter(process=PAST).first()
        if past is None:
            return 0
        rows = list(gone.select_for_update(skip_locked=True)[:100])
        total = Counter(past.tallies)
        for row in rows:
            total.update(row.tallies)
        Heartbeat.objects.filter(process=PAST).update(tallies=dict(total))
        Heartbeat.objects.filter(process__in=[row.process for row in rows]).delete()
    return len(rows)


def _make_past() -> None:
    now = clock.now()
    past = Heartbeat(process=PAST, name="past", started_at=now, swept_at=now, stopped_at=now)
    Heartbeat.objects.bulk_create([past], ignore_conflicts=True)


def totals(*, using: str = DEFAULT_DB_ALIAS) -> dict[str, float]:
    """What all processes counted, by name, those that are gone included. Never goes down."""
    with connections[using].cursor() as cursor:
        cursor.execute(
            "SELECT counted.key, sum(counted.value::float8) FROM approvals_heartbeat,"
            " jsonb_each_text(tallies) AS counted GROUP BY 1"
        )
        return dict(cursor.fetchall())
