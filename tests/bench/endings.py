"""From the end of access to a closed door: many live sessions on one target, due in one second.

Measured at the target, by the sessions themselves and by new sign-ins with their passwords: with
everything well, without the broker, and with a worker killed in the middle of it.
"""

from __future__ import annotations

import selectors
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from django.contrib.auth import get_user_model

from approvals import grants
from approvals.models import Grant
from approvals.states import GrantState
from audit import clock
from debugflow.embedded.installation import Installation
from tests.bench.access import WITHIN, approved, percentile, reached

FEW, MANY = 50, 200  # live sessions, all due within one second


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
    few = _lateness(_sessions(people, FEW))
    sessions = _sessions(people, MANY)
    many = _lateness(sessions)
    gone = [_gone_after(session) for session in sessions]
    return [
        figure("revocation_lateness_p50_s", percentile(few, 50), "s"),
        *_tail(figure, few),
        *_tail(figure, many, "_200"),
        figure("verified_gone_p99_s", percentile(gone, 99), "s"),
        *_tail(figure, _with_broker_down(site, people), "_200_broker_down"),
        *_tail(figure, _with_worker_killed(site, people), "_200_one_worker_killed"),
    ]


def _tail(figure: Callable[..., Any], late: list[float], suffix: str = "") -> list[Any]:
    return [
        figure(f"revocation_lateness_p99_s{suffix}", percentile(late, 99), "s"),
        figure(f"revocation_lateness_max_s{suffix}", max(late), "s"),
    ]


def _with_broker_down(site: Installation, people: dict[str, Any]) -> list[float]:
    sessions = _sessions(people, MANY)
    site.runtime.valkey.kill()
    try:
        return _lateness(sessions)
    finally:
        site.runtime.valkey.start()
        site.processes.wait_for_workers()


def _with_worker_killed(site: Installation, people: dict[str, Any]) -> list[float]:
    """The worker dies when the first hundred are due, with cuts in its hands."""
    sessions = _sessions(people, MANY)
    middle = sorted(sessions, key=lambda one: one.grant.pk)[MANY // 2]
    with ThreadPoolExecutor(1) as beside:
        killed = beside.submit(_kill_at, site, middle)
        late = _lateness(sessions)
        killed.result()
    site.processes.start_worker("worker-b")
    site.processes.wait_for_workers()
    return late


def _kill_at(site: Installation, session: Session) -> None:
    deadline = time.monotonic() + WITHIN
    while not session.due and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(max(0.0, session.due - time.time()))
    site.processes.supervisor.kill("worker-b", signal.SIGKILL)


def _lateness(sessions: list[Session]) -> list[float]:
    _make_due(sessions)
    _watch(sessions)
    return [session.lateness for session in sessions]


def _gone_after(session: Session) -> float:
    """Seconds from the end of the grant until the target had been read back, by the ledger."""
    grant = reached(session.grant, GrantState.ENDED)
    ended: datetime = grant.ended_at  # type: ignore[assignment]  # it has ended
    return ended.timestamp() - session.due


def _sessions(people: dict[str, Any], count: int) -> list[Session]:
    made = [approved(people) for _ in range(count)]
    return [_signed_in(reached(grant, GrantState.ACTIVE), people) for grant in made]


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
    for session in sessions:
        session.connection.close()
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
