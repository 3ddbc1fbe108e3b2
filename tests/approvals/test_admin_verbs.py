"""Nothing in the admin goes around a verb: whatever changes a row there leaves an Event.

Every registered page is walked, so that one registered later is too.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib import admin
from django.db import connection
from django.test import Client
from django.urls import reverse

from approvals import delegating, opening
from approvals.delegating import Lending
from approvals.notify import endpoints, expanding
from audit import clock
from audit.models import Event
from tests.approvals.admin_browser import admin_form, browser, filled
from tests.debugflow.routes import in_slack
from tests.world import World, owe_review, propose

# Of the pages themselves, not of what they are about.
ASIDE = {"django_session", "django_admin_log"}
LOG = "audit_event"

ADDED: dict[str, dict[str, Any]] = {
    "user": {"username": "erin", "password1": "long-enough-7Kq", "password2": "long-enough-7Kq"},
    "group": {"name": "night shift"},
    "target": {"name": "billing", "environment": "staging", "config_name": "billing"},
    "accesslevel": {
        "name": "all",
        "rights_level": "read-only",
        "risk": "low",
        "rank": "7",
        "max_duration": "1 h",
    },
    "policy": {"name": "Staging", "rank": "70"},
    "webhookendpoint": {"name": "pager", "url": "https://pager.example.com/", "facts": ["asked"]},
}
"""What has to be typed to add one."""
CHANGED: dict[str, dict[str, Any]] = {
    "user": {"first_name": "Robert", "date_joined_0": "2026-01-01", "date_joined_1": "10:00"},
    "group": {"name": "renamed"},
    "target": {"description": "Looked after."},
    "accesslevel": {"description": "Looked after."},
    "policy": {"name": "Renamed"},
    "webhookendpoint": {"name": "renamed"},
    "slackworkspace": {"signing_secret": "f" * 32},
}
"""What changes one. Of whatever is not here every change is refused."""


@pytest.fixture
def lived_in(world: World) -> World:
    """Something of every kind is there."""
    grant = world.approved()
    opening.open_grant(grant.pk, worker="w1")
    owe_review(grant)
    lending = Lending(delegate="chen", ends_at=clock.now() + timedelta(days=1))
    delegating.delegate(world.bob.pk, by=world.bob, lending=lending)
    hears = endpoints.Wish(name="chat", url="https://chat.example.com/", facts=["asked"])
    propose(world)
    endpoints.rotate(endpoints.save(0, by=world.ada, wish=hears).pk, by=world.ada)
    in_slack(world)
    expanding.expand_due()
    return world


def tables() -> dict[str, str]:
    """A hash of all rows of every table."""
    with connection.cursor() as cursor:
        names = sorted(set(connection.introspection.table_names(cursor)) - ASIDE)
        one = "SELECT '{0}', md5(string_agg(t::text, chr(10) ORDER BY t::text)) FROM {0} t"
        cursor.execute(" UNION ALL ".join(one.format(name) for name in names))
        return dict(cursor.fetchall())


def changes(client: Client, page: str, data: dict[str, Any]) -> tuple[bool, bool]:
    """Whether sending this changes any row, and whether the log has it."""
    before, events = tables(), Event.objects.count()
    client.post(page, data)
    after = tables()
    changed = {name for name in after if before[name] != after[name]} - {LOG}
    return bool(changed), Event.objects.count() > events


def address(model: Any, page: str, *args: Any) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}", args=args)


def typed(client: Client, page: str, more: dict[str, Any]) -> dict[str, Any]:
    """What the form there would send with `more` in it; `more` alone if there is no form."""
    answer = client.get(page)
    known = filled(admin_form(answer)) if "adminform" in (answer.context or {}) else {}
    return {**known, **more}


def attempts(client: Client, model: Any, world: World) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Each way to change something of this kind: its name, the page and what is sent."""
    name = str(model._meta.model_name)
    one = model._default_manager.order_by("pk").last()
    assert one is not None, f"there is no {name} to try it on"
    begin = {"accesslevel": f"?target={world.target.pk}", "target": "?kind=memory"}.get(name, "")
    add, change = address(model, "add") + begin, address(model, "change", one.pk)
    yield "add", add, typed(client, add, ADDED.get(name, {"name": "x"}))
    yield "change", change, typed(client, change, CHANGED.get(name, {"state": "approved"}))
    yield "save as new", change, {"_saveasnew": "1", **CHANGED.get(name, {})}
    listing = address(model, "changelist")
    for action in {*one_by_one(model), "delete_selected"}:
        chosen = {"action": action, "_selected_action": [one.pk], "post": "yes"}
        yield f"action {action}", listing, chosen
    rows = {"form-TOTAL_FORMS": "1", "form-INITIAL_FORMS": "1", "form-0-id": one.pk}
    yield "in the list", listing, {**rows, "form-0-enabled": "", "_save": "Save"}
    yield "delete", address(model, "delete", one.pk), {"post": "yes"}


def one_by_one(model: Any) -> list[str]:
    """The actions that unfold or Django offer for it."""
    page = admin.site._registry[model]
    own = ("actions_list", "actions_row", "actions_detail", "actions_submit_line")
    offered = [str(action) for kind in own for action in getattr(page, kind, ())]
    return [*offered, *map(str, page.actions or ())]


@pytest.mark.slow
def test_whatever_changes_something_leaves_an_event(lived_in: World, monkeypatch: Any):
    monkeypatch.setattr("approvals.provisioning.memory.MemoryProvisioner.rehearsal", False)
    ada, around, done = browser(lived_in.ada), [], set()
    for model in admin.site._registry:
        for what, page, data in attempts(ada, model, lived_in):
            changed, told = changes(ada, page, data)
            if changed:
                done.add((model._meta.model_name, what))
            if changed and not told:
                around.append(f"{what} at {page}")
    assert around == []
    adds_and_changes = {(name, "add") for name in ADDED} | {(name, "change") for name in CHANGED}
    assert adds_and_changes <= done
    deleted = {*CHANGED, "slackaccount"} - {"user"}
    assert done - adds_and_changes <= {(name, "delete") for name in deleted}


@pytest.mark.slow
def test_a_change_around_the_verbs_would_be_noticed(lived_in: World, monkeypatch: Any):
    """One that saves by itself, as Django's own pages do."""
    page: Any = admin.site._registry[type(lived_in.policy)]
    monkeypatch.setattr(page, "save_model", lambda request, obj, form, change: obj.save())
    ada = browser(lived_in.ada)
    change = address(type(lived_in.policy), "change", lived_in.policy.pk)
    assert changes(ada, change, typed(ada, change, {"name": "Renamed"})) == (True, False)


def test_everything_can_be_searched():
    assert [page for page in admin.site._registry.values() if not page.search_fields] == []
