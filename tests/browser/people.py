"""Somebody at a browser: signs in, and keeps what the browser complained of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from playwright.sync_api import Browser, ConsoleMessage, Page

from debugflow.embedded.story import cast

Theme = Literal["light", "dark"]
WIDTHS = {"desk": 1440, "phone": 390}
HEIGHT = 900
PATIENCE = 15_000  # milliseconds; beside the rest of the tests the machine is slow


@dataclass
class Person:
    """One of the cast with a browser of their own."""

    name: str
    page: Page
    complaints: list[str] = field(default_factory=list)

    def heard(self, message: ConsoleMessage) -> None:
        # A form that cannot be used, or was sent before, is answered with 422 or 409, which the
        # browser calls an error.
        refused = any(f"status of {code}" in message.text for code in (422, 409))
        if message.type in ("error", "warning") and not refused:
            self.complaints.append(f"{self.page.url}: {message.text}")

    def overflows(self) -> bool:
        """Whether the page is wider than the window, so that it has to be scrolled sideways."""
        root = "document.documentElement"
        return bool(self.page.evaluate(f"{root}.scrollWidth > {root}.clientWidth"))


def sign_in(
    browser: Browser, url: str, name: str, *, width: int = WIDTHS["desk"], theme: Theme = "light"
) -> Person:
    """A person signed in at the site, at its first page."""
    context = browser.new_context(
        base_url=url, viewport={"width": width, "height": HEIGHT}, color_scheme=theme
    )
    context.set_default_timeout(PATIENCE)
    person = Person(name, context.new_page())
    person.page.on("console", person.heard)
    person.page.on("pageerror", lambda error: person.complaints.append(str(error)))
    person.page.goto("/sign-in/")
    person.page.get_by_label("Name").fill(name)
    person.page.get_by_label("Password").fill(cast.PASSWORD)
    person.page.get_by_role("button", name="Sign in").click()
    person.page.wait_for_url("/")
    return person
