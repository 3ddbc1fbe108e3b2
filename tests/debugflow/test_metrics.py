"""/metrics: who may read it, that what it says is so, and that history costs it nothing."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
import yaml
from django.db import connections
from django.test import Client
from prometheus_client.parser import text_string_to_metric_families

from approvals import closing, grants, heartbeats, opening
from approvals.errors import ProvisionError
from approvals.heartbeats import Heart
from approvals.models import Alarm, AlarmKind, Grant, Heartbeat, Reconciliation
from approvals.notify import working
from audit import clock as database
from debugflow import measures, metrics
from debugflow.embedded.runtime import APP
from debugflow.embedded.state import CHECKOUT
from tests.conftest import DATABASE, Clock, Control
from tests.debugflow.dead_servers import black_hole, database_at, forget
from tests.world import World

TOKEN = "a-token-of-thirty-two-characters"
Series = dict[tuple[str, tuple[str, ...]], float]


@pytest.fixture(autouse=True)
def with_token(settings: Any) -> None:
    settings.METRICS_TOKEN = TOKEN
    forget(metrics.scrape)


def asked(client: Client, authorization: str = f"Bearer {TOKEN}") -> Any:
    return client.get("/metrics", headers={"authorization": authorization})


def scraped(client: Client) -> Series:
    """Each sample's value by name and label values."""
    forget(metrics.scrape)
    response = asked(client)
    assert response.status_code == 200, response.content
    families = text_string_to_metric_families(response.content.decode())
    return {
        (sample.name.removeprefix("debugflow_"), tuple(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
    }


def beating(**options: Any) -> Heart:
    heart = Heart(**options)
    for _ in range(2):  # the second tells what the first measured
        heart._beat_after = 0
        heart.looked()
        heart.beat()
    return heart


# Who may


@pytest.mark.parametrize(
    "shown",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        f"Basic {TOKEN}",
        TOKEN,
        f"Bearer {TOKEN}é",
        "Bearer é",
    ],
)
def test_whoever_does_not_show_the_token_is_told_how(client: Client, shown: str):
    """No database may be asked here, so that nobody without it costs anything."""
    response = asked(client, shown)
    assert response.status_code == 401
    assert response["WWW-Authenticate"] == "Bearer"
    assert "debugflow_" not in response.content.decode()


@pytest.mark.parametrize("shown", ["", "Bearer ", f"Bearer {TOKEN}"])
def test_without_a_token_set_nobody_may(client: Client, settings: Any, shown: str):
    settings.METRICS_TOKEN = ""
    response = asked(client, shown)
    assert response.status_code == 403
    assert "DEBUGFLOW_METRICS_TOKEN" in response.content.decode()


@pytest.mark.usefixtures("committed")
def test_signing_in_is_neither_needed_nor_enough(client: Client, world: World):
    assert asked(client).status_code == 200
    client.force_login(world.ada)
    assert asked(client, "").status_code == 401
    assert client.post("/metrics").status_code == 405


@pytest.mark.usefixtures("committed")
def test_nobody_on_the_way_keeps_a_scrape_or_a_refusal(client: Client, settings: Any):
    answers = [asked(client), asked(client, "")]
    settings.METRICS_TOKEN = ""
    answers.append(asked(client))
    assert [answer.status_code for answer in answers] == [200, 401, 403]
    assert {answer["Cache-Control"] for answer in answers} == {"no-store"}


@pytest.mark.slow
@pytest.mark.usefixtures("committed")
def test_a_database_that_never_answers_is_a_failed_scrape(client: Client):
    with black_hole() as hole, database_at(hole):
        began = time.monotonic()
        assert asked(client).status_code == 503
        assert time.monotonic() - began < 3


# What it says


@pytest.mark.usefixtures("committed")
def test_an_empty_installation_is_all_zeros(client: Client):
    told = scraped(client)
    assert told["grants", ("active",)] == 0
    assert told["sweepers", ()] == told["workers", ()] == told["broker_up", ()] == 0
    assert told["steps_total", ("cut", "failed")] == 0
    assert told["alarms_open", ("overdue",)] == 0
    assert told["revocation_lateness_seconds_bucket", ("+Inf",)] == 0
    assert ("grants", ("ended",)) not in told


@pytest.mark.usefixtures("committed")
def test_a_grant_that_cannot_be_cut_is_overdue_and_then_stuck(
    client: Client, world: World, clock: Clock
):
    grant = world.approved()
    clock.forward(7)
    told = scraped(client)
    assert (told["grants", ("scheduled",)], told["opens_waiting", ()]) == (1, 1)
    assert 7 <= told["opens_waiting_oldest_seconds", ()] < 20
    opening.open_grant(grant.pk, worker="w")
    told = scraped(client)
    assert (told["grants", ("active",)], told["opens_waiting", ()]) == (1, 0)
    assert (told["grants_overdue", ()], told["grants_overdue_oldest_seconds", ()]) == (0, 0)
    world.server.fail_next("cut", ProvisionError("Away."))
    clock.forward(3600)
    closing.close_grant(grant.pk, worker="w")
    clock.forward(31)
    told = scraped(client)
    assert told["grants", ("revoking",)] == told["grants_overdue", ()] == 1
    assert told["grants_stuck", ()] == 1
    assert 31 <= told["grants_overdue_oldest_seconds", ()] < 60
    assert told["grants_abandoned", ()] == 0
    for person in (world.olga, world.ada):
        grants.abandon(grant.pk, by=person, reason="The machine was taken away.")
    assert scraped(client)["grants_abandoned", ()] == 1


@pytest.mark.usefixtures("committed")
def test_a_request_that_waits_for_people_grows_old(client: Client, world: World, clock: Clock):
    request = world.submit()
    clock.forward(100)
    told = scraped(client)
    assert told["requests_pending", ()] == 1
    assert 100 <= told["requests_pending_oldest_seconds", ()] < 130
    world.vote(request, "bob", "deny")
    assert scraped(client)["requests_pending", ()] == 0


@pytest.mark.usefixtures("committed")
def test_messages_that_are_due_fail_and_are_given_up(
    client: Client, world: World, clock: Clock, settings: Any
):
    settings.EMAIL_BACKEND = "approvals.smtp.Backend"
    settings.EMAIL_HOST, settings.EMAIL_PORT, settings.EMAIL_TIMEOUT = "127.0.0.1", 1, 1
    world.approved()
    clock.forward(30)
    told = scraped(client)
    assert told["messages_due", ()] > 5
    assert told["messages_due_oldest_seconds", ()] >= 30
    working.tell_due()
    told = scraped(client)
    assert told["messages_due", ()] == 0
    assert (told["messages_failing", ()], told["messages_given_up", ()]) == (1, 0)
    clock.forward(2 * 86400)
    working.tell_due()
    told = scraped(client)
    assert (told["messages_failing", ()], told["messages_given_up", ()]) == (0, 1)


@pytest.mark.usefixtures("committed")
def test_who_is_alive_and_how_wrong_their_clocks_are(client: Client, clock: Clock):
    beating()
    beating(worker="celery@one", wall=lambda: time.time() - 4)
    told = scraped(client)
    assert (told["sweepers", ()], told["workers", ()]) == (2, 0)
    assert told["clock_skew_seconds", ()] == pytest.approx(4, abs=0.5)
    heartbeats.served(str(Heartbeat.objects.get(is_worker=True).process))
    assert scraped(client)["workers", ()] == 1
    clock.forward(20)
    told = scraped(client)
    assert (told["sweepers", ()], told["clock_skew_seconds", ()]) == (0, 0)
    assert 20 <= told["sweep_age_seconds", ()] < 40


@pytest.mark.usefixtures("committed")
def test_alarms_and_comparisons_with_targets(client: Client, world: World, clock: Clock):
    now = database.now()
    Alarm.objects.create(kind=AlarmKind.STUCK, target=world.target, text="!", began_at=now)
    Alarm.objects.create(
        kind=AlarmKind.STUCK, target=world.target, text="!", began_at=now, ended_at=now
    )
    clock.forward(400)
    told = scraped(client)
    assert (told["alarms_open", ("stuck",)], told["alarms_open", ("strange",)]) == (1, 0)
    assert told["reconciliation_age_seconds", ()] >= 400  # never compared since it was made
    row, _ = Reconciliation.objects.update_or_create(
        target=world.target, defaults={"ran_at": database.now(), "next_at": now}
    )
    told = scraped(client)
    assert told["reconciliation_age_seconds", ()] < 30
    assert told["reconciliations_held_back", ()] == 0
    Reconciliation.objects.filter(pk=row.pk).update(held_back_since=now)
    assert scraped(client)["reconciliations_held_back", ()] == 1


def process(**counts: float) -> Heartbeat:
    now = database.now()
    return Heartbeat.objects.create(name="one", started_at=now, swept_at=now, tallies=counts)


@pytest.mark.usefixtures("committed")
def test_what_all_processes_counted_adds_up(client: Client):
    process(**{"step:cut:ok": 3, "lateness:0.25": 2, "lateness:1": 1, "lateness:sum": 1.25})
    process(**{"step:cut:ok": 1, "lateness:+Inf": 1, "lateness:sum": 4000, "of:the future": 1})
    told = scraped(client)
    assert told["steps_total", ("cut", "ok")] == 4
    buckets = {
        name: told["revocation_lateness_seconds_bucket", (name,)]
        for name in ("0.1", "0.25", "0.5", "1", "3600", "+Inf")
    }
    assert buckets == {"0.1": 0, "0.25": 2, "0.5": 2, "1": 3, "3600": 3, "+Inf": 4}
    assert told["revocation_lateness_seconds_count", ()] == 4
    assert told["revocation_lateness_seconds_sum", ()] == pytest.approx(4001.25)


# What it costs

HISTORY = 100_000


def _write_history(control: Control) -> None:
    """Ended grants, and requests that were denied, copied from one of each without their rules."""
    with control.superuser(DATABASE) as server:
        for table, fresh in (
            ("approvals_grant", {"request_id": "1000 + n"}),
            ("approvals_accessrequest", {}),
        ):
            rows = server.execute(
                "SELECT column_name FROM information_schema.columns"
                " WHERE table_name = %s AND column_name <> 'id'",
                [table],
            ).fetchall()
            server.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
            names = [name for (name,) in rows]
            values = [fresh.get(name, f'"{name}"') for name in names]
            listed = ", ".join(f'"{name}"' for name in names)
            server.execute(
                f"INSERT INTO {table} ({listed}) SELECT {', '.join(values)} FROM"
                f" (SELECT * FROM {table} ORDER BY id LIMIT 1) one, generate_series(1, {HISTORY}) n"
            )
        server.execute("VACUUM ANALYZE approvals_grant, approvals_accessrequest")


def _scans(control: Control) -> dict[str, int]:
    with control.superuser(DATABASE) as server:
        # The server counts what a session read when that session has ended.
        while server.execute(
            "SELECT FROM pg_stat_activity WHERE datname = %s AND usename = %s", [DATABASE, APP]
        ).fetchone():
            time.sleep(0.02)
        rows = server.execute("SELECT relname, seq_tup_read FROM pg_stat_user_tables").fetchall()
        return {name: rows for name, rows in rows if name.startswith("approvals_")}


@pytest.mark.slow
@pytest.mark.usefixtures("committed")
def test_a_hundred_thousand_that_have_ended_are_not_looked_at(
    client: Client, world: World, clock: Clock, control: Control
):
    old = world.approved()
    grants.release(old.pk, by=world.alice)
    open_ = world.approved("amir")
    opening.open_grant(open_.pk, worker="w")
    _write_history(control)
    Grant.objects.exclude(end_note="no such note").count()
    connections.close_all()
    before = _scans(control)
    assert before["approvals_grant"] > HISTORY  # such reading is seen
    began = time.monotonic()
    told = scraped(client)
    assert time.monotonic() - began < 1.5
    assert told["grants", ("active",)] == 1
    connections.close_all()
    read = {name: rows - before[name] for name, rows in _scans(control).items()}
    assert (read["approvals_grant"], read["approvals_accessrequest"]) == (0, 0)


# The alerts


def rules() -> list[dict[str, Any]]:
    parsed: dict[str, Any] = yaml.safe_load((CHECKOUT / "docs/alerts.yml").read_text())
    return [rule for group in parsed["groups"] for rule in group["rules"]]


@pytest.mark.usefixtures("committed")
def test_every_metric_an_alert_names_is_exported(client: Client):
    exported = {f"debugflow_{name}" for name, _ in scraped(client)}
    # Lengths are known only while there is a broker.
    exported.add("debugflow_queue_length")
    named = {name for rule in rules() for name in re.findall(r"\bdebugflow_\w+", rule["expr"])}
    assert named <= exported
    assert len(named) >= 10


def test_alerts_are_whole():
    for rule in rules():
        assert rule.keys() == {"alert", "expr", "for", "labels", "annotations"}, rule["alert"]
        assert rule["labels"]["severity"] in {"page", "warn"}
        assert rule["annotations"].keys() == {"summary", "description"}
        assert rule["expr"].count("(") == rule["expr"].count(")")
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names))


def _documented() -> set[str]:
    page = (CHECKOUT / "docs/monitoring.md").read_text()
    return set(re.findall(r"^\| `(debugflow_\w+)", page, re.MULTILINE))


@pytest.mark.usefixtures("committed")
def test_the_page_lists_every_metric_and_no_other():
    families = {family.name for family in measures.take()}
    counters = {"debugflow_steps"}
    assert _documented() == (families - counters) | {f"{name}_total" for name in counters}


@pytest.mark.usefixtures("committed")
def test_the_queues_that_are_measured_are_those_that_are_used():
    assert measures.queues() == ["default", "notify", "provision", "revoke"]
