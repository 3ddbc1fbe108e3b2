"""The memberships of an account: what it may do comes from them alone, and goes with them.

Without them nothing that a holder left works with the level's rights, whoever calls it, also while
the clean-up is held up. Roles that are *given to* debugflow are in `account`.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence

import psycopg
from psycopg import sql

from .account import SET_OPTION, names_of
from .connect import Db, Deadline, all_rows
from .sessions import PAUSE

LOCK_WAIT = "100ms"
"""How long one try waits for a lock on a level, which an opening and its owner's GRANT take."""
WITHDRAW = 0.2
"""Seconds to try for in a cut. What is locked for longer is tried again by each clean-up; no holder
can lock it."""


def withdraw(db: Db, oids: Sequence[int], *, seconds: float = WITHDRAW) -> None:
    """Take from these roles every membership that the admin account gave, if it can be done soon.

    What others gave only they can take; it ends with the role.
    """
    patience = Deadline(seconds)
    while (held := _held(db, oids)) and not _revoked(db, held) and not patience.passed:
        time.sleep(PAUSE)


def _held(db: Db, oids: Sequence[int]) -> list[tuple[str, str, int, str]]:
    """Return level, grantor, oid and name of each. Before 16 no grantor counts."""
    ours = "pg_has_role(m.grantor, 'USAGE')" if _grantors_count(db) else "true"
    query = sql.SQL(
        "SELECT g.rolname, {grantor}, h.oid, h.rolname FROM pg_auth_members m"
        " JOIN pg_roles g ON g.oid = m.roleid JOIN pg_roles h ON h.oid = m.member"
        " WHERE m.member = ANY(%(oids)s::oid[]) AND {ours}"
    ).format(
        grantor=sql.SQL("pg_get_userbyid(m.grantor)" if _grantors_count(db) else "''"),
        ours=sql.SQL(ours),
    )
    rows = all_rows(db, query, oids=oids)
    return [(level, grantor, oid, name) for level, grantor, oid, name in rows]


def _grantors_count(db: Db) -> bool:
    return db.info.server_version >= SET_OPTION


def _revoked(db: Db, held: Sequence[tuple[str, str, int, str]]) -> bool:
    members: dict[tuple[str, str], list[str]] = defaultdict(list)
    for level, grantor, _, name in held:
        members[level, grantor].append(name)
    before = {oid: name for _, _, oid, name in held}
    try:
        with db.transaction() as transaction:
            db.execute(f"SET LOCAL lock_timeout = '{LOCK_WAIT}'".encode())
            for (level, grantor), names in members.items():
                db.execute(_revoke(level, grantor, names))
            if names_of(db, list(before)) != before:  # a name may have gone to a stranger
                raise psycopg.Rollback(transaction)
    except psycopg.Error:
        if db.broken or db.closed:
            raise
        return False
    return names_of(db, list(before)) == before


def _revoke(level: str, grantor: str, names: Sequence[str]) -> sql.Composed:
    given = sql.SQL(" GRANTED BY {}").format(sql.Identifier(grantor)) if grantor else sql.SQL("")
    return sql.SQL("REVOKE {} FROM {}{}").format(
        sql.Identifier(level), sql.SQL(", ").join(map(sql.Identifier, names)), given
    )
