"""The survey: every account with a name of ours, and how live ones differ from what was opened.

A handful of catalogue queries for all accounts together. What follows from it is not decided here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql

from approvals.errors import ProvisionError
from approvals.provisioning.base import Account, Ended, Found, Known, Survey, parsed

from .account import SET_OPTION, WAITS, names_of, oids_of
from .config import LevelRights
from .connect import Db, Deadline, Dialer, all_rows
from .failures import cleaned
from .level import ATTRIBUTES

SURVEY_DEADLINE = 20
"""Seconds for a whole survey."""
SURVEY_STATEMENT = 10
"""Seconds for one statement of it."""

# Strangers' names and comments are fetched as bytes: in a database without an encoding of its own
# they may be anything, and one of them must not blind us to all others.
ROLES = sql.SQL("""
WITH RECURSIVE me(oid) AS (
  SELECT oid FROM pg_roles WHERE rolname = current_user
UNION SELECT m.roleid FROM pg_auth_members m JOIN me ON m.member = me.oid
), administered AS (
  SELECT DISTINCT m.roleid FROM pg_auth_members m JOIN me ON m.member = me.oid WHERE m.admin_option
)
SELECT r.oid, encode(textsend(r.rolname::text), 'hex'),
  encode(textsend(coalesce(c.description, '')), 'hex'),
  rolcanlogin, rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls,
  CASE WHEN isfinite(rolvaliduntil) THEN rolvaliduntil END, rolconnlimit,
  r.rolname ~ '^dbgf_[0-9]+$',
  NOT rolsuper AND EXISTS (SELECT FROM pg_roles WHERE rolname = current_user AND rolcreaterole)
    AND CASE WHEN %(admin_needed)s THEN r.oid IN (SELECT roleid FROM administered)
        ELSE NOT rolreplication END
FROM pg_roles r LEFT JOIN pg_shdescription c
  ON c.classoid = 'pg_authid'::regclass AND c.objoid = r.oid
WHERE r.rolname <> current_user AND (r.rolname ~ '^dbgf_[0-9]+$'
  OR r.oid = ANY(%(oids)s::oid[]) OR r.rolname = ANY(%(levels)s::name[]))
""")

# Before PostgreSQL 16 a membership has neither option; what it gives then is told in the docs.
MEMBERSHIPS = sql.SQL("""
SELECT m.roleid, m.member, encode(textsend(g.rolname::text), 'hex'),
  encode(textsend(h.rolname::text), 'hex'), m.admin_option, {inherit}, {set},
  h.rolname = current_user
FROM pg_auth_members m
JOIN pg_roles g ON g.oid = m.roleid JOIN pg_roles h ON h.oid = m.member
WHERE m.roleid = ANY(%(oids)s::oid[]) OR m.member = ANY(%(oids)s::oid[])
""")

SESSIONS = """
SELECT usesysid, count(*) FROM pg_stat_activity
WHERE usesysid = ANY(%(oids)s::oid[]) GROUP BY usesysid
"""

END_ELSEWHERE = """
SELECT usesysid, coalesce(host(client_addr), ''), pid, backend_start, pg_terminate_backend(pid)
FROM pg_stat_activity
WHERE usesysid = ANY(%(oids)s::oid[]) AND backend_type = 'client backend'
  AND backend_start IS NOT NULL
  AND (client_addr <<= ANY(%(networks)s::inet[])) IS NOT TRUE
"""


@dataclass(frozen=True, kw_only=True)
class _Role:
    """One row of `ROLES`."""

    oid: int
    name: str
    comment: str
    can_sign_in: bool
    attributes: tuple[str, ...]
    valid_until: datetime | None
    connection_limit: int
    named_ours: bool
    removable: bool


@dataclass(frozen=True, kw_only=True)
class _Membership:
    """One row of `MEMBERSHIPS`. `to_us` is one of our own admin account."""

    roleid: int
    memberid: int
    role: str
    member: str
    admin: bool
    inherit: bool
    can_set: bool
    to_us: bool


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """What was read, by oid."""

    roles: Mapping[int, _Role]
    held: Mapping[int, list[_Membership]] = field(default_factory=dict)
    members: Mapping[int, list[_Membership]] = field(default_factory=dict)
    sessions: Mapping[int, int] = field(default_factory=dict)


def survey_target(
    dialer: Dialer, known: Sequence[Known], levels: Sequence[Mapping[str, Any]], stamp: str
) -> Survey:
    """Return every account of ours, with the differences of `known` ones, as of one moment."""
    names = sorted({parsed(LevelRights, rights).role for rights in levels})
    owner = {oid: one for one in known for oid in oids_of(one.traces)}
    with (
        dialer.session(
            "dbgf-survey", Deadline(SURVEY_DEADLINE), statement_timeout=SURVEY_STATEMENT
        ) as db,
        db.transaction(),
    ):
        db.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        seen = _look(db, sorted(owner), names)
    accounts = [
        _found(seen, role, owner.get(role.oid), stamp)
        for role in seen.roles.values()
        if role.named_ours or role.oid in owner
    ]
    return Survey(accounts=tuple(accounts), findings=tuple(_level_findings(seen, names)))


def _look(db: Db, oids: Sequence[int], levels: Sequence[str]) -> _Seen:
    admin_needed = db.info.server_version >= SET_OPTION
    rows = all_rows(db, ROLES, oids=oids, levels=levels, admin_needed=admin_needed)
    roles = {row[0]: _role(row) for row in rows}
    held: dict[int, list[_Membership]] = {}
    members: dict[int, list[_Membership]] = {}
    for one in _memberships(db, sorted(roles)):
        held.setdefault(one.memberid, []).append(one)
        members.setdefault(one.roleid, []).append(one)
    sessions: dict[int, int] = dict(all_rows(db, SESSIONS, oids=sorted(roles)))
    return _Seen(roles=roles, held=held, members=members, sessions=sessions)


def _role(row: tuple[Any, ...]) -> _Role:
    flags = zip(row[3:9], ATTRIBUTES, strict=True)
    return _Role(
        oid=row[0],
        name=_text(row[1]),
        comment=_text(row[2]).partition(WAITS)[0],
        can_sign_in=row[3],
        attributes=tuple(words for flag, (_, words) in flags if flag),
        valid_until=row[9],
        connection_limit=row[10],
        named_ours=row[11],
        removable=row[12],
    )


def _memberships(db: Db, oids: Sequence[int]) -> Iterator[_Membership]:
    new = db.info.server_version >= SET_OPTION
    query = MEMBERSHIPS.format(
        inherit=sql.SQL("m.inherit_option" if new else "true"),
        set=sql.SQL("m.set_option" if new else "false"),
    )
    for row in all_rows(db, query, oids=oids):
        yield _Membership(
            roleid=row[0],
            memberid=row[1],
            role=_text(row[2]),
            member=_text(row[3]),
            admin=row[4],
            inherit=row[5],
            can_set=row[6],
            to_us=row[7],
        )


def _text(hexadecimal: str) -> str:
    return bytes.fromhex(hexadecimal).decode(errors="replace")


def _shown(name: str) -> str:
    """A stranger's name on one line."""
    return cleaned(name, [])


