"""The cut: after it nobody can use the account, whatever its holder does meanwhile.

No advisory lock is relied on: the holder can take it. Removing the account is in `clean`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import psycopg
from psycopg import sql

from approvals.errors import ProvisionError
from approvals.provisioning.base import Account

from .account import oids_of, opener_name
from .connect import Db, Deadline, Dialer, all_rows, value
from .prepared import roll_back_prepared

CUT_DEADLINE = 10
"""Seconds for a whole cut; it is tried again within 5 s of failing."""
PAUSE = 0.0015
"""Seconds between two rounds of terminating. The server's own wait sleeps 100 ms a time."""
REACT = 1.0
"""Seconds for sessions to end once sign-ins are blocked; an ordinary one needs milliseconds."""
SETTLE = 1.0
"""Seconds, at most, to wait for sign-ins that had passed the server's check of the role before it
was closed but are not listed yet; that stretch takes milliseconds. Without a bound anyone who
stalls in the middle of signing in could hold the cut up for `authentication_timeout`."""


@dataclass(frozen=True)
class Cutter:
    """One cut under way."""

    dialer: Dialer
    account: Account
    deadline: Deadline

    @property
    def oids(self) -> list[int]:
        """The roles of every attempt."""
        return oids_of(self.account.traces)

    @property
    def name(self) -> str:
        """The application name of the cut's own connections."""
        return f"dbgf-cut-{self.account.grant_id}"


def cut_account(dialer: Dialer, account: Account) -> None:
    """Close the account; return when nobody is in and nobody can come in.

    1. End openers that still run, until none is left: none can commit a role after this.
    2. At once: on one connection NOLOGIN, which may wait for a row that the holder has locked;
       on the other, terminate the holder's sessions, which frees that row.
    3. Done when NOLOGIN has committed and a scan begun afterwards finds no session.
    """
    cutter = Cutter(dialer, account, Deadline(CUT_DEADLINE))
    with dialer.session(cutter.name, cutter.deadline) as db:
        _end_openers(db, cutter)
        with ThreadPoolExecutor(max_workers=1) as pool:
            closed = pool.submit(_forbid_sign_in, cutter)
            _end_sessions(db, cutter, closed)
        _settle(db, cutter)


def _end_openers(db: Db, cutter: Cutter) -> None:
    while all_rows(
        db,
        "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE usesysid = (SELECT oid FROM pg_roles WHERE rolname = session_user)"
        " AND application_name = %(name)s",
        name=opener_name(cutter.account.grant_id),
    ):
        cutter.deadline.check("ending an open under way")
        time.sleep(PAUSE)


def _forbid_sign_in(cutter: Cutter) -> None:
    """Set NOLOGIN on whatever role is ours and may sign in; try again while the row is fought over.

    A holder's own `ALTER ROLE` of themselves makes ours wait, time out, or fail with "tuple
    concurrently updated".
    """
    with cutter.dialer.session(cutter.name, cutter.deadline) as db:
        while names := _open_names(db, cutter.oids):
            cutter.deadline.check("blocking sign-ins")
            for name in names:
                _try_nologin(db, name, cutter.oids)


def _open_names(db: Db, oids: Sequence[int]) -> list[str]:
    rows = all_rows(
        db,
        "SELECT rolname FROM pg_roles WHERE oid = ANY(%(oids)s::oid[]) AND rolcanlogin",
        oids=oids,
    )
    return [name for (name,) in rows]


def _try_nologin(db: Db, name: str, oids: Sequence[int]) -> None:
    try:
        with db.transaction() as transaction:
            db.execute(sql.SQL("ALTER ROLE {} NOLOGIN").format(sql.Identifier(name)))
            if name in _open_names(db, oids):  # the name went to a stranger: leave it alone
                raise psycopg.Rollback(transaction)
    except (
        psycopg.errors.QueryCanceled,
        psycopg.errors.InternalError_,
        psycopg.errors.UndefinedObject,
    ):
        time.sleep(PAUSE)


def _end_sessions(db: Db, cutter: Cutter, closed: Future[None]) -> None:
    """Terminate until sign-ins are blocked and a scan begun after that finds nobody.

    A session in a computation that never looks for interrupts stays, whatever we do: with sign-ins
    blocked that is given up early, so that it holds up no other cut, and tried again.
    """
    react = Deadline(REACT)
    while True:
        was_closed = closed.done()
        if not was_closed:
            react = Deadline(REACT)
        found = _terminate(db, cutter.oids)
        if was_closed:
            closed.result()
        if was_closed and not found:
            return
        if was_closed and react.passed:
            raise ProvisionError(
                f"{found} of the account's sessions do not react to being terminated. Sign-in is "
                "blocked. If they stay, only a kill on the target's own host ends them.",
                code="session_does_not_react",
            )
        if not was_closed and not found:
            # No session is left, yet the row may be locked: by a transaction the holder prepared.
            roll_back_prepared(db, cutter.dialer, cutter.oids, cutter.name, cutter.deadline)
        cutter.deadline.check("ending sessions")
        time.sleep(PAUSE)


def _terminate(db: Db, oids: Sequence[int]) -> int:
    """Terminate every session of `oids`, also of roles that no longer exist; return how many."""
    query = (
        "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE usesysid = ANY(%(oids)s::oid[])"
    )
    return len(all_rows(db, query, oids=oids))


def _settle(db: Db, cutter: Cutter) -> None:
    """Wait out sign-ins that were past the role check when it closed, and end what they became."""
    end = time.monotonic() + SETTLE
    before = _starting(db)
    while time.monotonic() < end and before & _starting(db):
        time.sleep(PAUSE)
    while _terminate(db, cutter.oids):
        cutter.deadline.check("ending sessions")
        time.sleep(PAUSE)


def _starting(db: Db) -> set[int]:
    """Return the processes that are signing somebody in.

    They run a transaction, hence hold a virtual id, and are listed with neither user nor database
    (or, before PostgreSQL 18, not at all) until they are done.
    """
    query = (
        "SELECT l.pid FROM pg_locks l WHERE l.locktype = 'virtualxid' AND l.pid IS NOT NULL"
        " AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.pid = l.pid"
        " AND (a.usesysid IS NOT NULL OR a.datid IS NOT NULL))"
    )
    return {pid for (pid,) in all_rows(db, query)}


def count_sessions(db: Db, oids: Sequence[int]) -> int:
    """Return how many sessions these roles have, dropped or not."""
    found: int = value(
        db, "SELECT count(*) FROM pg_stat_activity WHERE usesysid = ANY(%(oids)s::oid[])", oids=oids
    )
    return found
