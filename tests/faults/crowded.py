"""A small target of its own: its disk and its seats fill up, and its certificate changes.

The disk is a tmpfs, which only root may mount; without that the fault is left out, and a row says
so. In front of the server is something that speaks TLS, which the embedded one is built without.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psycopg

from approvals.models import AccessLevel, Grant, Target
from debugflow.embedded.production import Production
from debugflow.embedded.state import scratch
from tests.approvals.provisioning.tls import TlsFront, self_signed
from tests.conftest import UNSAFE_BUT_FAST
from tests.faults.campaign import Row, Run, campaign
from tests.faults.place import Place, ask_one_person, eventually, has_ended
from tests.faults.proxy import LOCALHOST
from tests.faults.target import (
    ENDED,
    Findings,
    held_at,
    is_failing,
    left,
    level_at,
    rows_of,
    sweepers,
    take_away,
)

DISK = "140m"
SETTINGS = {**UNSAFE_BUT_FAST, "max_connections": "20"}
BRIEF = 4.0  # seconds that a certificate lasts which runs out
TIMES = 10
CHUNK = b"\0" * 2**16


@dataclass(frozen=True)
class Ground:
    place: Place
    level: AccessLevel
    disk: Path | None
    front: Front


@contextmanager
def disk(directory: Path) -> Iterator[Path | None]:
    """A small disk mounted there; None where nothing may be mounted."""
    directory.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=755", "none", str(directory)]
    if os.geteuid() or subprocess.run(command, check=False, capture_output=True).returncode:
        yield None
        return
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


class Front(TlsFront):
    """Many at once, unlike the other, and with another certificate when told."""

    def __init__(self, upstream: int, directory: Path) -> None:
        super().__init__(upstream, LOCALHOST, directory)
        self._directory = directory
        self.own = (self.certificate, (directory / "front.pem").read_text())

    def serve(self) -> None:
        with suppress(OSError):
            while True:
                client = self.listener.accept()[0]
                threading.Thread(target=self._one, args=(client,), daemon=True).start()

    def _one(self, client: Any) -> None:
        with client:
            self.pass_on(client)

    def shows(self, pem: tuple[str, str]) -> None:
        """Whoever connects from now on is shown this certificate."""
        path = self._directory / "shown.pem"
        path.write_text("".join(pem))
        self.context.load_cert_chain(path)


def disk_full(at: Ground, found: Findings) -> None:
    """Nothing more can be written; whatever the server makes of it, no access is left over."""
    if at.disk is None:
        return
    held = held_at(at.place, at.level)
    filler = at.disk / "filler"
    try:
        with suppress(OSError), filler.open("wb") as file:
            while file.write(CHUNK):
                file.flush()
        found.expect("there was room still", holds=_runs_out(at.place))
        take_away(at.place, held)
        eventually(lambda: is_failing(held) or has_ended(held.grant) or not held.is_live())
    finally:
        filler.unlink()
    _restart_if_down(at.place)
    healed = time.time()
    found.back.append(max(0.0, held.over() - healed))
    eventually(lambda: has_ended(held.grant), within=ENDED)


def _runs_out(place: Place) -> bool:
    """Whether the server comes to the end of its disk, or gives up, for its log wants room too."""
    rows = "SELECT repeat(md5(i::text), 9) FROM generate_series(1, 9999) i"
    try:
        with place.production.superuser() as server:
            server.execute("CREATE TABLE IF NOT EXISTS much (text text)")
            for _ in range(100):
                server.execute(f"INSERT INTO much {rows}")
    except (psycopg.errors.DiskFull, psycopg.OperationalError):
        return True
    return False


def _restart_if_down(place: Place) -> None:
    server = place.production.server
    try:
        place.production.superuser().close()
    except psycopg.OperationalError:
        server.kill()
        server.start()
    with place.production.superuser() as inside:
        inside.execute("DROP TABLE IF EXISTS much")


def seats_taken(at: Ground, found: Findings) -> None:
    """mallory takes every connection that she can get; debugflow has some of its own."""
    held = held_at(at.place, at.level)
    with ExitStack() as taken:
        with suppress(psycopg.OperationalError):
            while True:
                url = at.place.production.server.url("orders", "mallory", "mallory")
                taken.enter_context(psycopg.connect(url))
        since = take_away(at.place, held)
        # No new sign-in is to be had for anybody: the door is tried afterwards.
        eventually(lambda: not held.is_live())
        found.late.append(held.closed - since)
    held.over()
    eventually(lambda: has_ended(held.grant), within=ENDED)


def certificate_changed(at: Ground, found: Findings) -> None:
    """Whoever answers there is not the target, as far as can be proved."""
    _unproved(at, found, _trusting(at), self_signed(LOCALHOST))


def certificate_expired(at: Ground, found: Findings) -> None:
    """It was trusted when the access was opened, and ran out before its end."""
    brief = self_signed(LOCALHOST, valid=timedelta(seconds=BRIEF))
    over = time.time() + BRIEF + 1
    at.front.shows(brief)
    level = _trusting(at, brief[0])
    _unproved(at, found, level, brief, over)


def _trusting(at: Ground, *more: str) -> AccessLevel:
    """A level at the same server behind its certificate, or behind one of `more`."""
    config = {**at.place.production.config, "port": at.front.port, "sslmode": "verify-full"}
    anchor = "".join([at.front.certificate, *more])
    name = f"behind-tls-{Target.objects.count()}"
    return level_at(at.place, name, config, trust_anchor=anchor)


def _unproved(
    at: Ground, found: Findings, level: AccessLevel, pem: tuple[str, str], since: float = 0.0
) -> None:
    """Nothing is said to it, and nothing done in clear, until it has a certificate that counts."""
    held = held_at(at.place, level)
    at.front.shows(pem)
    time.sleep(max(0.0, since - time.time()))
    take_away(at.place, held)
    eventually(partial(is_failing, held))
    error = Grant.objects.values_list("last_error", flat=True).get(pk=held.grant.pk)
    found.expect(f"why is not told: {error}", holds="certificate" in error)
    found.expect("something was done without proof", holds=held.is_live())
    at.front.shows(at.front.own)
    healed = time.time()
    found.back.append(max(0.0, held.over() - healed))
    eventually(lambda: has_ended(held.grant), within=ENDED)


SCENARIOS: dict[str, Callable[[Ground, Findings], None]] = {
    "all connections taken": seats_taken,
    "certificate changed": certificate_changed,
    "certificate expired": certificate_expired,
    "disk full": disk_full,
}


@campaign("crowded")
def crowded(run: Run) -> list[Row]:
    """Ten of each; a bounded run has one."""
    found = {name: Findings() for name in SCENARIOS}
    with scratch() as directory, ground(run.place, directory) as at, sweepers(at.place):
        for _ in range(run.times(TIMES)):
            for name, scenario in SCENARIOS.items():
                scenario(at, found[name])
        eventually(lambda: not Grant.objects.not_ended().exists(), within=ENDED)
        rows = [row for name, seen in found.items() for row in rows_of(name, seen)]
        if at.disk is None:
            rows.append(Row(what="skipped: disk full (nothing may be mounted here)", runs=1))
        return [*rows, *left(at.place)]


@contextmanager
def ground(place: Place, directory: Path) -> Iterator[Ground]:
    """The small server, the cast's level on it, and TLS in front of it."""
    with (
        disk(directory / "disk") as small,
        Production((small or directory) / "production", settings=SETTINGS) as server,
        Front(server.server.port, directory) as front,
    ):
        with server.superuser() as inside:
            inside.execute("CREATE ROLE mallory LOGIN PASSWORD 'mallory'")
            inside.execute("GRANT CONNECT ON DATABASE orders TO mallory")
        here = replace(place, production=server)
        ask_one_person(here)
        yield Ground(here, level_at(here, "small", server.config), small, front)
