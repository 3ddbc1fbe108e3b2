"""docs/lifecycle.md shows the tables of approvals/states.py, not a memory of them."""

from __future__ import annotations

import re
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.db import models

from approvals.management.commands.lifecycle import BEGIN, END, TITLES, diagram, written_into
from approvals.states import FIRST, NEXT, EndReason
from tests.docs.pages import DOCS, section

PAGE = DOCS / "lifecycle.md"
STEP = re.compile(r"^ +(\S+) --> (\S+)$", re.MULTILINE)


def text() -> str:
    return PAGE.read_text(encoding="utf-8")


def test_the_page_is_what_the_tables_print() -> None:
    assert written_into(text()) == text(), "run: manage.py lifecycle --write docs/lifecycle.md"


def test_every_machine_is_shown() -> None:
    assert TITLES.keys() == NEXT.keys() == FIRST.keys()


@pytest.mark.parametrize("machine", TITLES, ids=lambda machine: machine.__name__)
def test_a_diagram_has_exactly_the_steps_of_its_table(machine: type[models.TextChoices]) -> None:
    wanted = {(str(a), str(b)) for a, followers in NEXT[machine].items() for b in followers}
    wanted |= {("[*]", str(state)) for state in FIRST[machine]}
    wanted |= {(str(state), "[*]") for state, followers in NEXT[machine].items() if not followers}
    assert set(STEP.findall(diagram(machine))) == wanted


def test_every_end_reason_is_explained() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \|", section(text(), "How a grant ends"), re.MULTILINE)
    assert dict(rows) == {reason.value: reason.label for reason in EndReason}


def test_writing_replaces_what_stands_between_the_marks_only(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nan old diagram\n{END}\nafter\n")
    call_command("lifecycle", write=page, stdout=StringIO())
    new = page.read_text()
    assert new.startswith(f"before\n{BEGIN}\n")
    assert new.endswith(f"{END}\nafter\n")
    assert "an old diagram" not in new
    assert all(diagram(machine) in new for machine in TITLES)
    assert written_into(new) == new


@pytest.mark.parametrize("content", ["no marks", f"{END}\n{BEGIN}\n", f"{BEGIN}\n"])
def test_a_page_without_its_marks_is_left_alone(tmp_path: Path, content: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(content)
    with pytest.raises(CommandError, match="needs the lines"):
        call_command("lifecycle", write=page, stdout=StringIO())
    assert page.read_text() == content


def test_without_a_page_the_diagrams_are_printed() -> None:
    out = StringIO()
    call_command("lifecycle", stdout=out)
    assert out.getvalue().count("stateDiagram-v2") == len(TITLES)
