"""Names of accounts: the log knows people by them."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Permission

from approvals.sentences import event_sentence
from audit.models import Event
from debugflow.accounts.models import RESERVED
from tests.pages import signed_in, text

pytestmark = pytest.mark.django_db


def saved(who: Any, person: Any, **changes: Any) -> Any:
    """What the admin answers to a form about `person` with these changes."""
    client = signed_in(who)
    address = f"/admin/accounts/user/{person.pk}/change/"
    form = client.get(address).context["adminform"].form
    sent = {name: form[name].value() for name in form.fields if form[name].value() is not None}
    sent = {key: value for key, value in sent.items() if value is not False} | changes
    sent |= {"date_joined_0": "2026-01-01", "date_joined_1": "10:00:00"}
    return client.post(address, sent)


def test_a_new_name_is_told_with_the_one_before(world):
    assert saved(world.ada, world.bob, username="bob-old").status_code == 302
    [event] = Event.objects.filter(action="account.renamed")
    assert (event.subject_label, event.data["before"]) == ("bob-old", "bob")
    assert event_sentence(event) == "ada gave bob the name bob-old."


def test_only_a_superuser_gives_one(world):
    world.mallory.is_staff = True
    world.mallory.save()
    rights = ("view_user", "change_user")
    world.mallory.user_permissions.set(Permission.objects.filter(codename__in=rights))
    assert saved(world.mallory, world.bob, username="carol-2", email="b@x.org").status_code == 302
    world.bob.refresh_from_db()
    assert (world.bob.username, world.bob.email) == ("bob", "b@x.org")
    assert not Event.objects.filter(action="account.renamed").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", [*sorted(RESERVED), "DebugFlow"])
def test_nobody_is_called_what_the_log_calls_others(world, name):
    answer = saved(world.ada, world.bob, username=name)
    assert answer.status_code == 200
    assert "The audit log means somebody else by this name." in text(answer)
