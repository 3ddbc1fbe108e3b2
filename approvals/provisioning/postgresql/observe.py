"""The read-back: what is left of an account on the target, by oid. It changes nothing."""

from __future__ import annotations

from collections.abc import Sequence

from approvals.provisioning.base import Account, Observation

from .account import oids_of, ours
from .connect import Db, Deadline, Dialer, all_rows, value
from .replicas import look_at_replica, on_each, results
from .sessions import count_sessions, open_names

OBSERVE_DEADLINE = 10
"""Seconds for a read-back."""


def observe_account(dialer: Dialer, account: Account) -> Observation:
    """Return what every attempt's role has left: sessions, sign-in, and anything that names it."""
    name, deadline = f"dbgf-look-{account.grant_id}", Deadline(OBSERVE_DEADLINE)
    with dialer.session(name, deadline) as db:
        oids = oids_of(ours(db, account).traces)
        begun = on_each(dialer.replicas, lambda one: look_at_replica(one, oids, name, deadline))
        # `VALID UNTIL` counts for nothing: it binds passwords only, not other ways to sign in.
        closed = not open_names(db, oids)
        leftovers = (*_roles(db, oids), *_prepared(db, oids), *_dependencies(db, oids))
        # Last: a sign-in that slipped in before the role was closed is listed by now.
        sessions = count_sessions(db, oids)
    elsewhere = results(begun)
    return Observation(
        can_sign_in=not closed or any(one.can_sign_in for one in elsewhere),
        leftovers=leftovers,
        sessions=sessions + sum(one.sessions for one in elsewhere),
    )


def _roles(db: Db, oids: Sequence[int]) -> list[str]:
    roles = all_rows(
        db, "SELECT rolname FROM pg_roles WHERE oid = ANY(%(oids)s::oid[]) ORDER BY 1", oids=oids
    )
    members = value(
        db,
        "SELECT count(*) FROM pg_auth_members"
        " WHERE %(oids)s::oid[] && ARRAY[roleid, member, grantor]",
        oids=oids,
    )
    lines = [f"role {name} still exists" for (name,) in roles]
    return [*lines, f"{members} memberships name it"] if members else lines


def _prepared(db: Db, oids: Sequence[int]) -> list[str]:
    rows = all_rows(
        db,
        "SELECT p.gid, d.datname FROM pg_prepared_xact() p"
        " LEFT JOIN pg_database d ON d.oid = p.dbid"
        " WHERE p.ownerid = ANY(%(oids)s::oid[]) ORDER BY 1",
        oids=oids,
    )
    return [f"prepared transaction {gid!r} in database {name}" for gid, name in rows]


def _dependencies(db: Db, oids: Sequence[int]) -> list[str]:
    rows = all_rows(
        db,
        "SELECT coalesce(d.datname, 'all databases'), count(*) FROM pg_shdepend s"
        " LEFT JOIN pg_database d ON d.oid = s.dbid"
        " WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = ANY(%(oids)s::oid[])"
        # Memberships have rows there as well (16+); they are counted above.
        " AND s.classid <> 'pg_auth_members'::regclass GROUP BY 1 ORDER BY 1",
        oids=oids,
    )
    return [f"{count} objects or rights in {name}" for name, count in rows]
