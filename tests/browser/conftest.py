"""A real installation with the demonstration's people and target, and a real browser."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from debugflow.embedded.installation import Installation
from tests.browser import chromium
from tests.browser.people import Person, Theme, sign_in


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if why := chromium.missing():
        pytest.skip(why)
    with chromium.started() as started:
        yield started


@pytest.fixture(scope="session")
def installation(server_directory: Path, browser: Browser) -> Iterator[Installation]:
    made = Installation(server_directory / "browser", port=0, out=io.StringIO())
    try:
        made.start()
        yield made
    finally:
        made.stop()


class People:
    """Who is at a browser in this test."""

    def __init__(self, browser: Browser, url: str) -> None:
        self._browser, self._url = browser, url
        self.present: list[Person] = []

    def __call__(self, name: str, *, width: int = 1440, theme: Theme = "light") -> Person:
        person = sign_in(self._browser, self._url, name, width=width, theme=theme)
        self.present.append(person)
        return person


@pytest.fixture
def people(browser: Browser, installation: Installation) -> Iterator[People]:
    """Afterwards none of their browsers may have complained."""
    came = People(browser, installation.url)
    yield came
    for person in came.present:
        person.page.context.close()
    assert [complaint for person in came.present for complaint in person.complaints] == []
