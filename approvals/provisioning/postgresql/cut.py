"""The cut: after it nobody can use the account, whatever its holder does meanwhile.

No advisory lock is relied on: the holder can take it. Removing the account is in `clean`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace

import psycopg
from psycopg import sql

from approvals.provisioning.base import Account

from .account import levels_of, oids_of, ours
from .connect import Db, Deadline, Dialer
from .membership import withdraw
from .openers import end_openers
from .prepared import roll_back_prepared
from .replicas import SILENCE, Closed, closed_on, cut_replica, on_each, results
from .sessions import PAUSE, open_names, settle, terminate, terminate_all

CUT_DEADLINE = 10
"""Seconds for a whole cut; it is tried again within 5 s of failing."""


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
    def owners(self) -> list[int]:
        """Those that what a holder prepared may belong to."""
        return [*self.oids, *levels_of(self.account.traces)]

    @property
    def name(self) -> str:
        """The application name of the cut's own connections."""
        return f"dbgf-cut-{self.account.grant_id}"


def cut_account(dialer: Dialer, account: Account) -> None:
    """Close the account; return when nobody is in and nobody can come in, on replicas either.

    1. End openers that still run, until none is left: none can commit a role after this.
    2. At once: on one connection NOLOGIN, which may wait for a row that the holder has locked;
       on the other, terminate the holder's sessions, which frees that row.
    3. Done when NOLOGIN has committed and a scan begun afterwards finds no session.
    4. Its membership in the level is taken back: what it left works with the level's rights no
       more. Not sooner, and not for long, since others may hold a lock on the level.
    5. On every replica the same, begun with 1 and done when the NOLOGIN has been replayed there.
    """
    cutter = Cutter(dialer, account, Deadline(CUT_DEADLINE))
    closed: Future[Closed] = Future()
    begun = on_each(
        dialer.replicas,
        lambda one: SILENCE.respect(one, lambda: cut_replica(one, cutter, closed)),
    )
    try:
        _cut_primary(cutter, closed)
    except BaseException as error:
        if not closed.done():
            closed.set_exception(error)
        wait(begun)
        raise
    results(begun, but="It is cut on the primary.")


def _cut_primary(cutter: Cutter, closed: Future[Closed]) -> None:
    with cutter.dialer.session(cutter.name, cutter.deadline) as db:
        _end_openers(db, cutter)
        cutter = replace(cutter, account=ours(db, cutter.account))
        with ThreadPoolExecutor(max_workers=1) as pool:
            forbidden = pool.submit(_forbid_sign_in, cutter)
            _end_sessions(db, cutter, forbidden)
        if cutter.dialer.replicas:
            closed.set_result(closed_on(db, cutter.oids))
        withdraw(db, cutter.oids)
        settle(db, cutter.oids, cutter.deadline)


def _end_openers(db: Db, cutter: Cutter) -> None:
    while end_openers(db, [cutter.account.grant_id]):
        cutter.deadline.check("ending an open under way")
        time.sleep(PAUSE)


def _forbid_sign_in(cutter: Cutter) -> None:
    """Set NOLOGIN on whatever role is ours and may sign in; try again while the row is fought over.

    A holder's own `ALTER ROLE` of themselves makes ours wait, time out, or fail with "tuple
    concurrently updated".
    """
    with cutter.dialer.session(cutter.name, cutter.deadline) as db:
        while names := open_names(db, cutter.oids):
            cutter.deadline.check("blocking sign-ins")
            for name in names:
                _try_nologin(db, name, cutter.oids)


def _try_nologin(db: Db, name: str, oids: Sequence[int]) -> None:
    try:
        with db.transaction() as transaction:
            # No waiting for a synchronous replica, which may be dead.
            db.execute("SET LOCAL synchronous_commit TO 'local'")
            db.execute(sql.SQL("ALTER ROLE {} NOLOGIN").format(sql.Identifier(name)))
            if name in open_names(db, oids):  # the name went to a stranger: leave it alone
                raise psycopg.Rollback(transaction)
    except (
        psycopg.errors.QueryCanceled,
        psycopg.errors.InternalError_,
        psycopg.errors.UndefinedObject,
    ):
        time.sleep(PAUSE)


def _end_sessions(db: Db, cutter: Cutter, closed: Future[None]) -> None:
    """Terminate until sign-ins are blocked and a scan begun after that finds nobody."""
    while not closed.done():
        if not terminate(db, cutter.oids):
            # No session is left, yet the row may be locked: by a transaction the holder prepared.
            roll_back_prepared(db, cutter.dialer, cutter.owners, cutter.name, cutter.deadline)
        cutter.deadline.check("ending sessions")
        time.sleep(PAUSE)
    closed.result()
    terminate_all(db, cutter.oids, cutter.deadline)
