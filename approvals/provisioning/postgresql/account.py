"""Which roles on the target are ours: names, oids, and how to speak of both.

A role belongs to a grant by its oid, never by its name: a stranger's role under our name is
somebody else's. An oid is good for as long as its cluster lives; `ours` looks at what else there is
in another one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from psycopg import sql

from approvals.provisioning.base import STAMP, Account

from .config import ACCOUNT
from .connect import Db, all_rows, value

SET_OPTION = 160000
"""The first server version that grants membership `WITH INHERIT …, SET …` (PostgreSQL 16)."""
TRANSACTION_TIMEOUT = 170000
"""The first server version with `transaction_timeout` (PostgreSQL 17)."""
WAITS = "; to be dropped after "
"""What stands in a role's comment between the stamp and the transactions that its removal waits for
(`lasting`)."""


def printable(text: str) -> str:
    """Return `text` on one line, with what is not seen or turns the reader's eye as escapes.

    Names on a target are others' choice; these words go to pages, terminals and the scope.
    """
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)


def oids_of(undo: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return the oids that attempts have noted, each once."""
    return sorted({int(one["oid"]) for one in undo if one.get("oid")})


def levels_of(undo: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return the oids of levels that holders could act as, which attempts note before 16 only.

    What was made under `SET ROLE` belongs to the level, prepared transactions included.
    """
    return sorted({int(one["level"]) for one in undo if one.get("level")})


def cluster_of(db: Db) -> str:
    """Return which cluster this is; a restore from a dump and an upgrade both make another."""
    return str(value(db, "SELECT system_identifier FROM pg_control_system()"))


def ours(db: Db, account: Account, *, here: str = "") -> Account:
    """Return the account less what must be a stranger's by now. `here` is the cluster, if known.

    What was noted in another cluster, from which this one was upgraded or restored, is ours only if
    the role of that number has its name, or another than ours and our stamp. In its own cluster a
    role keeps its number, whatever it has been renamed to.
    """
    here = here or cluster_of(db)
    abroad = [one for one in account.traces if one.get("cluster", here) != here]
    if not abroad:
        return account
    found = _named(db, abroad)
    names = {oid: name for oid, name, _ in found}
    strangers = {oid for oid, name, note in found if not _is_its(account, name, note)}
    known = [_known_again(one, names) for one in abroad if one["oid"] not in strangers]
    at_home = [one for one in account.traces if one not in abroad]
    return replace(account, traces=[*at_home, *known])


def _named(db: Db, traces: Sequence[Mapping[str, Any]]) -> list[tuple[int, str, str]]:
    return all_rows(
        db,
        "SELECT oid, rolname, coalesce(shobj_description(oid, 'pg_authid'), '') FROM pg_roles"
        " WHERE oid = ANY(%(oids)s::oid[])",
        oids=[*oids_of(traces), *levels_of(traces)],
    )


def _is_its(account: Account, name: str, note: str) -> bool:
    """Another grant's account is not this one's either, though it bears our stamp."""
    renamed = note.startswith(STAMP) and not ACCOUNT.fullmatch(name)
    return name == account.account or renamed


def _known_again(trace: Mapping[str, Any], names: Mapping[int, str]) -> Mapping[str, Any]:
    """Return the trace, without its level if that number is another role's now."""
    if names.get(trace.get("level", 0)) == trace.get("level_name"):
        return trace
    return {key: kept for key, kept in trace.items() if key not in ("level", "level_name")}


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


def bare(db: Db, oids: Sequence[int]) -> list[int]:
    """Return those on which nothing hangs but memberships, which go with a role: most holders only
    look. Nothing can come to hang on one any more once it is cut, and whose removal waits for
    somebody has something noted."""
    rows = all_rows(
        db,
        "SELECT oid FROM unnest(%(oids)s::oid[]) oid"
        " WHERE NOT EXISTS (SELECT FROM pg_shdepend WHERE refclassid = 'pg_authid'::regclass"
        " AND refobjid = oid AND classid <> 'pg_auth_members'::regclass)"
        " AND NOT EXISTS (SELECT FROM pg_auth_members WHERE grantor = oid)"
        " AND NOT EXISTS (SELECT FROM pg_prepared_xact() WHERE ownerid = oid)"
        " AND strpos(coalesce(shobj_description(oid, 'pg_authid'), ''), %(waits)s) = 0",
        oids=oids,
        waits=WAITS,
    )
    return [oid for (oid,) in rows]


def become_member(db: Db, role: str) -> None:
    """Make the admin account a member of `role`, with the right to act as it."""
    grant = sql.SQL("GRANT {} TO CURRENT_USER").format(sql.Identifier(role))
    if db.info.server_version >= SET_OPTION:
        grant += sql.SQL(" WITH INHERIT TRUE, SET TRUE")
    db.execute(grant)
