"""Whether a level's role is safe to hand out: what it is, and all that it inherits.

What it may do is listed in `summary`; problems found while listing are added to these.
"""

from __future__ import annotations

from dataclasses import dataclass

from psycopg.rows import TupleRow

from .account import SET_OPTION, oid_of
from .config import ACCOUNT, ServerConfig
from .connect import Db, all_rows, value

PREDEFINED = frozenset(
    {"pg_monitor", "pg_read_all_settings", "pg_read_all_stats", "pg_stat_scan_tables"}
)
"""Predefined roles a level may inherit: they look at the server's own figures.

Left out on purpose: `pg_read_all_data` (it reads `pg_authid`, hence everybody's password
verifiers), `pg_write_all_data` (rights on tables that nobody has named), `pg_signal_backend` (its
holder could end debugflow's own sessions), `pg_maintain`, `pg_checkpoint`, and all that reach the
server's files and programs."""

FIRST_NORMAL_OID = 16384
"""FirstNormalObjectId: roles below it came with the server (access/transam.h)."""

ATTRIBUTES = (
    ("rolcanlogin", "may sign in (LOGIN)"),
    ("rolsuper", "is a superuser"),
    ("rolcreaterole", "may make roles (CREATEROLE)"),
    ("rolcreatedb", "may make databases (CREATEDB)"),
    ("rolreplication", "may replicate (REPLICATION)"),
    ("rolbypassrls", "passes by row security (BYPASSRLS)"),
)


@dataclass(frozen=True)
class Level:
    """A level's role and everything it is a member of, in whatever way."""

    name: str
    roles: tuple[tuple[int, str], ...]

    @property
    def oids(self) -> list[int]:
        """The role's and its inherited roles' oids."""
        return [oid for oid, _ in self.roles]

    @property
    def inherited(self) -> list[str]:
        """Names of what it inherits, sorted."""
        return sorted(name for _, name in self.roles if name != self.name)


def find_level(db: Db, name: str) -> Level | None:
    """Return the role called `name` with what it inherits, or `None` without such a role.

    Every membership counts, also one without INHERIT: stricter than the server, and simpler.
    """
    rows = all_rows(
        db,
        "WITH RECURSIVE closure(oid) AS (SELECT oid FROM pg_roles WHERE rolname = %(name)s"
        " UNION SELECT m.roleid FROM pg_auth_members m JOIN closure c ON m.member = c.oid)"
        " SELECT oid, rolname FROM pg_roles JOIN closure USING (oid) ORDER BY rolname",
        name=name,
    )
    return Level(name, tuple((oid, role) for oid, role in rows)) if rows else None


def problems(db: Db, level: Level, config: ServerConfig) -> list[str]:
    """Return in words why the level must not be handed out. Looks at the cluster as a whole."""
    return [
        *_identity(level, config),
        *_attributes(db, level),
        *_ownership(db, level),
        *_admin_options(db, level),
        *_handed_out(db, level, config),
        *_quarantine(db, config),
    ]


def _identity(level: Level, config: ServerConfig) -> list[str]:
    reserved = {config.user: "debugflow's admin account", config.quarantine: "the quarantine role"}
    found = []
    for oid, name in level.roles:
        if name in reserved:
            found.append(f"{name} is {reserved[name]}")
        if ACCOUNT.fullmatch(name):
            found.append(f"{name} looks like a temporary account")
        if oid < FIRST_NORMAL_OID and name.startswith("pg_") and name not in PREDEFINED:
            found.append(f"{name} gives more than a level may (allowed: {_allowed()})")
    return found


def _allowed() -> str:
    return ", ".join(sorted(PREDEFINED))


def _attributes(db: Db, level: Level) -> list[str]:
    rows = all_rows(
        db,
        "SELECT rolname, rolcanlogin, rolsuper, rolcreaterole, rolcreatedb, rolreplication,"
        " rolbypassrls FROM pg_roles WHERE oid = ANY(%(oids)s::oid[]) ORDER BY rolname",
        oids=level.oids,
    )
    return [line for row in rows for line in _attribute_lines(row)]


def _attribute_lines(row: TupleRow) -> list[str]:
    name, *flags = row
    return [f"{name} {words}" for flag, (_, words) in zip(flags, ATTRIBUTES, strict=True) if flag]


def _ownership(db: Db, level: Level) -> list[str]:
    """Find owned objects in every database: an owner may grant, alter and drop."""
    rows = all_rows(
        db,
        "SELECT r.rolname, coalesce(d.datname, 'the whole server'), count(*) FROM pg_shdepend s"
        " JOIN pg_roles r ON r.oid = s.refobjid LEFT JOIN pg_database d ON d.oid = s.dbid"
        " WHERE s.refclassid = 'pg_authid'::regclass AND s.deptype = 'o'"
        " AND s.refobjid = ANY(%(oids)s::oid[]) AND s.classid <> 'pg_auth_members'::regclass"
        " GROUP BY 1, 2 ORDER BY 1, 2",
        oids=level.oids,
    )
    return [f"{name} owns {count} objects in {where}" for name, where, count in rows]


def _admin_options(db: Db, level: Level) -> list[str]:
    rows = all_rows(
        db,
        "SELECT DISTINCT pg_get_userbyid(member), pg_get_userbyid(roleid) FROM pg_auth_members"
        " WHERE admin_option AND member = ANY(%(oids)s::oid[]) ORDER BY 1, 2",
        oids=level.oids,
    )
    return [f"{member} may pass {role} on (ADMIN OPTION)" for member, role in rows]


def _handed_out(db: Db, level: Level, config: ServerConfig) -> list[str]:
    """Check that the admin account can grant the level; before 16 CREATEROLE is enough for it."""
    if may_hand_out(db, level.name):
        return []
    return [f"{config.user} may not grant {level.name}: it needs ADMIN OPTION on it"]


def may_hand_out(db: Db, role: str) -> bool:
    """Whether the admin account may grant `role` to others."""
    if value(db, "SELECT pg_has_role(%(role)s, 'MEMBER WITH ADMIN OPTION')", role=role):
        return True
    createrole = value(db, "SELECT rolcreaterole FROM pg_roles WHERE rolname = current_user")
    return bool(createrole) and db.info.server_version < SET_OPTION


def _quarantine(db: Db, config: ServerConfig) -> list[str]:
    if oid_of(db, config.quarantine) is not None:
        return []
    return [f"there is no role {config.quarantine} to take over what holders make"]
