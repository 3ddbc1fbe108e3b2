"""How many calls a minute: one shared count, and none where its server is away."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from approvals.api import throttles
from audit.models import Event
from debugflow.embedded.valkey import EmbeddedValkey
from tests.approvals.api.conftest import As, anonymous, asked, program, refused
from tests.world import World

MOST = 3
ROOM = 10  # seconds


@pytest.fixture(scope="module")
def valkey(server_directory: Path) -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey(server_directory / "calls") as server:
        yield server


@pytest.fixture
def counted(valkey: EmbeddedValkey, settings) -> EmbeddedValkey:
    """A minute with room for a test, in which nobody has called."""
    if (left := throttles.WINDOW - time.time() % throttles.WINDOW) < ROOM:
        time.sleep(left)
    settings.REDIS_URL, settings.API_RATE = valkey.url, MOST
    throttles.counter.cache_clear()
    throttles.counter(valkey.url)._server.flushall()
    return valkey


@pytest.mark.slow
def test_a_token_and_a_person_have_a_limit_of_their_own(
    world: World, as_: As, counted: EmbeddedValkey
):
    first, second = program(world), program(world)
    for _ in range(MOST):
        assert first.get("targets/").status_code == 200
    answer = first.get("targets/")
    refused(answer, 429, "throttled")
    assert 0 < int(answer["Retry-After"]) <= throttles.WINDOW
    assert answer["Cache-Control"] == "no-store"
    assert second.get("targets/").status_code == 200
    alice = as_("alice")
    for _ in range(MOST):
        assert alice.get("targets/").status_code == 200
    refused(alice.get("targets/"), 429, "throttled")
    assert as_("bob").get("targets/").status_code == 200


@pytest.mark.slow
def test_what_is_refused_is_counted_too_and_fills_no_log(world: World, counted: EmbeddedValkey):
    by = program(world, "alice", "read")
    for _ in range(MOST):
        refused(by.post("requests/", asked(world)), 403, "token_scope")
    for _ in range(MOST):
        refused(by.post("requests/", asked(world)), 429, "throttled")
    assert Event.objects.filter(action="token.refused").count() == MOST


@pytest.mark.slow
def test_verbs_that_say_no_are_counted_too_and_fill_no_log(
    world: World, as_: As, counted: EmbeddedValkey
):
    """alice tries to vote on her own request, by session and by two tokens: MOST each a minute."""
    request = world.submit()
    body = {"decision": "approve", "scope_hash": request.scope_hash}
    callers = (as_("alice"), program(world, "alice", "vote"), program(world, "alice", "vote"))
    for by in callers:
        answers = [by.post(f"requests/{request.pk}/vote/", body) for _ in range(5 * MOST)]
        for answer in answers[:MOST]:
            refused(answer, 403, "self_approval")
        for answer in answers[MOST:]:
            refused(answer, 429, "throttled")
    assert Event.objects.filter(action="vote.refused").count() == MOST * len(callers)


@pytest.mark.slow
def test_whoever_is_nobody_is_told_so_however_often_they_ask(
    world: World, counted: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(throttles, "SIGN_INS", 1)
    for _ in range(3):
        refused(anonymous().get("/api/v1/session/"), 403, "not_authenticated")


@pytest.mark.slow
def test_guessing_passwords_is_limited_by_address(
    world: World, counted: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(throttles, "SIGN_INS", 2)
    body = {"username": "alice", "password": "a guess"}
    for _ in range(2):
        refused(anonymous().post("/api/v1/session/", body, format="json"), 403, "bad_credentials")
    refused(anonymous().post("/api/v1/session/", body, format="json"), 429, "throttled")


@pytest.mark.slow
def test_the_next_minute_is_a_new_one(
    world: World, counted: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch
):
    by = program(world)
    for _ in range(MOST):
        by.get("targets/")
    refused(by.get("targets/"), 429, "throttled")
    minute = int(time.time()) // throttles.WINDOW
    (key,) = throttles.counter(counted.url)._server.keys("debugflow:calls:token:*")
    assert bytes(key).endswith(f":{minute}".encode())  # type: ignore[arg-type]
    later = time.time() + throttles.WINDOW
    monkeypatch.setattr(time, "time", lambda: later)
    assert by.get("targets/").status_code == 200


@pytest.mark.slow
def test_a_server_that_never_answers_holds_nobody_up_twice(world: World, counted: EmbeddedValkey):
    by = program(world)
    os.kill(counted.pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        for _ in range(10 * MOST):
            assert by.get("targets/").status_code == 200
        assert time.monotonic() - began < throttles.REST
    finally:
        os.kill(counted.pid, signal.SIGCONT)


def test_one_that_is_not_there_holds_nobody_up(world: World):
    by = program(world)
    for _ in range(5):
        assert by.get("targets/").status_code == 200
