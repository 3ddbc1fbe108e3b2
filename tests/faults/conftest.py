"""One grant on a real PostgreSQL, worked on by processes that are stopped and killed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import psycopg
import pytest
from guardian.shortcuts import assign_perm

from approvals import administration
from approvals.models import AccessLevel, Grant, Target
from debugflow.embedded.production import READ_ONLY, Production
from tests.conftest import Control
from tests.world import World

ROOT = Path(__file__).resolve().parents[2]
UNSAFE_BUT_FAST = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}


@pytest.fixture(scope="session")
def production(server_directory: Path) -> Iterator[Production]:
    with Production(server_directory / "production", settings=UNSAFE_BUT_FAST) as running:
        yield running


@dataclass(frozen=True)
class Place:
    """The cast, with a level on the production target, and what runs beside the test."""

    world: World
    production: Production
    control: Control
    level: AccessLevel
    signed_in: list[psycopg.Connection[Any]] = field(default_factory=list)

    def approved(self, who: str = "alice", **wish: Any) -> Any:
        return self.world.approved(who, level=self.level, **wish)

    def accounts(self) -> list[str]:
        """The temporary accounts on the target, as its superuser sees them."""
        rows = self.production.ask(r"SELECT rolname FROM pg_roles WHERE rolname ~ '^dbgf_\d+$'")
        return [name for (name,) in rows]

    def sign_in(self, grant: Grant, password: str) -> psycopg.Connection[Any]:
        where = grant.connection
        session = psycopg.connect(
            host=where["host"],
            port=where["port"],
            dbname=where["database"],
            user=where["user"],
            password=password,
            connect_timeout=5,
            autocommit=True,
        )
        self.signed_in.append(session)
        return session

    @contextmanager
    def running(self, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
        """A process of ours on the test's database; killed at the end if it has not ended."""
        told = {
            "DATABASE_URL": self.control.url(),
            "REDIS_URL": "redis://127.0.0.1:1/0",
            "DEBUGFLOW_DEMO": "True",
            "DJANGO_SETTINGS_MODULE": "debugflow.settings",
            **environment,
        }
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=os.environ | told,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait(timeout=10)
            if process.stdout:
                process.stdout.close()


@pytest.fixture
def place(
    committed: None, world: World, production: Production, control: Control
) -> Iterator[Place]:
    url = urlsplit(production.admin_url)
    config = {
        "host": url.hostname,
        "port": url.port,
        "database": url.path.strip("/"),
        "user": unquote(url.username or ""),
        "sslmode": "disable",
    }
    target = Target(name="production", kind="postgresql", environment="production", config=config)
    secrets = {"password": unquote(url.password or "")}
    administration.save_target(target, by=world.ada, clear_secrets=secrets)
    level = AccessLevel(
        target=target,
        name="read-only",
        rights=dict(READ_ONLY),
        risk="low",
        rank=1,
        max_duration=14400,
    )
    administration.save_level(level, by=world.ada)
    assign_perm("approvals.request_accesslevel", world.groups["developers"], level)
    made = Place(world, production, control, level)
    yield made
    for session in made.signed_in:
        session.close()
    for (name,) in production.ask(r"SELECT rolname FROM pg_roles WHERE rolname ~ '^dbgf_\d+$'"):
        with production.superuser() as server:
            server.execute(f'DROP OWNED BY "{name}"'.encode())
            server.execute(f'DROP ROLE "{name}"'.encode())
