"""Prints the lifecycles of `approvals.states` as Mermaid diagrams, or writes them into a page.

Only the diagrams come from here: the words around them are the page's own.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import models

from approvals.states import FIRST, NEXT, GrantState, ProposalState, RequestState, StageState

BEGIN = "<!-- lifecycle: begin (printed by manage.py lifecycle) -->"
END = "<!-- lifecycle: end -->"
TITLES: dict[type[models.TextChoices], str] = {
    RequestState: "A request",
    StageState: "A stage of a request",
    GrantState: "A grant",
    ProposalState: "A proposal",
}


def diagram(machine: type[models.TextChoices]) -> str:
    """One machine as a Mermaid state diagram: its states' labels, first states, steps and ends."""
    return "\n".join(["```mermaid", "stateDiagram-v2", *_lines(machine), "```"])


def _lines(machine: type[models.TextChoices]) -> Iterator[str]:
    """In the order of the table's states, so that the same table always prints the same text."""
    yield from (f'    state "{state.label}" as {state.value}' for state in machine)
    yield from (f"    [*] --> {state.value}" for state in machine if state in FIRST[machine])
    for state, followers in NEXT[machine].items():
        yield from (f"    {state.value} --> {to.value}" for to in machine if to in followers)
        if not followers:
            yield f"    {state.value} --> [*]"


def diagrams() -> str:
    """All machines, each under its title."""
    return "\n\n".join(f"### {title}\n\n{diagram(machine)}" for machine, title in TITLES.items())


def written_into(page: str) -> str:
    """`page` with the diagrams between its two marks. Raises ValueError unless it has both."""
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"The page needs the lines {BEGIN} and {END}, in this order.")
    return f"{head}{BEGIN}\n\n{diagrams()}\n\n{END}{tail}"


class Command(BaseCommand):
    help = "Print the lifecycles as Mermaid diagrams, or write them into a page. Needs no database."
    requires_system_checks = []

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--write", type=Path, metavar="PAGE", help="docs/lifecycle.md, for one")

    def handle(self, *args: Any, write: Path | None, **options: Any) -> None:
        """Raises CommandError for a page that cannot be read, written, or lacks the marks."""
        if write is None:
            self.stdout.write(diagrams())
            return
        try:
            write.write_text(written_into(write.read_text(encoding="utf-8")), encoding="utf-8")
        except (OSError, ValueError) as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"Wrote the diagrams into {write}.")
