"""Where the faults happen: the cast, a real production target, and processes of ours beside them.

How such a process is made to stop or die at an instant is in `work`; what must hold in the tests.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import psycopg
from guardian.shortcuts import assign_perm

from approvals import administration
from approvals.models import AccessLevel, Grant, Target
from approvals.states import GrantState
from debugflow.embedded.production import ADMIN, READ_ONLY, Production
from tests.conftest import UNSAFE_BUT_FAST, Control
from tests.passwords import hash_lightly
from tests.world import World, build, publish, stage

ROOT = Path(__file__).resolve().parents[2]
OURS = r"^dbgf_\d+$"
OTHER_DATABASE = "billing"
# What is said for a refused sign-in; anything else may be a server that is down or full.
REFUSALS = ("authentication failed", "not permitted to log in")


@dataclass(frozen=True)
class Place:
    """The cast, with a level on the production target, and what runs beside the test."""

    world: World
    production: Production
    control: Control
    level: AccessLevel
    signed_in: list[psycopg.Connection[Any]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """What a process of ours is told. No broker answers at that address."""
        return {
            "DATABASE_URL": self.control.url(),
            "REDIS_URL": "redis://127.0.0.1:1/0",
            "DEBUGFLOW_DEMO": "True",
            "DEBUGFLOW_API_RATE": "1000000",  # who watches looks more often than anybody may
            "DJANGO_SETTINGS_MODULE": "debugflow.settings",
        }

    def approved(self, who: str = "alice", **wish: Any) -> Grant:
        grant: Grant = self.world.approved(who, level=self.level, **wish)
        return grant

    def accounts(self) -> list[str]:
        """The temporary accounts on the target, as its superuser sees them."""
        rows = self.production.ask(
            "SELECT rolname FROM pg_roles WHERE rolname ~ %(ours)s ORDER BY 1", ours=OURS
        )
        return [name for (name,) in rows]

    def leftovers(self) -> list[str]:
        """Whatever of temporary accounts is on the target, nameless sessions included."""
        rows = self.production.ask(
            "SELECT 'role ' || rolname FROM pg_roles WHERE rolname ~ %(ours)s"
            " UNION ALL SELECT 'session ' || pid FROM pg_stat_activity"
            " WHERE usename ~ %(ours)s OR (usesysid IS NOT NULL AND usename IS NULL)"
            " UNION ALL SELECT 'prepared transaction ' || x.gid"
            " FROM pg_prepared_xact() x LEFT JOIN pg_roles r ON r.oid = x.ownerid"
            " WHERE r.oid IS NULL OR r.rolname ~ %(ours)s",
            ours=OURS,
        )
        return [text for (text,) in rows]

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

    def is_refused(self, grant: Grant, password: str) -> bool:
        try:
            self.sign_in(grant, password).close()
        except psycopg.OperationalError as error:
            return any(words in str(error) for words in REFUSALS)
        return False

    @contextmanager
    def running(self, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
        """A process of ours on the test's database; killed at the end if it has not ended."""
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=os.environ | self.environment | environment,
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

    def leave(self) -> None:
        """Hang up, and take off the target what a broken product has left there."""
        for session in self.signed_in:
            session.close()
        for name in self.accounts():
            for database in ("orders", OTHER_DATABASE):
                with self.production.superuser(database) as server:
                    server.execute(f'DROP OWNED BY "{name}" CASCADE'.encode())
            with self.production.superuser() as server:
                server.execute(f'DROP ROLE "{name}"'.encode())


@contextmanager
def production_in(directory: Path) -> Iterator[Production]:
    """The production server, and in it a second database where holders may come to own things."""
    settings = {**UNSAFE_BUT_FAST, "max_prepared_transactions": "10", "max_connections": "300"}
    with Production(directory, settings=settings) as running:
        target = running.server
        passwords = {ADMIN: admin_password(running), target.superuser: target.superuser_password}
        hash_lightly(target.url(), passwords)
        with running.superuser("postgres") as server:
            server.execute(f"CREATE DATABASE {OTHER_DATABASE} TEMPLATE template0")
            server.execute(f"REVOKE ALL ON DATABASE {OTHER_DATABASE} FROM PUBLIC")
            server.execute(f"GRANT CONNECT ON DATABASE {OTHER_DATABASE} TO debugflow_admin")
        for database in ("orders", OTHER_DATABASE):
            with running.superuser(database) as server:
                server.execute("GRANT CREATE ON SCHEMA public TO dbgf_quarantine")
        yield running


def admin_password(production: Production) -> str:
    return unquote(urlsplit(production.admin_url).password or "")


def make_place(control: Control, production: Production, **target: Any) -> Place:
    """Build the cast and the target, in a database that has neither, through the verbs."""
    world = build()
    saved = administration.save_target(
        Target(
            name="production",
            kind="postgresql",
            environment="production",
            config=production.config,
            **target,
        ),
        by=world.ada,
        clear_secrets={"password": admin_password(production)},
    )
    level = AccessLevel(
        target=saved,
        name="read-only",
        rights=dict(READ_ONLY),
        risk="low",
        rank=1,
        max_duration=14400,
    )
    administration.save_level(level, by=world.ada)
    assign_perm("approvals.request_accesslevel", world.groups["developers"], level)
    return Place(world, production, control, level)


def ask_one_person(place: Place) -> None:
    """Shorten the chain to one vote of a dba, where making many grants is not what is tried."""
    publish(place.world, stage(place.world, "Database", "dba"))


def eventually(check: Callable[[], bool], *, within: float = 20) -> None:
    deadline = time.monotonic() + within
    while not check():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


def state_of(grant: Grant) -> str:
    return str(Grant.objects.values_list("state", flat=True).get(pk=grant.pk))


def has_ended(grant: Grant) -> bool:
    return state_of(grant) == GrantState.ENDED
