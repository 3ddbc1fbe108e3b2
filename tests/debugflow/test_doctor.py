"""`manage.py doctor` and `healthcheck`: what is wrong is said, and what to do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import current_app
from cryptography.fernet import Fernet
from django.core.management import CommandError, call_command
from django.db.models import F
from guardian.shortcuts import remove_perm

from approvals import access, administration, closing, heartbeats, opening
from approvals.errors import ProvisionError
from approvals.heartbeats import Heart
from approvals.models import Alarm, AlarmKind, Heartbeat, Policy, Reconciliation, Target
from audit import clock as database
from debugflow import health
from debugflow.diagnosis import ledger
from debugflow.embedded.state import CHECKOUT
from debugflow.embedded.valkey import EmbeddedValkey
from tests.conftest import Clock, Control
from tests.debugflow.dead_servers import black_hole, database_at, forget
from tests.debugflow.workers import worker
from tests.world import World, publish, stage

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("committed")]


@pytest.fixture(autouse=True)
def at_home(settings: Any) -> None:
    settings.DEMO = True
    settings.ALLOWED_HOSTS = ["localhost"]
    forget(health.ask_database)
    forget(health.ask_broker)


@pytest.fixture
def valkey(server_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey(server_directory / "doctor") as running:
        for name in ("broker_url", "broker_write_url"):
            monkeypatch.setattr(current_app.conf, name, running.url)
        yield running


def told(command: str, *arguments: str) -> tuple[bool, str]:
    """Whether it ended well, and all that it said."""
    out = StringIO()
    try:
        call_command(command, *arguments, stdout=out)
    except CommandError as error:
        return False, f"{out.getvalue()}{error}"
    return True, out.getvalue()


def wrong() -> list[str]:
    """What the doctor finds wrong, without what follows from there being no servers here."""
    _, said = told("doctor")
    aside = ("The broker does not answer", "No worker takes tasks", "No sweeper is alive")
    lines = [line[5:] for line in said.splitlines() if line.startswith("NOT")]
    return [line for line in lines if not line.startswith(aside)]


def eventually(check: Callable[[], Any], *, within: float = 30) -> None:
    deadline = time.monotonic() + within
    while not check():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)


def beating(worker: str = "", **options: Any) -> Heart:
    heart = Heart(worker=worker, **options)
    for _ in range(2):
        heart._beat_after = 0
        heart.looked()
        heart.beat()
    return heart


# doctor


def test_all_is_well_where_all_is_well(world: World, control: Control, valkey: EmbeddedValkey):
    # The worker compares the target with the ledger, and in its process nobody made this level.
    administration.delete(world.write, by=world.ada)
    with worker(control, valkey, queues="default,notify,provision,revoke"):
        eventually(heartbeats.serving().exists)
        fine, said = told("doctor")
    assert "NOT" not in said
    assert fine, said
    assert "orders: debugflow can sign in" in said
    assert said.count("\n") >= 12


def test_a_queue_that_nobody_takes_from_and_a_broker_that_forgets(
    control: Control, valkey: EmbeddedValkey
):
    with redis.Redis.from_url(valkey.url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
    with worker(control, valkey, queues="default,notify,provision"):
        eventually(heartbeats.serving().exists)
        found = wrong()
    assert [line for line in found if "queue" in line] == ["Nobody takes from the queue revoke."]
    assert "The broker's maxmemory-policy is allkeys-lru." in found


def test_dead_servers_are_told_at_once_and_end_nothing():
    with black_hole() as hole, database_at(hole):
        began = time.monotonic()
        fine, said = told("doctor")
    assert time.monotonic() - began < 6
    assert not fine
    assert "The database does not answer" in said
    assert "The broker does not answer" in said


def test_no_sweeper_no_worker(settings: Any):
    settings.DEMO = False
    assert "No sweeper is alive: no access is opened, and none is ended" in told("doctor")[1]
    beating()
    said = told("doctor")[1]
    assert said.count("1 of at least 2 sweepers is alive.") == 1
    assert "W001" not in said
    assert "No worker takes tasks from the broker." in said


def test_a_worker_that_nothing_comes_through_to_and_a_wrong_clock(world: World):
    beating("celery@mute")
    assert any("celery@mute" in line and "No task comes" in line for line in wrong())
    beating(wall=lambda: time.time() + 5)
    assert any("+5.0 s from the database's" in line for line in wrong())


def test_a_target_that_cannot_be_used(world: World, settings: Any):
    Target.objects.update(config={})
    [line] = wrong()
    assert line.startswith("orders: ")
    Target.objects.update(config=world.target.config)
    settings.ENCRYPTION_KEYS = [Fernet.generate_key().decode()]
    [line] = wrong()
    assert "cannot be read" in line
    Target.objects.update(enabled=False)
    assert wrong() == ["A secret of orders cannot be read."]


def test_a_target_that_does_not_answer_costs_a_while_and_no_more(world: World, monkeypatch: Any):
    forever = threading.Event()
    monkeypatch.setattr(ledger, "TARGET_WITHIN", 0.3)
    monkeypatch.setattr(administration, "check_target", lambda target: forever.wait(20))
    [line] = wrong()
    assert line.startswith("orders: no answer within")
    forever.set()


def test_what_nobody_owns_may_ask_for_or_decides_about(world: World):
    assert wrong() == []
    remove_perm("approvals.own_target", world.groups["owners"], world.target)
    remove_perm("approvals.request_accesslevel", world.groups["developers"], world.write)
    assert wrong() == [
        "Nobody owns orders: its alarms reach administrators only.",
        "Nobody may ask for read-write on orders.",
    ]
    Policy.objects.update(enabled=False)
    assert any("No policy governs read-only on orders" in line for line in wrong())


def test_a_policy_that_lets_nobody_in_is_told(world: World):
    publish(world, stage(world, "Anyone", "nobody"))
    late = administration.change_policy(Policy(name="Late", rank=99), by=world.ada)
    publish(world, stage(world, "Owners", "owners"), policy=late)
    found = wrong()
    assert any("The policy Production: Nobody could fill the stage" in line for line in found)
    assert any("The policy Late: It never governs a request" in line for line in found)


def test_a_policy_that_is_merely_tight_is_not(world: World):
    publish(world, stage(world, "Owners", "owners"))
    assert [line for line in wrong() if "The policy" in line] == []


def test_access_that_does_not_end(world: World, clock: Clock):
    grant = world.approved()
    opening.open_grant(grant.pk, worker="w")
    world.server.fail_next("cut", ProvisionError("Away."))
    clock.forward(3600)
    closing.close_grant(grant.pk, worker="w")
    clock.forward(31)
    assert wrong() == [
        f"1 grants past their end and not cut: grant {grant.pk}.",
        f"1 grants whose ending keeps failing: grant {grant.pk}.",
    ]


def test_comparisons_and_alarms_that_want_somebody(world: World):
    now = database.now()
    Reconciliation.objects.update_or_create(
        target=world.target,
        defaults={
            "next_at": now,
            "held_back": [f"dbgf_{n}" for n in range(7)],
            "held_back_since": now,
            "last_error": "Timed out.",
            "findings": ["dbgf_9 may more than it should."],
        },
    )
    Alarm.objects.create(
        kind=AlarmKind.STUCK,
        target=world.target,
        text="It.",
        began_at=now,
        last_error="Nobody.",
        failures=1,
    )
    found = wrong()
    assert any(line.endswith("dbgf_3, dbgf_4 and 2 more.") for line in found)
    assert "orders could not be compared with the ledger: Timed out." in found
    assert "orders differs from the ledger: dbgf_9 may more than it should." in found
    assert "A mail of the alarm “It.” failed: Nobody." in found


def test_a_part_that_breaks_hides_no_other(world: World, monkeypatch: Any):
    def broken(*args: Any) -> Any:
        raise RuntimeError("a defect")

    monkeypatch.setattr(access, "owners", broken)
    said = told("doctor")[1]
    assert "The owners could not be looked at: RuntimeError: a defect" in said
    assert "The mails of open alarms go out." in said


# healthcheck


def test_a_sweeper_is_healthy_while_it_looks(clock: Clock):
    assert told("healthcheck", "sweeper")[0] is False
    beating()
    assert told("healthcheck", "sweeper")[0] is True
    assert told("healthcheck", "worker")[0] is False
    clock.forward(15)
    assert told("healthcheck", "sweeper")[0] is False


def test_another_hosts_processes_are_not_ours():
    heart = beating()
    Heartbeat.objects.update(name=f"elsewhere:{os.getpid()}")
    assert told("healthcheck", "sweeper")[0] is False
    assert heart.name.startswith(heartbeats.this_host())


def test_the_newest_of_a_host_counts_and_not_one_that_died_before_it(clock: Clock):
    beating()
    clock.forward(60)
    beating()
    assert told("healthcheck", "sweeper")[0] is True


def aged(heart: Heart) -> None:
    """Started long ago, and looking still."""
    Heartbeat.objects.filter(process=heart.process).update(
        started_at=F("started_at") - timedelta(hours=1)
    )


def test_a_worker_without_its_canary_is_ill_unless_the_broker_is_away(valkey: EmbeddedValkey):
    heart = beating("celery@one")
    assert told("healthcheck", "worker")[0] is True  # too young to tell
    aged(heart)
    fine, said = told("healthcheck", "worker")
    assert (fine, "No task comes through" in said) == (False, True)
    os.kill(valkey.pid, signal.SIGSTOP)
    try:
        forget(health.ask_broker)
        assert told("healthcheck", "worker")[0] is True
    finally:
        os.kill(valkey.pid, signal.SIGCONT)
    forget(health.ask_broker)
    assert told("healthcheck", "worker")[0] is False
    heartbeats.served(str(heart.process))
    assert told("healthcheck", "worker")[0] is True


def test_a_database_that_is_away_makes_no_container_restart():
    with black_hole() as hole, database_at(hole):
        began = time.monotonic()
        assert told("healthcheck", "worker")[0] is True
        assert time.monotonic() - began < 3


@pytest.mark.parametrize(("status", "fine"), [(200, True), (503, False)])
def test_a_web_server_is_as_healthy_as_it_says(status: int, fine: bool):
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/health/live" else 404)
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.handle_request).start()
        assert told("healthcheck", "web", "--port", str(server.server_port))[0] is fine


def test_a_web_server_that_is_not_there_or_never_answers_is_ill():
    with black_hole() as hole:
        began = time.monotonic()
        assert told("healthcheck", "web", "--port", str(hole))[0] is False
        assert time.monotonic() - began < 6
    assert told("healthcheck", "web", "--port", str(hole))[0] is False


def test_it_is_a_command_with_an_exit_code(control: Control):
    beating()
    environment = os.environ | {"DATABASE_URL": control.url(), "DEBUGFLOW_DEMO": "True"}
    environment["DJANGO_SETTINGS_MODULE"] = "debugflow.settings"

    def code(kind: str) -> int:
        command = [sys.executable, "manage.py", "healthcheck", kind]
        return subprocess.run(command, cwd=CHECKOUT, env=environment, check=False).returncode

    assert (code("sweeper"), code("worker")) == (0, 1)
