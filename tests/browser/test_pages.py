"""Every page as each of the cast sees it: nothing to scroll sideways, nothing axe finds wrong.

The admin site has a module of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from debugflow.embedded.story import access
from tests.browser.callers import Callers
from tests.browser.conftest import People
from tests.browser.eyes import problems
from tests.browser.people import Person

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

HOSTILE = "نظام الطلبات متوقف 🔥 " + "Donaudampfschiff" * 8


@dataclass(frozen=True)
class Scene:
    """The addresses of something in each state."""

    level: str
    denied: str
    ended: str
    open: str
    waiting: str


@pytest.fixture(scope="module")
def scene(callers: Callers) -> Iterator[Scene]:
    """alice has got, had, and been denied; she and amir wait for bob."""
    alice, amir, bob = (callers[name] for name in ("alice", "amir", "bob"))
    for person in (alice, amir):
        person.clear()
    ended = callers.open_access("Orders hung since 10:40.")
    alice.post(f"grants/{ended['id']}/release/")
    denied = alice.ask("Curious.")
    reason = access.ballot(denied, decision="deny", comment="Ask with a reason, please.")
    bob.post(f"requests/{denied['id']}/vote/", reason)
    opened = callers.open_access("Orders hang again.")
    waiting = alice.ask(HOSTILE, level="read-write")
    amir.ask("Payments hang.")
    yield Scene(
        level=f"/ask/{waiting['level']['id']}/",
        denied=f"/requests/{denied['id']}/",
        ended=f"/grants/{ended['id']}/",
        open=f"/grants/{opened['id']}/",
        waiting=f"/requests/{waiting['id']}/",
    )
    for person in (alice, amir):
        person.clear()


def look_at(person: Person, *addresses: str, seen_before: bool = False) -> list[str]:
    found = []
    for address in addresses:
        person.page.goto(address)
        found += problems(person, seen_before=seen_before)
    return found


def test_who_asks_sees_nothing_wrong(people: People, scene: Scene):
    alice = people("alice")
    found = look_at(
        alice,
        "/",
        "/inbox/",
        "/ask/",
        scene.level,
        scene.denied,
        scene.ended,
        scene.waiting,
        "/queue/",
    )
    found += look_at(alice, "/grants/", "/audit/", "/audit/?q=actor:bob", "/audit/?q=acter:bob")
    found += look_at(alice, "/settings/", "/password/", "/requests/999/", "/admin/", scene.open)
    alice.page.get_by_role("button", name="Show the credential").click()
    alice.page.get_by_text("This is shown once.").wait_for()
    assert found + problems(alice) == []


def test_who_decides_sees_nothing_wrong(people: People, scene: Scene):
    bob = people("bob")
    found = look_at(
        bob,
        "/",
        "/inbox/",
        "/inbox/?show=new",
        "/ask/",
        "/grants/?show=all",
        scene.waiting,
        "/queue/",
    )
    bob.page.get_by_role("button", name=re.compile("^Deny")).first.click()
    bob.page.get_by_text("Say why").first.wait_for()
    assert found + problems(bob) == []


@pytest.mark.parametrize("name", ["carol", "mallory", "olga", "ada"])
def test_nor_does_anyone_else(people: People, scene: Scene, name: str):
    person = people(name)
    addresses = ("/", "/inbox/", "/ask/", "/queue/", "/grants/?show=all", "/audit/")
    assert look_at(person, *addresses, scene.open, scene.waiting, seen_before=True) == []


def test_nor_who_tries_the_api(people: People):
    alice = people("alice")
    alice.page.goto("/api/v1/docs/")
    alice.page.get_by_text("/api/v1/requests/preview/").first.wait_for()
    assert problems(alice) == []


def test_nor_who_has_yet_to_sign_in(people: People):
    amir = people.at_the_door("amir")
    found = problems(amir)
    amir.page.get_by_label("Name").fill("amir")
    amir.page.get_by_label("Password").fill("not his password")
    amir.page.get_by_role("button", name="Sign in").click()
    amir.page.get_by_role("alert").wait_for()
    assert found + problems(amir) == []
