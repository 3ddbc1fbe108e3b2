"""The admin's frame: what its menu offers to whom, and what it leaves out of unfold."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.conf import settings
from django.contrib import admin
from django.contrib.staticfiles import finders
from django.test import Client
from django.urls import NoReverseMatch, reverse
from unfold.admin import ModelAdmin

from debugflow.desk import MENU, Desk
from tests.approvals.admin_browser import browser, staff
from tests.world import World

SET_UP = ("view_target", "change_policy")


def offered(page: str) -> list[str]:
    """The menu's entries, in its order."""
    menu = page[page.index('id="nav-sidebar-apps"') : page.index("logout-form")]
    return re.findall(r"<span>([^<]+)</span>", menu)


def test_everything_is_in_unfolds_look():
    assert isinstance(admin.site, Desk)
    assert [m for m, page in admin.site._registry.items() if not isinstance(page, ModelAdmin)] == []


def test_every_kind_of_thing_is_in_the_menu():
    places = {place.split(":")[0] for _, pages in MENU for _, _, place in pages}
    assert places == {model._meta.label_lower for model in admin.site._registry}


def test_ada_is_offered_all_by_what_she_does(world: World):
    found = offered(browser(world.ada).get(reverse("admin:index")).content.decode())
    titles = [title for _, pages in MENU for title, _, _ in pages]
    assert found == ["Overview", "Back to the site", *titles, "Audit log"]


def test_others_are_offered_what_they_may_look_at(world: World):
    olga = browser(staff(world.olga, *SET_UP))
    found = offered(olga.get(reverse("admin:index")).content.decode())
    own = ["Targets", "Policies", "Simulate", "Proposals"]
    assert found == ["Overview", "Back to the site", *own, "Audit log"]


@pytest.mark.parametrize(
    ("page", "marked"),
    [
        ("admin:approvals_policy_changelist", "Policies"),
        ("admin:approvals_policy_add", "Policies"),
        ("admin:approvals_policy_simulate", "Simulate"),
        ("admin:audit_event_changelist", "Events"),
    ],
)
def test_where_one_is_is_marked(world: World, page: str, marked: str):
    menu = browser(world.ada).get(reverse(page)).content.decode()
    active = re.findall(r"rounded-default[^\"]*\bactive\"[^>]*>.*?<span>([^<]+)</span>", menu, re.S)
    assert active == [marked]


def test_there_is_no_search_that_keeps_what_was_found(world: World):
    with pytest.raises(NoReverseMatch):
        reverse("admin:search")
    assert browser(world.ada).get("/admin/search/?s=a").status_code == 404


def test_signing_in_is_the_sites_own(world: World):
    answer = Client().get(reverse("admin:index"), follow=True)
    assert answer.redirect_chain[-1][0].startswith("/sign-in/")
    assert "unfold" not in answer.content.decode()


def test_what_a_page_loads_is_here(world: World):
    """Every script, style and font, those that styles name included."""
    page = browser(world.ada).get(reverse("admin:approvals_policy_changelist")).content.decode()
    loaded = set(re.findall(r"<(?:script|link)[^>]*\b(?:src|href)=\"([^\"]+)\"", page))
    assert loaded
    missing = [one for one in loaded if not _is_here(one)]
    assert missing == []


def _is_here(address: str) -> bool:
    if not address.startswith(settings.STATIC_URL):
        return address == reverse("admin:jsi18n")
    name = address.removeprefix(settings.STATIC_URL).partition("?")[0]
    found: Any = finders.find(name)
    return found is not None


def test_a_new_person_is_asked_for_a_name_and_a_password(world: World):
    page = browser(world.ada).get(reverse("admin:accounts_user_add"))
    fields = page.context["adminform"].form.fields
    assert {"username", "password1", "password2"} <= set(fields)
    shown = page.content.decode()
    assert [name for name in fields if f'name="{name}"' not in shown] == []
