"""The clean-up after a cut: objects to quarantine, rights gone, role dropped.

What a holder owned goes to a role that cannot sign in and may do nothing, never to an admin: a
function that runs as its owner would become a back door. What they passed on is taken back first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql

from approvals.errors import ProvisionError
from approvals.provisioning.base import Account

from .account import become_member, names_of, oids_of
from .connect import Db, Deadline, Dialer, all_rows, value
from .prepared import roll_back_prepared

CLEAN_DEADLINE = 40
"""Seconds for a whole clean-up; less than the lease of the one who does it (45 s)."""
CLEAN_STATEMENT = 10
"""Seconds for one statement of it, waiting for locks included."""

# Every name in these statements is quoted by the server itself: format's %I, or regprocedure under
# an empty search path.
OWNED = sql.SQL("""
WITH owned AS (
  SELECT classid, objid FROM pg_shdepend
  WHERE refclassid = 'pg_authid'::regclass AND refobjid = %(oid)s::oid AND deptype = 'o'
    AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
)""")

PASSED_ON = OWNED + sql.SQL(""", things(kind, name, acl) AS (
  SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END,
    format('%%I.%%I', n.nspname, c.relname), c.relacl
  FROM owned JOIN pg_class c ON classid = 'pg_class'::regclass AND c.oid = objid
  JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
UNION ALL
  SELECT 'TABLE', format('%%I.%%I', n.nspname, c.relname), a.attacl
  FROM owned JOIN pg_class c ON classid = 'pg_class'::regclass AND c.oid = objid
  JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
  WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
UNION ALL
  SELECT 'ROUTINE', p.oid::regprocedure::text, coalesce(p.proacl, acldefault('f', p.proowner))
  FROM owned JOIN pg_proc p ON classid = 'pg_proc'::regclass AND p.oid = objid
UNION ALL
  SELECT 'SCHEMA', format('%%I', n.nspname), n.nspacl
  FROM owned JOIN pg_namespace n ON classid = 'pg_namespace'::regclass AND n.oid = objid
UNION ALL
  SELECT 'TYPE', format('%%I.%%I', n.nspname, t.typname),
    coalesce(t.typacl, acldefault('T', t.typowner))
  FROM owned JOIN pg_type t ON classid = 'pg_type'::regclass AND t.oid = objid
  JOIN pg_namespace n ON n.oid = t.typnamespace WHERE t.typtype <> 'm' AND t.typcategory <> 'A'
UNION ALL
  SELECT 'LARGE OBJECT', l.oid::text, l.lomacl FROM owned
  JOIN pg_largeobject_metadata l ON classid = 'pg_largeobject'::regclass AND l.oid = objid
UNION ALL
  SELECT 'FOREIGN SERVER', format('%%I', f.srvname), f.srvacl
  FROM owned JOIN pg_foreign_server f ON classid = 'pg_foreign_server'::regclass AND f.oid = objid
)
SELECT DISTINCT format('REVOKE ALL ON %%s %%s FROM %%s CASCADE', kind, name,
  CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(x.grantee)) END)
FROM things, LATERAL aclexplode(acl) x
WHERE x.grantee <> %(oid)s::oid AND (x.grantee = 0 OR x.grantee IN (SELECT oid FROM pg_roles))
""")

RUN_AS_OWNER = OWNED + sql.SQL("""
SELECT format('ALTER ROUTINE %%s SECURITY INVOKER', p.oid::regprocedure)
FROM owned JOIN pg_proc p ON classid = 'pg_proc'::regclass AND p.oid = objid WHERE p.prosecdef
""")

# Before REASSIGN OWNED: a function in a schema of the holder's own can move only to someone who may
# create there.
SCHEMAS = OWNED + sql.SQL("""
SELECT n.nspname FROM owned
JOIN pg_namespace n ON classid = 'pg_namespace'::regclass AND n.oid = objid
""")


@dataclass(frozen=True)
class Cleaner:
    """One clean-up under way."""

    dialer: Dialer
    quarantine: str
    name: str
    deadline: Deadline


def clean_account(dialer: Dialer, account: Account, quarantine: str) -> None:
    """Remove every role of `account`'s attempts and what depends on it.

    Roles that somebody else dropped are nothing to do; the read-back decides what that means.
    """
    deadline = Deadline(CLEAN_DEADLINE)
    cleaner = Cleaner(dialer, quarantine, f"dbgf-clean-{account.grant_id}", deadline)
    with dialer.session(cleaner.name, deadline, statement_timeout=CLEAN_STATEMENT) as db:
        for oid, role in names_of(db, oids_of(account.traces)).items():
            _remove(db, cleaner, oid, role)


def _remove(db: Db, cleaner: Cleaner, oid: int, role: str) -> None:
    become_member(db, role)
    _need_quarantine(db, cleaner.quarantine)
    roll_back_prepared(db, cleaner.dialer, [oid], cleaner.name, cleaner.deadline)
    for database in _databases(db, oid):
        _empty(cleaner, database, oid, role)
    _drop(db, oid, role)


def _need_quarantine(db: Db, quarantine: str) -> None:
    """Join the quarantine role once. The membership stays: others may clean at this moment."""
    try:
        if not value(db, "SELECT pg_has_role(%(name)s, 'USAGE')", name=quarantine):
            become_member(db, quarantine)
    except psycopg.errors.UndefinedObject:
        raise ProvisionError(
            f"The target has no role {quarantine} to take over what holders made."
            " Run what `manage.py target prepare` prints.",
            permanent=True,
        ) from None


def _databases(db: Db, oid: int) -> list[str]:
    """Return where anything depends on the role, and this one for what belongs to no database."""
    rows = all_rows(
        db,
        "SELECT datname FROM pg_database WHERE datname = current_database() OR oid IN"
        " (SELECT dbid FROM pg_shdepend WHERE refclassid = 'pg_authid'::regclass"
        " AND refobjid = %(oid)s::oid) ORDER BY 1",
        oid=oid,
    )
    return [name for (name,) in rows]


def _empty(cleaner: Cleaner, database: str, oid: int, role: str) -> None:
    """Leave nothing of the role in one database, all of it or none."""
    names = {"role": sql.Identifier(role), "to": sql.Identifier(cleaner.quarantine)}
    with (
        cleaner.dialer.session(
            cleaner.name, cleaner.deadline, database=database, statement_timeout=CLEAN_STATEMENT
        ) as db,
        db.transaction(),
    ):
        _take_back(db, oid)
        for (schema,) in all_rows(db, SCHEMAS, oid=oid):
            move = sql.SQL("ALTER SCHEMA {} OWNER TO {to}")
            db.execute(move.format(sql.Identifier(schema), **names))
        db.execute(sql.SQL("REASSIGN OWNED BY {role} TO {to}").format(**names))
        db.execute(sql.SQL("DROP OWNED BY {role}").format(**names))


def _take_back(db: Db, oid: int) -> None:
    """Undo what was passed on of the role's own objects, and stop its functions running as it."""
    statements: Sequence[tuple[str]] = [
        *all_rows(db, PASSED_ON, oid=oid),
        *all_rows(db, RUN_AS_OWNER, oid=oid),
    ]
    for (statement,) in statements:
        db.execute(statement.encode())


def _drop(db: Db, oid: int, role: str) -> None:
    """Drop the role, which takes its memberships along, ours included; check it was that one."""
    with db.transaction() as transaction:
        db.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))
        if oid in names_of(db, [oid]):  # renamed meanwhile: the next attempt finds its new name
            raise psycopg.Rollback(transaction)
