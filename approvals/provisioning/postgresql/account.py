"""Which roles on the target are ours: names, oids, and how to speak of both.

A role belongs to a grant by its oid, never by its name: a stranger's role under our name is
somebody else's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from psycopg import sql

from .connect import Db, all_rows, value

SET_OPTION = 160000
"""The first server version that grants membership `WITH INHERIT …, SET …` (PostgreSQL 16)."""
TRANSACTION_TIMEOUT = 170000
"""The first server version with `transaction_timeout` (PostgreSQL 17)."""


def opener_name(grant_id: int) -> str:
    """Return the application name by which a close finds the opener of this grant."""
    return f"dbgf-open-{grant_id}"


def oids_of(undo: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return the oids that attempts have noted, each once."""
    return sorted({int(one["oid"]) for one in undo if one.get("oid")})


def oid_of(db: Db, name: str) -> int | None:
    """Return the oid of the role called `name`."""
    found: int | None = value(db, "SELECT oid FROM pg_roles WHERE rolname = %(name)s", name=name)
    return found


def names_of(db: Db, oids: Sequence[int]) -> dict[int, str]:
    """Return the present names of those of `oids` that still exist; they may be renamed."""
    rows = all_rows(
        db, "SELECT oid, rolname FROM pg_roles WHERE oid = ANY(%(oids)s::oid[])", oids=oids
    )
    return dict(rows)


def become_member(db: Db, role: str) -> None:
    """Make the admin account a member of `role`, with the right to act as it."""
    grant = sql.SQL("GRANT {} TO CURRENT_USER").format(sql.Identifier(role))
    if db.info.server_version >= SET_OPTION:
        grant += sql.SQL(" WITH INHERIT TRUE, SET TRUE")
    db.execute(grant)
