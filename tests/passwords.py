"""Passwords that are quickly compared: tests sign in thousands of times; not a test."""

from __future__ import annotations

from collections.abc import Mapping

import psycopg
import pytest
from psycopg import sql

from approvals.provisioning.postgresql import scram


def hash_lightly(superuser_url: str, passwords: Mapping[str, str]) -> None:
    """Give roles the passwords they have, hashed in one round in place of thousands."""
    with pytest.MonkeyPatch.context() as patch, psycopg.connect(superuser_url) as server:
        patch.setattr(scram, "ITERATIONS", 1)
        for role, password in passwords.items():
            statement = sql.SQL("ALTER ROLE {} PASSWORD {}")
            server.execute(statement.format(sql.Identifier(role), scram.verifier(password)))
