"""What "test connection" finds: what the admin account can do, and what mends the rest."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from approvals.errors import ProvisionError
from approvals.provisioning.base import Finding

from .account import SET_OPTION
from .config import ServerConfig
from .connect import Db, Deadline, Dialer, all_rows, value
from .replicas import check_physical, on_each, results

TEST_DEADLINE = 10
"""Seconds for the whole test; a person waits for it."""
OLDEST = 150000
"""The first server version supported (PostgreSQL 15)."""
NAME = "dbgf-test"
LAG = 5
"""Seconds a replica may be behind: a cut fails, and is tried again, when it takes 10."""
SEATS = 4
"""Connections that two cuts at once take on a target."""
SKEW = 2
"""Seconds the target's clock may differ: its own expiry of an account is off by as much."""


def test_target(dialer: Dialer) -> list[Finding]:
    """Return one finding per thing looked at. A target that does not answer is the first one."""
    deadline = Deadline(TEST_DEADLINE)
    try:
        with dialer.session(NAME, deadline) as db:
            system: int = value(db, "SELECT system_identifier FROM pg_control_system()")
            found = list(_findings(db, dialer.config))
    except ProvisionError as error:
        return [Finding(ok=False, what="signs in to the target", fix=error.message)]
    begun = on_each(dialer.replicas, lambda one: _replica(one, system, deadline))
    return [*found, *results(begun)]


def _replica(dialer: Dialer, system: int, deadline: Deadline) -> Finding:
    place = f"{dialer.config.host}:{dialer.config.port}"
    try:
        with dialer.session(NAME, deadline) as db:
            check_physical(db, system)
            behind = value(db, "SELECT extract(epoch FROM now() - pg_last_xact_replay_timestamp())")
            caught_up = value(db, "SELECT pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn()")
    except ProvisionError as error:
        return Finding(ok=False, what=f"ends sessions on replica {place}", fix=error.message)
    return _replica_finding(place, 0.0 if caught_up else float(behind or 0))


def _replica_finding(place: str, behind: float) -> Finding:
    if behind <= LAG:
        return Finding(ok=True, what=f"ends sessions on replica {place}")
    return Finding(
        ok=False,
        what=f"replica {place} is {behind:.0f} s behind",
        fix="A cut is not done before the replica has heard of it: mend its replication.",
    )


def _findings(db: Db, config: ServerConfig) -> Iterator[Finding]:
    yield Finding(ok=True, what=f"signs in as {config.user} with SCRAM")
    yield _version(db)
    yield _tls(db, config)
    yield _clock(db)
    yield _attributes(db, config)
    yield _may_end_sessions(db, config)
    if db.info.server_version >= SET_OPTION:
        yield _keeps_a_seat(db, config)
    else:
        yield _limited_elsewhere(db, config)
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
    """With seats of our own a holder cannot keep a cut out by using up all connections."""
    fixes = []
    if not value(db, "SELECT pg_has_role('pg_use_reserved_connections', 'USAGE')"):
        fixes.append(f"GRANT pg_use_reserved_connections TO {config.user}")
    if int(value(db, "SELECT current_setting('reserved_connections')")) < SEATS:
        fixes.append(f"set reserved_connections to {SEATS} or more and restart the server")
    return _seat(config, ", and ".join(fixes))


def _limited_elsewhere(db: Db, config: ServerConfig) -> Finding:
    """Before 16 no seat can be kept for any but superusers: the databases' limits have to do."""
    unlimited, taken, all_seats = db.execute(
        "SELECT coalesce(string_agg(quote_ident(datname), ', ')"
        " FILTER (WHERE datconnlimit < 0), ''), coalesce(sum(datconnlimit), 0),"
        " current_setting('max_connections')::int"
        " - current_setting('superuser_reserved_connections')::int"
        " FROM pg_database WHERE datallowconn AND datname <> %(ours)s",
        {"ours": config.admin_database},
    ).fetchone() or ("", 0, 0)
    enough = not unlimited and taken + SEATS <= all_seats
    fix = (
        "Servers before 16 keep seats for superusers only: ALTER DATABASE … CONNECTION LIMIT, on"
        f" every database but {config.admin_database}, to no more than {all_seats - SEATS} together"
    )
    return _seat(config, "" if enough else fix)


def _seat(config: ServerConfig, fix: str) -> Finding:
    gets = "gets no seat" if fix else "gets a seat"
    return Finding(ok=not fix, what=f"{config.user} {gets} when connections run out", fix=fix)


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
        "SELECT DISTINCT quote_ident(rolname)"
        " FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid"
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
        "SELECT quote_ident(datname) FROM pg_database WHERE datallowconn"
        " AND NOT has_database_privilege(oid, 'CONNECT') ORDER BY 1",
    )
    names = ", ".join(name for (name,) in rows)
    return Finding(
        ok=not rows,
        what=f"may not look into {names}" if rows else "may look into every database",
        fix=f"GRANT CONNECT ON DATABASE {names} TO {config.user}" if rows else "",
    )
