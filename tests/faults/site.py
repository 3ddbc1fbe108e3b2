"""The web server and two workers of a place, as an installation runs them, and people at its API.

The ways to the broker and to the database are the caller's, who may have something in between.
"""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

import httpx
from django.conf import settings
from django.test import Client

from approvals.models import Grant, Heartbeat
from audit import clock
from debugflow.embedded.processes import WORKERS, Processes
from tests.debugflow.workers import WORKER
from tests.faults.place import Place

PAGES = ("/", "/api/v1/grants/", "/api/v1/requests/")
PATIENCE = 60.0  # seconds for an answer; what is too slow is measured, not cut short
PAUSE = 0.1  # seconds between two looks at a page
CSRF = "c" * 32
BACKEND = "debugflow.accounts.backends.PasswordBackend"


def through(url: str, port: int) -> str:
    """The same address by way of another port of this machine."""
    parts = urlsplit(url)
    login = parts.netloc.rpartition("@")[0]
    return urlunsplit(parts._replace(netloc=f"{login}@127.0.0.1:{port}"))


class Installed(Processes):
    """With canaries that sing every fifth of a second, so that a worker's return is seen soon."""

    def _python(self, name: str, *arguments: str) -> None:
        if arguments[:2] == ("-m", "celery"):
            arguments = ("-c", WORKER, *arguments[arguments.index("worker") + 1 :])
        super()._python(name, *arguments)


@dataclass
class Answer:
    """One answer of the web server: when it was asked for, how long it took, what it was.

    A status of 0 is no answer at all.
    """

    at: float
    took: float
    status: int


@dataclass
class Site:
    place: Place
    processes: Installed

    def browser(self, who: str) -> httpx.Client:
        """Signed in: a session made directly, since the real settings know no password of tests."""
        client = Client()
        client.force_login(self.place.world.people[who], BACKEND)
        session = client.cookies[settings.SESSION_COOKIE_NAME].value
        cookies = {settings.SESSION_COOKIE_NAME: session, settings.CSRF_COOKIE_NAME: CSRF}
        return httpx.Client(
            base_url=self.processes.url,
            cookies=cookies,
            headers={"X-CSRFToken": CSRF},
            timeout=PATIENCE,
            trust_env=False,
        )

    def threads(self) -> int:
        """How many threads the web server's processes have together."""
        group = self.processes.supervisor._running["web"].process.pid
        found = [entry for entry in Path("/proc").glob("[0-9]*") if _group(entry) == group]
        return sum(len(list((entry / "task").glob("*"))) for entry in found)

    def served_since(self, moment: Any) -> int:
        """How many of its workers have taken a canary from the broker after that."""
        return Heartbeat.objects.filter(is_worker=True, served_at__gt=moment).count()

    def consumes_after(self, moment: Any, *, within: float = PATIENCE) -> float:
        """Seconds from then until each worker took a canary that came later; infinite if not so."""
        deadline = time.monotonic() + within
        while self.served_since(moment) < len(WORKERS):
            if time.monotonic() > deadline:
                print(self.processes.tail(WORKERS))  # noqa: T201 - for whoever asks why
                return inf
            time.sleep(PAUSE)
        return float((clock.now() - moment).total_seconds())


def _group(process: Path) -> int:
    try:
        return os.getpgid(int(process.name))
    except ProcessLookupError:
        return 0


@contextmanager
def running(place: Place, logs: Path, **told: str) -> Iterator[Site]:
    """All three processes, ready; `told` is what they are told beyond the place's environment."""
    environment = {**os.environ, **place.environment, "LOG_LEVEL": "INFO", **told}
    processes = Installed(logs, out=io.StringIO(), port=0)
    try:
        processes.start(environment)
        processes.wait_until_ready()
        yield Site(place, processes)
    finally:
        processes.stop()


@dataclass
class Person:
    """Somebody at the API who keeps what was acknowledged."""

    client: httpx.Client
    answers: list[Answer] = field(default_factory=list)

    def send(self, method: str, path: str, **body: Any) -> httpx.Response | None:
        """None where no answer came."""
        at = time.time()
        try:
            response = self.client.request(method, path, json=body or None)
        except httpx.HTTPError:
            self.answers.append(Answer(at, time.time() - at, 0))
            return None
        self.answers.append(Answer(at, time.time() - at, response.status_code))
        return response


@dataclass
class Team:
    """alice and amir ask, bob decides and takes away; over HTTP only."""

    site: Site
    people: dict[str, Person] = field(default_factory=dict)

    def __getitem__(self, who: str) -> Person:
        if who not in self.people:
            self.people[who] = Person(self.site.browser(who))
        return self.people[who]

    @property
    def answers(self) -> list[Answer]:
        return [answer for person in self.people.values() for answer in person.answers]

    def ask(self, duration: int, who: str = "alice") -> dict[str, Any] | None:
        """The request as acknowledged."""
        wish = {"level": self.site.place.level.pk, "duration": duration, "reason": "Orders hang."}
        return _acknowledged(self[who].send("POST", "/api/v1/requests/", **wish))

    def approve(self, asked: dict[str, Any]) -> dict[str, Any] | None:
        vote = {"decision": "approve", "scope_hash": asked["scope_hash"], "comment": "Yes."}
        path = f"/api/v1/requests/{asked['id']}/vote/"
        return _acknowledged(self["bob"].send("POST", path, **vote))

    def approved(self, duration: int) -> Grant:
        """A grant by a request and a vote that must both be acknowledged."""
        asked = self.ask(duration)
        assert asked
        assert self.approve(asked)
        return Grant.objects.select_related("beneficiary").get(request=asked["id"])

    def revoke(self, grant: int) -> dict[str, Any] | None:
        path = f"/api/v1/grants/{grant}/revoke/"
        return _acknowledged(self["bob"].send("POST", path, reason="Not now."))

    def close(self) -> None:
        for person in self.people.values():
            person.client.close()


def _acknowledged(response: httpx.Response | None) -> dict[str, Any] | None:
    if response is None or not response.is_success:
        return None
    return dict(response.json())


class Visitor(AbstractContextManager["Visitor"]):
    """alice, who keeps looking at pages on a thread of its own, whatever happens."""

    def __init__(self, site: Site) -> None:
        self._person = Person(site.browser("alice"))
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    @property
    def answers(self) -> list[Answer]:
        return list(self._person.answers)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._leaving.set()
        self._thread.join()
        self._person.client.close()

    def _look(self) -> None:
        while not self._leaving.is_set():
            for page in PAGES:
                self._person.send("GET", page)
            self._leaving.wait(PAUSE)
