"""How much of a body is taken, from anybody, before anything is looked at."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from debugflow import bodies
from debugflow.embedded.server import free_port
from debugflow.embedded.state import CHECKOUT
from tests.conftest import Control

PATHS = ("/sign-in/", "/api/v1/session/", "/nosuch/", "/health/live")


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Reads a body to its end, as Django does, and says how long it was."""
    length, more = 0, True
    while more:
        event = await receive()
        length += len(event.get("body", b""))
        more = event.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(length).encode()})


def sent(*chunks: bytes, length: int | None = None) -> tuple[int, int]:
    """The status that sending these is answered with, and how many chunks were taken."""
    taken, answers = 0, []
    headers = [(b"Content-Length", str(length).encode())] if length is not None else []

    async def receive() -> dict[str, Any]:
        nonlocal taken
        taken += 1
        return {
            "type": "http.request",
            "body": chunks[taken - 1],
            "more_body": taken < len(chunks),
        }

    async def send(message: Any) -> None:
        answers.append(message)

    scope = {"type": "http", "headers": headers}
    asyncio.run(bodies.limited(echo)(scope, receive, send))  # type: ignore[arg-type]
    return answers[0]["status"], taken


def test_what_announces_too_much_is_answered_before_it_is_read():
    assert sent(b"x", length=bodies.MOST + 1) == (413, 0)
    assert sent(b"x", length=10**40) == (413, 0)
    assert sent(b"x", length=1) == (200, 1)


def test_what_announces_nothing_is_counted():
    half = b"x" * (bodies.MOST // 2)
    assert sent(half, half) == (200, 2)
    assert sent(half, half, b"x", half, half) == (413, 3)


@pytest.fixture
def server(committed: None, control: Control) -> Iterator[str]:
    """The web process by itself; its address."""
    told = {
        "DATABASE_URL": control.url(),
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "DEBUGFLOW_DEMO": "True",
        "DJANGO_SETTINGS_MODULE": "debugflow.settings",
    }
    port = free_port()
    argv = [sys.executable, "-m", "uvicorn", "debugflow.asgi:application", "--port", str(port)]
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen(
        argv, cwd=CHECKOUT, env=os.environ | told, stderr=subprocess.DEVNULL
    ) as process:
        try:
            deadline = time.monotonic() + 60
            while not _lives(url):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.1)
            yield url
        finally:
            process.kill()


def _lives(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/live", trust_env=False).is_success
    except httpx.TransportError:
        return False


@pytest.mark.slow
def test_a_real_server_takes_no_more_of_it(server: str):
    def endless() -> Iterator[bytes]:
        for _ in range(64):
            yield b"x" * bodies.MOST

    with httpx.Client(base_url=server, trust_env=False) as anybody:
        for path in PATHS:
            answer = anybody.post(path, content=b"x" * (bodies.MOST + 1))
            assert answer.status_code == 413
            assert "larger than 1 MiB" in answer.text
            try:
                streamed = anybody.post(path, content=endless())
            except httpx.TransportError:
                continue  # it hung up on us, as it may
            assert streamed.status_code == 413
