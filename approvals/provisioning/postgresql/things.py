"""What a role owns in one database: kinds, names fit for statements, who else has rights on it.

Nothing is changed here; `takeover` moves them, `clean` what is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import sql
from psycopg.rows import TupleRow

from .connect import Db, all_rows
from .failures import cleaned

NAME_LENGTH = 200
"""Characters kept of a name in a report; a holder chose it."""

ROUTINE = b"ROUTINE"
RIGHTS = {
    "table": b"TABLE",
    "view": b"TABLE",
    "materialized view": b"TABLE",
    "foreign table": b"TABLE",
    "sequence": b"SEQUENCE",
    "function": ROUTINE,
    "procedure": ROUTINE,
    "aggregate": ROUTINE,
    "type": b"TYPE",
    "schema": b"SCHEMA",
    "large object": b"LARGE OBJECT",
    "server": b"FOREIGN SERVER",
}
"""What REVOKE calls each kind that `pg_identify_object` tells, where rights on it can be given."""
OWNERS = {
    "table": b"TABLE",
    "view": b"VIEW",
    "materialized view": b"MATERIALIZED VIEW",
    "foreign table": b"FOREIGN TABLE",
    "sequence": b"SEQUENCE",
    "function": b"ROUTINE",
    "procedure": b"ROUTINE",
    "aggregate": b"ROUTINE",
    "type": b"TYPE",
    "schema": b"SCHEMA",
    "large object": b"LARGE OBJECT",
    "collation": b"COLLATION",
    "conversion": b"CONVERSION",
    "operator": b"OPERATOR",
    "statistics object": b"STATISTICS",
    "text search configuration": b"TEXT SEARCH CONFIGURATION",
    "text search dictionary": b"TEXT SEARCH DICTIONARY",
    "publication": b"PUBLICATION",
    "server": b"SERVER",
}
"""What ALTER … OWNER TO calls each kind that may be moved by name; REASSIGN OWNED moves others."""
DROPPED = ("default acl", "user mapping")
"""Nothing to keep: DROP OWNED removes these."""

_OWNED = """
  FROM pg_shdepend WHERE refclassid = 'pg_authid'::regclass AND refobjid = %(oid)s::oid
  AND deptype = 'o' AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
ARMED = "SELECT EXISTS (SELECT FROM pg_proc WHERE proowner = %(oid)s::oid AND prosecdef)"
COUNT = sql.SQL("SELECT count(*)" + _OWNED)
# Schemas first: a thing in a schema of the holder's own can move only to someone who may create
# there. Large objects last: there may be a million of them.
LIST = sql.SQL(
    "SELECT classid, objid"
    + _OWNED
    + " ORDER BY classid = 'pg_largeobject'::regclass, classid <> 'pg_namespace'::regclass, objid"
)

