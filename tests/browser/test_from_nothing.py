"""A target, a level and a policy made in the admin by hand, and somebody who gets in by them."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect

from debugflow.embedded.installation import Installation
from debugflow.embedded.production import DATABASE, READ_ONLY
from tests.browser.conftest import People

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

TARGET = "orders-staging"


def save(page: Page) -> None:
    page.get_by_role("button", name="Save", exact=True).click()
    page.wait_for_url(re.compile(r"/admin/approvals/\w+/(\d+/change/)?$"))


def make_target(page: Page, admin_url: str) -> None:
    place = urlsplit(admin_url)
    page.goto("/admin/approvals/target/add/")
    page.get_by_label("Name*").fill(TARGET)
    page.get_by_label("Environment*").select_option("staging")
    page.get_by_label("Host*").fill(place.hostname or "")
    page.get_by_label("Port").fill(str(place.port))
    page.get_by_label("Database*").fill(DATABASE)
    page.get_by_label("User*").fill(place.username or "")
    page.get_by_label("SSL mode").select_option("disable")
    page.get_by_label("Password").fill(place.password or "")
    save(page)


def make_level(page: Page) -> None:
    page.goto("/admin/approvals/accesslevel/add/")
    page.get_by_role("link", name=TARGET).click()
    page.get_by_label("Name*").fill("look")
    page.get_by_label("Role*").fill(READ_ONLY["role"])
    page.get_by_label("Risk*").select_option("low")
    page.get_by_label("Max duration*").fill("30 min")
    page.get_by_label("Reach*").select_option("direct")
    page.get_by_label("Rank*").fill("1")
    save(page)
    page.get_by_role("link", name="look", exact=True).click()
    page.get_by_role("link", name="Who may ask").click()
    page.locator("[name=request_accesslevel_groups]").select_option(label="developers")
    save(page)


def make_policy(page: Page) -> None:
    page.goto("/admin/approvals/policy/add/")
    page.get_by_label("Name*").fill("Staging access")
    page.get_by_label("Rank*").fill("20")
    save(page)
    page.get_by_role("link", name="Staging access").first.click()
    page.get_by_role("link", name="Publish a new version").click()
    page.get_by_label("Staging", exact=True).check()
    page.get_by_label("Lasts at most").fill("1 h")
    page.locator("[name=stages-0-name]").fill("Database")
    page.locator("[name=stages-0-groups]").fill("dba: 1")
    page.locator("[name=stages-0-total]").fill("1")
    page.get_by_role("button", name="Publish").click()
    page.wait_for_url("**/change/")


def test_ada_makes_everything_from_nothing_and_alice_gets_in(
    people: People, installation: Installation, nothing_asked: None
):
    ada, alice, bob = (people(name).page for name in ("ada", "alice", "bob"))
    make_target(ada, installation.production.admin_url)
    make_level(ada)
    make_policy(ada)
    expect(ada.get_by_text("Requests for staging need 1 of dba.").first).to_be_visible()

    alice.goto("/ask/")
    alice.get_by_placeholder("Find a target or a level").fill(TARGET)
    alice.get_by_role("link", name="Ask for look").click()
    alice.get_by_label("Why").fill("Orders hang on staging.")
    alice.get_by_role("button", name="Ask dba").click()
    alice.wait_for_url("**/requests/*/")

    bob.goto("/")
    bob.get_by_role("button", name=re.compile(f"^Approve .*look on {TARGET}")).click()
    expect(bob.locator("#messages")).to_contain_text("counts")

    alice.get_by_role("link", name="Connect").click()
    alice.get_by_role("button", name="Show the credential").click()
    expect(alice.locator("#psql")).to_contain_text("dbname=orders")
