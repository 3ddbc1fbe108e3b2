"""The system checks, one by one: what each complains of, and what it lets pass."""

from __future__ import annotations

import base64
import time
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.core.checks import CheckMessage

from approvals.models import Heartbeat
from audit import clock
from debugflow import checks
from debugflow.embedded.runtime import APP, OWNER
from tests.conftest import DATABASE, Control
from tests.debugflow.conftest import SignInAs
from tests.world import World


def ids(found: list[CheckMessage]) -> list[str]:
    return [str(message.id).removeprefix("debugflow.") for message in found]


@pytest.fixture
def production(settings: Any) -> Any:
    """Settings as a real installation has them."""
    settings.DEBUG = settings.DEMO = False
    settings.SECURE = settings.FOUR_EYES = True
    settings.SECRET_KEY = "k" * 50
    settings.ALLOWED_HOSTS = ["debugflow.example.com"]
    settings.SITE_URL = "https://debugflow.example.com"
    settings.EMAIL_HOST = "mail.example.com"
    settings.REDIS_URL = "rediss://:word@redis.example.com:6379/0"
    settings.METRICS_TOKEN = ""
    return settings


ASK_NO_DATABASE = (
    checks.production_is_not_the_demo,
    checks.demo_stays_at_home,
    checks.secrets_can_be_sealed,
    checks.keys_are_random,
    checks.proxies_are_some,
    checks.mail_has_one_kind_of_tls,
    checks.two_are_needed,
    checks.people_can_be_told,
    checks.servers_are_closed,
    checks.figures_are_sound,
)


@pytest.mark.parametrize("check", ASK_NO_DATABASE)
def test_production_passes_what_asks_no_database(production, check):
    assert check() == []


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


def test_one_who_widens_access_alone_is_warned_of(production):
    production.FOUR_EYES = False
    assert ids(checks.two_are_needed()) == ["W010"]


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


def test_clocks_that_agree_are_fine(committed: None):
    assert checks.clocks_agree(databases=["default"]) == []
    assert checks.clocks_agree(databases=None) == []


@pytest.mark.parametrize("seconds", [-2.5, 2.5, 3600])
def test_a_clock_that_is_two_seconds_off_stops_the_start(committed: None, monkeypatch, seconds):
    monkeypatch.setattr(checks, "time", SimpleNamespace(time=lambda: time.time() + seconds))
    [complaint] = checks.clocks_agree(databases=["default"])
    assert ids([complaint]) == ["E009"]
    assert f"{abs(seconds):.1f} s apart" in complaint.msg


def test_an_answer_that_took_long_is_no_skew(committed: None, monkeypatch):
    sent_and_answered = iter([time.time(), time.time() + 10])
    monkeypatch.setattr(checks, "time", SimpleNamespace(time=lambda: next(sent_and_answered)))
    assert checks.clocks_agree(databases=["default"]) == []


@pytest.mark.parametrize("raw", [b"A" * 32, b"0123456789" * 3 + b"ab", b"demo" + bytes(range(28))])
def test_a_key_that_nobody_drew_is_refused(production, raw):
    key = base64.urlsafe_b64encode(raw).decode()
    production.ENCRYPTION_KEYS = [Fernet.generate_key().decode(), key]
    assert checks.secrets_can_be_sealed() == []
    assert ids(checks.keys_are_random()) == ["E010"]


@pytest.mark.parametrize("keys", [["no key"], ["\u00fc" * 44], [""]])
def test_what_is_no_key_at_all_is_the_other_checks_affair(production, keys):
    production.ENCRYPTION_KEYS = keys
    assert ids(checks.secrets_can_be_sealed()) == ["E006"]
    assert "E006" not in ids(checks.keys_are_random())


@pytest.mark.parametrize(
    "networks",
    [["0.0.0.0/0"], ["::/0"], ["10.0.0.0/8", "0.0.0.0/1", "128.0.0.0/1"], ["everyone"]],
)
def test_a_proxy_that_is_everybody_is_refused(production, networks):
    production.TRUSTED_PROXIES = networks
    assert ids(checks.proxies_are_some()) == ["E011"]


def test_proxies_with_an_address_of_their_own_are_fine(production):
    production.TRUSTED_PROXIES = ["172.16.0.0/12", "10.0.0.7", "fd00::/8"]
    assert checks.proxies_are_some() == []


