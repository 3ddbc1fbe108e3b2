"""Openings under way: the names of their connections, by which a cut finds and ends them.

An opening of one grant has its number in its name. That of many has a bit for each: a name has 63
bytes, too few for their numbers. Two grants may share a bit, and then the cut of one ends an
opening of the other, which is tried again; none is ever missed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from .connect import Db, all_rows

ONE, MANY = "dbgf-open-", "dbgf-opens-"
BITS = 192
"""48 hexadecimal digits after `MANY`, 59 bytes in all. Grants that are opened together mostly have
numbers close to each other, and none shares a bit then."""


def opener_name(grant_id: int) -> str:
    """Return the application name by which a close finds the opener of this grant."""
    return f"{ONE}{grant_id}"


def joint_name(grant_ids: Iterable[int]) -> str:
    """Return the same for an opener of all these."""
    return f"{MANY}{_bits(grant_ids):0{BITS // 4}x}"


def end_openers(db: Db, grant_ids: Collection[int]) -> int:
    """Terminate every opener of any of these grants; return how many there were.

    Call it until there is none. One that connects after the first call finds `revoking`, and makes
    nothing.
    """
    names = [name for (name,) in all_rows(db, _RUNNING) if _opens(name, grant_ids)]
    return len(all_rows(db, _END, names=names)) if names else 0


_RUNNING = (
    "SELECT DISTINCT application_name FROM pg_stat_activity"
    " WHERE usesysid = (SELECT oid FROM pg_roles WHERE rolname = session_user)"
    " AND starts_with(application_name, 'dbgf-open')"
)
_END = (
    "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE usesysid = (SELECT oid FROM pg_roles WHERE rolname = session_user)"
    " AND application_name = ANY(%(names)s::text[])"
)


def _opens(name: str, grant_ids: Collection[int]) -> bool:
    if not name.startswith(MANY):
        return any(name == opener_name(one) for one in grant_ids)
    try:
        return bool(int(name.removeprefix(MANY), 16) & _bits(grant_ids))
    except ValueError:
        return True  # whose it is cannot be told


def _bits(grant_ids: Iterable[int]) -> int:
    bits = 0
    for one in grant_ids:
        bits |= 1 << one % BITS
    return bits
