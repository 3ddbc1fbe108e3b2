"""The SQL that an owner of the target runs once: roles, the admin account's rights, pg_hba lines.

It may be run again. It sets no password and gives no level any right: those are its owner's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from psycopg import sql

from .account import SET_OPTION
from .config import LevelRights, ServerConfig

NEWEST = 18
PLAIN = "NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"


def prepare_text(
    config: ServerConfig,
    levels: Sequence[LevelRights],
    *,
    major: int = NEWEST,
    databases: Sequence[str] = (),
    makes_in: Sequence[str] = (),
    addresses: Sequence[str] = (),
) -> str:
    """Return SQL for a server of version `major`, to be run as a superuser.

    `databases` are others that holders may connect to; `makes_in` are schemas in which a level may
    make things; `addresses` (CIDR) are where debugflow and its gateway connect from.
    """
    wanted = {config.admin_database, config.database, *databases, *_of(levels)}
    parts = [
        *_admin(config, major),
        *_quarantine(config, major),
        *_levels(config, levels, major),
        *_connect(config, sorted(wanted)),
        *_makes_in(config, makes_in),
        *_hba(config, addresses, major),
    ]
    return "\n".join(parts) + "\n"


def _of(levels: Sequence[LevelRights]) -> set[str]:
    return {level.database for level in levels if level.database}


def _text(template: str, **names: str) -> str:
    """Return `template` with every name quoted as an identifier."""
    quoted = {key: sql.Identifier(name).as_string(None) for key, name in names.items()}
    return template.format(**quoted)


def _create(name: str, attributes: str) -> str:
    """Return a CREATE ROLE that does nothing when the role is there."""
    exists = sql.Literal(name).as_string(None)
    create = _text("CREATE ROLE {name} ", name=name) + attributes
    body = (
        f"BEGIN IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = {exists})"
        f" THEN {create}; END IF; END"
    )
    return f"DO {sql.Literal(body).as_string(None)};"


def _with(major: int, options: str, *, old: str = "") -> str:
    """Return the options of a membership, which servers before 16 do not know."""
    return f" WITH {options}" if major * 10000 >= SET_OPTION else old


def _admin(config: ServerConfig, major: int) -> Iterator[str]:
    yield "-- The account debugflow signs in with. It makes accounts and ends them."
    attributes = "NOSUPERUSER NOCREATEDB CREATEROLE NOREPLICATION NOBYPASSRLS"
    yield _create(config.user, f"LOGIN INHERIT {attributes}")
    yield "-- Then give it a password, in psql, which sends a verifier only:"
    yield _text("--   \\password {user}", user=config.user)
    signal = "GRANT pg_signal_backend TO {user}" + _with(major, "INHERIT TRUE, SET FALSE") + ";"
    yield _text(signal, user=config.user)
    if major * 10000 >= SET_OPTION:
        yield "-- With reserved_connections set it gets in when others fill the server."
        seat = "GRANT pg_use_reserved_connections TO {user} WITH INHERIT TRUE, SET FALSE;"
        yield _text(seat, user=config.user)


def _quarantine(config: ServerConfig, major: int) -> Iterator[str]:
    yield "-- Takes over what holders make. It must never sign in or be given anything else."
    yield _create(config.quarantine, f"NOLOGIN {PLAIN}")
    grant = "GRANT {quarantine} TO {user}" + _with(major, "INHERIT TRUE, SET TRUE") + ";"
    yield _text(grant, quarantine=config.quarantine, user=config.user)


def _levels(config: ServerConfig, levels: Sequence[LevelRights], major: int) -> Iterator[str]:
    yield "-- One role per level. Give it rights WITHOUT grant option, and let it own nothing."
    for role in sorted({level.role for level in levels}):
        yield _create(role, f"NOLOGIN {PLAIN}")
        options = _with(major, "ADMIN TRUE, INHERIT FALSE, SET FALSE", old=" WITH ADMIN OPTION")
        yield _text("GRANT {role} TO {user}" + options + ";", role=role, user=config.user)
        yield _text("--   GRANT USAGE ON SCHEMA … TO {role};", role=role)
        yield _text("--   GRANT SELECT ON ALL TABLES IN SCHEMA … TO {role};", role=role)


def _connect(config: ServerConfig, databases: Sequence[str]) -> Iterator[str]:
    yield "-- debugflow reads rights in, and removes accounts from, each of these."
    grant = "GRANT CONNECT ON DATABASE {database} TO {user};"
    yield from (_text(grant, database=name, user=config.user) for name in databases)


def _makes_in(config: ServerConfig, schemas: Sequence[str]) -> Iterator[str]:
    yield "-- Where a level may make schemas, to give those away:"
    yield _text("--   GRANT CREATE ON DATABASE … TO {user};", user=config.user)
    if schemas:
        yield _text(
            "-- Where a level may make things (run in database {name}):", name=config.database
        )
    grant = "GRANT USAGE, CREATE ON SCHEMA {schema} TO {quarantine};"
    yield from (_text(grant, schema=name, quarantine=config.quarantine) for name in schemas)


def _hba(config: ServerConfig, addresses: Sequence[str], major: int) -> Iterator[str]:
    """Yield comments, since pg_hba.conf is a file. Only 16 and newer match accounts by pattern."""
    patterns = major * 10000 >= SET_OPTION
    accounts = '"/^dbgf_[0-9]+$"' if patterns else "all"
    admin = _text("{user}", user=config.user)
    kind = "host" if config.sslmode == "disable" else "hostssl"
    yield "-- In pg_hba.conf, above broader lines:"
    for address in addresses or ("ADDRESS/32",):
        yield f"--   {kind}  all  {admin}  {address}  scram-sha-256"
        yield f"--   {kind}  all  {accounts}  {address}  scram-sha-256"
    if patterns:
        yield f"--   host  all  {accounts}  all  reject"
