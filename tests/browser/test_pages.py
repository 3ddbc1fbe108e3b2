"""Every page, in both themes and widths: nothing to scroll sideways, nothing axe finds wrong."""

from __future__ import annotations

import re

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.browser.conftest import People
from tests.browser.people import WIDTHS, Person, Theme

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

PAGES = (
    "/",
    "/ask/",
    "/queue/",
    "/grants/",
    "/grants/?show=all",
    "/audit/",
    "/audit/?q=actor:bob",
    "/settings/",
    "/password/",
)


def violations(person: Person) -> list[str]:
    found = Axe().run(person.page).response["violations"]
    return [
        f"{person.page.url}: {one['id']}: {one['help']}: {node['html'][:120]}"
        for one in found
        for node in one["nodes"]
    ]


def links_to(person: Person, pattern: str) -> list[str]:
    """The addresses on the page that look like this, each once."""
    found = re.findall(rf'href="({pattern})"', person.page.content())
    return sorted(set(found))


def look_at(person: Person, address: str) -> list[str]:
    person.page.goto(address)
    wide = [f"{address} is wider than {person.name}'s window"] if person.overflows() else []
    return [*wide, *violations(person)]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", sorted(WIDTHS))
def test_nothing_is_wrong_with_any_page(people: People, theme: Theme, width: str):
    alice = people("alice", width=WIDTHS[width], theme=theme)
    found = [problem for address in PAGES for problem in look_at(alice, address)]
    alice.page.goto("/ask/")
    for address in links_to(alice, r"/ask/\d+/")[:1]:
        found += look_at(alice, address)
        alice.page.get_by_label("Why").fill("نظام الطلبات متوقف 🔥 " + "Donaudampfschiff" * 8)
        alice.page.get_by_role("button", name=re.compile("^Ask")).click()
        alice.page.wait_for_url("**/requests/*/")
        request = alice.page.url
        found += look_at(alice, request)
        bob = people("bob", width=WIDTHS[width], theme=theme)
        for seen in (request, "/", "/queue/"):
            found += look_at(bob, seen)
        alice.page.get_by_text("Cancel this request…").click()
        alice.page.get_by_role("button", name="Yes, cancel it").click()
    assert found == []
