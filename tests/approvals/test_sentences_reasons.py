"""Every reason code that a verb can refuse with has words, and no words are for none."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from approvals.chain import AlreadyCounted, NeededLater, NotEligible, WrongStage
from approvals.errors import Invalid, NotAllowed, WrongState
from approvals.sentences import REASONS, event_sentence
from audit.models import Event
from debugflow.embedded.state import CHECKOUT

PACKAGE = CHECKOUT / "approvals"
# The API's own refusals come before any verb, and are recorded as failed sign-ins or not at all.
NOT_VERBS = PACKAGE / "api"
REFUSING = {"NotAllowed", "WrongState", "Invalid"}


def codes_in(path: Path) -> Iterator[str]:
    """The codes that a file's refusals are made with, as texts."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "id", "")
        given = [word.value for word in node.keywords if word.arg == "code"]
        if name == "Refusal":
            given += node.args[:1]
        if name in REFUSING | {"Refusal"}:
            yield from (str(code.value) for code in given if isinstance(code, ast.Constant))


def codes() -> set[str]:
    found = {kind.default_code for kind in (NotAllowed, WrongState, Invalid)}
    found |= {kind.reason for kind in (AlreadyCounted, NeededLater, NotEligible, WrongStage)}
    for path in PACKAGE.rglob("*.py"):
        if not path.is_relative_to(NOT_VERBS):
            found.update(codes_in(path))
    return found


@pytest.mark.slow
def test_every_code_has_words_and_no_other():
    assert sorted(REASONS) == sorted(codes())


def test_the_search_finds_codes_of_each_kind(tmp_path: Path):
    source = tmp_path / "source.py"
    source.write_text(
        "raise WrongState('…', code='one')\nRefusal('two', '…')\nInvalid(code='three')\n"
        "ProvisionError('…', code='four')\nNotAllowed('…')\nx(code='five')\n"
    )
    assert sorted(codes_in(source)) == ["one", "three", "two"]


@pytest.mark.parametrize("code", sorted(REASONS))
def test_a_refusal_is_told_with_words_and_without_its_code(code: str):
    told = event_sentence(Event(action="vote.refused", actor_name="bob", data={"code": code}))
    assert told == f"bob tried to vote and was refused: {REASONS[code]}."
    assert "_" not in told


def test_words_are_told_apart():
    assert len(set(REASONS.values())) == len(REASONS)
