"""Logins that are not the application's own, to see what is said of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from django.db import connections
from psycopg import sql

from debugflow.embedded.runtime import APP
from tests.conftest import DATABASE, Control

SignInAs = Callable[..., None]
PASSWORD = "a password of their own"
# By the system checks.
LOOKED_AT = "audit_clock, approvals_heartbeat, approvals_grant"


@pytest.fixture
def sign_in_as(committed: None, control: Control) -> Iterator[SignInAs]:
    """`sign_in_as("mallory", "CREATEROLE", "GRANT a TO mallory")`: Django connects as her.

    She is made first, with these attributes and on top of them these statements, may read what
    the system checks look at, and is gone after the test.
    """
    made: list[str] = []

    def sign_in(name: str, attributes: str = "", *statements: str, database: str = DATABASE):
        with control.superuser(DATABASE) as server:
            login = sql.SQL(f"CREATE ROLE {name} LOGIN {attributes} PASSWORD {{}}")
            server.execute(login.format(PASSWORD))
            made.append(name)
            server.execute(f"GRANT CONNECT ON DATABASE {DATABASE} TO {name}".encode())
            server.execute(f"GRANT USAGE ON SCHEMA public TO {name}".encode())
            server.execute(f"GRANT SELECT ON {LOOKED_AT} TO {name}".encode())
            for statement in statements:
                server.execute(statement.encode())
        control.point_django_at(database, APP)
        connections["default"].settings_dict.update(USER=name, PASSWORD=PASSWORD)

    yield sign_in
    connections.close_all()
    control.point_django_at(DATABASE, APP)
    with control.superuser(DATABASE) as server:
        for name in made:
            server.execute(f"DROP OWNED BY {name} CASCADE".encode())
            server.execute(f"DROP ROLE {name}".encode())


@pytest.fixture
def superuser_url(control: Control) -> str:
    return control.postgres.url(DATABASE)
