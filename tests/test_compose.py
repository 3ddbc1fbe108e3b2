"""docker-compose.yml: who is given which secret, who runs what, and that its header says so."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from django.conf import settings
from django.core.management import get_commands

from debugflow.embedded.state import CHECKOUT

FILE = CHECKOUT / "docker-compose.yml"
OURS = {"prepare", "migrate", "web", "worker", "revoke"}
# What is run and goes on: these open, cut, serve and never change a table.
LASTING = {"web", "worker", "revoke"}
REQUIRED = re.compile(r"\$\{(\w+):\?")


def text() -> str:
    return FILE.read_text(encoding="utf-8")


def services() -> dict[str, dict[str, Any]]:
    parsed: dict[str, Any] = yaml.safe_load(text())
    found: dict[str, dict[str, Any]] = parsed["services"]
    return found


def holders(variable: str) -> set[str]:
    return {name for name, service in services().items() if variable in service["environment"]}


def test_there_are_two_servers_and_five_of_our_own():
    assert services().keys() == OURS | {"postgres", "valkey"}


def test_each_secret_that_leads_to_more_has_one_holder():
    assert holders("MIGRATIONS_DATABASE_URL") == {"migrate"}
    assert holders("SUPERUSER_DATABASE_URL") == {"prepare"}
    assert (
        holders("DEBUGFLOW_APP_PASSWORD") == holders("DEBUGFLOW_MIGRATOR_PASSWORD") == {"prepare"}
    )
    assert holders("POSTGRES_PASSWORD") == {"postgres"}


@pytest.mark.parametrize("name", sorted(LASTING))
def test_what_lasts_has_the_applications_login_and_no_other(name: str):
    environment = services()[name]["environment"]
    assert environment["DATABASE_URL"].startswith("postgresql://debugflow_app:")
    values = " ".join(environment.values())
    assert "MIGRATOR_PASSWORD" not in values
    assert "POSTGRES_PASSWORD" not in values
    assert not {"DEBUG", "DEBUGFLOW_DEMO", "DEBUGFLOW_SECURE"} & environment.keys()


def test_each_runs_what_it_should():
    commands = {name: service.get("command", []) for name, service in services().items()}
    assert commands["prepare"] == ["python", "manage.py", "prepare_database"]
    assert commands["migrate"] == ["python", "manage.py", "migrate"]
    assert {commands["prepare"][2], commands["migrate"][2]} <= get_commands().keys()
    assert "command" not in services()["web"]  # the image's own
    assert 'CMD ["uvicorn", "debugflow.asgi:application"' in (CHECKOUT / "Dockerfile").read_text()
    for name in ("worker", "revoke"):
        assert commands[name][:3] == ["celery", "--app=debugflow", "worker"]


def queues(name: str) -> set[str]:
    [option] = [o for o in services()[name]["command"] if o.startswith("--queues=")]
    return set(option.removeprefix("--queues=").split(","))


def test_every_queue_has_a_worker_and_ending_access_one_of_its_own():
    used = {route["queue"] for route in settings.CELERY_TASK_ROUTES.values()}
    assert used | {settings.CELERY_TASK_DEFAULT_QUEUE} <= queues("worker") | queues("revoke")
    assert queues("revoke") == {settings.CELERY_TASK_ROUTES["approvals.tasks.close_grant"]["queue"]}
    assert queues("revoke").isdisjoint(queues("worker"))


def test_what_lasts_starts_after_the_migration_and_starts_again():
    for name in LASTING:
        waits = services()[name]["depends_on"]
        assert waits["migrate"]["condition"] == "service_completed_successfully"
        assert services()[name]["restart"] == "unless-stopped"
    before = services()["migrate"]["depends_on"]["prepare"]
    assert before["condition"] == "service_completed_successfully"


def test_only_this_machine_reaches_the_web_process_past_the_proxy():
    assert services()["web"]["ports"] == ["127.0.0.1:8000:8000"]
    assert [name for name, service in services().items() if "ports" in service] == ["web"]


@pytest.mark.parametrize("name", sorted(LASTING))
def test_the_proxy_has_to_be_named_or_signing_in_would_be_a_loop_of_redirects(name: str):
    """Without it X-Forwarded-Proto is not believed, and every page redirects to TLS again."""
    assert services()[name]["environment"]["TRUSTED_PROXIES"].startswith("${TRUSTED_PROXIES:?")


def test_the_header_explains_whatever_has_to_be_given():
    header = text().partition("\n\n")[0]
    assert all(line.startswith("#") for line in header.splitlines())
    assert set(REQUIRED.findall(text())) <= set(re.findall(r"\b[A-Z_]{6,}\b", header))
