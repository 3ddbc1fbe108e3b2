"""Waiting for locks that others hold on the target: not for long, and saying who they are.

Nobody is ended here: those who hold a lock are no business of debugflow's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import psycopg
from psycopg import sql

from approvals.errors import ProvisionError

from .connect import Db, Deadline, Dialer, all_rows
from .failures import cleaned

FIRST_WAIT = 0.5
"""Seconds for a lock at first; most are held for much less."""
SECOND_WAIT = 1.0
"""Seconds while it is watched who holds it."""
LOOK = 0.1
"""Seconds between two looks: each stops the server's whole lock table for a moment."""

WAITED = (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected)

T = TypeVar("T")


def patiently(db: Db, act: Callable[[], T], *, dialer: Dialer, name: str, deadline: Deadline) -> T:
    """Return what `act` does in a transaction on `db`.

    When locks keep it from being done, raise `ProvisionError`, code `clean_blocked`, with the
    process and user of whoever holds them.
    """
    try:
        return _attempt(db, act, wait=FIRST_WAIT)
    except WAITED:
        watch = _Watch(dialer, name, deadline)
    with watch.of(db):
        try:
            return _attempt(db, act, wait=SECOND_WAIT)
        except WAITED:
            raise _blocked(watch.seen) from None


def _attempt(db: Db, act: Callable[[], T], *, wait: float) -> T:
    with db.transaction():
        db.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(round(wait * 1000)))
        return act()


def _blocked(seen: set[str]) -> ProvisionError:
    who = ", ".join(sorted(seen)) or "somebody who has gone since"
    return ProvisionError(
        f"A lock on the target keeps the clean-up from going on. It is held by {who}: end that"
        " there, or wait until it ends.",
        code="clean_blocked",
        blockers=sorted(seen),
    )


@dataclass
class _Watch:
    """Looks, over a connection of its own, at who holds up a process of the server."""

    dialer: Dialer
    name: str
    deadline: Deadline
    seen: set[str] = field(default_factory=set)
    _over: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def of(self, held_up: Db) -> Iterator[None]:
        with self.dialer.session(self.name, self.deadline) as db:
            thread = threading.Thread(target=self._look, args=[db, held_up.info.backend_pid])
            thread.start()
            try:
                yield
            finally:
                self._over.set()
                thread.join()

    def _look(self, db: Db, pid: int) -> None:
        query = (
            "SELECT b.pid, a.usename FROM unnest(pg_blocking_pids(%(pid)s)) b(pid)"
            " LEFT JOIN pg_stat_activity a USING (pid)"
        )
        try:
            while not self._over.wait(LOOK):
                self.seen.update(told(*row) for row in all_rows(db, query, pid=pid))
        except psycopg.Error:
            return  # then nobody is named; what blocks is told all the same


def told(pid: int, user: str | None) -> str:
    if not pid:
        return "a prepared transaction (see pg_prepared_xacts)"
    return f"process {pid} of {cleaned(user or 'nobody by name', [])}"
