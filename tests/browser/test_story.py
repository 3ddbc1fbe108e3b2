"""What people do with it in a browser, on a real target: ask, decide, connect, give back."""

from __future__ import annotations

import re

import psycopg
import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import People

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


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
    expect(person.locator("#messages")).to_contain_text("Your vote counts")


def test_from_asking_to_giving_back(people: People):
    alice, bob, carol = (people(name).page for name in ("alice", "bob", "carol"))
    address = ask(alice, "Orders hang since 10:40. <b>@bob</b>")
    approve(bob, address)
    approve(carol, address)
    # Her page looks by itself; she need not load it again.
    alice.get_by_role("link", name="Connect").click()
    alice.get_by_role("button", name="Show the credential").click()
    expect(alice.get_by_text("This is shown once.")).to_be_visible()
    dsn = alice.locator("#dsn").inner_text()
    with psycopg.connect(dsn, connect_timeout=10) as session:
        counted = session.execute("SELECT count(*) > 0 FROM orders").fetchone()
        assert counted == (True,)
    alice.get_by_role("link", name=re.compile("back to the grant")).click()
    alice.get_by_text("Release…").click()
    alice.get_by_role("button", name="Yes, release this access").click()
    expect(alice.locator("main")).to_contain_text("Ended", timeout=30_000)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(dsn, connect_timeout=10)
    assert "postgresql://dbgf" not in alice.content()


def test_a_vote_is_not_given_again_by_reloading_nor_shown_by_going_back(people: People):
    alice, bob = people("alice").page, people("bob").page
    address = ask(alice, "Payments are slow.")
    approve(bob, address)
    bob.reload()
    bob.go_back()
    bob.goto(address)
    assert bob.locator("#timeline").get_by_text("bob approved in").count() == 1
    alice.goto(address)
    alice.get_by_text("Cancel this request…").click()
    alice.get_by_role("button", name="Yes, cancel it").click()
    expect(alice.locator("#messages")).to_contain_text("Cancelled")


def test_what_was_typed_survives_a_page_that_renews_itself(people: People):
    """bob writes a comment while carol's appears: his words and his place in them stay."""
    alice, bob, carol = (people(name).page for name in ("alice", "bob", "carol"))
    address = ask(alice, "Refunds fail.")
    bob.goto(address)
    bob.locator("#decision textarea").fill("Which table? I would rath")
    bob.locator("#saying").fill("Half a sentence")
    carol.goto(address)
    carol.locator("#saying").fill("I looked: it is the payments table.")
    carol.get_by_role("button", name="Say it").click()
    expect(bob.locator("#timeline")).to_contain_text("it is the payments table")
    assert bob.locator("#decision textarea").input_value() == "Which table? I would rath"
    assert bob.locator("#saying").input_value() == "Half a sentence"
    alice.goto(address)
    alice.get_by_text("Cancel this request…").click()
    alice.get_by_role("button", name="Yes, cancel it").click()
