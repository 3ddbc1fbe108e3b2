"""Whole provisioning cycles a second, beside what the target does by itself on one connection."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from django.contrib.auth import get_user_model

from approvals import grants
from approvals.models import Grant
from approvals.states import GrantState
from debugflow.embedded.installation import Installation
from debugflow.embedded.production import READ_ONLY
from tests.bench.access import WITHIN, approved

GRANTS = 150
SECONDS = 3.0  # how long the baseline is measured
BEGIN_IN = timedelta(seconds=25)  # all are approved by then


def measure(site: Installation, figure: Callable[..., Any]) -> list[Any]:
    baseline = _own_cycles_per_second(site)
    rate = _cycles_per_second()
    baseline = (baseline + _own_cycles_per_second(site)) / 2
    return [figure("provision_cycles_per_s", rate, "1/s", baseline)]


def _cycles_per_second() -> float:
    """Many grants open in one second and are released as soon as they are usable.

    From the first that may open until the target has been read back for the last.
    """
    people = {user.username: user for user in get_user_model().objects.all()}
    begin = datetime.now(UTC) + BEGIN_IN
    waiting = {approved(people, starts_at=begin).pk for _ in range(GRANTS)}
    if datetime.now(UTC) > begin:
        raise TimeoutError("they were not all approved before they began to open")
    everyone = set(waiting)
    deadline = begin.timestamp() + WITHIN * 2
    while waiting and time.time() < deadline:
        usable = Grant.objects.filter(pk__in=waiting, state=GrantState.ACTIVE)
        for pk in usable.values_list("pk", flat=True):
            grants.release(pk, by=people["alice"])
            waiting.discard(pk)
        time.sleep(0.02)
    last = _last_end(everyone, deadline)
    return GRANTS / (last - begin).total_seconds()


def _last_end(everyone: set[int], deadline: float) -> datetime:
    rows = Grant.objects.filter(pk__in=everyone)
    while rows.exclude(state=GrantState.ENDED).exists():
        if time.time() > deadline:
            raise TimeoutError("some grants did not end")
        time.sleep(0.05)
    ends = [grant.ended_at for grant in rows if grant.activated_at and grant.ended_at]
    if len(ends) != GRANTS:
        raise AssertionError(f"only {len(ends)} of {GRANTS} were ever usable")
    return max(ends)


def _own_cycles_per_second(site: Installation) -> float:
    """CREATE ROLE, GRANT, DROP ROLE, each committed, as the same admin account."""

    with psycopg.connect(site.production.admin_url, autocommit=True) as server:
        began, count = time.perf_counter(), 0
        while time.perf_counter() - began < SECONDS:
            server.execute("CREATE ROLE bench_cycle LOGIN")
            server.execute(f"GRANT {READ_ONLY['role']} TO bench_cycle".encode())
            server.execute("DROP ROLE bench_cycle")
            count += 1
        return count / (time.perf_counter() - began)
