"""From the last approval to usable access."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import quantiles
from typing import Any

from django.contrib.auth import get_user_model

from approvals import grants
from approvals.models import Grant
from approvals.states import GrantState
from tests.bench.votes import STAGES, cast_vote, read_only, submitted

OPENED = 60  # grants one after another
WITHIN = 60.0  # seconds after which a wait is given up


def measure(figure: Callable[..., Any]) -> list[Any]:
    people = {user.username: user for user in get_user_model().objects.all()}
    usable = [_approve_to_usable(people) for _ in range(OPENED)]
    return [
        figure("approve_to_usable_p50_s", percentile(usable, 50), "s"),
        figure("approve_to_usable_p99_s", percentile(usable, 99), "s"),
    ]


def percentile(values: list[float], which: int) -> float:
    return quantiles(values, n=100, method="inclusive")[which - 1]


def approved(people: dict[str, Any], **wish: Any) -> Grant:
    request = submitted(people, read_only(), **wish)
    for name in STAGES:
        cast_vote(request, people[name])
    return Grant.objects.get(request=request)


def reached(grant: Grant, state: GrantState) -> Grant:
    """The grant once it is in `state`; TimeoutError, with its last error, if it never is."""
    deadline = time.monotonic() + WITHIN
    while time.monotonic() < deadline:
        grant.refresh_from_db()
        if grant.state == state:
            return grant
        time.sleep(0.005)
    raise TimeoutError(f"{grant} is {grant.state}: {grant.last_error}")


def _approve_to_usable(people: dict[str, Any]) -> float:
    """By the database's clock: the last approval, and the commit that says it is usable."""
    grant = reached(approved(people), GrantState.ACTIVE)
    grants.release(grant.pk, by=people["alice"])
    took = (grant.activated_at or grant.approved_at) - grant.approved_at
    return took.total_seconds()
