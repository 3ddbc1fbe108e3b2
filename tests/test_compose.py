"""docker-compose.yml and Dockerfile: who is given which secret, who runs what, how confined.

That the commands in them work is shown by running them: `test_compose_running`.
"""

from __future__ import annotations

import re

import pytest
from django.conf import settings
from django.core.management import get_commands

from debugflow.sweeping import GRACE
from tests.compose import (
    LASTING,
    OURS,
    SERVERS,
    dockerfile,
    dotenv,
    environment,
    ignored,
    interpolated,
    parsed,
    services,
    text,
    wanted,
)
from tests.docs.pages import ROOT
from tests.docs.variables import read_by, sources

FILE_FORM = "_FILE"
NOT_PASSED = {
    "DEBUG": "for development only",
    "DEBUGFLOW_DEMO": "this is no demonstration",
    "DEBUGFLOW_SECURE": "without TLS nobody should sign in",
    "MIGRATIONS_DATABASE_URL": "leads to the tables' owner: of `migrate` alone",
    "STATIC_ROOT": "the image has the files where they were collected",
}
SHELL = re.compile(r"/run/secrets/(\w+)")


def secrets_of(name: str) -> set[str]:
    return set(services()[name].get("secrets", []))


def holders(secret: str) -> set[str]:
    return {name for name in services() if secret in secrets_of(name)}


def seconds(duration: str) -> int:
    assert duration.endswith("s")
    return int(duration.removesuffix("s"))


def test_there_are_two_servers_and_five_of_our_own():
    assert services().keys() == OURS | SERVERS


@pytest.mark.slow
def test_each_secret_that_leads_to_more_has_as_few_holders_as_can_be():
    assert holders("postgres_password") == {"postgres", "prepare"}
    assert holders("migrator_password") == {"prepare", "migrate"}
    assert holders("metrics_token") == holders("email_password") == LASTING
    assert {name for name in services() if "MIGRATIONS_DATABASE_URL" in env_of(name)} == {"migrate"}
    assert {name for name in services() if "SUPERUSER_DATABASE_URL" in env_of(name)} == {"prepare"}


def env_of(name: str) -> dict[str, str]:
    """Its variables, those that are only passed on as empty."""
    found: dict[str, str | None] = services()[name].get("environment", {})
    return {variable: value or "" for variable, value in found.items()}


@pytest.mark.parametrize("name", sorted(OURS | SERVERS))
def test_a_service_is_given_exactly_the_secrets_that_it_names(name: str):
    service = services()[name]
    told = f"{env_of(name)} {service.get('command')} {service.get('healthcheck')}"
    assert set(SHELL.findall(told)) == secrets_of(name)
    assert secrets_of(name) <= parsed()["secrets"].keys()


def test_no_secret_is_in_an_environment_or_on_a_command_line():
    """Both are shown by `docker inspect`, and the second to every process of the host."""
    for name, service in services().items():
        for variable, value in env_of(name).items():
            secret = re.search("PASSWORD|SECRET|KEYS|TOKEN", variable)
            assert not secret or variable.endswith(FILE_FORM), (name, variable)
            assert not re.search(r"://[^/@]*:[^/@]+@", value), (name, variable)
        assert "PASSWORD" not in str(service.get("command", ""))


@pytest.mark.slow
def test_every_variable_is_one_that_the_product_reads():
    """A misspelt one would be ignored, and its default used instead."""
    read = {variable for path in sources() for variable in read_by(path)}
    for name in OURS:
        assert {variable.removesuffix(FILE_FORM) for variable in env_of(name)} <= read


def settings_read() -> set[str]:
    """Every variable of debugflow/settings.py."""
    return set(read_by(ROOT / "debugflow" / "settings.py"))


def test_every_setting_can_be_given_to_what_lasts_or_there_is_a_reason():
    """Else somebody sets it in `.env`, and nothing happens."""
    assert NOT_PASSED.keys() <= settings_read()
    for name in LASTING:
        passed = {variable.removesuffix(FILE_FORM) for variable in env_of(name)}
        assert settings_read() - passed == NOT_PASSED.keys(), name


def test_what_is_given_arrives_and_what_is_not_keeps_its_default():
    given = {"ALLOWED_HOSTS": "one", "TRUSTED_PROXIES": "10.0.0.0/8", "EMAIL_USE_TLS": "False"}
    seen = environment("web", given)
    assert seen.items() >= given.items()
    assert "EMAIL_PORT" not in seen  # an empty one would be refused as no number


@pytest.mark.parametrize("name", sorted(LASTING))
def test_what_lasts_has_the_applications_login_and_no_other(name: str):
    environment = env_of(name)
    assert environment["DATABASE_URL"].startswith("postgresql://debugflow_app@")
    assert "migrator_password" not in secrets_of(name)
    assert not {"DEBUG", "DEBUGFLOW_DEMO", "DEBUGFLOW_SECURE"} & environment.keys()


@pytest.mark.parametrize("name", sorted(OURS | SERVERS))
def test_each_is_confined(name: str):
    service = services()[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "/tmp" in service["tmpfs"]
    assert not {"privileged", "cap_add", "network_mode", "pid"} & service.keys()
    limits = service["deploy"]["resources"]["limits"]
    assert limits.keys() == {"cpus", "memory", "pids"}
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}


