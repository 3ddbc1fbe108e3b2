"""The demonstration as one runs it: a program of its own, with servers and processes of its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from debugflow.embedded.spawn import signal_group
from debugflow.embedded.state import CHECKOUT, DirectoryLock
from debugflow.embedded.story import cast

pytestmark = [pytest.mark.slow, pytest.mark.timeout(320)]
WITHIN = 280  # seconds; about 80 on an idle machine
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


def still_running(place: Path) -> list[str]:
    """The programs that were told of, or work in, this state directory."""
    return [command for pid, command in _programs() if _is_of(pid, place)]


def _programs() -> Iterator[tuple[int, str]]:
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if command:
            yield int(entry.name), command


def _is_of(pid: int, place: Path) -> bool:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        return os.fsencode(place) in environment or str(place) in os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return False


def secrets_below(place: Path) -> list[str]:
    files = [
        *place.rglob("*.password"),
        *place.glob("*/valkey/password"),
        *place.glob("*/secrets/*"),
    ]
    return [file.read_text() for file in files]


def wait_for(process: "subprocess.Popen[str]", words: str) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if words in line:
            return line
    pytest.fail(f"it ended without saying “{words}”: {process.communicate()}")


def test_every_step_holds_and_nothing_is_left(manage, place):
    demo = manage("demo", "--once")
    said, complaints = demo.communicate(timeout=WITHIN)
    assert demo.returncode == 0, said + complaints
    assert "✗" not in said
    for name in cast.PEOPLE.keys() - {cast.ADMIN}:
        assert name in said
    for measured in (
        "last approval → first query answered",
        "end of the time → session closed",
        "end of the time → new sign-in refused",
        "end of the time → account verified gone",
        "release → session closed",
        "owner's revoke → running query dead",
        "emergency → first query answered",
        "review → session closed",
        "worker and broker dead: end → session closed",
        "after the restart: last approval → first query",
    ):
        assert f"  {measured}" in said
    for shown in ("the clock reminds", "asks the owners as well", "dan approves for carol"):
        assert shown in said
    assert "his session goes on as it was" in said
    assert "Still to be decided: erik asks" in said
    assert said.endswith("Every step held.\n")
    assert still_running(place) == []
    logs = "".join(log.read_text(errors="replace") for log in place.rglob("*.log"))
    found = secrets_below(place)
    assert len(found) >= 7
    assert "Task approvals.tasks.open_grant" in logs
    assert not [secret for secret in found if secret in logs + said + complaints]


def test_a_story_that_cannot_go_on_fails_loudly_and_still_cleans_up(manage, place):
    demo = manage("demo", "--once")
    wait_for(demo, READY)
    [web] = [pid for pid, command in _programs() if _is_web(pid, command, place)]
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
    return "-m uvicorn" in command and _is_of(pid, place)


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
