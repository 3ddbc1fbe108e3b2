"""The system checks, one by one: what each complains of, and what it lets pass."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.core.checks import CheckMessage

from debugflow import checks
from debugflow.embedded.runtime import APP, OWNER
from tests.conftest import DATABASE, Control
from tests.debugflow.conftest import SignInAs


def ids(found: list[CheckMessage]) -> list[str]:
    return [str(message.id).removeprefix("debugflow.") for message in found]


@pytest.fixture
def production(settings: Any) -> Any:
    """Settings as a real installation has them."""
    settings.DEBUG = settings.DEMO = False
    settings.SECURE = True
    settings.SECRET_KEY = "k" * 50
    settings.ALLOWED_HOSTS = ["debugflow.example.com"]
    return settings


def test_production_passes_what_asks_no_database(production):
    assert checks.production_is_not_the_demo() == []
    assert checks.demo_stays_at_home() == []
    assert checks.secrets_can_be_sealed() == []


@pytest.mark.parametrize(
    ("setting", "value", "found"),
    [
        ("DEBUG", True, "E001"),
        ("DEMO", True, "E002"),
        ("SECRET_KEY", "k" * 49, "E003"),
        ("SECRET_KEY", "demo-" + "k" * 50, "E003"),
        ("SECURE", False, "E004"),
    ],
)
def test_what_is_fine_at_home_only_is_named_alone(production, setting, value, found):
    setattr(production, setting, value)
    complaints = checks.production_is_not_the_demo()
    assert ids(complaints) == [found]
    assert complaints[0].hint


@pytest.mark.parametrize("mode", ["DEMO", "DEBUG"])
@pytest.mark.parametrize(
    "host", ["debugflow.example.com", "*", ".localhost", "10.0.0.1", "0.0.0.0", "[::]", ""]
)
def test_neither_demo_nor_debug_may_be_reached_from_elsewhere(production, mode, host):
    setattr(production, mode, True)
    production.ALLOWED_HOSTS = ["localhost", host]
    assert ids(checks.demo_stays_at_home()) == ["E005"]


@pytest.mark.parametrize("mode", ["DEMO", "DEBUG"])
def test_at_home_both_may_be_on(production, mode):
    setattr(production, mode, True)
    production.ALLOWED_HOSTS = ["localhost", "127.0.0.1", "127.8.8.8", "[::1]"]
    assert checks.demo_stays_at_home() == []


@pytest.mark.parametrize("keys", [[], ["not a key"], [Fernet.generate_key().decode(), "half"]])
def test_without_usable_keys_nothing_could_be_stored(production, keys):
    production.ENCRYPTION_KEYS = keys
    complaints = checks.secrets_can_be_sealed()
    assert ids(complaints) == ["E006"]
    assert "Fernet" in str(complaints[0].hint)


def powers() -> list[CheckMessage]:
    return checks.login_is_no_owner(databases=["default"])


@pytest.mark.usefixtures("committed")
def test_the_applications_own_login_is_fine():
    assert powers() == []


@pytest.mark.parametrize("attribute", ["SUPERUSER", "CREATEROLE", "BYPASSRLS"])
def test_a_login_with_powers_is_refused(sign_in_as: SignInAs, attribute: str):
    sign_in_as("mallory", attribute)
    complaints = powers()
    assert ids(complaints) == ["E007"]
    assert "superuser or manages roles" in complaints[0].msg


def test_a_member_of_the_owner_is_refused(sign_in_as: SignInAs):
    sign_in_as("mallory", "NOINHERIT", f"GRANT {OWNER} TO mallory WITH INHERIT FALSE")
    complaints = powers()
    assert ids(complaints) == ["E007"]
    assert "member of another role" in complaints[0].msg


def test_an_owner_of_a_table_is_refused(sign_in_as: SignInAs):
    made = ("CREATE TABLE hers (id int)", "ALTER TABLE hers OWNER TO mallory")
    sign_in_as("mallory", "", *made)
    complaints = powers()
    assert ids(complaints) == ["E007"]
    assert "owns tables" in complaints[0].msg


def test_each_power_is_a_complaint_of_its_own(sign_in_as: SignInAs):
    made = ("CREATE TABLE hers (id int)", "ALTER TABLE hers OWNER TO mallory")
    sign_in_as("mallory", "CREATEROLE", f"GRANT {OWNER} TO mallory", *made)
    assert ids(powers()) == ["E007"] * 3


def straight() -> list[CheckMessage]:
    return checks.clock_is_straight(databases=["default"])


def test_a_clock_that_runs_straight_and_cannot_be_shifted_is_fine(sign_in_as: SignInAs):
    sign_in_as("app2")
    assert straight() == []


def test_a_login_that_may_shift_the_clock_is_refused(sign_in_as: SignInAs):
    sign_in_as("app2", "", "GRANT UPDATE ON audit_clock TO app2")
    assert ids(straight()) == ["E008"]


def test_a_shifted_clock_is_refused(sign_in_as: SignInAs, control: Control):
    sign_in_as("app2", "", "UPDATE audit_clock SET shift = '1 s'")
    assert ids(straight()) == ["E008"]


@pytest.mark.usefixtures("committed")
def test_before_the_first_migration_there_is_no_clock_to_look_at(control: Control):
    control.point_django_at("postgres", APP)
    try:
        assert straight() == []
    finally:
        control.point_django_at(DATABASE, APP)


def test_no_database_is_asked_unless_it_is_named(sign_in_as: SignInAs):
    sign_in_as("mallory", "SUPERUSER")
    for databases in (None, [], ["another"]):
        assert checks.login_is_no_owner(databases=databases) == []
        assert checks.clock_is_straight(databases=databases) == []


def test_the_migrator_is_a_member_of_the_owner_on_purpose(sign_in_as: SignInAs, settings: Any):
    sign_in_as("mallory", "SUPERUSER", "UPDATE audit_clock SET shift = '1 s'")
    settings.MIGRATIONS_DATABASE_URL = "postgresql://debugflow_migrator@localhost/debugflow"
    assert powers() == straight() == []
