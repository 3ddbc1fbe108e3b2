"""What people do with it in a browser, on a real target: ask, decide, connect, give back."""

from __future__ import annotations

import re
from typing import Any

import psycopg
import pytest
from playwright.sync_api import Page, expect

from debugflow.embedded.story.cast import PASSWORD
from tests.browser.callers import Callers
from tests.browser.conftest import People
from tests.browser.people import WIDTHS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.usefixtures("nothing_asked"),
]


def go(page: Page, key: str, address: str) -> None:
    """Press g and a letter, which lead to a page of the site."""
    page.keyboard.press("g")
    page.keyboard.press(key)
    page.wait_for_url(address)


def credential(page: Page) -> str:
    expect(page.get_by_text("This is shown once.")).to_be_visible()
    return page.locator("#dsn").inner_text()


def connects(dsn: str) -> bool:
    """Whether one can sign in and see an order."""
    try:
        with psycopg.connect(dsn, connect_timeout=10) as session:
            return bool(session.execute("SELECT count(*) > 0 FROM orders").fetchone())
    except psycopg.OperationalError:
        return False


def ask(alice: Page, reason: str) -> str:
    """alice asks for read-only; the address of her request."""
    alice.goto("/ask/")
    alice.get_by_role("link", name=re.compile("read-only")).first.click()
    alice.get_by_label("Why").fill(reason)
    # The preview says beside the form who will be asked, before anything is sent.
    expect(alice.locator("#preview")).to_contain_text("dba")
    alice.get_by_role("button", name=re.compile("^Ask")).click()
    alice.wait_for_url("**/requests/*/")
    return alice.url


def approve(person: Page, address: str) -> None:
    person.goto(address)
    person.get_by_role("button", name=re.compile("^Approve")).click()
    expect(person.locator("#messages")).to_contain_text("counts")


def test_from_asking_to_giving_back_without_touching_the_mouse(people: People):
    alice, bob, carol = people.at_the_door("alice"), people("bob"), people("carol")
    page, keys = alice.page, alice.page.keyboard
    alice.tab_to(page.get_by_label("Name"))
    keys.type("alice")
    alice.tab_to(page.get_by_label("Password"))
    keys.type(PASSWORD)
    keys.press("Enter")
    page.wait_for_url("/")
    go(page, "a", "**/ask/")
    alice.enter(page.get_by_role("link", name=re.compile("^Ask for read-only")))
    alice.tab_to(page.get_by_label("Why"))
    keys.type("Orders hang since 10:40. <b>@bob</b>")
    alice.enter(page.get_by_role("button", name=re.compile("^Ask")))
    page.wait_for_url("**/requests/*/")
    for person in (bob, carol):
        go(person.page, "q", "**/queue/**")
        expect(person.page.locator("#pane")).to_be_visible()
        person.page.keyboard.press("a")
        expect(person.page.locator("#messages")).to_contain_text("counts")
    # Her page looks by itself; she need not load it again.
    connect = page.get_by_role("link", name="Connect")
    connect.wait_for()
    alice.enter(connect)
    alice.enter(page.get_by_role("button", name="Show the credential"))
    dsn = credential(page)
    assert connects(dsn)
    alice.enter(page.get_by_role("link", name=re.compile("back to the grant")))
    alice.enter(page.locator("summary", has_text="Release…"))
    alice.enter(page.get_by_role("button", name="Yes, release this access"))
    expect(page.locator("main")).to_contain_text("Ended", timeout=30_000)
    assert not connects(dsn)
    assert "postgresql://dbgf" not in page.content()


def test_from_asking_to_giving_back_on_phones_in_the_dark(people: People):
    on_phone: Any = {"width": WIDTHS["phone"], "theme": "dark"}
    alice, bob, carol = (people(name, **on_phone) for name in ("alice", "bob", "carol"))
    page = alice.page
    address = ask(page, "Payments hang.")
    for person in (bob, carol):
        approve(person.page, address)
        assert not person.overflows()
    page.get_by_role("link", name="Connect").click()
    page.get_by_role("button", name="Show the credential").click()
    dsn = credential(page)
    assert not alice.overflows()
    assert connects(dsn)
    page.get_by_role("link", name=re.compile("back to the grant")).click()
    page.get_by_text("Release…").click()
    page.get_by_role("button", name="Yes, release this access").click()
    expect(page.locator("main")).to_contain_text("Ended", timeout=30_000)
    assert not alice.overflows()


def test_a_vote_is_not_given_again_by_reloading_nor_shown_by_going_back(
    people: People, callers: Callers
):
    alice, bob = people("alice").page, people("bob").page
    address = f"/requests/{callers['alice'].ask('Payments are slow.')['id']}/"
    approve(bob, address)
    bob.reload()
    bob.go_back()
    bob.goto(address)
    assert bob.locator("#timeline").get_by_text("bob approved in").count() == 1
    alice.goto(address)
    alice.get_by_text("Cancel this request…").click()
    alice.get_by_role("button", name="Yes, cancel it").click()
    expect(alice.locator("#messages")).to_contain_text("Cancelled")


def test_what_was_typed_survives_a_page_that_renews_itself(people: People, callers: Callers):
    """bob writes a comment while carol's appears: his words and his place in them stay."""
    bob, carol = people("bob").page, people("carol").page
    address = f"/requests/{callers['alice'].ask('Refunds fail.')['id']}/"
    bob.goto(address)
    bob.locator("#decision textarea").fill("Which table? I would rath")
    bob.locator("#saying").fill("Half a sentence")
    carol.goto(address)
    carol.locator("#saying").fill("I looked: it is the payments table.")
    carol.get_by_role("button", name="Say it").click()
    expect(bob.locator("#timeline")).to_contain_text("it is the payments table")
    assert bob.locator("#decision textarea").input_value() == "Which table? I would rath"
    assert bob.locator("#saying").input_value() == "Half a sentence"
