"""ada's pages in a real browser: whole, in both themes and widths, and usable by hand."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Browser, Locator, Page

from debugflow.embedded.installation import Installation
from debugflow.embedded.story import cast
from tests.browser.conftest import People
from tests.browser.screenshots import ADMIN
from tests.browser.test_pages import look_at

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

PUBLISH = "/admin/approvals/policy/1/publish/"
# There is no request yet in this installation.
PAGES = ["/admin/", *(f"/admin/{page}" for name, page in ADMIN.items() if name != "request")]


def test_nothing_is_wrong_with_any_page(people: People):
    """`people` sees to it that the browser had nothing to complain of: all is from this host."""
    ada = people("ada")
    asked: set[str] = set()
    ada.page.on("request", lambda request: asked.add(request.url))
    assert look_at(ada, *PAGES) == []
    assert [url for url in asked if not url.startswith(("http://127.0.0.1:", "data:"))] == []


def stages(page: Page) -> list[tuple[str, str]]:
    """The names as they stand, each with the number that is sent."""
    return [
        (one.locator("input[name$='-name']").input_value(), number.input_value())
        for one in page.locator("[data-stage]").all()
        if (number := one.locator("input[name$='-ORDER']")).input_value()
    ]


def drag(page: Page, handle: Locator, above: Locator) -> None:
    handle.hover()
    page.mouse.down()
    for left in (80, 90):  # a browser wants two moves before it says that something is dragged
        above.hover(position={"x": left, "y": 4})
    page.mouse.up()


def test_stages_are_moved_by_button_and_by_hand(people: People):
    page = people("ada").page
    page.set_viewport_size({"width": 1440, "height": 2600})  # nothing scrolls under the pointer
    page.goto(PUBLISH)
    assert stages(page) == [("Database", "1"), ("Security", "2")]
    page.get_by_role("button", name="Ask later").first.click()
    assert stages(page) == [("Security", "1"), ("Database", "2")]
    drag(page, page.locator(".desk-handle").nth(1), page.locator("[data-stage]").first)
    assert stages(page) == [("Database", "1"), ("Security", "2")]


def test_without_scripts_stages_have_their_numbers(browser: Browser, installation: Installation):
    context = browser.new_context(base_url=installation.url, java_script_enabled=False)
    page = context.new_page()
    page.goto("/sign-in/")
    page.get_by_label("Name").fill("ada")
    page.get_by_label("Password").fill(cast.PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.goto(PUBLISH)
    numbers = page.get_by_label("Order")
    assert [numbers.nth(place).input_value() for place in (0, 1)] == ["1", "2"]
    numbers.nth(0).fill("5")
    page.get_by_role("button", name="Publish").click()
    page.wait_for_url("**/change/")
    assert page.get_by_text("need 1 of security, then 1 of dba").first.is_visible()
    page.goto(PUBLISH)
    page.get_by_label("Order").nth(0).fill("5")
    page.get_by_role("button", name="Publish").click()
    page.wait_for_url("**/change/")


def test_a_connection_is_tested_and_what_is_refused_is_shown(people: People):
    page = people("ada").page
    page.goto("/admin/approvals/target/1/change/")
    page.get_by_role("button", name="Test connection").click()
    page.wait_for_url("**/test/")
    assert page.get_by_text("signs in as debugflow_admin with SCRAM").is_visible()
    page.goto("/admin/approvals/target/1/change/")
    page.get_by_label(re.compile("^Port")).fill("70000")
    page.get_by_role("button", name="Save", exact=True).click()
    page.get_by_text("less than or equal to 65535").first.wait_for()
    assert page.get_by_label(re.compile("^Port")).input_value() == "70000"
