"""Whole provisioning cycles a second, beside what the target does by itself on one connection.

Both servers run with PostgreSQL's own durable settings, every COMMIT flushed, for both figures:
that is looked at, not assumed. The target's own cycles set no password in the first figure. Ours
do, and the 4096 rounds of SCRAM, ours to make the verifier and the target's to see that it is not
of an empty password, are about half of the processor time that a cycle takes. The second figure is
beside cycles of the target that set one too, made beforehand.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from django.contrib.auth import get_user_model

from approvals.models import Grant
from approvals.provisioning.postgresql import scram
from audit import clock
from debugflow.embedded.installation import Installation
from debugflow.embedded.production import READ_ONLY
from tests.bench.access import WITHIN, approved

# So many that the figure is of the work, and not of how long the next look is waited for.
GRANTS = 600
DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
SECONDS = 3.0  # how long the baseline is measured
TRIED = 3  # approvals by which it is seen how long all of them take


def measure(site: Installation, figure: Callable[..., Any]) -> list[Any]:
    _require_durable(site)
    verifier = scram.verifier("bench")
    options = {"": b"LOGIN", "_password": f"LOGIN PASSWORD '{verifier}'".encode()}
    before = {name: _own_cycles_per_second(site, option) for name, option in options.items()}
    rate = _cycles_per_second()
    return [
        figure(
            f"provision_cycles_per_s{name}",
            rate,
            "1/s",
            (before[name] + _own_cycles_per_second(site, option)) / 2,
        )
        for name, option in options.items()
    ]


def _require_durable(site: Installation) -> None:
    for url in (site.production.admin_url, site.runtime.environment()["DATABASE_URL"]):
        with psycopg.connect(url) as server:
            rows = server.execute(
                "SELECT name, setting FROM pg_settings WHERE name = ANY(%s)", [list(DURABLE)]
            )
            if dict(rows.fetchall()) != DURABLE:
                raise RuntimeError("a server that may lose what it committed is no ground")


def _cycles_per_second() -> float:
    """All open from one moment on; when the last is usable all end at once. No person acts between.

    From the first that may open until the last is usable, and from the end of all until the target
    has been read back for the last.
    """
    people = {user.username: user for user in get_user_model().objects.all()}
    begin = datetime.now(UTC) + timedelta(seconds=5) + 1.5 * GRANTS * _one_approval(people)
    everyone = [approved(people, starts_at=begin).pk for _ in range(GRANTS)]
    if datetime.now(UTC) > begin:
        raise TimeoutError("they were not all approved before they began to open")
    time.sleep((begin - datetime.now(UTC)).total_seconds())
    opening = _when_all(everyone, "activated_at") - begin
    end = clock.now()
    Grant.objects.filter(pk__in=everyone).update(expires_at=end)
    ending = _when_all(everyone, "ended_at") - end
    return GRANTS / (opening + ending).total_seconds()


def _one_approval(people: dict[str, Any]) -> timedelta:
    """How long one takes; those tried are not opened while this is measured."""
    began = datetime.now(UTC)
    for _ in range(TRIED):
        approved(people, starts_at=began + timedelta(hours=1))
    return (datetime.now(UTC) - began) / TRIED


def _when_all(everyone: list[int], moment: str) -> datetime:
    """The latest of the moments, once all have one."""
    rows = Grant.objects.filter(pk__gte=min(everyone), pk__lte=max(everyone))
    deadline = time.monotonic() + WITHIN * 2
    while rows.filter(**{f"{moment}__isnull": True}).exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not every grant has its {moment}")
        time.sleep(0.1)
    latest: datetime = max(rows.values_list(moment, flat=True))
    return latest


def _own_cycles_per_second(site: Installation, options: bytes) -> float:
    """CREATE ROLE, GRANT, DROP ROLE, each committed, as the same admin account."""
    with psycopg.connect(site.production.admin_url, autocommit=True) as server:
        began, count = time.perf_counter(), 0
        while time.perf_counter() - began < SECONDS:
            server.execute(b"CREATE ROLE bench_cycle " + options)
            server.execute(f"GRANT {READ_ONLY['role']} TO bench_cycle".encode())
            server.execute("DROP ROLE bench_cycle")
            count += 1
        return count / (time.perf_counter() - began)
