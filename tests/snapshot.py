"""The rows of a world, put back in one call: built anew by the verbs for each of many hundred tests
they would take more time than most of what the tests look at.

The first one of a process is built, and remembered where nothing else was in the database.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from django.db import connection, transaction

from approvals.provisioning.memory import MemoryServer
from tests.world import World, prepare_server

# In the order of who refers to whom, but for what a constraint looks at when all is over.
TABLES: Final = (
    "accounts_user",
    "auth_group",
    "accounts_user_groups",
    "approvals_target",
    "approvals_accesslevel",
    "guardian_groupobjectpermission",
    "approvals_policy",
    "approvals_policyversion",
    "approvals_stage",
    "approvals_stagegroup",
    "audit_event",
)
# A version is published last: no stage could be added to it afterwards.
PUBLISHED: Final = ("approvals_policyversion", "published_at")
PUBLISH: Final = "UPDATE approvals_policyversion SET published_at = dbnow();"
COLUMNS: Final = """
SELECT column_name, data_type FROM information_schema.columns
WHERE table_schema = 'public' AND table_name = %s ORDER BY ordinal_position
"""


@dataclass
class Snapshot:
    world: World
    statements: str


_taken: list[Snapshot] = []


def restored(build: Callable[[], World]) -> World:
    """The world, as `build` makes it."""
    if _taken:
        return _put_back(_taken[0])
    alone = not any(_count(table) for table in _all_tables())
    world = build()
    if alone and {table for table in _all_tables() if _count(table)} == set(TABLES):
        _taken.append(Snapshot(copy.deepcopy(world), _statements()))
    return world


def _put_back(snapshot: Snapshot) -> World:
    with transaction.atomic():
        connection.ensure_connection()
        # No parameters and not prepared: so all of it is one message to the server.
        connection.connection.execute(snapshot.statements, prepare=False)
    MemoryServer.forget_all()
    world = copy.deepcopy(snapshot.world)
    prepare_server(world)
    return world


def _all_tables() -> list[str]:
    """Those that tests write to; migrations have filled the others."""
    filled = ("django_", "auth_permission", "audit_clock", "approvals_installation")
    names = connection.introspection.table_names()
    return [name for name in names if not name.startswith(filled)]


def _count(table: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {table}")
        return int(cursor.fetchone()[0])


def _statements() -> str:
    parts = [_inserts(table) for table in TABLES]
    return "\n".join([*parts, PUBLISH, _sequences()])


def _inserts(table: str) -> str:
    with connection.cursor() as cursor:
        cursor.execute(COLUMNS, [table])
        columns = cursor.fetchall()
        values = [_literal(table, name, kind) for name, kind in columns]
        rows = f"SELECT concat_ws(', ', {', '.join(values)}) FROM {table} ORDER BY 1"
        cursor.execute(rows)
        lines = ",\n".join(f"({row[0]})" for row in cursor.fetchall())
    names = ", ".join(f'"{name}"' for name, _ in columns)
    return f"INSERT INTO {table} ({names}) OVERRIDING SYSTEM VALUE VALUES\n{lines};"


def _literal(table: str, name: str, kind: str) -> str:
    """What writes a column's value as it is to be inserted: a time as now, but in an Event, whose
    hash covers it."""
    if (table, name) == PUBLISHED:
        return "'NULL'"
    if kind == "timestamp with time zone" and table != "audit_event":
        return f"""CASE WHEN "{name}" IS NULL THEN 'NULL' ELSE 'dbnow()' END"""
    return f'quote_nullable("{name}"::text)'


def _sequences() -> str:
    """Moves them beyond: in a database that was cloned anew they begin at the beginning."""
    moved: list[Any] = []
    with connection.cursor() as cursor:
        for table in TABLES:
            cursor.execute("SELECT pg_get_serial_sequence(%s, 'id')", [table])
            sequence = cursor.fetchone()[0]
            cursor.execute(f"SELECT max(id) FROM {table}")
            highest = cursor.fetchone()[0]
            moved.append(
                f"(SELECT count(nextval('{sequence}')) FROM generate_series(1, {highest}))"
            )
    return f"SELECT {', '.join(moved)};"
