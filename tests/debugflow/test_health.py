"""Health: who asks is answered within a moment, whatever has died, and told no more than needed."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from celery import current_app
from django.db import OperationalError, connections
from django.test import Client

from approvals import heartbeats
from approvals.heartbeats import Heart
from approvals.models import Heartbeat
from debugflow import health, probes
from debugflow.embedded.runtime import APP
from debugflow.embedded.valkey import EmbeddedValkey
from tests.conftest import DATABASE, Clock, Control
from tests.debugflow.dead_servers import black_hole, database_at, forget

NOWHERE = 1  # a port on which nobody listens


@pytest.fixture(autouse=True)
def asked_anew() -> None:
    """What another test was told is not told again."""
    forget(health.ask_database)
    forget(health.ask_broker)


@pytest.fixture
def in_production(settings: Any) -> None:
    settings.DEBUG = settings.DEMO = False
    settings.ALLOWED_HOSTS = ["access.example.com"]
    settings.SECURE_SSL_REDIRECT = True


def broker_at(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    for name in ("broker_url", "broker_write_url"):
        monkeypatch.setattr(current_app.conf, name, f"redis://127.0.0.1:{port}/0")


def ready(client: Client, query: str = "") -> tuple[int, str, dict[str, bool]]:
    response = client.get(f"/health/ready{query}")
    told = response.json()
    checks = {check["name"]: check["ok"] for check in told.get("checks", [])}
    return response.status_code, told["status"], checks


def beating(*, worker: str = "") -> Heart:
    heart = Heart(worker=worker)
    heart.looked()
    heart.beat()
    if worker:
        heartbeats.served(str(heart.process))
    return heart


def test_a_living_process_says_so_and_asks_no_server(client: Client):
    """No database is allowed in this test, and there is no broker."""
    response = client.get("/health/live")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


@pytest.mark.usefixtures("in_production", "committed")
@pytest.mark.parametrize("path", ["/health/live", "/health/ready"])
def test_whoever_asks_by_address_and_without_tls_is_answered(client: Client, path: str):
    """As a container's own check does, and a load balancer: no redirect, no host to be allowed."""
    response = client.get(path, headers={"host": "10.0.0.7:8000"})
    assert response.status_code == 200
    assert response["Cache-Control"] == "no-store"
    assert not response.cookies


@pytest.mark.usefixtures("in_production")
def test_nothing_else_is_answered_like_that(client: Client, settings: Any):
    settings.SECURE_SSL_REDIRECT = False
    for path in ("/", "/health/", "/health/ready/", "/health/other"):
        assert client.get(path, headers={"host": "10.0.0.7:8000"}).status_code == 400


def test_health_is_only_to_be_read(client: Client):
    assert client.post("/health/live").status_code == 405
    assert client.post("/health/ready").status_code == 405


@pytest.mark.usefixtures("committed", "in_production")
def test_all_is_well_with_two_sweepers_and_a_worker(client: Client, monkeypatch: Any, valkey: Any):
    monkeypatch.setattr(current_app.conf, "broker_url", valkey.url)
    monkeypatch.setattr(current_app.conf, "broker_write_url", valkey.url)
    beating()
    beating(worker="celery@one")
    status, word, checks = ready(client)
    assert (status, word) == (200, "ok")
    assert checks == dict.fromkeys(("database", "broker", "sweepers", "workers"), True)


@pytest.mark.usefixtures("committed", "in_production")
def test_without_broker_sweepers_and_workers_it_serves_but_says_so(client: Client, clock: Clock):
    beating(worker="celery@one")
    beating()
    clock.forward(61)
    beating()
    assert ready(client) == (
        200,
        "degraded",
        {"database": True, "broker": False, "sweepers": False, "workers": False},
    )


@pytest.mark.usefixtures("committed")
def test_one_sweeper_is_enough_on_ones_own_machine_only(client: Client, settings: Any):
    beating()
    settings.DEMO = True
    assert ready(client)[2]["sweepers"] is True
    settings.DEMO = False
    forget(health.ask_database)
    assert ready(client)[2]["sweepers"] is False


