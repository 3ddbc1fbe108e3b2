"""The inbox in a browser: it fills while one looks, by keyboard alone."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.browser.callers import Callers
from tests.browser.conftest import People

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.usefixtures("nothing_asked"),
]


def test_whoever_is_asked_sees_it_come_and_goes_to_it(people: People, callers: Callers):
    bob = people("bob")
    page = bob.page
    page.keyboard.press("g")
    page.keyboard.press("i")
    page.wait_for_url("**/inbox/")
    callers["alice"].ask("Orders hang since 10:40.")
    entry = page.get_by_role("link", name=re.compile("^alice asks for read-only")).first
    expect(entry).to_be_visible()
    new = page.locator(".row-new").filter(has_text="Orders hang since 10:40.")
    expect(new.first).to_be_visible()
    bob.enter(entry)
    page.wait_for_url("**/requests/*/")
    page.goto("/inbox/")
    expect(page.locator(".row-new").filter(has_text="Orders hang since 10:40.")).to_have_count(0)


def test_all_is_marked_as_read_and_reloading_marks_nothing_again(people: People, callers: Callers):
    callers["alice"].ask("Orders hang.")
    bob = people("bob")
    page = bob.page
    page.goto("/inbox/")
    expect(page.locator(".row-new").first).to_be_visible()
    bob.enter(page.get_by_role("button", name="Mark all as read"))
    expect(page.locator(".row-new")).to_have_count(0)
    page.reload()
    expect(page.get_by_text("Nothing new.")).to_be_visible()
    page.goto("/inbox/?show=new")
    expect(page.get_by_text("Nothing is new.")).to_be_visible()
