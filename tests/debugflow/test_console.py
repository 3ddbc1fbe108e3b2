"""Accounts changed from a console: nothing of it goes without an Event."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from django.core.management import CommandError, call_command

from approvals import tokens
from approvals.models import ApiToken
from approvals.tokens import TokenWish
from audit.models import Event
from debugflow.accounts.models import User
from debugflow.embedded.state import CHECKOUT
from tests.conftest import Control

NEW = "a rather longer one"


@pytest.fixture
def types(monkeypatch):
    """What somebody types where a password is asked for, again and again."""

    def say(password: str) -> None:
        monkeypatch.setattr("getpass.getpass", lambda prompt="": password)

    return say


def events(action: str) -> list[Event]:
    return list(Event.objects.filter(action=action))


@pytest.mark.django_db
def test_a_password_set_from_a_console_is_told_and_ends_the_tokens(world, types):
    wish = TokenWish(name="nightly", scopes=["read"], days=7)
    tokens.make(world.alice.pk, by=world.alice, wish=wish)
    tokens.make(world.bob.pk, by=world.bob, wish=wish)
    types(NEW)
    call_command("changepassword", "alice")
    assert User.objects.get(pk=world.alice.pk).check_password(NEW)
    [told] = events("account.password_reset")
    assert (told.actor_name, told.subject_label) == ("debugflow", "alice")
    [ended] = events("token.revoked")
    assert ended.data["because"] == "account.password_reset"
    live = ApiToken.objects.filter(revoked_at__isnull=True)
    assert [token.account for token in live] == [world.bob]


@pytest.mark.django_db
def test_a_password_that_will_not_do_changes_nothing(world, types):
    types("short")
    with pytest.raises(CommandError):
        call_command("changepassword", "alice")
    assert User.objects.get(pk=world.alice.pk).check_password("a long password")
    assert events("account.password_reset") == []
    with pytest.raises(CommandError, match="does not exist"):
        call_command("changepassword", "nobody")


@pytest.mark.django_db
def test_a_superuser_made_from_a_console_is_told(world):
    call_command("createsuperuser", username="eve", email="eve@example.com", interactive=False)
    [told] = events("account.created")
    assert (told.subject_label, told.data["superuser"]) == ("eve", True)


@pytest.mark.slow
@pytest.mark.usefixtures("committed")
def test_ours_are_the_commands_that_a_console_runs(control: Control):
    """Not Django's own of the same names, whatever is installed in which order."""
    told = {
        "DATABASE_URL": control.url(),
        "DJANGO_SETTINGS_MODULE": "debugflow.settings",
        "DEBUGFLOW_DEMO": "True",
        "DJANGO_SUPERUSER_PASSWORD": NEW,
    }
    command = ["createsuperuser", "--noinput", "--username", "eve", "--email", "eve@example.com"]
    subprocess.run(
        [sys.executable, "manage.py", *command],
        cwd=CHECKOUT,
        env=os.environ | told,
        check=True,
        timeout=60,
        capture_output=True,
    )
    assert [event.subject_label for event in events("account.created")] == ["eve"]
