"""`manage.py setup`: from an empty database to an opened access, without the demonstration."""

from __future__ import annotations

import getpass
import json
import sys
from collections.abc import Callable, Iterator
from io import StringIO
from typing import Any

import psycopg
import pytest
from django.contrib.auth import authenticate, get_user_model
from django.contrib.auth.models import Group
from django.core.management import CommandError, call_command
from django.db.models import Model

from approvals import access, closing, grants, opening, wishes, workflow
from approvals.models import AccessLevel, Grant, Policy, PolicyVersion, Target
from audit.models import Event
from debugflow.embedded.production import Production
from debugflow.embedded.runtime import APP
from debugflow.embedded.state import scratch
from tests.conftest import DATABASE, Control

pytestmark = pytest.mark.slow

ADMIN_PASSWORD, TARGET_PASSWORD = "correct-horse-7Kq-battery", "reports-admin-8Lm"
ADMIN = ("--admin=ada", "--email=ada@example.com")


@pytest.fixture(scope="module")
def production() -> Iterator[Production]:
    with scratch() as directory:
        with Production(directory / "production", settings={"fsync": "off"}) as running:
            yield running


@pytest.fixture
def empty(committed: None, settings: Any, control: Control, monkeypatch: Any) -> Any:
    """A new installation: a migrated database with nobody in it, and settings that may start."""
    with control.superuser(DATABASE) as server:
        server.execute(f"REVOKE UPDATE ON audit_clock FROM {APP}".encode())
    settings.SECURE = True
    settings.ALLOWED_HOSTS = ["debugflow.example.com"]
    settings.SITE_URL = "https://debugflow.example.com"
    monkeypatch.setenv("DEBUGFLOW_ADMIN_PASSWORD", ADMIN_PASSWORD)
    assert not get_user_model().objects.exists()
    return settings


def setup(*arguments: str) -> str:
    out = StringIO()
    try:
        call_command("setup", *arguments, stdout=out, stderr=out)
    except CommandError as error:
        error.args = (f"{out.getvalue()}\n{error}",)
        raise
    return out.getvalue()


def target(production: Production, **config: Any) -> tuple[str, ...]:
    """The options of a target and all that belongs to it."""
    return (
        "--no-input",
        *ADMIN,
        "--target=orders",
        f"--config={json.dumps({**production.config, **config})}",
        '--rights={"role": "orders_readonly"}',
    )


@pytest.fixture
def password(production: Production, monkeypatch: Any) -> str:
    secret = production._admin_password()
    monkeypatch.setenv("DEBUGFLOW_TARGET_PASSWORD", secret)
    return secret


def person(name: str, group: str) -> Any:
    made = get_user_model().objects.create_user(name, f"{name}@example.com", "a long password")
    made.groups.add(Group.objects.get(name=group))
    return made


def opened(alice: Any, bob: Any) -> Grant:
    """alice asks, bob approves, a worker opens."""
    level = AccessLevel.objects.get()
    wish = wishes.Wish(duration=600, reason="Orders hang.")
    request = workflow.submit(level.pk, by=alice, wish=wish)
    workflow.vote(
        request.pk, by=bob, decision="approve", scope_hash=request.scope_hash, comment="Yes."
    )
    opening.open_grant(Grant.objects.get().pk, worker="w")
    return Grant.objects.get()


def test_from_nothing_to_an_opened_access(empty: Any, production: Production, password: str):
    said = setup(*target(production))
    for line in ("user ada: made", "target orders: made", "policy First policy: made"):
        assert line in said
    assert "Sign in at https://debugflow.example.com as ada" in said
    assert ADMIN_PASSWORD not in said
    assert password not in said
    assert authenticate(username="ada", password=ADMIN_PASSWORD)
    alice, bob = person("alice", "developers"), person("bob", "approvers")
    grant = opened(alice, bob)
    assert grant.state == "active", grant.last_error
    shown = grants.reveal(grant.pk, by=alice)
    where = shown.connection
    with psycopg.connect(
        host=where["host"],
        port=where["port"],
        dbname=where["database"],
        user=where["user"],
        password=shown.password,
    ) as session:
        assert session.execute("SELECT count(*) FROM orders").fetchone() == (3000,)
    grants.release(grant.pk, by=alice)
    closing.close_grant(grant.pk, worker="w")
    assert Grant.objects.get().state == "ended"


def test_a_second_time_changes_nothing_and_says_so(
    empty: Any, production: Production, password: str
):
    setup(*target(production))
    rows: list[type[Model]] = [get_user_model(), Group, Target, AccessLevel, Policy, PolicyVersion]
    rows.append(Event)
    before = [list(model._default_manager.order_by("pk").values()) for model in rows]
    said = setup(*target(production))
    assert [list(model._default_manager.order_by("pk").values()) for model in rows] == before
    assert said.count("exists already") == 7
    assert "made" not in said.partition("Next:")[0]


