"""From the last approval to usable access, and from the end of access to a closed door."""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import quantiles
from typing import Any

import psycopg
from django.contrib.auth import get_user_model

from approvals import grants
from approvals.models import Grant
from approvals.states import GrantState
from audit import clock
from debugflow.embedded.installation import Installation
from tests.bench.votes import STAGES, cast_vote, read_only, submitted

OPENED = 60  # grants one after another, for the time to usable
SESSIONS = 50  # grants with a live session each, all due within one second
WITHIN = 60.0  # seconds after which a wait is given up


@dataclass
class Session:
    """One live session of a grant, and when it was seen to end."""

    grant: Grant
    password: str
    connection: psycopg.Connection[Any]
    due: float = 0.0
    closed: float = 0.0
    refused: float = 0.0

    @property
    def lateness(self) -> float:
        """Seconds from the end of the grant until its socket is closed and sign-in refused."""
        return max(0.0, max(self.closed, self.refused) - self.due)


def measure(site: Installation, figure: Callable[..., Any]) -> list[Any]:
    people = {user.username: user for user in get_user_model().objects.all()}
    usable = [_approve_to_usable(people) for _ in range(OPENED)]
    late = _lateness(people)
    return [
        figure("approve_to_usable_p50_s", _percentile(usable, 50), "s"),
        figure("approve_to_usable_p99_s", _percentile(usable, 99), "s"),
        figure("revocation_lateness_p50_s", _percentile(late, 50), "s"),
        figure("revocation_lateness_p99_s", _percentile(late, 99), "s"),
        figure("revocation_lateness_max_s", max(late), "s"),
    ]


def _percentile(values: list[float], which: int) -> float:
    return quantiles(values, n=100, method="inclusive")[which - 1]


def _approved(people: dict[str, Any]) -> Grant:
    request = submitted(people, read_only())
    for name in STAGES:
        cast_vote(request, people[name])
    return Grant.objects.get(request=request)


def _usable(grant: Grant) -> Grant:
    deadline = time.monotonic() + WITHIN
    while time.monotonic() < deadline:
        grant.refresh_from_db()
        if grant.state == GrantState.ACTIVE:
            return grant
        time.sleep(0.005)
    raise TimeoutError(f"{grant} is {grant.state}: {grant.last_error}")


def _approve_to_usable(people: dict[str, Any]) -> float:
    """By the database's clock: the last approval, and the commit that says it is usable."""
    grant = _usable(_approved(people))
    grants.release(grant.pk, by=people["alice"])
    took = (grant.activated_at or grant.approved_at) - grant.approved_at
    return took.total_seconds()


def _lateness(people: dict[str, Any]) -> list[float]:
    sessions = [_signed_in(grant, people) for grant in _all_usable(people)]
    _make_due(sessions)
    _watch(sessions)
    return [session.lateness for session in sessions]


def _all_usable(people: dict[str, Any]) -> list[Grant]:
    made = [_approved(people) for _ in range(SESSIONS)]
    return [_usable(grant) for grant in made]


def _signed_in(grant: Grant, people: dict[str, Any]) -> Session:
    password = grants.reveal(grant.pk, by=people["alice"]).password
    return Session(grant, password, _sign_in(grant, password))


def _sign_in(grant: Grant, password: str) -> psycopg.Connection[Any]:
    where = grant.connection
    return psycopg.connect(
        host=where["host"],
        port=where["port"],
        dbname=where["database"],
        user=where["user"],
        password=password,
        connect_timeout=5,
        autocommit=True,
    )


def _make_due(sessions: list[Session]) -> None:
    """Move all ends to within one second from now: an end may move earlier, never later."""
    first = clock.now() + timedelta(seconds=2)
    for number, session in enumerate(sessions):
        end = first + timedelta(seconds=number / len(sessions))
        Grant.objects.filter(pk=session.grant.pk).update(expires_at=end)
        session.due = end.timestamp()


def _watch(sessions: list[Session]) -> None:
    """Note when each socket is closed, and when each new sign-in is first refused."""
    selector = selectors.DefaultSelector()
    for session in sessions:
        selector.register(session.connection.fileno(), selectors.EVENT_READ, session)
    with ThreadPoolExecutor(8) as probes:
        deadline = time.monotonic() + WITHIN
        while selector.get_map() and time.monotonic() < deadline:
            for key, _ in selector.select(timeout=1):
                selector.unregister(key.fd)
                key.data.closed = datetime.now(UTC).timestamp()
                probes.submit(_until_refused, key.data)
    if any(not session.closed or not session.refused for session in sessions):
        raise TimeoutError("a session outlived the measurement")


def _until_refused(session: Session) -> None:
    deadline = time.monotonic() + WITHIN
    while time.monotonic() < deadline:
        try:
            _sign_in(session.grant, session.password).close()
        except psycopg.OperationalError as error:
            # Not any failure: a server that is full refuses nobody.
            if "authentication failed" in str(error) or "not permitted" in str(error):
                session.refused = datetime.now(UTC).timestamp()
                return
