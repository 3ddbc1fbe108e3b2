"""A real installation with the demonstration's people and target, and real browsers.

A browser, and with it Playwright, runs only for one module of this package: meanwhile Django takes
the whole process for an event loop, and no other can be started.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from debugflow.embedded.installation import Installation
from tests.browser import chromium
from tests.browser.callers import Callers
from tests.browser.people import Person, Theme, arrive


@pytest.fixture(scope="package")
def has_chromium() -> None:
    why = chromium.missing()
    if why and os.environ.get(chromium.REQUIRED):
        pytest.fail(f"{why}; and {chromium.REQUIRED} is set")
    if why:
        pytest.skip(why)


@pytest.fixture(scope="package")
def installation(has_chromium: None, server_directory: Path) -> Iterator[Installation]:
    made = Installation(server_directory / "browser", port=0, out=io.StringIO())
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="package")
def callers(installation: Installation) -> Iterator[Callers]:
    made = Callers(installation.url)
    yield made
    made.close()


@pytest.fixture
def nothing_asked(callers: Callers) -> None:
    """Nothing is left of what alice and amir asked for in an earlier test."""
    for name in ("alice", "amir"):
        callers[name].clear()


@pytest.fixture(scope="module")
def started(installation: Installation) -> Iterator[Browser]:
    with chromium.started() as browser:
        yield browser


@pytest.fixture
def browser(started: Browser) -> Iterator[Browser]:
    """One that nobody has used: everybody has a context of their own, and it is closed."""
    yield started
    for context in started.contexts:
        context.close()


class People:
    """Who is at a browser in this test."""

    def __init__(self, browser: Browser, callers: Callers) -> None:
        self._browser, self._callers = browser, callers
        self.present: list[Person] = []

    def __call__(self, name: str, *, width: int = 1440, theme: Theme = "light") -> Person:
        """Somebody who is signed in, at the first page."""
        cookies = self._callers[name].cookies
        person = arrive(
            self._browser, self._callers.url, name, width=width, theme=theme, cookies=cookies
        )
        person.page.goto("/")
        self.present.append(person)
        return person

    def at_the_door(self, name: str) -> Person:
        """Somebody who has yet to sign in."""
        person = arrive(self._browser, self._callers.url, name)
        person.page.goto("/sign-in/")
        self.present.append(person)
        return person


@pytest.fixture
def people(browser: Browser, callers: Callers) -> Iterator[People]:
    """Afterwards none of their browsers has complained."""
    came = People(browser, callers)
    yield came
    assert [complaint for person in came.present for complaint in person.complaints] == []
