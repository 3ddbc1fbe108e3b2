"""Looking at a page as it is in either theme on either width; not a test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from axe_playwright_python.base import AXE_SCRIPT

from tests.browser.people import HEIGHT, WIDTHS, Person, Theme

# What the theme can change: everything else is the same in the dark.
OF_COLOUR = {"runOnly": {"type": "rule", "values": ["color-contrast", "link-in-text-block"]}}
# By the site's attribute, or by the class that the admin's own look goes by.
THEMED: dict[Theme, str] = {
    "light": "html[data-bs-theme=light], html:not([data-bs-theme], .dark)",
    "dark": "html[data-bs-theme=dark], html.dark",
}
Look = tuple[str, Theme, dict[str, Any]]
LOOKS: tuple[Look, ...] = (
    ("phone", "light", {}),
    ("desk", "dark", OF_COLOUR),
    ("desk", "light", {}),
)
# Where nothing is elsewhere on a wide page, as in the admin, or somebody else has seen it before:
# what is told of a narrow one is told of both, and a wide one has each colour in the dark.
FEWER_LOOKS = LOOKS[:2]


def problems(person: Person, *, seen_before: bool = False) -> list[str]:
    """What is wrong with the page that is shown: what axe finds, and what has to be scrolled to."""
    fewer = seen_before or "/admin/" in person.page.url
    person.page.evaluate(AXE_SCRIPT)
    found = _seen(person, FEWER_LOOKS if fewer else LOOKS)
    return [f"{person.name} at {person.page.url}: {what}" for what in found]


def _seen(person: Person, looks: tuple[Look, ...]) -> Iterator[str]:
    for width, theme, options in looks:
        person.page.set_viewport_size({"width": WIDTHS[width], "height": HEIGHT})
        person.page.emulate_media(color_scheme=theme)
        if "/admin/" in person.page.url:
            person.page.reload()  # its look is chosen when it is loaded
            person.page.evaluate(AXE_SCRIPT)
        person.page.locator(THEMED[theme]).wait_for(state="attached")
        if person.overflows():
            yield f"{width}: wider than the window"
        yield from (f"{width}, {theme}: {one}" for one in _violations(person, options))


def _violations(person: Person, options: dict[str, Any]) -> list[str]:
    # Style sheets and sounds would be loaded anew, for a rule that is not asked and one of sounds.
    asked = {"resultTypes": ["violations"], "preload": False, **options}
    found = person.page.evaluate("options => axe.run(options)", asked)["violations"]
    return [f"{one['id']}: {node['html'][:120]}" for one in found for node in one["nodes"]]
