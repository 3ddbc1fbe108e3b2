"""People who call the API, signed in by their password, with the CSRF token; and programs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from django.core.signals import request_finished, request_started
from django.db import close_old_connections
from rest_framework.test import APIClient

from approvals import opening, tokens
from approvals.models import Grant
from approvals.tokens import TokenWish
from tests.world import World

PASSWORD = "a long password"
PROBLEM = "application/problem+json"


@pytest.fixture(autouse=True)
def no_collected_files(settings) -> None:
    """Nothing is collected for tests, and WhiteNoise warns of a missing directory."""
    settings.WHITENOISE_AUTOREFRESH = True


def anonymous() -> APIClient:
    return APIClient(enforce_csrf_checks=True)


def send(client: APIClient, path: str, raw: bytes, content_type: str, **headers: str) -> Any:
    """POST these very bytes."""
    return client.generic(
        "POST",
        f"/api/v1/{path}",
        raw,  # type: ignore[arg-type]  # the stubs know of text only
        content_type=content_type,
        headers=headers,
    )


@dataclass
class Caller:
    """One person's client. Paths are relative to /api/v1/."""

    client: APIClient
    token: str

    def get(self, path: str, **query: Any) -> Any:
        return self.client.get(f"/api/v1/{path}", query)

    def post(self, path: str, body: Any = None, **headers: str) -> Any:
        sent = {"X-CSRFToken": self.token, **headers}
        return self.client.post(f"/api/v1/{path}", body, format="json", headers=sent)

    def send(self, path: str, raw: bytes, content_type: str = "application/json") -> Any:
        return send(self.client, path, raw, content_type, **{"X-CSRFToken": self.token})

    def delete(self, path: str) -> Any:
        return self.client.delete(f"/api/v1/{path}", headers={"X-CSRFToken": self.token})


As = Callable[[str], Caller]


@pytest.fixture
def as_(world: World) -> As:
    """`as_("alice")` is alice's client."""
    callers: dict[str, Caller] = {}

    def sign_in(name: str) -> Caller:
        if name not in callers:
            client = anonymous()
            body = {"username": name, "password": PASSWORD}
            response = client.post("/api/v1/session/", body, format="json")
            assert response.status_code == 200, response.content
            callers[name] = Caller(client, response.json()["csrf_token"])
        return callers[name]

    return sign_in


@dataclass
class Program:
    """What shows a token, and has no cookie."""

    clear: str

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        sent = {"Authorization": f"Bearer {self.clear}", **headers}
        call = getattr(anonymous(), method)
        return call(f"/api/v1/{path}", body, format="json", headers=sent)

    def get(self, path: str) -> Any:
        return self.call("get", path)

    def post(self, path: str, body: Any = None, **headers: str) -> Any:
        return self.call("post", path, body, **headers)


def program(world: World, who: str = "alice", *scopes: str, service: str = "") -> Program:
    """A program with a new token of `who`; all scopes that such a token can have, if none is named.

    With `service`, `who` is the superuser who makes it.
    """
    most = ("read", "request") if service else ("read", "request", "vote")
    wish = TokenWish(name="nightly", scopes=scopes or most, days=30, service=service)
    maker = world.people[who]
    return Program(tokens.make(maker.pk, by=maker, wish=wish).clear)


def refused(response: Any, status: int, code: str) -> dict[str, Any]:
    """The problem that a response is; fails unless it is one, of this status and code."""
    assert response["Content-Type"] == PROBLEM, response.content
    problem: dict[str, Any] = response.json()
    assert (response.status_code, problem["code"]) == (status, code), problem
    assert problem["status"] == status
    assert problem["type"] == "about:blank"
    assert problem["title"]
    assert problem["detail"]
    return problem


def asked(world: World, **changes: Any) -> dict[str, Any]:
    """A wish for `read` as the API takes it."""
    return {
        "level": world.read.pk,
        "duration": 3600,
        "reason": "Orders hang since 10:40.",
        **changes,
    }


def opened(grant: Grant) -> Grant:
    opening.open_grant(grant.pk, worker="w1")
    grant.refresh_from_db()
    assert grant.state == "active", grant.last_error
    return grant


@contextmanager
def connection_kept() -> Iterator[None]:
    """A real application gives its connection back after each call; here it holds the world."""
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    yield
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)
