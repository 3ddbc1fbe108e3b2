"""Votes per second and statements per vote, beside one-row INSERT commits on the same server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from approvals import grants, workflow
from approvals.models import AccessLevel, AccessRequest, Grant
from approvals.wishes import Wish
from debugflow.embedded.story import cast

SECONDS = 6.0  # how long each of the two is measured
STAGES = ("bob", "carol")


def measure(figure: Callable[..., Any]) -> list[Any]:
    people = {user.username: user for user in get_user_model().objects.all()}
    # In turns, so that whatever else the machine does falls on both.
    inserts = _inserts_per_second(SECONDS / 2)
    rate = _votes_per_second(people)
    inserts = (inserts + _inserts_per_second(SECONDS / 2)) / 2
    return [
        figure("votes_per_s", rate, "1/s", inserts),
        figure("vote_queries", _most_queries(people), "statements"),
    ]


def submitted(
    people: dict[str, Any], level: AccessLevel, starts_at: datetime | None = None
) -> AccessRequest:
    """A request of alice's, ready to be voted on."""
    wish = Wish(duration=600, reason="Measuring.", starts_at=starts_at)
    return workflow.submit(level.pk, by=people["alice"], wish=wish)


def read_only() -> AccessLevel:
    return AccessLevel.objects.select_related("target").get(name=cast.READ_ONLY)


def cast_vote(request: AccessRequest, voter: Any) -> None:
    workflow.vote(request.pk, by=voter, decision="approve", scope_hash=request.scope_hash)


def _votes_per_second(people: dict[str, Any]) -> float:
    """Only the votes are timed; half of them complete a chain and make a grant."""
    spent, count = 0.0, 0
    for request in _requests(people):
        began = time.perf_counter()
        for name in STAGES:
            cast_vote(request, people[name])
        spent += time.perf_counter() - began
        count += len(STAGES)
        grants.release(request.grant.pk, by=people["alice"])
        if spent >= SECONDS:
            return count / spent
    raise AssertionError("unreachable: the requests never end")


def _requests(people: dict[str, Any]) -> Iterator[AccessRequest]:
    """Each wants to start tomorrow, so that the workers have nothing to open meanwhile."""
    level, tomorrow = read_only(), datetime.now(UTC) + timedelta(days=1)
    while True:
        yield submitted(people, level, starts_at=tomorrow)


def _most_queries(people: dict[str, Any]) -> float:
    request = next(_requests(people))
    counts = []
    for name in STAGES:
        with CaptureQueriesContext(connection) as queries:
            cast_vote(request, people[name])
        counts.append(len(queries))
    grants.release(Grant.objects.get(request=request).pk, by=people["alice"])
    return float(max(counts))


def _inserts_per_second(seconds: float) -> float:
    """One row, one commit, one connection: sign-in rows of Django's session table."""
    with connection.cursor() as cursor:
        began, count = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            with transaction.atomic():
                key = f"bench{time.time_ns()}"
                cursor.execute("INSERT INTO django_session VALUES (%s, 'bench', now())", [key])
            count += 1
        elapsed = time.perf_counter() - began
        cursor.execute("DELETE FROM django_session WHERE session_data = 'bench'")
    return count / elapsed
