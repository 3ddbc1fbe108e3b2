"""Sessions of some roles on one server, found by oid: ended, counted, waited for.

When that makes a cut is told in `cut`, and for a read replica in `replicas`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from approvals.errors import ProvisionError

from .connect import Db, Deadline, all_rows, value

PAUSE = 0.0015
"""Seconds between two rounds of terminating. The server's own wait sleeps 100 ms a time."""
REACT = 1.0
"""Seconds for sessions to end once sign-ins are blocked; an ordinary one needs milliseconds."""
SETTLE = 1.0
"""Seconds, at most, to wait for sign-ins that had passed the server's check of the role before it
was closed but are not listed yet; that stretch takes milliseconds. Without a bound anyone who
stalls in the middle of signing in could hold the cut up for `authentication_timeout`."""
AGAIN = 0.1
"""The same for those that outlasted a wait before: one who stalls must not delay every cut."""

Starting = set[tuple[int, str]]
"""Sign-ins under way: process and virtual transaction, which no later one has."""

_stalling: dict[str, Starting] = {}
"""By server, those that outlasted the last wait."""


def open_names(db: Db, oids: Sequence[int]) -> list[str]:
    """Return the names of those roles that may sign in."""
    rows = all_rows(
        db,
        "SELECT rolname FROM pg_roles WHERE oid = ANY(%(oids)s::oid[]) AND rolcanlogin",
        oids=oids,
    )
    return [name for (name,) in rows]


def terminate(db: Db, oids: Sequence[int]) -> int:
    """Terminate every session of `oids`, also of roles that no longer exist; return how many."""
    query = (
        "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE usesysid = ANY(%(oids)s::oid[])"
    )
    return len(all_rows(db, query, oids=oids))


def terminate_all(db: Db, oids: Sequence[int], deadline: Deadline) -> None:
    """Terminate, once sign-ins are blocked, until a scan finds nobody.

    A session in a computation that never looks for interrupts stays, whatever we do: that is given
    up early, so that it holds up no other cut, and tried again.
    """
    react = Deadline(REACT)
    while found := terminate(db, oids):
        if react.passed:
            raise ProvisionError(
                f"{found} of the account's sessions do not react to being terminated. Sign-in is "
                "blocked. If they stay, only a kill on the server's own host ends them.",
                code="session_does_not_react",
            )
        deadline.check("ending sessions")
        time.sleep(PAUSE)


def settle(db: Db, oids: Sequence[int], deadline: Deadline) -> None:
    """Wait out sign-ins that were past the role check when it closed, and end what they became."""
    wait_for_sign_ins(db)
    terminate_all(db, oids, deadline)


def wait_for_sign_ins(db: Db) -> None:
    """Wait until whoever is signing in now has got in or not, `SETTLE` at most."""
    place = f"{db.info.host}:{db.info.port}"
    known = _stalling.get(place, set())
    began, before = time.monotonic(), _starting(db)
    while left := before & _starting(db):
        waited = time.monotonic() - began
        if waited >= SETTLE or (waited >= AGAIN and left <= known):
            break
        time.sleep(PAUSE)
    _stalling[place] = left


def _starting(db: Db) -> Starting:
    """Return who is signing in.

    They run a transaction, hence hold a virtual id, and are listed with neither user nor database
    (or, before PostgreSQL 18, not at all) until they are done.
    """
    query = (
        "SELECT l.pid, l.virtualxid FROM pg_locks l"
        " WHERE l.locktype = 'virtualxid' AND l.pid IS NOT NULL"
        " AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.pid = l.pid"
        " AND (a.usesysid IS NOT NULL OR a.datid IS NOT NULL))"
    )
    return {(pid, number) for pid, number in all_rows(db, query)}


def count_sessions(db: Db, oids: Sequence[int]) -> int:
    """Return how many sessions these roles have, dropped or not."""
    found: int = value(
        db, "SELECT count(*) FROM pg_stat_activity WHERE usesysid = ANY(%(oids)s::oid[])", oids=oids
    )
    return found


def in_session(db: Db, oids: Sequence[int]) -> set[int]:
    """Return those of these roles that have a session, dropped or not."""
    rows = all_rows(
        db,
        "SELECT DISTINCT usesysid FROM pg_stat_activity WHERE usesysid = ANY(%(oids)s::oid[])",
        oids=oids,
    )
    return {oid for (oid,) in rows}
