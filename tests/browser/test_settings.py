"""One's own settings, in a browser: a zone that is found by itself, a token that is shown once."""

from __future__ import annotations

import re

import httpx
import pytest
from playwright.sync_api import expect

from debugflow.embedded.installation import Installation
from tests.browser.conftest import People
from tests.browser.eyes import problems
from tests.browser.people import Person

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def settle(alice: Person, zone: str) -> None:
    alice.page.goto("/settings/")
    alice.page.get_by_label("Times are shown to you in").fill(zone)
    alice.page.get_by_role("button", name="Save").click()
    expect(alice.page.locator("#messages")).to_contain_text(f"Times are shown in {zone}")


def test_the_zone_of_the_browser_is_offered_and_taken_with_one_click(people: People):
    alice = people("alice")
    here = alice.page.evaluate("Intl.DateTimeFormat().resolvedOptions().timeZone")
    settle(alice, "Asia/Tokyo" if here != "Asia/Tokyo" else "Asia/Seoul")
    expect(alice.page.locator("#zone-offer")).to_contain_text(here)
    alice.page.get_by_role("button", name="Use it").click()
    expect(alice.page.locator("#messages")).to_contain_text(f"Times are shown in {here}")
    expect(alice.page.locator("#zone-offer")).to_be_hidden()


def test_what_time_it_is_there_is_told_while_one_types(people: People):
    alice = people("alice")
    settle(alice, "UTC")
    alice.page.get_by_label("Times are shown to you in").fill("Asia/Tokyo")
    expect(alice.page.locator("#zone-now")).to_have_text(
        re.compile(r"^\w{3} \d\d \w{3,4} \d{4}, \d\d:\d\d:\d\d Asia/Tokyo$")
    )


def test_a_token_is_made_by_keyboard_shown_once_and_revoked(
    people: People, installation: Installation
):
    alice = people("alice")
    page = alice.page
    page.keyboard.press("g")
    page.keyboard.press("s")
    page.wait_for_url("**/settings/")
    page.get_by_label("What it is for").fill("nightly report")
    page.keyboard.press("Enter")
    clear = page.locator("#token").inner_text()
    assert problems(alice) == []
    address = f"{installation.url}/api/v1/tokens/this/"
    headers = {"Authorization": f"Bearer {clear}"}
    assert httpx.get(address, headers=headers, trust_env=False).status_code == 200

    page.reload()
    expect(page.get_by_text("This token has just been made")).to_be_visible()
    assert clear not in page.content()
    page.goto("/settings/")
    expect(page.locator("b", has_text="nightly report")).to_have_count(1)
    page.get_by_text("Revoke…").first.click()
    assert problems(alice) == []
    page.get_by_role("button", name="Yes, revoke this token").first.click()
    expect(page.locator("#messages")).to_contain_text("does not work any more")
    assert httpx.get(address, headers=headers, trust_env=False).status_code == 401
