"""The installation's own name: given once, never changed, and what is said before there is one."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError, transaction

from approvals import installation
from approvals.errors import NotAllowed, WrongState
from approvals.models import Installation
from audit.models import Event
from tests.world import World

pytestmark = pytest.mark.django_db


def rows() -> int:
    return Installation.objects.count()


def test_a_database_that_has_no_name_yet_was_nowhere_else():
    assert not rows()
    assert not installation.moved()
    assert rows() == 1


def test_before_there_is_a_name_there_is_nothing_to_confirm(world: World):
    assert not rows()
    with pytest.raises(WrongState, match="nothing to confirm"):
        installation.restored(installation.ONLY, by=world.ada)
    with pytest.raises(NotAllowed):
        installation.restored(installation.ONLY, by=world.olga)
    refused = Event.objects.filter(action="reconciliation.refused").order_by("id")
    assert [event.actor_name for event in refused] == ["ada", "olga"]
    assert not installation.moved()


def test_the_command_says_so_in_words(world: World):
    with pytest.raises(CommandError, match="nothing to confirm"):
        call_command("reconcile", restored=True, by="ada", stdout=StringIO())


@pytest.mark.parametrize(
    "deed",
    [
        lambda: Installation.objects.update(key=uuid.uuid4()),
        lambda: Installation.objects.all().delete(),
    ],
    ids=["changed", "removed"],
)
def test_the_name_stays_or_its_accounts_would_pass_for_somebody_elses(deed: Callable[[], object]):
    key = installation.key()
    with pytest.raises(IntegrityError, match="keeps its key"), transaction.atomic():
        deed()
    assert installation.key() == key


def test_a_database_that_is_taken_for_a_restored_one_keeps_its_name():
    key = installation.key()
    installation.forget_place()
    assert installation.moved()
    assert installation.key() == key
