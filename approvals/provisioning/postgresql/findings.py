"""What "test connection" finds: what the admin account can do, and what mends the rest."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from approvals.errors import ProvisionError
from approvals.provisioning.base import Finding

from .account import SET_OPTION
from .config import ServerConfig
from .connect import Db, Deadline, Dialer, all_rows, value

TEST_DEADLINE = 10
"""Seconds for the whole test; a person waits for it."""
OLDEST = 150000
"""The first server version supported (PostgreSQL 15)."""
SKEW = 2
"""Seconds the target's clock may differ: its own expiry of an account is off by as much."""


def test_target(dialer: Dialer) -> list[Finding]:
    """Return one finding per thing looked at. A target that does not answer is the first one."""
    try:
        with dialer.session("dbgf-test", Deadline(TEST_DEADLINE)) as db:
            return list(_findings(db, dialer.config))
    except ProvisionError as error:
        return [Finding(ok=False, what="signs in to the target", fix=error.message)]


def _findings(db: Db, config: ServerConfig) -> Iterator[Finding]:
    yield Finding(ok=True, what=f"signs in as {config.user} with SCRAM")
    yield _version(db)
    yield _tls(db, config)
    yield _clock(db)
    yield _attributes(db, config)
    yield _may_end_sessions(db, config)
    if db.info.server_version >= SET_OPTION:
        yield _keeps_a_seat(db, config)
    yield _quarantine(db, config)
    yield _hands_out(db, config)
    yield _looks_everywhere(db, config)


def _version(db: Db) -> Finding:
    major = db.info.server_version // 10000
    return Finding(
        ok=db.info.server_version >= OLDEST,
        what=f"PostgreSQL {major}",
        fix="" if db.info.server_version >= OLDEST else "Upgrade to PostgreSQL 15 or newer.",
    )


def _tls(db: Db, config: ServerConfig) -> Finding:
    if config.sslmode == "verify-full":
        return Finding(ok=bool(db.pgconn.ssl_in_use), what="checks the server's certificate")
    return Finding(
        ok=False,
        what=f"does not check the server's certificate (sslmode {config.sslmode})",
        fix="Give the target a certificate and set sslmode verify-full.",
    )


def _clock(db: Db) -> Finding:
    before = datetime.now(UTC)
    theirs: datetime = value(db, "SELECT clock_timestamp()")
    skew = abs((theirs - before).total_seconds())
    return Finding(
        ok=skew <= SKEW,
        what=f"its clock differs by {skew:.1f} s",
        fix="" if skew <= SKEW else "Synchronise the clocks (NTP).",
    )


def _attributes(db: Db, config: ServerConfig) -> Finding:
    row = db.execute(
        "SELECT rolcreaterole, rolsuper FROM pg_roles WHERE rolname = current_user"
    ).fetchone()
    creates, superuser = row or (False, False)
    if superuser:
        return Finding(
            ok=False,
            what=f"{config.user} is a superuser",
            fix="It needs far less: use an account as `manage.py target prepare` prints it.",
        )
    return Finding(
        ok=creates,
        what=f"{config.user} {'may' if creates else 'may not'} make roles",
        fix="" if creates else f"ALTER ROLE {config.user} CREATEROLE",
    )


def _may_end_sessions(db: Db, config: ServerConfig) -> Finding:
    may = value(db, "SELECT pg_has_role('pg_signal_backend', 'USAGE')")
    return Finding(
        ok=may,
        what=f"{config.user} {'may' if may else 'may not'} end sessions of dropped accounts",
        fix="" if may else f"GRANT pg_signal_backend TO {config.user}",
    )


def _keeps_a_seat(db: Db, config: ServerConfig) -> Finding:
    may = value(db, "SELECT pg_has_role('pg_use_reserved_connections', 'USAGE')")
    return Finding(
        ok=may,
        what=f"{config.user} {'gets' if may else 'gets no'} in when connections run out",
        fix=""
        if may
        else f"GRANT pg_use_reserved_connections TO {config.user}, and set reserved_connections",
    )


def _quarantine(db: Db, config: ServerConfig) -> Finding:
    row = db.execute(
        "SELECT rolcanlogin OR rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication"
        " OR rolbypassrls, pg_has_role(oid, 'USAGE'), EXISTS"
        " (SELECT FROM pg_auth_members WHERE member = pg_roles.oid)"
        " FROM pg_roles WHERE rolname = %(name)s",
        {"name": config.quarantine},
    ).fetchone()
    problem = _quarantine_problem(config, row)
    return Finding(
        ok=not problem,
        what=f"{config.quarantine} takes over what holders make",
        fix=problem,
    )


def _quarantine_problem(config: ServerConfig, row: tuple[bool, bool, bool] | None) -> str:
    if row is None:
        return f"CREATE ROLE {config.quarantine} NOLOGIN"
    powerful, joined, member = row
    if powerful or member:
        return f"Take every attribute and membership from {config.quarantine}."
    return "" if joined else f"GRANT {config.quarantine} TO {config.user}"


def _hands_out(db: Db, config: ServerConfig) -> Finding:
    rows = all_rows(
        db,
        "SELECT DISTINCT rolname FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid"
        " WHERE m.admin_option AND pg_has_role(m.member, 'MEMBER') AND NOT rolcanlogin"
        " AND rolname <> %(quarantine)s ORDER BY 1",
        quarantine=config.quarantine,
    )
    names = ", ".join(name for (name,) in rows)
    return Finding(
        ok=bool(rows),
        what=f"may hand out {names}" if rows else "may hand out no role",
        fix="" if rows else f"GRANT a level's role TO {config.user} WITH ADMIN OPTION",
    )


def _looks_everywhere(db: Db, config: ServerConfig) -> Finding:
    rows = all_rows(
        db,
        "SELECT datname FROM pg_database WHERE datallowconn"
        " AND NOT has_database_privilege(oid, 'CONNECT') ORDER BY 1",
    )
    names = ", ".join(name for (name,) in rows)
    return Finding(
        ok=not rows,
        what=f"may not look into {names}" if rows else "may look into every database",
        fix=f"GRANT CONNECT ON DATABASE {names} TO {config.user}" if rows else "",
    )
