"""A second account of every change, by the database itself: triggers that only the tests have.

What the product says of a change is in Events. What changed, from what to what and in which
transaction, is here, whoever changed it and however. What follows from both is in `checker`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

import psycopg
from django.db import connection

from debugflow.embedded.runtime import APP

WATCHED = (
    "approvals_accessrequest",
    "approvals_requeststage",
    "approvals_candidate",
    "approvals_vote",
    "approvals_nudge",
    "approvals_grant",
    "approvals_abandonment",
)

# The ids of one row's changes are in the order in which they were made: whoever changes a row has
# it locked until the commit.
TABLE = f"""
CREATE TABLE witness (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    name text NOT NULL,
    old jsonb,
    new jsonb
);
GRANT SELECT ON witness TO {APP};
CREATE FUNCTION witness_change() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp AS $$
BEGIN
    INSERT INTO witness (name, old, new)
    VALUES (
        replace(TG_TABLE_NAME, 'approvals_', ''), to_jsonb(OLD) - 'scope', to_jsonb(NEW) - 'scope'
    );
    RETURN NULL;
END $$;
"""
TRIGGER = """
CREATE TRIGGER witness_{name} AFTER INSERT OR UPDATE OR DELETE ON {name}
    FOR EACH ROW EXECUTE FUNCTION witness_change();
"""


@dataclass(frozen=True, kw_only=True)
class Change:
    """One row before and after, None where there is none, and the transaction that changed it."""

    id: int
    xid: int
    table: str
    old: dict[str, Any] | None
    new: dict[str, Any] | None

    @property
    def pk(self) -> int:
        return int((self.new or self.old or {})["id"])

    def became(self, column: str) -> bool:
        """Whether it has a value now and had none."""
        return self.of(column) is not None and self.was(column) is None

    def of(self, column: str) -> Any:
        return (self.new or {}).get(column)

    def was(self, column: str) -> Any:
        return (self.old or {}).get(column)

    def differs(self, column: str) -> bool:
        return bool(self.of(column) != self.was(column))


@dataclass(frozen=True)
class Said:
    """One Event, as far as it is looked at here."""

    xid: int
    id: int
    at: datetime
    action: str
    actor_id: str
    subject_id: str
    scope_hash: str
    policy_version: str
    data: dict[str, Any]


def install(database: psycopg.Connection[Any]) -> None:
    """Have every change witnessed from now on. The connection is a superuser's."""
    database.execute(TABLE.encode())
    for name in WATCHED:
        database.execute(TRIGGER.format(name=name).encode())


def changes(after: int) -> list[Change]:
    """The changes with a higher id, in order. Ask while nobody changes anything."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id, xid::text, name, old, new FROM witness WHERE id > %s ORDER BY id", [after]
        )
        rows = cursor.fetchall()
    return [
        Change(id=pk, xid=int(xid), table=table, old=_row(old), new=_row(new))
        for pk, xid, table, old, new in rows
    ]


def _row(told: str | None) -> dict[str, Any] | None:
    return None if told is None else dict(json.loads(told))


def events(after: int) -> list[Said]:
    """The Events with a higher id, in order. Written out: it is asked after every step."""
    columns = ", ".join(field.name for field in fields(Said)).replace("xid", "xid::text")
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {columns} FROM audit_event WHERE id > %s ORDER BY id",
            [after],
        )
        rows = cursor.fetchall()
    return [
        Said(int(xid), pk, at, action, actor, subject, scope_hash, version, json.loads(data))
        for xid, pk, at, action, actor, subject, scope_hash, version, data in rows
    ]


def moment(told: str | None) -> datetime | None:
    """A time as a row in JSON has it."""
    return datetime.fromisoformat(told) if told else None
