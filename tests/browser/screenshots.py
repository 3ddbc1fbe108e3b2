"""`make screenshots`: every page in both themes and widths, to be looked at; not a test.

    python -m tests.browser.screenshots [FOLDER]

Starts an installation of its own, has the cast ask and decide, and writes for each page
PERSON-PAGE-WIDTH-THEME.png. The pictures of README and docs are a few of these:

    python -m tests.browser.screenshots screenshots --docs
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from playwright.sync_api import Browser, Page

from debugflow.embedded.installation import Installation
from debugflow.embedded.state import CHECKOUT, scratch
from debugflow.embedded.story import cast
from tests.browser import chromium
from tests.browser.people import WIDTHS, Person, Theme, sign_in

FOLDER = Path("screenshots")
DOCS = CHECKOUT / "docs" / "pictures"
PICTURES = {
    "amir-ask-level-desk-light": "ask",
    "bob-queue-desk-light": "queue",
    "bob-home-phone-dark": "home-phone",
    "alice-grant-desk-light": "access",
    "ada-audit-desk-light": "audit",
    "ada-admin-policy-desk-light": "policy",
    "ada-admin-simulate-desk-light": "simulate",
    "alice-settings-desk-light": "settings",
}
"""What the docs show, by the name that they give it."""
ADMIN = {
    "people": "accounts/user/",
    "person": "accounts/user/1/change/",
    "group": "auth/group/1/change/",
    "targets": "approvals/target/",
    "target": "approvals/target/1/change/",
    "holders": "approvals/target/1/holders/",
    "levels": "approvals/accesslevel/",
    "level": "approvals/accesslevel/1/change/",
    "policies": "approvals/policy/",
    "policy": "approvals/policy/1/change/",
    "publish": "approvals/policy/1/publish/",
    "simulate": "approvals/policy/simulate/?person=1&level=1&duration=1+h",
    "requests": "approvals/accessrequest/",
    "request": "approvals/accessrequest/1/change/",
    "grants": "approvals/grant/",
    "notices": "approvals/notice/",
    "deliveries": "approvals/delivery/",
    "delivery": "approvals/delivery/1/change/",
    "webhooks": "approvals/webhookendpoint/",
    "webhook": "approvals/webhookendpoint/add/",
    "slack": "approvals/slackworkspace/add/",
    "events": "audit/event/",
    "event": "audit/event/1/change/",
}
"""Pages below `/admin/`, of the first of each kind."""


@dataclass(frozen=True)
class Shot:
    who: str
    name: str
    address: str
    whole: bool = True  # and not only what fits the window, which what stays in view is part of


@dataclass(frozen=True)
class Story:
    """The addresses of a request that waits, one whose access is open, that access, a form, and an
    emergency."""

    waiting: str
    opened: str
    grant: str
    form: str
    bypassed: str


def main(folder: Path) -> int:
    if why := chromium.missing():
        sys.stderr.write(f"{why}\n")
        return 1
    folder.mkdir(parents=True, exist_ok=True)
    with scratch() as directory:
        site = Installation(directory, port=0, out=sys.stderr)
        try:
            site.start()
            with chromium.started() as browser:
                shots = list(_shots(_story(browser, site.url)))
            for theme in get_args(Theme):
                for width in WIDTHS:
                    with chromium.started() as browser:
                        _take(browser, site.url, shots, folder, width, theme)
        finally:
            site.stop()
    sys.stdout.write(f"{len(list(folder.glob('*.png')))} pictures are in {folder}/\n")
    return 0


def _story(browser: Browser, url: str) -> Story:
    alice, bob, carol = (sign_in(browser, url, name) for name in ("alice", "bob", "carol"))
    opened = _ask(alice.page, "read-only", "Orders hang since 10:40; locks on payments?")
    for person in (bob, carol):
        person.page.goto(opened)
        person.page.get_by_role("button", name=re.compile("^Approve")).click()
        person.page.wait_for_load_state()
    waiting = _ask(alice.page, "read-write", "Set order 4711 to paid, as the customer has paid.")
    bob.page.goto(waiting)
    bob.page.locator("#saying").fill("@carol is this the same as last week?")
    bob.page.get_by_role("button", name="Say it").click()
    bob.page.wait_for_load_state()
    alice.page.goto(opened)
    connect = alice.page.get_by_role("link", name="Connect")
    connect.wait_for()
    alice.page.goto("/settings/")
    alice.page.get_by_label("What it is for").fill("nightly report")
    alice.page.keyboard.press("Enter")
    alice.page.locator("#token").wait_for()
    alice.page.goto(opened)
    connect.click()
    alice.page.wait_for_url("**/grants/*/")
    grant = alice.page.url
    alice.page.goto("/ask/")
    alice.page.get_by_role("link", name=re.compile("Ask for")).first.click()
    alice.page.wait_for_url("**/ask/*/")
    form = alice.page.url
    return Story(waiting, opened, grant, form, _emergency(sign_in(browser, url, "amir").page, form))


def _emergency(page: Page, form: str) -> str:
    page.goto(f"{form}emergency/")
    page.get_by_label("Why it cannot wait").fill("Payments are down, and nobody of dba answers.")
    page.get_by_label(re.compile("to confirm")).fill(cast.TARGET)
    page.get_by_label(re.compile("^Your password")).fill(cast.PASSWORD)
    page.get_by_role("button", name=re.compile("^Open for")).click()
    page.wait_for_url("**/requests/*/")
    return page.url


def _ask(page: Page, level: str, reason: str) -> str:
    page.goto("/ask/")
    page.get_by_role("link", name=re.compile(level)).first.click()
    page.get_by_label("Why").fill(reason)
    page.get_by_label(re.compile("^Ticket")).fill("OPS-7")
    page.get_by_role("button", name=re.compile("^Ask")).click()
    page.wait_for_url("**/requests/*/")
    return page.url


def _shots(story: Story) -> Iterator[Shot]:
    yield Shot("alice", "home", "/")
    yield Shot("alice", "ask", "/ask/")
    yield Shot("alice", "request", story.opened)
    yield Shot("alice", "grant", story.grant)
    yield Shot("amir", "ask-level", story.form)
    yield Shot("amir", "emergency", f"{story.form}emergency/")
    yield Shot("amir", "bypassed", story.bypassed)
    yield Shot("carol", "bypassed", story.bypassed)
    yield Shot("carol", "reviews", "/reviews/")
    yield Shot("carol", "review", "/reviews/1/")
    yield Shot("alice", "grants", "/grants/")
    yield Shot("alice", "settings", "/settings/")
    yield Shot("bob", "home", "/")
    yield Shot("bob", "queue", "/queue/", whole=False)
    yield Shot("bob", "request", story.waiting)
    yield Shot("bob", "inbox", "/inbox/")
    yield Shot("alice", "inbox", "/inbox/")
    yield Shot("mallory", "inbox", "/inbox/")
    yield Shot("carol", "home", "/")
    yield Shot("mallory", "home", "/")
    yield Shot("mallory", "queue", "/queue/")
    yield Shot("mallory", "ask", "/ask/")
    yield Shot("olga", "grants", "/grants/?show=all")
    yield Shot("ada", "audit", "/audit/", whole=False)
    yield Shot("ada", "audit-refused", "/audit/?q=acter:bob")
    yield Shot("ada", "admin", "/admin/")
    for name, address in ADMIN.items():
        yield Shot("ada", f"admin-{name}", f"/admin/{address}")
    yield Shot("ada", "not-found", "/requests/999/")


def _take(
    browser: Browser, url: str, shots: list[Shot], folder: Path, width: str, theme: Theme
) -> None:
    people: dict[str, Person] = {}
    for shot in shots:
        if shot.who not in people:
            people[shot.who] = sign_in(browser, url, shot.who, width=WIDTHS[width], theme=theme)
        page = people[shot.who].page
        page.goto(shot.address)
        name = f"{shot.who}-{shot.name}-{width}-{theme}.png"
        page.screenshot(path=folder / name, full_page=shot.whole)


def for_docs(folder: Path) -> None:
    """Copy what README and docs show to where they have it."""
    DOCS.mkdir(exist_ok=True)
    for taken, name in PICTURES.items():
        shutil.copyfile(folder / f"{taken}.png", DOCS / f"{name}.png")


if __name__ == "__main__":
    told = [argument for argument in sys.argv[1:] if argument != "--docs"]
    chosen = Path(told[0]) if told else FOLDER
    status = main(chosen)
    if status == 0 and "--docs" in sys.argv:
        for_docs(chosen)
    sys.exit(status)
