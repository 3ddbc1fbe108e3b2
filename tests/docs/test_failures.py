"""docs/failures-of-others.md: one line per failure, each with tests that exist and can fail."""

from __future__ import annotations

import ast
from functools import cache

import pytest

from tests.docs.failures import FAILURES, PAGE, Failure, written_into
from tests.docs.pages import ROOT


def test_the_page_is_what_the_table_prints() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert written_into(text) == text, "run: python -m tests.docs.failures"


def test_no_line_is_there_twice_and_no_cell_is_empty() -> None:
    assert len({failure.theirs for failure in FAILURES}) == len(FAILURES) > 60
    for failure in FAILURES:
        cells = (failure.where, failure.theirs, failure.ours, *failure.tests)
        assert failure.tests, failure.where
        assert not [cell for cell in cells if not cell.strip() or "|" in cell], failure.where


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.where)
def test_its_tests_exist_and_can_fail(failure: Failure) -> None:
    assert [name for name in failure.tests if not can_fail(*name.split("::"))] == []


@pytest.mark.parametrize(
    ("code", "fails"),
    [
        ("def test_it(): assert look()", True),
        ("def test_it():\n with pytest.raises(E): act()", True),
        ("def test_it(): check()\ndef check(): assert look()", True),
        ("def test_it(): act()\ndef check(): assert look()", False),
        ("def test_it(): it()\ndef it(): it()", False),
        ("def test_other(): assert look()", False),
    ],
)
def test_one_that_cannot_fail_is_noticed(code: str, fails: bool) -> None:
    assert _can_fail(_functions(code), "test_it") == fails


def can_fail(file: str, name: str) -> bool:
    """Whether the file has such a test, which asserts or expects something."""
    return name.startswith("test_") and _can_fail(_of(file), name)


def _can_fail(functions: dict[str, list[ast.FunctionDef]], name: str) -> bool:
    """Itself or by what it calls of its own file; each of them, where several bear the name."""
    others = {other: found for other, found in functions.items() if other != name}
    found = functions.get(name, [])
    return bool(found) and all(
        any(isinstance(node, ast.Assert) for node in ast.walk(one))
        or any(called == "raises" or _can_fail(others, called) for called in _called(one))
        for one in found
    )


def _called(function: ast.FunctionDef) -> set[str]:
    calls = (node.func for node in ast.walk(function) if isinstance(node, ast.Call))
    return {str(getattr(one, "attr", getattr(one, "id", ""))) for one in calls}


@cache
def _of(file: str) -> dict[str, list[ast.FunctionDef]]:
    path = ROOT / file
    return _functions(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _functions(code: str) -> dict[str, list[ast.FunctionDef]]:
    """A file's functions by name; several classes may have one of the same name."""
    found: dict[str, list[ast.FunctionDef]] = {}
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.FunctionDef):
            found.setdefault(node.name, []).append(node)
    return found
