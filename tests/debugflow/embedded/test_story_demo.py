"""The demonstration as one runs it: a program of its own, with servers and processes of its own.

The whole story is played once by `make demo ONCE=1`, and `after_demo` looks at what it has left.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from debugflow.embedded.spawn import signal_group
from debugflow.embedded.state import CHECKOUT, DirectoryLock
from tests.debugflow.embedded.leftovers import is_of, programs, still_running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(320)]
WITHIN = 280  # seconds
READY = "web, two workers → at"

Demo = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def manage(place: Path) -> Iterator[Demo]:
    """Starts manage.py with nothing in its environment but where to keep things."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "manage.py", *arguments, "--port", "0"],
            cwd=CHECKOUT,
            env={"PATH": os.environ["PATH"], "DEBUGFLOW_STATE_DIR": str(place)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with process:
            process.kill()


def wait_for(process: "subprocess.Popen[str]", words: str) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if words in line:
            return line
    pytest.fail(f"it ended without saying “{words}”: {process.communicate()}")


def test_a_story_that_cannot_go_on_fails_loudly_and_still_cleans_up(manage, place):
    demo = manage("demo", "--once")
    wait_for(demo, READY)
    [web] = [pid for pid, command in programs() if _is_web(pid, command, place)]
    signal_group(web, signal.SIGKILL)
    said, complaints = demo.communicate(timeout=WITHIN)
    assert demo.returncode == 1
    assert "✗" in said
    assert "Every step held" not in said
    assert "The story failed" in complaints
    for log in ("web.log", "worker-a.log", "worker-b.log", "valkey-server.log"):
        assert log in complaints
    assert still_running(place) == []


def _is_web(pid: int, command: str, place: Path) -> bool:
    """The web server itself, not one of its two workers."""
    return "-m uvicorn" in command and is_of(pid, place)


def test_up_serves_what_it_kept_and_ends_on_sigterm(manage, place):
    addresses = []
    for _ in range(2):
        up = manage("up")
        wait_for(up, "Serving at http://127.0.0.1:")
        kept = (place / "up" / "production" / "port").read_text()
        addresses.append(kept)
        up.send_signal(signal.SIGTERM)
        _, complaints = up.communicate(timeout=WITHIN)
        assert up.returncode == 0, complaints
        assert still_running(place) == []
    assert addresses[0] == addresses[1]


def test_a_second_run_in_the_same_place_is_refused_and_told_who_holds_it(manage, place):
    lock = DirectoryLock(place)
    lock.acquire()
    try:
        for command in (["demo", "--once"], ["up"]):
            refused = manage(*command)
            _, complaints = refused.communicate(timeout=WITHIN)
            assert refused.returncode == 1
            assert f"{place} is in use by process {os.getpid()}" in complaints
    finally:
        lock.release()
    assert still_running(place) == []


def test_up_does_not_put_its_people_into_a_real_database(manage, place, monkeypatch):
    process = subprocess.run(
        [sys.executable, "manage.py", "up"],
        cwd=CHECKOUT,
        env={
            "PATH": os.environ["PATH"],
            "DEBUGFLOW_STATE_DIR": str(place),
            "DATABASE_URL": "postgresql://db.internal/debugflow",
            "REDIS_URL": "redis://broker.internal/0",
        },
        capture_output=True,
        text=True,
        timeout=WITHIN,
        check=False,
    )
    assert process.returncode == 1
    assert "Unset DATABASE_URL and REDIS_URL" in process.stderr
    assert list(place.iterdir()) == []
