"""The queue by keyboard alone: one after the other, and several at once."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.callers import Callers
from tests.browser.conftest import People
from tests.browser.people import WIDTHS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.usefixtures("nothing_asked"),
]


def open_queue(people: People, name: str) -> Page:
    page = people(name).page
    page.keyboard.press("g")
    page.keyboard.press("q")
    page.wait_for_url("**/queue/**")
    expect(page.locator("#pane")).to_be_visible()
    return page


def ask(callers: Callers, **reasons: str) -> list[tuple[str, str]]:
    """Each asks for read-only: their names, and the addresses of their requests."""
    asked = {name: callers[name].ask(reason)["id"] for name, reason in reasons.items()}
    return [(name, f"/requests/{request}/") for name, request in asked.items()]


def decided(people: People, asked: list[tuple[str, str]], words: str, *, why: str = "") -> None:
    for name, address in asked:
        page = people(name).page
        page.goto(address)
        expect(page.locator("#live")).to_contain_text(words)
        expect(page.locator("#timeline")).to_contain_text(why)


def test_two_are_approved_without_touching_the_mouse(people: People, callers: Callers):
    asked = ask(callers, alice="Orders hang.", amir="Payments hang.")
    for name in ("bob", "carol"):
        page = open_queue(people, name)
        for _ in asked:
            page.keyboard.press("a")
            expect(page.locator("#messages")).to_contain_text("counts")
        expect(page.locator("main")).to_contain_text("No one waits for you")
    decided(people, asked, "Approved")


def test_several_are_denied_together_with_one_comment(people: People, callers: Callers):
    asked = ask(callers, alice="Just looking.", amir="Curious.")
    dan = open_queue(people, "dan")
    for key in ("x", "j", "x"):
        dan.keyboard.press(key)
    expect(dan.locator(".pick:checked")).to_have_count(2)
    # Without a reason none is denied, and what was selected stays so.
    dan.get_by_role("button", name=re.compile("^Deny")).last.click()
    expect(dan.locator("#bulk-problems")).to_contain_text("Say why")
    expect(dan.locator(".pick:checked")).to_have_count(2)
    dan.locator("#bulk-comment").fill("Ask with a reason, please.")
    dan.get_by_role("button", name=re.compile("^Deny")).last.click()
    expect(dan.locator("#results-title")).to_contain_text("2 denied")
    dan.reload()
    expect(dan.locator("main")).to_contain_text("No one waits for you")
    decided(people, asked, "Denied", why="Ask with a reason, please.")


def test_keys_are_letters_while_one_types_and_are_listed_by_a_question_mark(
    people: People, callers: Callers
):
    asked = ask(callers, alice="Orders hang again.")
    bob = open_queue(people, "bob")
    bob.keyboard.press("d")
    bob.keyboard.type("a jar, a quay: ?")
    assert bob.locator("#pane #decision textarea").input_value() == "a jar, a quay: ?"
    bob.keyboard.press("Escape")
    bob.keyboard.press("?")
    expect(bob.locator("#keys")).to_be_visible()
    bob.keyboard.press("Escape")
    decided(people, asked, "Pending")


def test_on_a_phone_it_is_one_column(people: People, callers: Callers):
    ask(callers, alice="Orders hang on the phone.")
    bob = people("bob", width=WIDTHS["phone"])
    bob.page.goto("/queue/")
    assert not bob.overflows()
    bob.page.get_by_role("link", name=re.compile("alice: read-only")).click()
    expect(bob.page.get_by_role("button", name=re.compile("^Approve 1 h"))).to_be_visible()
    assert not bob.overflows()
