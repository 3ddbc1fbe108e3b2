"""`manage.py target`: what an owner of a target runs, and what is missing on it."""

from __future__ import annotations

import json
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from approvals import administration
from approvals.models import AccessLevel, Target
from tests.world import World

CONFIG = {
    "host": "127.0.0.1",
    "port": 1,
    "database": "billing",
    "user": "debugflow",
    "sslmode": "disable",
}
PASSWORD = "correct-horse-7Kq"


def target(*arguments: str) -> str:
    out = StringIO()
    call_command("target", *arguments, stdout=out, stderr=out)
    return out.getvalue()


@pytest.fixture
def billing(world: World) -> Target:
    made = Target(name="billing", kind="postgresql", environment="production", config=CONFIG)
    return administration.save_target(made, by=world.ada, clear_secrets={"password": PASSWORD})


def test_the_sql_of_a_stored_target_names_its_account_and_its_levels(billing: Target):
    AccessLevel.objects.create(
        target=billing,
        name="reads",
        rights={"role": "app_reads"},
        risk="low",
        max_duration=60,
        rank=1,
    )
    text = target("prepare", "billing")
    assert 'GRANT "app_reads" TO "debugflow"' in text
    assert "dbgf_quarantine" in text
    assert PASSWORD not in text


def test_options_reach_the_kind(billing: Target):
    text = target(
        "prepare",
        "billing",
        "--major=15",
        "--database=reports",
        "--makes-in=public",
        "--address=10.1.0.0/16",
    )
    assert "SET FALSE" not in text
    assert 'GRANT CONNECT ON DATABASE "reports"' in text
    assert 'GRANT USAGE, CREATE ON SCHEMA "public"' in text
    assert "10.1.0.0/16  scram-sha-256" in text


def test_a_target_to_come_is_described_in_json(db: None):
    level = json.dumps({"role": "app_writes"})
    text = target("prepare", "--config", json.dumps(CONFIG), "--level", level)
    assert 'GRANT "app_writes" TO "debugflow"' in text


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["prepare"], "Name a stored target, or give --config"),
        (["prepare", "billing", "--config", "{}"], "Name a stored target, or give --config"),
        (["prepare", "nowhere"], "There is no target called nowhere"),
        (["prepare", "--config", "{"], "--config is not JSON"),
        (["prepare", "--config", "[]"], "--config is a JSON object"),
        (["prepare", "--config", "{}"], "host: Field required"),
        (["prepare", "--config", "{}", "--kind", "moon"], "no kind of target called “moon”"),
        (["prepare", "--config", json.dumps(CONFIG), "--level", "{}"], "role: Field required"),
        (["test", "nowhere"], "There is no target called nowhere"),
        (["dance"], "invalid choice"),
    ],
)
def test_what_cannot_be_done_is_said(db: None, arguments: list[str], why: str):
    with pytest.raises(CommandError, match=why):
        target(*arguments)


def test_a_sound_target_passes(world: World):
    assert target("test", "orders") == "ok   orders lives in this process\n"


def test_a_target_that_does_not_answer_fails_and_names_no_secret(billing: Target):
    out = StringIO()
    with pytest.raises(CommandError, match="1 of 1 are not as they should be"):
        call_command("target", "test", "billing", stdout=out)
    assert out.getvalue().startswith("NOT  signs in to the target\n")
    assert PASSWORD not in out.getvalue()