@pytest.mark.usefixtures("committed")
def test_with_no_sweeper_at_all_it_says_what_that_means(client: Client):
    told = client.get("/health/ready").json()["checks"]
    [detail] = [check["detail"] for check in told if check["name"] == "sweepers"]
    assert detail == "No sweeper is alive: no access is opened, and none is ended on time."


@pytest.mark.usefixtures("committed")
def test_whoever_watches_one_thing_may_require_it(client: Client):
    assert ready(client, "?require=broker")[:2] == (503, "failing")
    assert ready(client, "?require=workers,sweepers")[:2] == (503, "failing")
    assert ready(client, "?require=database")[:2] == (200, "degraded")


@pytest.mark.usefixtures("committed")
@pytest.mark.parametrize("query", ["?require=brokre", "?require=broker,<script>"])
def test_requiring_what_there_is_not_is_an_error(client: Client, query: str):
    response = client.get(f"/health/ready{query}")
    assert response.status_code == 400
    assert "script" not in response.content.decode()


@pytest.mark.usefixtures("committed")
def test_a_database_that_is_not_migrated_cannot_serve(client: Client, control: Control):
    with control.superuser(DATABASE) as server:
        server.execute(
            "DELETE FROM django_migrations WHERE app = 'approvals' AND name ="
            " (SELECT max(name) FROM django_migrations WHERE app = 'approvals')"
        )
    assert ready(client)[:2] == (503, "failing")


@pytest.mark.usefixtures("committed")
def test_a_database_that_is_away_is_told_within_a_moment(client: Client):
    with database_at(NOWHERE):
        began = time.monotonic()
        status, word, checks = ready(client)
    assert time.monotonic() - began < 3
    assert (status, word, set(checks.values())) == (503, "failing", {False})


@pytest.mark.slow
@pytest.mark.usefixtures("committed")
def test_servers_that_never_answer_hold_nobody_up(client: Client, monkeypatch: pytest.MonkeyPatch):
    with black_hole() as hole, database_at(hole):
        broker_at(monkeypatch, hole)
        began = time.monotonic()
        assert ready(client)[:2] == (503, "failing")
        assert time.monotonic() - began < 3
        began = time.monotonic()
        assert ready(client)[:2] == (503, "failing")  # of what is still being asked
        assert time.monotonic() - began < 3
    assert client.get("/health/live").status_code == 200


@pytest.mark.slow
@pytest.mark.usefixtures("committed")
def test_a_table_that_somebody_has_locked_holds_nobody_up(client: Client, control: Control):
    with control.superuser(DATABASE) as other, other.transaction():
        other.execute("LOCK TABLE approvals_heartbeat IN ACCESS EXCLUSIVE MODE")
        began = time.monotonic()
        assert ready(client)[0] == 503
        assert time.monotonic() - began < 3


def stopped_while_asking(server: Any) -> int:
    """The process that waits for our lock on behalf of a question, stopped; its pid."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        row = server.execute(
            "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND usename = %s",
            [APP],
        ).fetchone()
        if row:
            os.kill(row[0], signal.SIGSTOP)
            return int(row[0])
        time.sleep(0.01)
    raise AssertionError("nobody asked")


@pytest.mark.slow
@pytest.mark.usefixtures("committed")
def test_a_database_that_stops_in_the_middle_of_an_answer_holds_nobody_up_and_is_asked_anew(
    client: Client, control: Control, monkeypatch: pytest.MonkeyPatch
):
    """No limit of the server's is kept by then, and its machine acknowledges all that is sent."""
    monkeypatch.setattr(probes, "LASTS", 3.0)
    began = time.monotonic()
    with ThreadPoolExecutor(1) as beside:
        with (
            control.superuser(DATABASE) as other,
            control.superuser() as looking,
            other.transaction(),
        ):
            other.execute("LOCK TABLE approvals_heartbeat IN ACCESS EXCLUSIVE MODE")
            asking = beside.submit(ready, client)
            pid = stopped_while_asking(looking)
        try:
            assert asking.result(timeout=10)[:2] == (503, "failing")
            assert time.monotonic() - began < 4
            answers = [ready(client)[0]]
            while answers[-1] == 503 and time.monotonic() - began < 15:
                time.sleep(0.1)
                answers.append(ready(client)[0])
            assert answers[-1] == 200
        finally:
            os.kill(pid, signal.SIGCONT)