def test_two_kinds_of_tls_for_mail_are_refused(production):
    production.EMAIL_USE_TLS = production.EMAIL_USE_SSL = True
    assert ids(checks.mail_has_one_kind_of_tls()) == ["E012"]


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"EMAIL_HOST": ""}, ["W002"]),
        ({"EMAIL_USE_TLS": False}, ["W008"]),
        ({"EMAIL_USE_TLS": False, "EMAIL_USE_SSL": True}, []),
        ({"EMAIL_USE_TLS": False, "EMAIL_HOST": "127.0.0.1"}, []),
        ({"SITE_URL": ""}, ["W003"]),
        ({"SITE_URL": "http://debugflow.example.com"}, ["W003"]),
        ({"SITE_URL": "debugflow.example.com"}, ["W003"]),
    ],
)
def test_whether_people_can_be_told(production, changes, found):
    for name, value in changes.items():
        setattr(production, name, value)
    assert ids(checks.people_can_be_told()) == found


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("redis://redis.example.com:6379/0", ["W004"]),
        ("redis://10.0.0.5:6379/0", ["W004"]),
        ("redis://user@redis.example.com/0", ["W004"]),
        ("redis://:word@redis.example.com/0", []),
        ("redis://localhost:6379/0", []),
        ("redis://[::1]:6379/0", []),
        ("redis+socket:///run/valkey.sock", []),
    ],
)
def test_a_broker_on_another_machine_needs_a_password(production, url, found):
    production.REDIS_URL = url
    assert ids(checks.servers_are_closed()) == found


@pytest.mark.parametrize(
    ("host", "sslmode", "found"),
    [
        ("db.example.com", None, ["W005"]),
        ("db.example.com", "prefer", ["W005"]),
        ("db.example.com", "verify-full", []),
        ("db.example.com", "require", []),
        ("127.0.0.1", None, []),
        ("/var/run/postgresql", None, []),
        ("", None, []),
    ],
)
def test_a_database_on_another_machine_needs_tls(production, monkeypatch, host, sslmode, found):
    options = {"sslmode": sslmode} if sslmode else {}
    monkeypatch.setitem(production.DATABASES["default"], "HOST", host)
    monkeypatch.setitem(production.DATABASES["default"], "OPTIONS", options)
    assert ids(checks.servers_are_closed()) == found


@pytest.mark.parametrize(
    ("setting", "value", "found"),
    [
        ("SWEEP_INTERVAL", 1.0, []),
        ("SWEEP_INTERVAL", 1.001, ["W006"]),
        ("METRICS_TOKEN", "t" * 31, ["W007"]),
        ("METRICS_TOKEN", "t" * 32, []),
    ],
)
def test_figures_that_break_a_promise_are_told(production, setting, value, found):
    setattr(production, setting, value)
    assert ids(checks.figures_are_sound()) == found


def sweepers() -> list[CheckMessage]:
    return checks.sweepers_are_alive(databases=["default"])


def beats(name: str, **fields: Any) -> None:
    now = clock.now()
    Heartbeat.objects.create(name=name, **{"started_at": now, "swept_at": now, **fields})


def test_one_sweeper_is_too_few_and_two_are_enough(db: None):
    beats("one")
    [complaint] = sweepers()
    assert ids([complaint]) == ["W001"]
    assert complaint.msg.startswith("1 of at least 2")
    assert not complaint.is_serious()  # or the first one of all could not start
    beats("two")
    assert sweepers() == []


def test_with_none_alive_it_says_what_that_means(world: World):
    """Of one that has stopped; and where an access was approved and none was ever started."""
    world.approved()
    for _ in range(2):
        [complaint] = sweepers()
        assert ids([complaint]) == ["W009"]
        assert "No sweeper is alive: no access is opened, and none is ended" in complaint.msg
        assert "manage.py sweep" in str(complaint.hint)
        assert not complaint.is_serious()
        beats("one", stopped_at=clock.now())


def test_whoever_has_stopped_or_fallen_silent_is_no_sweeper(db: None):
    beats("one")
    beats("two", stopped_at=clock.now())
    beats("three", swept_at=clock.now() - timedelta(seconds=16))
    assert ids(sweepers()) == ["W001"]


def test_before_the_first_start_there_can_be_no_sweeper(db: None):
    assert sweepers() == []


@pytest.mark.usefixtures("committed")
def test_before_the_first_migration_there_is_no_heartbeat_to_look_at(control: Control):
    control.point_django_at("postgres", APP)
    try:
        assert sweepers() == []
    finally:
        control.point_django_at(DATABASE, APP)
