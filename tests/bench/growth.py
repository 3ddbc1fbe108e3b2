"""What a look for due work costs when a million grants have ended, and what a comparison with a
target costs that holds a thousand accounts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from statistics import median
from typing import Any

import psycopg
from django.contrib.auth import get_user_model
from psycopg import sql

from approvals import closing, grants, opening, reconciler
from approvals.models import Grant, Reconciliation, StepKind
from approvals.states import GrantState
from debugflow.embedded.installation import Installation
from debugflow.embedded.runtime import DATABASE
from tests.bench.access import approved, reached

ENDED = 1_000_000
LOOKS = 100
ACCOUNTS = 1000
COMPARISONS = 5


def measure(site: Installation, figure: Callable[..., Any]) -> list[Any]:
    compared = _reconcile_s()
    small = _look_ms()
    _a_million_ended(site)
    return [
        figure("reconcile_s_1000", compared, "s"),
        figure("due_scan_ms_1m", _look_ms(), "ms", small),
    ]


def _reconcile_s() -> float:
    """Seconds of one comparison of the target with the ledger, a thousand accounts being open."""
    people = {user.username: user for user in get_user_model().objects.all()}
    everyone = [approved(people) for _ in range(ACCOUNTS)]
    for grant in everyone:
        reached(grant, GrantState.ACTIVE)
    took = median(_timed(partial(_compare, everyone[0].target_id)) for _ in range(COMPARISONS))
    for grant in everyone:
        grants.release(grant.pk, by=people["alice"])
    reached(everyone[-1], GrantState.ENDED)
    return took


def _compare(target: int) -> None:
    """Raises RuntimeError when it failed, or saw other accounts than there are."""
    while not (jobs := reconciler.claim_now(target, worker="bench")):
        time.sleep(0.05)  # a sweeper is at it
    if not reconciler.run_all(jobs):
        raise RuntimeError("the target could not be compared")
    if findings := Reconciliation.objects.get(pk=target).findings:
        raise RuntimeError(f"the comparison found {findings}")


def _look_ms() -> float:
    """Milliseconds of one look with nothing due: for cuts, clean-ups and openings."""
    return median(_timed(_look) for _ in range(LOOKS)) * 1000


def _look() -> None:
    closing.claim(StepKind.CUT, worker="bench")
    closing.claim(StepKind.CLEAN, worker="bench")
    opening.claim(worker="bench")


def _timed(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _a_million_ended(site: Installation) -> None:
    people = {user.username: user for user in get_user_model().objects.all()}
    grant = reached(approved(people), GrantState.ACTIVE)
    grants.release(grant.pk, by=people["alice"])
    reached(grant, GrantState.ENDED)
    with psycopg.connect(site.runtime.postgres.url(DATABASE), autocommit=True) as server:
        requests = _first_free(server, "approvals_accessrequest")
        _multiply(server, "approvals_accessrequest", grant.request_id, {"id": _from(requests)})
        first = _first_free(server, "approvals_grant")
        places = {"id": _from(first), "request_id": _from(requests)}
        _multiply(server, "approvals_grant", grant.pk, places)
        server.execute("VACUUM ANALYZE approvals_grant, approvals_accessrequest")
    if Grant.objects.filter(state=GrantState.ENDED).count() < ENDED:
        raise AssertionError("the grants are not there")


def _first_free(server: psycopg.Connection[Any], table: str) -> int:
    row = server.execute(
        sql.SQL("SELECT coalesce(max(id), 0) + 1 FROM {}").format(sql.Identifier(table))
    ).fetchone()
    return int(row[0]) if row else 1


def _from(first: int) -> sql.Composable:
    return sql.SQL("{} + number").format(first)


def _multiply(
    server: psycopg.Connection[Any], table: str, pk: int, replaced: Mapping[str, sql.Composable]
) -> None:
    """Copy a row a million times. The triggers are off meanwhile: they would take hours."""
    rows = server.execute(
        "SELECT attname FROM pg_attribute"
        " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
        [table],
    ).fetchall()
    names = [name for (name,) in rows]
    name = sql.Identifier(table)
    server.execute(sql.SQL("ALTER TABLE {} DISABLE TRIGGER ALL").format(name))
    copy = sql.SQL(
        "INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE SELECT {values}"
        " FROM {table}, generate_series(0, {last}) number WHERE id = {pk}"
    ).format(
        table=name,
        columns=sql.SQL(", ").join(map(sql.Identifier, names)),
        values=sql.SQL(", ").join(replaced.get(one, sql.Identifier(one)) for one in names),
        last=ENDED - 1,
        pk=pk,
    )
    server.execute(copy)
    server.execute(sql.SQL("ALTER TABLE {} ENABLE TRIGGER ALL").format(name))
