"""What a member of a level may do, in sorted lines that change whenever the rights do.

Read from the access lists themselves, PUBLIC's included. Whether the role as such is safe to hand
out is `level`'s question; what only the lists can show (grant options, triggers, schemas where
things made there could not be taken over) is added here.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from approvals.errors import Invalid

from .account import printable
from .config import LevelRights, ServerConfig
from .connect import Db, Deadline, Dialer, Query, all_rows
from .level import Level, find_level, problems
from .rights import DATABASES, IN_DATABASE, IN_SERVER

SHOWN = 20
"""Names shown of one group; the others are covered by a digest."""
LINES = 300
"""Lines shown of one summary; the others are covered by a digest."""
SUMMARY_STATEMENT = 10
"""Seconds for one statement: a catalog may be large."""


@dataclass
class Findings:
    """Lines and problems as they are collected."""

    lines: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Right:
    """One entry of one access list, for the level or for everyone."""

    kind: str
    schema: str
    name: str
    privilege: str
    public: bool
    grantable: bool


def summarise_level(
    dialer: Dialer, rights: LevelRights, *, name: str, deadline: Deadline
) -> tuple[str, ...]:
    """Return the summary of the level's role; raise `Invalid` naming every problem with it."""
    config, found = dialer.config, Findings()
    with dialer.session(name, deadline, statement_timeout=SUMMARY_STATEMENT) as db:
        level = find_level(db, rights.role)
        if level is None:
            raise Invalid(f"The target has no role {rights.role}.", problems=["no such role"])
        found.problems += problems(db, level, config)
        found.lines += _header(level, rights, config)
        _add_server(db, level, config, found)
        databases = _databases(db, level, config, rights, found)
    for database in databases:
        with dialer.session(
            name, deadline, database=database, statement_timeout=SUMMARY_STATEMENT
        ) as db:
            _add_database(db, database, level, config, found)
    if found.problems:
        raise _unsafe(rights.role, [printable(line) for line in found.problems])
    return _capped([printable(line) for line in found.lines])


def _unsafe(role: str, found: list[str]) -> Invalid:
    listed = sorted(set(found))
    return Invalid(
        f"{role} cannot be handed out: {'; '.join(listed)}.", code="unsafe_level", problems=listed
    )


def _header(level: Level, rights: LevelRights, config: ServerConfig) -> Iterator[str]:
    yield f"member of {level.name}"
    yield from (f"{level.name} inherits {name}" for name in level.inherited)
    yield f"signs in to {rights.database or config.database}"
    yield f"at most {rights.connection_limit} connections"


def _databases(
    db: Db, level: Level, config: ServerConfig, rights: LevelRights, found: Findings
) -> list[str]:
    """Return the databases a member may connect to; one we cannot look into is a problem."""
    rows = all_rows(db, DATABASES, oids=level.oids)
    names = [name for name, _, _ in rows]
    wanted = rights.database or config.database
    if wanted not in names:
        found.problems.append(f"{level.name} may not connect to {wanted}, or there is no such one")
    found.problems += [
        f"{config.user} may not look into {name}: GRANT CONNECT ON DATABASE {quoted} TO it"
        for name, quoted, ours in rows
        if not ours
    ]
    return [name for name, _, ours in rows if ours]


def _add_server(db: Db, level: Level, config: ServerConfig, found: Findings) -> None:
    """The server asks whoever gives a schema away, not its new owner, for CREATE."""
    rights = _rights(db, IN_SERVER, level)
    _add_rights(found, "server", rights)
    rows = all_rows(
        db,
        "SELECT quote_ident(datname) FROM pg_database WHERE quote_ident(datname) = ANY(%(names)s)"
        " AND NOT has_database_privilege(oid, 'CREATE') ORDER BY 1",
        names=[r.name for r in rights if r.kind == "database" and r.privilege == "CREATE"],
    )
    found.problems += [
        f"{config.user} needs CREATE on database {name}, where holders may make schemas:"
        f" GRANT CREATE ON DATABASE {name} TO {config.user}"
        for (name,) in rows
    ]