# Every name here is quoted by the server itself, schema and all, since the search path is empty;
# and it is read as bytes, since in a database without an encoding it may be any.
THINGS = sql.SQL("""
WITH locked AS MATERIALIZED (
  SELECT relation, bool_or(mode = 'AccessExclusiveLock') AS shut FROM pg_locks
  WHERE locktype = 'relation' AND granted AND pid IS DISTINCT FROM pg_backend_pid()
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
  GROUP BY relation
)
SELECT textsend(i.type), textsend(i.identity),
  ARRAY(
    SELECT DISTINCT textsend(CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE format('%%I', r.rolname) END)
    FROM aclexplode(CASE o.classid
      WHEN 'pg_class'::regclass THEN
        (SELECT relacl FROM pg_class WHERE oid = o.objid)
        || (SELECT array_agg(a) FROM pg_attribute, unnest(attacl) a WHERE attrelid = o.objid)
      WHEN 'pg_proc'::regclass THEN
        (SELECT coalesce(proacl, acldefault('f', proowner)) FROM pg_proc WHERE oid = o.objid)
      WHEN 'pg_type'::regclass THEN
        (SELECT coalesce(typacl, acldefault('T', typowner)) FROM pg_type
          WHERE oid = o.objid AND typtype <> 'm')
      WHEN 'pg_namespace'::regclass THEN
        (SELECT nspacl FROM pg_namespace WHERE oid = o.objid)
      WHEN 'pg_largeobject'::regclass THEN
        (SELECT lomacl FROM pg_largeobject_metadata WHERE oid = o.objid)
      WHEN 'pg_foreign_server'::regclass THEN
        (SELECT srvacl FROM pg_foreign_server WHERE oid = o.objid) END) x
    LEFT JOIN pg_roles r ON r.oid = x.grantee
    WHERE x.grantee <> %(oid)s::oid AND (x.grantee = 0 OR r.oid IS NOT NULL)),
  o.classid = 'pg_proc'::regclass AND (SELECT prosecdef FROM pg_proc WHERE oid = o.objid),
  o.classid = 'pg_class'::regclass AND EXISTS (SELECT FROM pg_depend d
    WHERE d.classid = o.classid AND d.objid = o.objid AND d.refclassid = o.classid
    AND d.deptype IN ('a', 'i') AND i.type = 'sequence')
  OR o.classid = 'pg_type'::regclass
    AND EXISTS (SELECT FROM pg_type WHERE oid = o.objid AND typtype = 'm'),
  o.classid = 'pg_class'::regclass AND o.objid IN (SELECT relation FROM locked),
  o.classid = 'pg_class'::regclass AND o.objid IN (SELECT relation FROM locked WHERE shut),
  o.classid = 'pg_class'::regclass AND EXISTS (SELECT FROM pg_trigger
    WHERE tgrelid = o.objid AND NOT tgisinternal AND tgenabled <> 'D')
FROM unnest(%(classes)s::oid[], %(objects)s::oid[]) WITH ORDINALITY o(classid, objid, place),
  LATERAL pg_identify_object(o.classid, o.objid, 0) i
WHERE i.identity IS NOT NULL ORDER BY o.place
""")


@dataclass(frozen=True)
class Thing:
    """One object of the holder's. `grantees` hold rights on it, of whatever kind."""

    kind: str
    identity: bytes
    grantees: tuple[bytes, ...]
    as_owner: bool
    """A SECURITY DEFINER function."""
    follows: bool
    """A column's own sequence goes with its table and cannot go alone; a multirange, listed before
    PostgreSQL 16 or so, with its range."""
    locked: bool
    shut: bool
    """Locked, even against reading its rights."""
    fires: bool
    """It has triggers, which run as whoever writes there."""

    @property
    def is_code(self) -> bool:
        """Whether it can be called."""
        return RIGHTS.get(self.kind) == ROUTINE

    @property
    def name(self) -> str:
        """How a report calls it."""
        return cleaned(f"{self.kind} {self.identity.decode(errors='replace')}", [])[:NAME_LENGTH]


def described(db: Db, oid: int, rows: Sequence[TupleRow]) -> list[Thing]:
    """Return the things that `rows` of LIST name, without those that are gone by now."""
    found = all_rows(
        db,
        THINGS,
        oid=oid,
        classes=[one for one, _ in rows],
        objects=[one for _, one in rows],
    )
    return [Thing(kind.decode(), name, tuple(to), *flags) for kind, name, to, *flags in found]


def take_back(thing: Thing) -> list[bytes]:
    """Return the statements after which nobody else has rights on it, and it runs as its caller."""
    revoke = b"REVOKE ALL ON %s %s FROM %s CASCADE"
    kind = RIGHTS.get(thing.kind, b"")
    texts = [revoke % (kind, thing.identity, grantee) for grantee in thing.grantees]
    if thing.as_owner:
        texts.append(b"ALTER ROUTINE %s SECURITY INVOKER" % thing.identity)
    return texts


def hold(thing: Thing, owner: bytes) -> list[bytes]:
    """Return the statements after which nothing of it is run as its owner, nor by writing to it.

    The server runs functions of an index or a refreshed view as the owner, on ANALYZE too, which
    nobody has to ask for. Those of a range type it calls without asking for EXECUTE: one that is
    not volatile changes nothing, and may not call any other. One that was disarmed may have been
    armed again since it was looked at, by what runs as the holder still.
    """
    if thing.is_code:
        texts = [b"REVOKE ALL ON ROUTINE %s FROM %s" % (thing.identity, owner)]
        tame = b"ALTER FUNCTION %s STABLE SECURITY INVOKER" % thing.identity
        return [*texts, tame] if thing.kind == "function" else texts
    if thing.fires and thing.kind in ("table", "foreign table"):
        return [b"ALTER TABLE %s DISABLE TRIGGER USER" % thing.identity]
    return []
