"""docs/laws.md names, for every law, tests that exist."""

from __future__ import annotations

import re

import pytest

from tests.docs.pages import DOCS, ROOT, pages

TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
LAW = re.compile(r"^## (\d+)\. .+\n((?:(?!^## ).*\n)*)", re.MULTILINE)


def laws() -> dict[int, str]:
    text = (DOCS / "laws.md").read_text(encoding="utf-8")
    return {int(number): body for number, body in LAW.findall(text)}


def test_the_page_has_the_twelve_laws_in_order() -> None:
    assert list(laws()) == list(range(1, 13))


@pytest.mark.parametrize("law", range(1, 13))
def test_every_law_names_tests(law: int) -> None:
    assert TEST.search(laws()[law])


def test_every_test_that_a_page_names_exists() -> None:
    named = {
        (file, function) for page in pages() for file, function in TEST.findall(page.read_text())
    }
    assert named
    assert [name for name in sorted(named) if not _exists(*name)] == []


def _exists(file: str, function: str) -> bool:
    path = ROOT / file
    if not path.is_file():
        return False
    return not function or f"def {function}(" in path.read_text(encoding="utf-8")
