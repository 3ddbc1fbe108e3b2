"""Somebody at a browser, and what the browser complained of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, expect

from debugflow.embedded.story.cast import PASSWORD

Theme = Literal["light", "dark"]
WIDTHS = {"desk": 1440, "phone": 390}
HEIGHT = 900
PATIENCE = 15_000  # milliseconds; beside the rest of the tests the machine is slow
TABS = 60  # at most, from anywhere on a page to anything on it
NOBODY: Mapping[str, str] = {}

expect.set_options(timeout=PATIENCE)


@dataclass
class Person:
    """One of the cast with a browser of their own."""

    name: str
    page: Page
    complaints: list[str] = field(default_factory=list)

    def heard(self, message: ConsoleMessage) -> None:
        # A page that refuses is answered with a 4xx, which the browser calls an error.
        itself = message.location["url"] == self.page.url and "with a status of 4" in message.text
        if message.type in ("error", "warning") and not itself:
            self.complaints.append(f"{self.page.url}: {message.text}")

    def overflows(self) -> bool:
        """Whether the page is wider than the window, so that it has to be scrolled sideways."""
        root = "document.documentElement"
        return bool(self.page.evaluate(f"{root}.scrollWidth > {root}.clientWidth"))

    def tab_to(self, there: Locator) -> None:
        """Press Tab until it has the focus."""
        for _ in range(TABS):
            if there.evaluate("there => there === document.activeElement"):
                return
            self.page.keyboard.press("Tab")
        raise AssertionError(f"{there} is not to be reached with the Tab key")

    def enter(self, there: Locator) -> None:
        """Use a link or a button by keyboard alone."""
        self.tab_to(there)
        self.page.keyboard.press("Enter")


def arrive(
    browser: Browser,
    url: str,
    name: str,
    *,
    width: int = WIDTHS["desk"],
    theme: Theme = "light",
    cookies: Mapping[str, str] = NOBODY,
) -> Person:
    """A person with an empty page, signed in if `cookies` are those of a session."""
    context = browser.new_context(
        base_url=url,
        viewport={"width": width, "height": HEIGHT},
        color_scheme=theme,
        reduced_motion="reduce",
    )
    context.add_cookies(
        [{"name": name, "value": value, "url": url} for name, value in cookies.items()]
    )
    context.set_default_timeout(PATIENCE)
    person = Person(name, context.new_page())
    person.page.on("console", person.heard)
    person.page.on("pageerror", lambda error: person.complaints.append(str(error)))
    return person


def sign_in(
    browser: Browser, url: str, name: str, *, width: int = WIDTHS["desk"], theme: Theme = "light"
) -> Person:
    """A person who has signed in at the site's page for it, at the first page."""
    person = arrive(browser, url, name, width=width, theme=theme)
    person.page.goto("/sign-in/")
    person.page.get_by_label("Name").fill(name)
    person.page.get_by_label("Password").fill(PASSWORD)
    person.page.get_by_role("button", name="Sign in").click()
    person.page.wait_for_url("/")
    return person
