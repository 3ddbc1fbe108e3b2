"""docs/operations.md and docs/backup.md name commands, options and services that there are."""

from __future__ import annotations

import re

import pytest
from django.core.management import get_commands, load_command_class

from tests.compose import services
from tests.docs.pages import DOCS

PAGES = ("operations.md", "backup.md")
COMMAND = re.compile(r"manage\.py ([a-z_]+)((?: (?:--)?[\w./-]+)*)")
COMPOSE = re.compile(r"docker compose (?:run|exec|up) ((?:--?\w[\w-]* )*)([a-z ]+)")


def text(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def known_options(name: str) -> set[str]:
    command = load_command_class(get_commands()[name], name)
    actions = command.create_parser("manage.py", name)._actions
    return {option for action in actions for option in action.option_strings}


def unknown(page: str) -> list[str]:
    """Commands and options that a page names and nobody has."""
    found = []
    for name, rest in COMMAND.findall(page):
        if name not in get_commands():
            found.append(name)
        else:
            given = set(re.findall(r"--[a-z][\w-]*", rest))
            found += sorted(given - known_options(name))
    return found


@pytest.mark.parametrize("page", PAGES)
def test_every_command_that_is_named_is_there(page: str):
    assert len(COMMAND.findall(text(page))) >= 5
    assert unknown(text(page)) == []


@pytest.mark.parametrize("wrong", ["manage.py no_such", "`manage.py sweep --no-such`"])
def test_a_command_that_is_not_there_is_noticed(wrong: str):
    assert len(unknown(wrong)) == 1


@pytest.mark.parametrize("page", PAGES)
def test_every_service_that_is_named_is_in_the_file(page: str):
    found = [words.split() for _, words in COMPOSE.findall(text(page))]
    first = {words[0] for words in found if words}
    assert first <= services().keys()
    assert page == "operations.md" or "prepare" in first
