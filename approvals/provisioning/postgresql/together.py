"""Many at once, for when much is due in the same second: the same steps, each taken for all.

It does what goes smoothly and says what that was. Whatever is fought over, stalls or looks odd is
left to `cut` and `clean`, one account after the other, so that no holder's doing holds up another.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import psycopg
from psycopg import sql

from approvals.errors import ProvisionError
from approvals.provisioning.base import Account

from .account import bare, cluster_of, levels_of, names_of, oids_of, ours
from .connect import Db, Deadline, Dialer, all_rows
from .membership import withdraw
from .openers import end_openers
from .replicas import closed_on, cut_on_all
from .sessions import PAUSE, in_session, terminate, wait_for_sign_ins

JOINT_DEADLINE = 5
"""Seconds for all of it. An ordinary one takes a fraction of one."""
PATIENCE = 0.5
"""Seconds for sessions to go and for roles to be closed, which takes milliseconds. What takes
longer is left to the single cuts."""
ROW_WAIT = "30ms"
"""How long a role's row is waited for. Its holder may have locked it, which must cost the others
nothing: ending the session frees it, and a row that is not free then is left to the single cut."""
NAME = "dbgf-many"


def cut_together(dialer: Dialer, accounts: Sequence[Account]) -> frozenset[int]:
    """Cut what can be cut together; return the grants of which it is certain.

    Certain is what `cut` would call done: no opener is left that could still commit, every role of
    theirs has a committed NOLOGIN or is gone, and a scan begun after that found no session. With
    replicas it is so on each of them too; all are cut on the primary first.
    """
    deadline = Deadline(JOINT_DEADLINE)
    with dialer.session(NAME, deadline) as db:
        if not _ended_openers(db, [one.grant_id for one in accounts]):
            return frozenset()
        accounts = _ours(db, accounts)
        oids = _oids(accounts)
        with ThreadPoolExecutor(max_workers=1) as pool:
            closing = pool.submit(_close_all, dialer, oids, deadline)
            _end_sessions(db, oids, closing)
        withdraw(db, oids)
        done = _out(db, oids)
        if not dialer.replicas:
            return _of(accounts, done)
        closed = closed_on(db, sorted(done))
    return _of(accounts, cut_on_all(dialer.replicas, closed, deadline))


def _of(accounts: Sequence[Account], done: set[int]) -> frozenset[int]:
    return frozenset(one.grant_id for one in accounts if done.issuperset(oids_of(one.traces)))


def _ours(db: Db, accounts: Sequence[Account]) -> list[Account]:
    here = cluster_of(db)
    return [ours(db, account, here=here) for account in accounts]


def _oids(accounts: Sequence[Account]) -> list[int]:
    return sorted({oid for account in accounts for oid in oids_of(account.traces)})


def _ended_openers(db: Db, grant_ids: Sequence[int]) -> bool:
    patience = Deadline(PATIENCE)
    while end_openers(db, grant_ids):
        if patience.passed:
            return False
        time.sleep(PAUSE)
    return True


def _close_all(dialer: Dialer, oids: Sequence[int], deadline: Deadline) -> None:
    """Set NOLOGIN on all of them in one transaction, but for those whose row somebody holds."""
    try:
        with dialer.session(NAME, deadline) as db, db.transaction():
            db.execute(f"SET LOCAL lock_timeout = '{ROW_WAIT}'".encode())
            # No waiting for a synchronous replica, which may be dead.
            db.execute("SET LOCAL synchronous_commit TO 'local'")
            if not _close(db, named := _open_roles(db, oids)):
                for oid, name in named.items():
                    _close(db, {oid: name})
    except ProvisionError:
        return  # whoever is not closed is found so by the scan


def _close(db: Db, named: Mapping[int, str]) -> bool:
    """Close these, all of them or none; whether they are."""
    closing = [sql.SQL("ALTER ROLE {} NOLOGIN").format(sql.Identifier(n)) for n in named.values()]
    try:
        with db.transaction() as savepoint:
            db.execute(sql.SQL("; ").join(closing))
            if not _open_roles(db, list(named)):
                return True
            raise psycopg.Rollback(savepoint)  # a name has gone to a stranger: leave it alone
    except (
        psycopg.errors.LockNotAvailable,
        psycopg.errors.InternalError_,
        psycopg.errors.UndefinedObject,
    ):
        pass  # left to its single cut
    return False


def _open_roles(db: Db, oids: Sequence[int]) -> dict[int, str]:
    rows = all_rows(
        db,
        "SELECT oid, rolname FROM pg_roles WHERE oid = ANY(%(oids)s::oid[]) AND rolcanlogin",
        oids=oids,
    )
    return dict(rows)


def _end_sessions(db: Db, oids: Sequence[int], closed: Future[None]) -> None:
    while not closed.done():
        terminate(db, oids)
        time.sleep(PAUSE)
    closed.result()


def _out(db: Db, oids: Sequence[int]) -> set[int]:
    """Return the roles that are closed, and nobody in.

    A session that does not react to being terminated, or a role that could not be closed, keeps its
    own grant back and no other.
    """
    still_open = _open_roles(db, oids).keys()
    wait_for_sign_ins(db)
    patience = Deadline(PATIENCE)
    while terminate(db, oids) and not patience.passed:
        time.sleep(PAUSE)
    return set(oids) - still_open - in_session(db, oids)


def clean_together(dialer: Dialer, accounts: Sequence[Account]) -> frozenset[int]:
    """Remove the cut accounts that hold nothing; return the grants of which nothing is left.

    That is read back after the COMMIT. Where a level has to be looked through, or a replica to be
    asked, it is left to the single clean-ups.
    """
    if dialer.replicas:
        return frozenset()
    with dialer.session(NAME, Deadline(JOINT_DEADLINE)) as db:
        plain = [one for one in _ours(db, accounts) if not levels_of(one.traces)]
        oids = _oids(plain)
        _drop_bare(db, oids)
        left = _left(db, oids)
    return frozenset(one.grant_id for one in plain if left.isdisjoint(oids_of(one.traces)))


def _drop_bare(db: Db, oids: Sequence[int]) -> None:
    """Drop those roles on which nothing hangs: all of them, or none where anything is odd."""
    named = names_of(db, bare(db, oids))
    if not named:
        return
    try:
        with db.transaction() as transaction:
            db.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(round(PATIENCE * 1000)))
            roles = sql.SQL(", ").join(map(sql.Identifier, named.values()))
            db.execute(sql.SQL("DROP ROLE {}").format(roles))
            if names_of(db, list(named)):  # one was renamed meanwhile, and a stranger's was dropped
                raise psycopg.Rollback(transaction)
    except psycopg.Error:
        return  # what is left is found so by the read-back


def _left(db: Db, oids: Sequence[int]) -> set[int]:
    """Return those that anything on the server still names: what `observe` looks at, for many."""
    rows = all_rows(
        db,
        "SELECT oid FROM unnest(%(oids)s::oid[]) oid"
        " WHERE EXISTS (SELECT FROM pg_roles r WHERE r.oid = oid.oid)"
        " OR EXISTS (SELECT FROM pg_auth_members WHERE oid.oid IN (roleid, member, grantor))"
        " OR EXISTS (SELECT FROM pg_shdepend"
        " WHERE refclassid = 'pg_authid'::regclass AND refobjid = oid.oid)"
        " OR EXISTS (SELECT FROM pg_prepared_xact() WHERE ownerid = oid.oid)"
        " OR EXISTS (SELECT FROM pg_stat_activity WHERE usesysid = oid.oid)",
        oids=oids,
    )
    return {oid for (oid,) in rows}
