"""Says that this process lives, for exactly as long as it does, and who of the others does not.

A session's advisory lock in our own database: the kernel closes a killed process's connections, and
PostgreSQL frees the lock within milliseconds. Only leases are given up early by it, and those fence
our own retries only: a process that loses its connection and lives is overtaken, not harmed.
"""

from __future__ import annotations

import secrets
import threading

from django.db import DatabaseError, connection
from django.db.backends.base.base import BaseDatabaseWrapper

LOCKS = 0x6462_6766  # the first half of our advisory locks' keys: "dbgf"
NOBODY = "00000000"  # begins the leases of processes that do not say whether they live

_FREE_THE_DEAD = """
    UPDATE approvals_grant SET lease_until = (SELECT dbnow()) WHERE id IN (
        SELECT id FROM approvals_grant g
        WHERE state <> 'ended' AND lease_until > (SELECT dbnow())
        AND left(lease, 8) NOT IN (%s, '') AND NOT EXISTS (
            SELECT FROM pg_locks l WHERE l.locktype = 'advisory' AND l.granted
            AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND l.classid = %s::bigint::oid
            AND l.objid = ('x' || left(g.lease, 8))::bit(32)::bigint::oid)
        FOR UPDATE SKIP LOCKED)
"""


class Presence:
    """One per process; its sweeper calls `keep` at every look and `leave` at its end."""

    def __init__(self) -> None:
        self.mark = NOBODY
        """What this process's leases begin with."""
        self._own: BaseDatabaseWrapper | None = None
        self._lock = threading.Lock()

    def keep(self) -> None:
        """Hold the lock; take another where the connection was lost. Raises DatabaseError.

        Where another process has the same, this one has none until the next look.
        """
        with self._lock:
            if self._own is None:
                self._begin()
                return
            try:
                with self._own.cursor() as cursor:
                    cursor.execute("SELECT 1")
            except DatabaseError:
                self._end()
                raise

    def leave(self) -> None:
        """Be nobody again. Leases that bear the mark still are given up by whoever looks next."""
        with self._lock:
            self._end()

    def _begin(self) -> None:
        own = connection.copy()
        # The pool gives a connection back, and to others; this one is held.
        own.settings_dict["OPTIONS"].pop("pool", None)
        own.inc_thread_sharing()  # a process may have several sweepers
        key = secrets.randbelow(2**31 - 1) + 1
        with own.cursor() as cursor:
            # Not waited for: another process may have drawn the same, and the sweep must go on.
            cursor.execute("SELECT pg_try_advisory_lock(%s, %s)", [LOCKS, key])
            if cursor.fetchone() != (True,):
                own.close()
                return
        self._own, self.mark = own, f"{key:08x}"

    def _end(self) -> None:
        own, self._own, self.mark = self._own, None, NOBODY
        if own is not None:
            own.close()


presence = Presence()


def free_the_dead() -> int:
    """Let the leases of processes that are gone run out now; returns how many."""
    with connection.cursor() as cursor:
        cursor.execute(_FREE_THE_DEAD, [NOBODY, LOCKS])
        return int(cursor.rowcount)
