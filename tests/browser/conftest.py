"""A real installation with the demonstration's people and target, and a real browser.

For this package alone: while Playwright runs, Django takes the whole process for an event loop.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser

from debugflow.embedded.installation import Installation
from debugflow.embedded.story import cast
from tests.browser import chromium
from tests.browser.people import Person, Theme, sign_in


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    if why := chromium.missing():
        pytest.skip(why)
    with chromium.started() as started:
        yield started


@pytest.fixture(scope="package")
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


def clear(url: str, name: str) -> None:
    """Take back whatever this person has asked for, as far as it is not over."""
    with httpx.Client(base_url=f"{url}/api/v1", trust_env=False) as api:
        told = {"username": name, "password": cast.PASSWORD}
        token = api.post("/session/", json=told).raise_for_status().json()["csrf_token"]
        api.headers["X-CSRFToken"] = token
        for kind, states, verb in (
            ("requests", ("pending",), "cancel"),
            ("grants", ("scheduled", "provisioning", "active"), "release"),
        ):
            for state in states:
                found = api.get(f"/{kind}/?state={state}").raise_for_status().json()["results"]
                for one in found:
                    if name in (one["requester"] if kind == "requests" else one["beneficiary"]):
                        api.post(f"/{kind}/{one['id']}/{verb}/", json={}).raise_for_status()


@pytest.fixture
def people(browser: Browser, installation: Installation) -> Iterator[People]:
    """Nothing of theirs is left from before; afterwards none of their browsers has complained."""
    for name in ("alice", "amir"):
        clear(installation.url, name)
    came = People(browser, installation.url)
    yield came
    for person in came.present:
        person.page.context.close()
    assert [complaint for person in came.present for complaint in person.complaints] == []
