"""docs/audit.md lists every action that can be written, but for those that no verb writes yet."""

from __future__ import annotations

import re

from audit.actions import declared
from tests.docs.pages import DOCS, section

# The first state of a stage that waits is told by the Event of the submission.
UNREACHED = {
    "requeststage.waiting",
}
TESTS_OWN = "story."  # declared by tests/audit/conftest.py


def listed() -> set[str]:
    """The first column's actions; one that begins with a dot shares the noun before it."""
    names, noun = set(), ""
    page = section((DOCS / "audit.md").read_text(encoding="utf-8"), "Actions")
    for row in re.findall(r"^\| (`.+?) \|", page, re.MULTILINE):
        for name in re.findall(r"`([a-z_.]+)`", row):
            noun = name.split(".")[0] or noun
            names.add(f"{noun}{name}" if name.startswith(".") else name)
    return names


def test_every_action_is_listed_and_no_other() -> None:
    ours = {name for name in declared() if not name.startswith(TESTS_OWN)}
    assert sorted(listed()) == sorted(ours - UNREACHED)
    assert ours > UNREACHED
