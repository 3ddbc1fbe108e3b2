"""Web, worker and sweeper refuse to start on what the system checks forbid."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest
from django.core.checks import WARNING, run_checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command

from debugflow.embedded.runtime import APP
from debugflow.embedded.state import CHECKOUT
from debugflow.startup import refuse_unsafe
from tests.conftest import DATABASE, Control
from tests.debugflow.conftest import SignInAs

MIGRATOR_URL = "postgresql://debugflow_migrator@localhost/debugflow"
BROKERLESS = {"DJANGO_SETTINGS_MODULE": "debugflow.settings", "REDIS_URL": "redis://127.0.0.1:1/0"}
PROCESSES = {
    "web": ("-m", "uvicorn", "debugflow.asgi:application", "--port", "0"),
    "worker": ("-m", "celery", "-A", "debugflow", "worker", "--pool", "threads", "-c", "1"),
    "sweep": ("manage.py", "sweep"),
}


@pytest.fixture
def production(settings: Any, sign_in_as: SignInAs) -> Any:
    """A real installation: its settings, and a login that may not shift the clock."""
    settings.SECURE = True
    settings.ALLOWED_HOSTS = ["debugflow.example.com"]
    sign_in_as("app2")
    return settings


def refusal() -> str:
    with pytest.raises(ImproperlyConfigured) as told:
        refuse_unsafe()
    return str(told.value)


def test_production_starts(production):
    refuse_unsafe()


@pytest.mark.usefixtures("committed")
def test_the_demo_starts_at_home(settings):
    settings.DEMO = True
    settings.ALLOWED_HOSTS = ["localhost"]
    refuse_unsafe()
    settings.DEMO = False
    assert "does not start" in refusal(), "what the demo is excused from"


def test_everything_that_is_wrong_is_named_at_once(production):
    production.SECURE = False
    production.ENCRYPTION_KEYS = []
    told = refusal()
    assert told.startswith("debugflow does not start like this:\n")
    assert "debugflow.E004" in told
    assert "debugflow.E006" in told
    assert "HINT" in told


def test_a_warning_stops_no_start(production):
    production.EMAIL_HOST = production.SITE_URL = ""
    levels = [message.level for message in run_checks(include_deployment_checks=True)]
    assert levels
    assert max(levels) == WARNING
    refuse_unsafe()


def test_clocks_that_disagree_and_proxies_that_are_everybody_stop_it(production, monkeypatch):
    monkeypatch.setattr("debugflow.checks.SKEW_MOST", -1)
    production.TRUSTED_PROXIES = ["0.0.0.0/0"]
    told = refusal()
    assert "debugflow.E009" in told
    assert "debugflow.E011" in told


def test_the_demo_excuses_neither_the_login_nor_the_hosts(settings, sign_in_as):
    settings.DEMO = True
    settings.ALLOWED_HOSTS = ["debugflow.example.com"]
    sign_in_as("mallory", "SUPERUSER")
    told = refusal()
    assert "debugflow.E005" in told
    assert "debugflow.E007" in told


@pytest.mark.parametrize("demo", [True, False])
def test_the_migrators_login_would_switch_checks_off_so_only_migrate_may_have_it(
    production, sign_in_as, demo
):
    production.DEMO = demo
    production.MIGRATIONS_DATABASE_URL = MIGRATOR_URL
    told = refusal()
    assert "MIGRATIONS_DATABASE_URL" in told
    assert "only `migrate`" in told


def test_a_database_that_cannot_be_asked_is_a_refusal(production, control: Control):
    control.point_django_at("nowhere", APP)
    try:
        assert "could not look at its database" in refusal()
    finally:
        control.point_django_at(DATABASE, APP)


@pytest.mark.timeout(30)  # for the day on which it sweeps instead, and never ends
def test_sweep_refuses_the_superusers_login(settings, sign_in_as):
    settings.DEMO = True
    sign_in_as("mallory", "SUPERUSER")
    with pytest.raises(CommandError, match=r"debugflow\.E007"):
        call_command("sweep")


@pytest.mark.timeout(30)
def test_sweep_asks_the_deployment_checks_as_well(production):
    production.SECURE = False
    with pytest.raises(CommandError, match=r"debugflow\.E004"):
        call_command("sweep")


def started(process: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """What a process says until it ends by itself, within 60 s."""
    return subprocess.run(
        [sys.executable, *PROCESSES[process]],
        check=False,
        cwd=CHECKOUT,
        env={**os.environ, **BROKERLESS, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )


@pytest.mark.slow
@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.usefixtures("committed")
def test_every_process_ends_on_unsafe_settings(process: str, control: Control):
    told = {"DATABASE_URL": control.url(), "ALLOWED_HOSTS": "debugflow.example.com"}
    ended = started(process, {**told, "DEBUGFLOW_DEMO": "True"})
    assert ended.returncode != 0, ended.stdout
    assert "debugflow.E005" in ended.stdout


@pytest.mark.slow
@pytest.mark.parametrize("process", PROCESSES)
def test_every_process_ends_as_superuser(process: str, superuser_url: str, committed: None):
    ended = started(process, {"DATABASE_URL": superuser_url, "DEBUGFLOW_DEMO": "True"})
    assert ended.returncode != 0, ended.stdout
    assert "debugflow.E007" in ended.stdout


@pytest.mark.slow
def test_a_worker_with_the_migrators_login_ends(control: Control, committed: None):
    told = {"DATABASE_URL": control.url(), "DEBUGFLOW_DEMO": "True"}
    ended = started("worker", {**told, "MIGRATIONS_DATABASE_URL": MIGRATOR_URL})
    assert ended.returncode != 0, ended.stdout
    assert "only `migrate`" in ended.stdout