def test_every_step_is_told_to_the_audit_log(empty: Any, production: Production, password: str):
    setup(*target(production))
    told = list(Event.objects.order_by("id").values_list("action", "actor_name"))
    assert told == [
        ("account.created", "debugflow"),
        ("group.created", "ada"),
        ("target.created", "ada"),
        ("permissions.changed", "ada"),
        ("group.created", "ada"),
        ("accesslevel.created", "ada"),
        ("permissions.changed", "ada"),
        ("group.created", "ada"),
        ("policy.changed", "ada"),
        ("policy.published", "ada"),
    ]


def test_the_admin_gets_no_say_of_their_own(empty: Any, production: Production, password: str):
    """Groups have nobody in them: who asks, approves and owns is decided by whoever runs it."""
    setup(*target(production))
    ada = get_user_model().objects.get()
    assert not ada.groups.exists()
    assert not access.owned_targets(ada).exists()
    assert not access.requestable_levels(ada).exists()


def test_a_target_that_is_not_prepared_gets_the_sql_and_then_its_level(
    empty: Any, production: Production, monkeypatch: Any
):
    monkeypatch.setenv("DEBUGFLOW_TARGET_PASSWORD", "not yet known")
    options = target(production, user="reports_admin", quarantine="reports_quarantine")
    with pytest.raises(CommandError, match="run this again once it is mended") as refused:
        setup(*options)
    said = str(refused.value)
    assert "NOT  signs in to the target" in said
    assert not AccessLevel.objects.exists()
    sql = said.partition("as its superuser:\n")[2].rpartition("\n\n")[0]
    assert 'CREATE ROLE "reports_admin"' in sql
    with production.superuser() as owner:
        owner.execute(without_words(sql).encode())
        owner.execute(f"ALTER ROLE reports_admin PASSWORD '{TARGET_PASSWORD}'".encode())
    monkeypatch.setenv("DEBUGFLOW_TARGET_PASSWORD", TARGET_PASSWORD)
    assert "target orders: exists already" in setup(*options)
    grant = opened(person("alice", "developers"), person("bob", "approvers"))
    assert grant.state == "active", grant.last_error


def without_words(sql: str) -> str:
    """The statements alone: what the command says after them is no SQL."""
    return "\n".join(line for line in sql.splitlines() if not line.startswith("debugflow "))


def test_without_a_target_it_makes_the_admin_only(empty: Any):
    said = setup("--no-input", *ADMIN)
    assert "user ada: made" in said
    assert "No sweeper is alive: no access is opened" in said
    assert not Group.objects.exists()


def test_passwords_come_from_files_as_well(
    empty: Any, production: Production, monkeypatch: Any, tmp_path: Any
):
    for name, secret in {"ADMIN": ADMIN_PASSWORD, "TARGET": production._admin_password()}.items():
        path = tmp_path / name
        path.write_text(f"{secret}\n")
        monkeypatch.delenv(f"DEBUGFLOW_{name}_PASSWORD", raising=False)
        monkeypatch.setenv(f"DEBUGFLOW_{name}_PASSWORD_FILE", str(path))
    setup(*target(production))
    assert authenticate(username="ada", password=ADMIN_PASSWORD)
    assert AccessLevel.objects.exists()


FOUND_BY_OTHERS = {
    "short": "too short",
    "ada@example.com": "too similar",
    "password1234": "too common",
}


def test_a_password_that_others_would_find_is_refused(empty: Any, monkeypatch: Any):
    for password, why in FOUND_BY_OTHERS.items():
        monkeypatch.setenv("DEBUGFLOW_ADMIN_PASSWORD", password)
        with pytest.raises(CommandError, match=why):
            setup("--no-input", *ADMIN)
    assert not get_user_model().objects.exists()


# All in one test each, since a database of one's own is what takes the time.
MISSING_OR_WRONG: list[tuple[list[str], str]] = [
    (["--admin=ada"], "Give --email"),
    (["--admin=a b", "--email=ada@example.com"], "valid username"),
    (["--admin=ada", "--email=nobody"], "valid email"),
    ([*ADMIN, "--target=orders"], "Give --config as JSON, with host"),
    ([*ADMIN, "--target=orders", "--config={"], "--config is not JSON"),
    ([*ADMIN, "--target=orders", "--config=[]"], "--config is a JSON object"),
    ([*ADMIN, "--target=orders", "--config={}"], "host: Field required"),
    ([*ADMIN, "--target=Or ders", '--config={"host": "h"}'], "database: Field required"),
    ([*ADMIN, "--target=orders", "--kind=moon"], "no kind of target called “moon”"),
    ([*ADMIN, "--target=orders", "--config={}", "--trust-anchor=/none"], "cannot be read"),
]


def test_what_is_missing_or_wrong_is_said(empty: Any, monkeypatch: Any):
    monkeypatch.setenv("DEBUGFLOW_TARGET_PASSWORD", "some password")
    for arguments, why in MISSING_OR_WRONG:
        with pytest.raises(CommandError, match=why):
            setup("--no-input", *arguments)
    assert not Target.objects.exists()