@pytest.mark.slow
@pytest.mark.usefixtures("committed")
def test_a_broker_that_is_stopped_holds_nobody_up_and_is_found_again(
    client: Client, monkeypatch: pytest.MonkeyPatch, valkey: EmbeddedValkey
):
    monkeypatch.setattr(current_app.conf, "broker_url", valkey.url)
    monkeypatch.setattr(current_app.conf, "broker_write_url", valkey.url)
    assert ready(client)[2]["broker"]
    os.kill(valkey.pid, signal.SIGSTOP)
    try:
        forget(health.ask_broker)
        began = time.monotonic()
        assert ready(client)[:2] == (200, "degraded")
        assert ready(client, "?require=broker")[0] == 503
        assert time.monotonic() - began < 3
    finally:
        os.kill(valkey.pid, signal.SIGCONT)
    forget(health.ask_broker)
    assert ready(client)[2]["broker"]


@pytest.mark.usefixtures("committed")
def test_it_says_nothing_of_hosts_names_or_versions(client: Client, control: Control):
    heart = beating(worker="celery@secret-host")
    told = client.get("/health/ready").content.decode()
    with database_at(NOWHERE):
        forget(health.ask_database)
        told += client.get("/health/ready").content.decode()
    for secret in (heart.name, "secret-host", APP, DATABASE, "127.0.0.1", "version", "approvals"):
        assert secret not in told


@pytest.mark.slow
def test_a_flood_costs_one_question(monkeypatch: pytest.MonkeyPatch):
    asked: list[int] = []

    def slow() -> int:
        asked.append(1)
        time.sleep(0.2)
        return len(asked)

    probe = probes.Probe(slow, within=2)
    told: list[int] = []
    crowd = [threading.Thread(target=lambda: told.append(probe())) for _ in range(50)]
    for one in crowd:
        one.start()
    for one in crowd:
        one.join()
    assert told == [1] * 50
    assert probe() == 1
    monkeypatch.setattr(probes, "KEPT", 0)
    assert probe() == 2


def test_a_question_without_an_answer_is_not_waited_for_twice():
    freed = threading.Event()
    probe = probes.Probe(lambda: freed.wait(10), within=0.2)
    with pytest.raises(TimeoutError):
        probe()
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        probe()
    assert time.monotonic() - began < 0.1
    freed.set()


def test_what_goes_wrong_in_asking_is_told_to_whoever_asked():
    def wrong() -> None:
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        probes.Probe(wrong, within=1)()


@pytest.mark.usefixtures("committed")
def test_the_hurried_connection_leaves_nothing_behind():
    with probes.hurried() as connection:
        assert Heartbeat.objects.using(probes.HURRIED).count() == 0
        with connection.cursor() as cursor:
            cursor.execute("SHOW statement_timeout")
            assert cursor.fetchone() == ("1500ms",)
    assert not hasattr(connections._connections, probes.HURRIED)  # type: ignore[attr-defined]
    assert connection.connection is None


@pytest.mark.slow
@pytest.mark.usefixtures("committed")
def test_the_hurried_connection_gives_up_by_itself():
    """Or each question to a server that never answers would leave a thread behind."""
    with black_hole() as hole, database_at(hole):
        began = time.monotonic()
        with pytest.raises(OperationalError), probes.hurried():
            pass
        assert time.monotonic() - began < 4


@pytest.fixture
def valkey(server_directory: Path) -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey(server_directory / "health") as running:
        yield running