def _found(seen: _Seen, role: _Role, known: Known | None, stamp: str) -> Found:
    differences = dict.fromkeys(_differences(seen, role, known, stamp)) if known else ()
    return Found(
        account=role.name,
        trace={"oid": role.oid},
        stamp=role.comment,
        can_sign_in=role.can_sign_in,
        sessions=seen.sessions.get(role.oid, 0),
        removable=role.removable and role.named_ours,
        differences=tuple(differences),
    )


def _differences(seen: _Seen, role: _Role, known: Known, stamp: str) -> Iterator[str]:
    rights = parsed(LevelRights, known.rights)
    if role.name != known.account:
        yield f"is called {_shown(role.name)} there"
    if role.comment != stamp:
        yield "bears no stamp of this installation, so that another may remove it"
    yield from (words for words in role.attributes if words != ATTRIBUTES[0][1])
    if role.valid_until is None or role.valid_until > known.valid_until:
        yield "may sign in beyond its end (VALID UNTIL)"
    if role.connection_limit != rights.connection_limit:
        yield f"has a connection limit of {role.connection_limit}, not {rights.connection_limit}"
    held = seen.held.get(role.oid, [])
    if not any(one.role == rights.role and one.inherit for one in held):
        yield f"has not the rights of {rights.role} any more"
    for one in held:
        yield from _too_much(one, rights.role)
    for one in seen.members.get(role.oid, []):
        if not one.to_us:
            yield f"is lent to {_shown(one.member)}, who is a member of it"


def _too_much(one: _Membership, level: str) -> Iterator[str]:
    role = _shown(one.role)
    if one.role != level:
        yield f"is a member of {role} besides"
    if one.admin:
        yield f"may pass {role} on (ADMIN OPTION)"
    if one.can_set:
        yield f"may act as {role} (SET), and keep that after its end"


def _level_findings(seen: _Seen, names: Sequence[str]) -> Iterator[str]:
    """Say what strangers made of the roles that levels name, and whom else they gave them to."""
    levels = {role.name: role for role in seen.roles.values() if role.name in names}
    for name in names:
        if name not in levels:
            yield f"there is no role {name}, which a level names"
            continue
        role = levels[name]
        yield from (f"{name}, the role of a level, {words}" for words in role.attributes)
        for one in seen.members.get(role.oid, []):
            ours = one.memberid in seen.roles and seen.roles[one.memberid].named_ours
            if not (ours or one.to_us):
                yield f"{_shown(one.member)} is a member of {name}, which is for temporary accounts"


def end_elsewhere(
    dialer: Dialer, accounts: Sequence[Account], networks: Sequence[str]
) -> list[Ended]:
    """End these accounts' sessions from outside `networks`; raise `ProvisionError` if unseen.

    The server shows where a session comes from only to a member of its role. The admin account
    becomes one in a transaction that is rolled back.
    """
    owner = {oid: one.account for one in accounts for oid in oids_of(one.traces)}
    deadline = Deadline(SURVEY_DEADLINE)
    with (
        dialer.session("dbgf-elsewhere", deadline) as db,
        db.transaction(force_rollback=True),
    ):
        if not (names := _signed_in(db, sorted(owner))):
            return []
        _join(db, names)
        rows = all_rows(db, END_ELSEWHERE, oids=sorted(owner), networks=list(networks))
    return [
        Ended(account=owner[oid], address=address, number=pid, began_at=began)
        for oid, address, pid, began, _ in rows
    ]


def _signed_in(db: Db, oids: Sequence[int]) -> list[str]:
    present = names_of(db, oids)
    sessions: dict[int, int] = dict(all_rows(db, SESSIONS, oids=sorted(present)))
    return [name for oid, name in present.items() if oid in sessions]


def _join(db: Db, names: Sequence[str]) -> None:
    grant = sql.SQL("GRANT {} TO CURRENT_USER").format(
        sql.SQL(", ").join(map(sql.Identifier, names))
    )
    if db.info.server_version >= SET_OPTION:
        grant += sql.SQL(" WITH INHERIT TRUE")
    try:
        db.execute(grant)
    except psycopg.errors.InsufficientPrivilege:
        raise ProvisionError(
            f"The admin account may not see where sessions of {', '.join(names)} come from.",
            code="unseen",
        ) from None
