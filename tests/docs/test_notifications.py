"""docs/notifications.md lists the facts of the table, no other, and how urgent each is."""

from __future__ import annotations

import re

from approvals.notify.facts import TABLE
from tests.docs.pages import DOCS, section

ROW = re.compile(r"^\| `(\w+)` \| .+? \| .+? \| (yes|) ?\|$", re.MULTILINE)


def test_the_page_lists_the_facts_and_no_other() -> None:
    text = (DOCS / "notifications.md").read_text(encoding="utf-8")
    listed = ROW.findall(section(text, "Of what, who, and how urgently"))
    assert listed == [(fact.name, "yes" if fact.urgent else "") for fact in TABLE]


def test_the_page_says_of_which_nobody_being_reached_is_an_error() -> None:
    text = (DOCS / "notifications.md").read_text(encoding="utf-8")
    sentence = re.search(r"If \*\*nobody\*\* can be told of (.+?), that is an", text, re.DOTALL)
    assert sentence is not None
    assert re.findall(r"`(\w+)`", sentence[1]) == [fact.name for fact in TABLE if fact.required]
