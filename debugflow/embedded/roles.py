"""The three roles in our own database, and the database itself. Tables belong to migrations.

owner: cannot log in, owns everything. migrator: logs in, is a member of the owner, migrates.
app: logs in, is a member of nothing; what it may do with a table is granted, not owned.
"""

from collections.abc import Mapping

import psycopg
from psycopg import Connection, sql
from psycopg.conninfo import make_conninfo

from debugflow.embedded.state import EmbeddedError

LOCK = 0x64626667  # "dbgf": one preparation of a server at a time
HARMLESS = sql.SQL("NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS")


def create_roles(
    superuser_url: str,
    *,
    database: str,
    owner: str,
    migrator: str,
    app: str,
    passwords: Mapping[str, str],
    for_restore: bool = False,
) -> None:
    """Create the database and its roles, or bring those that exist back to what they must be.

    `passwords` maps the names of `migrator` and `app` to theirs. `for_restore` leaves the rights
    on tables to the dump that is loaded next.
    Raises EmbeddedError when `app` is a member of a role: it could then become more than itself.
    """
    names = {"database": database, "owner": owner, "migrator": migrator, "app": app}
    with psycopg.connect(superuser_url, autocommit=True) as server:
        server.execute("SELECT pg_advisory_lock(%s)", [LOCK])
        _make_role(server, owner, sql.SQL("NOLOGIN"))
        for login in (migrator, app):
            _make_role(server, login, _login(server, login, passwords[login]))
        _refuse_memberships(server, app)
        server.execute(_sql("GRANT {owner} TO {migrator}", names))
        _make_database(server, names)
        with psycopg.connect(make_conninfo(superuser_url, dbname=database)) as inside:
            _settle_schema(inside, names)
            _settle_rights_to_come(inside, names, for_restore=for_restore)


def _sql(text: str, names: Mapping[str, str]) -> sql.Composed:
    # The text is one of the literals below; every name in it is quoted as an identifier.
    return sql.SQL(text).format(**{key: sql.Identifier(name) for key, name in names.items()})


def _make_role(server: Connection, name: str, kind: sql.Composable) -> None:
    known = server.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [name]).fetchone()
    verb = sql.SQL("ALTER" if known else "CREATE")
    role = sql.Identifier(name)
    server.execute(sql.SQL("{} ROLE {} {} {}").format(verb, role, HARMLESS, kind))


def _login(server: Connection, name: str, password: str) -> sql.Composed:
    """LOGIN with a SCRAM verifier, so that no log of the server shows the password."""
    verifier = server.pgconn.encrypt_password(
        password.encode(), name.encode(), b"scram-sha-256"
    ).decode()
    return sql.SQL("LOGIN PASSWORD {}").format(sql.Literal(verifier))


def _refuse_memberships(server: Connection, app: str) -> None:
    rows = server.execute(
        "SELECT roleid::regrole::text FROM pg_auth_members WHERE member = %s::regrole",
        [sql.Identifier(app).as_string(server)],
    ).fetchall()
    if rows:
        roles = ", ".join(row[0] for row in rows)
        raise EmbeddedError(f"The role {app} is a member of {roles}; revoke that first.")


def _make_database(server: Connection, names: Mapping[str, str]) -> None:
    known = server.execute(
        "SELECT 1 FROM pg_database WHERE datname = %s", [names["database"]]
    ).fetchone()
    if not known:
        text = "CREATE DATABASE {database} OWNER {owner} ENCODING 'UTF8' TEMPLATE template0"
        server.execute(_sql(text, names))
    for text in (
        "ALTER DATABASE {database} OWNER TO {owner}",
        "REVOKE ALL ON DATABASE {database} FROM PUBLIC",
        "GRANT CONNECT ON DATABASE {database} TO {migrator}, {app}",
    ):
        server.execute(_sql(text, names))


def _settle_schema(inside: Connection, names: Mapping[str, str]) -> None:
    for text in (
        "ALTER SCHEMA public OWNER TO {owner}",
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC, {app}",
        "GRANT USAGE ON SCHEMA public TO {app}",
    ):
        inside.execute(_sql(text, names))


def _settle_rights_to_come(
    inside: Connection, names: Mapping[str, str], *, for_restore: bool
) -> None:
    """Rights on tables to come only: those that a migration took from the app stay taken.

    None before a dump is loaded: it gives the app what it had, and would not take away what its
    tables were created with, such as the right to change Events. It brings these lines itself.
    """
    verb, to = ("REVOKE", "FROM") if for_restore else ("GRANT", "TO")
    for rights in ("SELECT, INSERT, UPDATE, DELETE ON TABLES", "USAGE, SELECT ON SEQUENCES"):
        text = f"ALTER DEFAULT PRIVILEGES FOR ROLE {{owner}} IN SCHEMA public {verb} {rights} {to} "
        inside.execute(_sql(text + "{app}", names))
