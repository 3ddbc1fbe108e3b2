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
    for gid, database, owner in _prepared(db, oids):
        become_member(db, owner)
        with dialer.session(name, deadline, database=database) as there:
            there.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(owner)))
            _roll_back(there, gid)


def _prepared(db: Db, oids: Sequence[int]) -> list[tuple[bytes, str, str]]:
    """Identifier, database and owner of each. A holder chose the identifier, in a database of any
    encoding, so it is read as the bytes it is: in SQL_ASCII nothing is converted or checked."""
    with db.transaction():
        db.execute("SET LOCAL client_encoding TO 'SQL_ASCII'")
        rows = all_rows(
            db,
            "SELECT encode(textsend(p.gid), 'hex'), encode(textsend(d.datname::text), 'hex'),"
            " encode(textsend(r.rolname::text), 'hex') FROM pg_prepared_xact() p"
            " JOIN pg_database d ON d.oid = p.dbid JOIN pg_roles r ON r.oid = p.ownerid"
            " WHERE p.ownerid = ANY(%(oids)s::oid[])",
            oids=oids,
        )
    return [(_raw(gid), _raw(name).decode(), _raw(owner).decode()) for gid, name, owner in rows]


def _raw(hexadecimal: bytes | str) -> bytes:
    # Under SQL_ASCII psycopg gives text as bytes.
    text = hexadecimal.decode("ascii") if isinstance(hexadecimal, bytes) else hexadecimal
    return bytes.fromhex(text)


def _roll_back(db: Db, gid: bytes) -> None:
    literal = "".join(f"\\x{byte:02x}" for byte in gid)
    try:
        db.execute(f"ROLLBACK PREPARED E'{literal}'".encode("ascii"))
    except (BUSY, psycopg.errors.UndefinedObject):
        return