def test_nobody_is_root():
    """The broker's image gives root up only for a command that begins with its own program."""
    assert all(services()[name]["user"] == "999:999" for name in SERVERS)
    assert all("user" not in services()[name] for name in OURS)
    users = re.findall(r"^USER (.+)$", dockerfile(), re.MULTILINE)
    assert users == ["10001:10001"]
    assert dockerfile().index("USER 10001") > dockerfile().rindex("RUN ")


def test_every_image_is_pinned():
    images = [services()[name]["image"] for name in SERVERS]
    images += re.findall(r"^FROM (\S+)", dockerfile(), re.MULTILINE)
    assert len(images) == 4
    assert all(re.search(r":\d+\.\d+(\.\d+)?(-\w+)*$", image) for image in images), images


def test_servers_are_on_a_network_without_a_way_in_or_out():
    networks = parsed()["networks"]
    assert networks["inside"] == {"internal": True}
    for name in (*SERVERS, "prepare", "migrate"):
        assert services()[name]["networks"] == ["inside"]
    for name in LASTING:
        assert services()[name]["networks"] == ["inside", "outside"]


def test_only_this_machine_reaches_the_web_process_past_the_proxy():
    assert services()["web"]["ports"] == ["127.0.0.1:8000:8000"]
    assert [name for name, service in services().items() if "ports" in service] == ["web"]


def test_each_runs_what_it_should():
    commands = {name: service.get("command", []) for name, service in services().items()}
    assert commands["prepare"] == ["python", "manage.py", "prepare_database"]
    assert commands["migrate"] == ["python", "manage.py", "migrate"]
    assert {commands["prepare"][2], commands["migrate"][2]} <= get_commands().keys()
    assert "command" not in services()["web"]  # the image's own
    assert 'CMD ["uvicorn", "debugflow.asgi:application"' in dockerfile()
    for name in ("worker", "revoke"):
        assert commands[name][:3] == ["celery", "--app=debugflow", "worker"]


def queues(name: str) -> set[str]:
    [option] = [o for o in services()[name]["command"] if o.startswith("--queues=")]
    return set(option.removeprefix("--queues=").split(","))


def test_every_queue_has_a_worker_and_ending_access_one_of_its_own():
    used = {route["queue"] for route in settings.CELERY_TASK_ROUTES.values() if "queue" in route}
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


@pytest.mark.parametrize("name", sorted(LASTING | SERVERS))
def test_what_lasts_is_looked_at_and_given_time_to_end(name: str):
    service = services()[name]
    assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}
    assert seconds(service["stop_grace_period"]) >= 20


def test_the_graces_are_longer_than_what_they_wait_for():
    assert seconds(services()["worker"]["stop_grace_period"]) > GRACE
    [inner] = re.findall(r"--timeout-graceful-shutdown=(\d+)", dockerfile())
    assert seconds(services()["web"]["stop_grace_period"]) > int(inner)


def test_a_full_broker_refuses_rather_than_forgets_or_is_killed():
    [script] = services()["valkey"]["command"][2:]
    assert "maxmemory-policy noeviction" in script
    [most] = re.findall(r"^maxmemory (\d+)mb$", script, re.MULTILINE)
    assert services()["valkey"]["deploy"]["resources"]["limits"]["memory"] == f"{2 * int(most)}M"
    # In the place of the shell, which would keep the signal to end from it.
    assert script.startswith("exec valkey-server")


def test_data_of_the_servers_outlives_them():
    assert services()["postgres"]["volumes"] == ["postgres:/var/lib/postgresql"]
    assert services()["valkey"]["volumes"] == ["valkey:/data"]
    assert parsed()["volumes"].keys() == SERVERS


@pytest.mark.parametrize("name", sorted(LASTING))
def test_the_proxy_has_to_be_named_or_signing_in_would_be_a_loop_of_redirects(name: str):
    """Without it X-Forwarded-Proto is not believed, and every page redirects to TLS again."""
    assert env_of(name)["TRUSTED_PROXIES"].startswith("${TRUSTED_PROXIES:?")


def test_the_header_and_the_page_name_whatever_has_to_be_given():
    required, optional = wanted()
    header = text().partition("\n\nx-")[0]
    assert all(line.startswith("#") for line in header.splitlines() if line)
    assert required <= set(re.findall(r"\b[A-Z_]{6,}\b", header))
    assert required <= dotenv().keys() <= required | optional


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ("${ONE:?say it}", "1"),
        ("${TWO:-2}", "2"),
        ("${ONE:-2}", "1"),
        ("$$HOME", "$HOME"),
        ("a ${ONE:?x} b ${TWO:-}", "a 1 b "),
    ],
)
def test_values_are_filled_in_as_compose_does(value: str, meant: str):
    assert interpolated(value, {"ONE": "1"}) == meant


def test_a_value_that_has_to_be_given_is_missed():
    with pytest.raises(LookupError, match="say it"):
        interpolated("${ONE:?say it}", {})


def test_nothing_but_the_product_is_copied_into_the_image():
    """No .env, secret, dump or history of the checkout."""
    kept = [line for line in ignored() if line.startswith("!")]
    assert ignored()[0] == "*"
    assert {"!approvals", "!audit", "!debugflow", "!manage.py", "!requirements.lock"} <= set(kept)
    assert not any(re.search(r"env|secret|git|docs|tests", line) for line in kept)
