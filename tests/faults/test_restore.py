"""A backup taken, access opened and ended since, the database lost, restored elsewhere, gone on."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django.db import connections
from psycopg import errors

from approvals import closing, grants, heartbeats, opening, restoring
from approvals.models import Grant
from approvals.states import EndReason, GrantState
from audit.models import Event
from debugflow.embedded.postgres import EmbeddedPostgres, binaries
from debugflow.embedded.roles import create_roles
from debugflow.embedded.runtime import APP, MIGRATOR, OWNER
from debugflow.embedded.state import scratch
from tests.conftest import DATABASE, PASSWORDS, UNSAFE_BUT_FAST, Control
from tests.docs.pages import DOCS
from tests.faults.place import Place, eventually

BLOCK = re.compile(r"^( *)```sh\n(.*?)^\1```", re.MULTILINE | re.DOTALL)


def page_commands() -> tuple[str, str]:
    """docs/backup.md's own: one to back up, one to restore."""
    found = [text for _, text in BLOCK.findall((DOCS / "backup.md").read_text(encoding="utf-8"))]
    assert len(found) == 2
    return found[0], found[1]


def as_migrator(server: EmbeddedPostgres, command: str, directory: Path) -> str:
    """Run a command of the page where the migrator would, against this server."""
    where = {"PGHOST": "127.0.0.1", "PGPORT": str(server.port), "PGUSER": MIGRATOR}
    ours = command.replace("--dbname=debugflow ", f"--dbname={DATABASE} ")
    ours = ours.replace(" debugflow\n", f" {DATABASE}\n")
    ended = subprocess.run(
        ["sh", "-eu", "-c", ours],
        check=False,
        cwd=directory,
        env={"PATH": f"{binaries()}:{os.defpath}", "PGPASSWORD": PASSWORDS[MIGRATOR], **where},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def schema(server: EmbeddedPostgres, directory: Path) -> list[str]:
    """Tables, triggers, functions, constraints, owners and rights, as pg_dump writes them."""
    text = as_migrator(server, f"pg_dump --schema-only --role={OWNER} {DATABASE}", directory)
    # A random word on each run, against hostile dumps.
    lines = [line for line in text.splitlines() if not re.match(r"\\(un)?restrict", line)]
    # PostgreSQL reads a cast of a list back as a list of casts.
    return [re.sub(r"::(text|character varying)|[()\[\] ]", "", line) for line in lines]


@pytest.fixture
def elsewhere() -> Iterator[EmbeddedPostgres]:
    """Another cluster, prepared and empty."""
    with (
        scratch() as directory,
        EmbeddedPostgres(directory / "elsewhere", settings=UNSAFE_BUT_FAST) as server,
    ):
        create_roles(
            server.url(),
            database=DATABASE,
            owner=OWNER,
            migrator=MIGRATOR,
            app=APP,
            passwords=PASSWORDS,
            for_restore=True,
        )
        yield server


def point_django_at(server: EmbeddedPostgres) -> None:
    connections["default"].close()
    connections["default"].settings_dict["PORT"] = str(server.port)


def opened(place: Place, who: str) -> tuple[Grant, psycopg.Connection[Any]]:
    if who not in place.world.people:
        place.world.people[who] = get_user_model().objects.create_user(who, password="a long one")
        place.world.groups["developers"].user_set.add(place.world.people[who])
    grant = place.approved(who)
    opening.open_grant(grant.pk, worker="w")
    grant.refresh_from_db()
    shown = grants.reveal(grant.pk, by=place.world.people[who])
    return grant, place.sign_in(grant, shown.password)


def closed(grant: Grant) -> bool:
    closing.close_grant(grant.pk, worker="w")
    return Grant.objects.filter(pk=grant.pk, state=GrantState.ENDED).exists()


def test_a_restored_database_goes_on_and_ends_all_that_is_open(
    place: Place, control: Control, elsewhere: EmbeddedPostgres, tmp_path: Path, clock
):
    backup, restore = page_commands()
    kept, _ = opened(place, "alice")
    waiting = place.approved("amir")
    told = list(Event.objects.order_by("id").values_list("id", "leaf_hash", "xid"))
    as_migrator(control.postgres, backup, tmp_path)

    # What the backup does not know: alice gives hers back, and dave's is opened and in use.
    grants.release(kept.pk, by=place.world.alice)
    eventually(lambda: closed(kept))
    lost, in_use = opened(place, "dave")
    before = schema(control.postgres, tmp_path)

    as_migrator(elsewhere, restore, tmp_path)
    assert schema(elsewhere, tmp_path) == before
    point_django_at(elsewhere)
    try:
        sound(told, elsewhere)
        out = StringIO()
        call_command("restored", stdout=out)
        assert "Accesses ended unopened: 1." in out.getvalue()
        ended = Grant.objects.get(pk=waiting.pk)
        assert (ended.state, ended.end_reason) == (GrantState.ENDED, EndReason.FAILED)
        assert ended.end_code == "restored"

        place.world.people = {u.username: u for u in get_user_model().objects.all()}
        still_there_until_confirmed(place, lost, clock)
        call_command("reconcile", restored=True, by="ada", stdout=StringIO())
        assert place.accounts() == []
        with pytest.raises(psycopg.OperationalError):
            in_use.execute("SELECT 1")
        fresh, session = opened(place, "amir")
        assert fresh.pk > lost.pk + restoring.MARGIN - 1
        with place.running(
            "manage.py", "sweep", DATABASE_URL=elsewhere.url(DATABASE, APP, PASSWORDS[APP])
        ):
            eventually(lambda: Grant.objects.get(pk=kept.pk).state == GrantState.ENDED)
            assert session.execute("SELECT 1").fetchone() == (1,)
            clock.forward(3600)
            eventually(lambda: Grant.objects.get(pk=fresh.pk).state == GrantState.ENDED)
        assert place.accounts() == []
        for grant in (kept, fresh):
            ends = Event.objects.filter(action="grant.ended", subject_id=str(grant.pk))
            assert ends.count() == 1
    finally:
        connections.close_all()
        point_django_at(control.postgres)


def sound(told: list[tuple[Any, ...]], server: EmbeddedPostgres) -> None:
    """The audit log is whole, and as closed to changes as it was: to us, and to its owner."""
    restored = Event.objects.order_by("id")
    assert list(restored.values_list("id", "leaf_hash", "xid")) == told
    assert [event.pk for event in restored if event.mismatches()] == []
    ours = (server.url(DATABASE, APP, PASSWORDS[APP]), errors.InsufficientPrivilege)
    superusers = (server.url(DATABASE), errors.ModifyingSqlDataNotPermitted)
    for url, refusal in (ours, superusers):
        with psycopg.connect(url, autocommit=True) as session:
            for statement in (b"UPDATE audit_event SET action = 'x'", b"DELETE FROM audit_event"):
                with pytest.raises(refusal):
                    session.execute(statement)


def still_there_until_confirmed(place: Place, lost: Grant, clock) -> None:
    """The comparison holds back while nobody has said that this is the ledger now."""
    for _ in range(2):
        clock.forward(130)
        with pytest.raises(CommandError, match="production"):
            call_command("reconcile", stdout=StringIO())
    assert lost.account in place.accounts()


def test_nothing_is_settled_while_a_sweeper_works(place: Place):
    with place.running("manage.py", "sweep") as sweeper:
        assert sweeper.stdout
        assert "Sweeping" in sweeper.stdout.readline()
        eventually(lambda: bool(heartbeats.sweeping().exists()))
        with pytest.raises(CommandError, match="Stop web, workers and sweepers first"):
            call_command("restored", stdout=StringIO())
