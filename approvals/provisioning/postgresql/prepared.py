"""Transactions a holder prepared: they outlive the session, keep its locks, and need rolling back.

Only their owner or a superuser may do that, so it has to be done while the role still exists.
"""

from __future__ import annotations

from collections.abc import Sequence

import psycopg
from psycopg import sql

from .account import become_member
from .connect import Db, Deadline, Dialer, all_rows

BUSY = psycopg.errors.ObjectNotInPrerequisiteState
"""Someone is finishing this transaction right now; the next round looks again."""


def roll_back_prepared(
    db: Db, dialer: Dialer, oids: Sequence[int], name: str, deadline: Deadline
) -> None:
    """Roll back, as their owner and in their database, what these roles have prepared."""
    rows = all_rows(
        db,
        "SELECT p.gid, d.datname, r.rolname FROM pg_prepared_xact() p"
        " JOIN pg_database d ON d.oid = p.dbid JOIN pg_roles r ON r.oid = p.ownerid"
        " WHERE p.ownerid = ANY(%(oids)s::oid[])",
        oids=oids,
    )
    for gid, database, owner in rows:
        become_member(db, owner)
        with dialer.session(name, deadline, database=database) as there:
            there.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(owner)))
            _roll_back(there, gid)


def _roll_back(db: Db, gid: str) -> None:
    try:
        db.execute(sql.SQL("ROLLBACK PREPARED {}").format(gid))
    except (BUSY, psycopg.errors.UndefinedObject):
        return