def test_a_missing_password_names_its_variable(
    empty: Any, production: Production, password: str, monkeypatch: Any
):
    for variable in ("DEBUGFLOW_TARGET_PASSWORD", "DEBUGFLOW_ADMIN_PASSWORD"):
        with monkeypatch.context() as without:
            without.delenv(variable)
            with pytest.raises(CommandError, match=f"{variable}_FILE"):
                setup(*target(production))
        get_user_model().objects.all().delete()


def test_an_unsafe_level_is_refused_with_its_reasons(
    empty: Any, production: Production, password: str
):
    options = [*target(production)[:-1], '--rights={"role": "pg_write_all_data"}']
    with pytest.raises(CommandError, match="pg_write_all_data"):
        setup(*options)
    assert not AccessLevel.objects.exists()
    assert not Policy.objects.exists()


def test_somebody_who_is_no_admin_is_not_made_one(empty: Any):
    get_user_model().objects.create_user("ada", "ada@example.com", "a long password")
    with pytest.raises(CommandError, match="no active superuser"):
        setup("--no-input", *ADMIN)
    assert not get_user_model().objects.get().is_superuser


def test_further_groups_are_added_and_nobody_loses_anything(
    empty: Any, production: Production, password: str
):
    setup(*target(production))
    setup(*target(production), "--owners=dba", "--askers=support")
    olga, amir = person("olga", "owners"), person("amir", "developers")
    dora, sam = person("dora", "dba"), person("sam", "support")
    assert all(access.owned_targets(one).exists() for one in (olga, dora))
    assert all(access.requestable_levels(one).exists() for one in (amir, sam))


def test_an_existing_target_elsewhere_is_not_moved(
    empty: Any, production: Production, password: str
):
    setup(*target(production))
    assert "It differs in port" in setup(*target(production, port=1))
    assert Target.objects.get().config["port"] == production.config["port"]


UNSAFE: list[tuple[str, object, str]] = [
    ("DEMO", True, "DEBUGFLOW_DEMO"),
    ("SECURE", False, r"debugflow\.E004"),
    ("SECRET_KEY", "demo-key", r"debugflow\.E003"),
    ("ENCRYPTION_KEYS", [], r"debugflow\.E006"),
    ("MIGRATIONS_DATABASE_URL", "postgresql://m@localhost/d", "only `migrate`"),
]


def test_nothing_is_set_up_on_settings_of_a_demo(empty: Any):
    for setting, value, why in UNSAFE:
        before = getattr(empty, setting)
        setattr(empty, setting, value)
        with pytest.raises(CommandError, match=why):
            setup("--no-input", *ADMIN)
        setattr(empty, setting, before)
    assert not get_user_model().objects.exists()


@pytest.fixture
def typing(monkeypatch: Any) -> Callable[..., list[str]]:
    """Somebody at a terminal, who answers by what the question begins with, else with Return."""

    def sit_down(secrets: list[str], **answers: str) -> list[str]:
        asked: list[str] = []
        hidden = iter(secrets)

        def answer(question: str) -> str:
            asked.append(question)
            words = question.strip().replace(" ", "_")
            return next((text for name, text in answers.items() if words.startswith(name)), "")

        monkeypatch.setattr("builtins.input", answer)
        monkeypatch.setattr(getpass, "getpass", lambda question: next(hidden))
        monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
        return asked

    return sit_down


def test_on_a_terminal_it_asks_for_everything(
    empty: Any, production: Production, typing: Any, monkeypatch: Any
):
    monkeypatch.delenv("DEBUGFLOW_ADMIN_PASSWORD")
    config = {key: str(value) for key, value in production.config.items()}
    asked = typing(
        [ADMIN_PASSWORD, ADMIN_PASSWORD, production._admin_password()],
        Name_of_the_admin="ada",
        Address="ada@example.com",
        Name_of_the_first_target="orders",
        role="orders_readonly",
        **config,
    )
    said = setup()
    assert "access level read-only on orders: made" in said
    assert "policy First policy: made" in said
    assert len(asked) == len(set(asked))
    assert authenticate(username="ada", password=ADMIN_PASSWORD)
    assert Target.objects.get().config["port"] == production.config["port"]


def test_two_passwords_that_differ_are_none(empty: Any, typing: Any, monkeypatch: Any):
    monkeypatch.delenv("DEBUGFLOW_ADMIN_PASSWORD")
    typing([ADMIN_PASSWORD, "another one"], Address="ada@example.com")
    with pytest.raises(CommandError, match="They differ"):
        setup()
    assert not get_user_model().objects.exists()


def test_whoever_leaves_in_the_middle_is_told_to_come_again(
    empty: Any, typing: Any, monkeypatch: Any
):
    typing([], Address="ada@example.com")
    monkeypatch.setattr("builtins.input", _hangs_up)
    with pytest.raises(CommandError, match="Stopped"):
        setup()


def _hangs_up(question: str) -> str:
    raise EOFError