def _add_database(
    db: Db, database: str, level: Level, config: ServerConfig, found: Findings
) -> None:
    rights = _rights(db, IN_DATABASE, level)
    _add_rights(found, database, rights)
    creating = {one.name for one in rights if one.kind == "schema" and one.privilege == "CREATE"}
    found.problems += [
        f"{config.quarantine} needs USAGE and CREATE on schema {schema} of {database}, where"
        f" holders may make things: GRANT USAGE, CREATE ON SCHEMA {schema} TO {config.quarantine}"
        for schema in _closed_to(db, config.quarantine, creating)
    ]


def _closed_to(db: Db, role: str, schemas: Iterable[str]) -> list[str]:
    rows = all_rows(
        db,
        "SELECT quote_ident(nspname) FROM pg_namespace, pg_roles r"
        " WHERE quote_ident(nspname) = ANY(%(schemas)s::text[])"
        " AND r.rolname = %(role)s AND NOT (has_schema_privilege(r.oid, pg_namespace.oid, 'CREATE')"
        " AND has_schema_privilege(r.oid, pg_namespace.oid, 'USAGE'))"
        " ORDER BY 1",
        schemas=sorted(schemas),
        role=role,
    )
    return [name for (name,) in rows]


def _rights(db: Db, query: Query, level: Level) -> list[Right]:
    return [Right(*row) for row in all_rows(db, query, oids=level.oids)]


def _add_rights(found: Findings, where: str, rights: list[Right]) -> None:
    found.lines += sorted(f"{where}: {line}" for line in _grouped(rights))
    for right in rights:
        if problem := _problem(right):
            found.problems.append(f"{problem} in {where}")


def _problem(right: Right) -> str:
    place = f"{right.kind} {_dotted(right)}"
    if right.grantable and not right.public:
        return f"may pass {right.privilege} on {place} on (GRANT OPTION)"
    if right.privilege == "REFERENCES" and not right.public:
        return f"may have {place} checked against code of theirs, run as its owner (REFERENCES)"
    if right.privilege == "TRIGGER" and not right.public:
        return f"may leave code on {place} that runs as whoever writes there (TRIGGER)"
    return ""


def _dotted(right: Right) -> str:
    return f"{right.schema}.{right.name}" if right.schema else right.name


def _grouped(rights: list[Right]) -> Iterator[str]:
    """Yield one line per place and set of privileges, with the things they are held on."""
    held: dict[tuple[bool, str, str, str], set[str]] = defaultdict(set)
    for one in rights:
        held[one.public, one.kind, one.schema, one.name].add(one.privilege)
    groups: dict[tuple[bool, str, str, str], list[str]] = defaultdict(list)
    for (public, kind, schema, name), found in held.items():
        groups[public, kind, schema, ", ".join(sorted(found))].append(name)
    for (public, kind, schema, privileges), names in groups.items():
        place = f" of schema {schema}" if schema else ""
        everyone = " (as everyone may)" if public else ""
        yield f"{privileges} on {_counted(kind, names)}{place}{everyone}: {_listed(names)}"


def _counted(kind: str, names: list[str]) -> str:
    return f"{len(names)} {kind}s" if len(names) > 1 else f"{len(names)} {kind}"


def _listed(names: list[str]) -> str:
    ordered = sorted(names)
    if len(ordered) <= SHOWN:
        return ", ".join(ordered)
    return f"{', '.join(ordered[:SHOWN])} and {len(ordered) - SHOWN} more ({_digest(ordered)})"


def _capped(lines: list[str]) -> tuple[str, ...]:
    if len(lines) <= LINES:
        return tuple(lines)
    return (*lines[:LINES], f"and {len(lines) - LINES} more lines ({_digest(lines)})")


def _digest(items: list[str]) -> str:
    return f"SHA-256 {hashlib.sha256(chr(0).join(items).encode()).hexdigest()[:16]}"
