"""docs/configuration.md lists every variable and every system check, and none that is not there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, section
from tests.docs.variables import COMPUTED, REQUIRED, read_by, sources

PAGE = DOCS / "configuration.md"
NAME = re.compile(r"`([A-Z][A-Z0-9_]*)`")
# One variable, or several of one kind, in the first column; the default in the second.
ROW = re.compile(rf"^\| ({NAME.pattern}(?:, {NAME.pattern})*) \| (.+?) \|", re.MULTILINE)
CHECK = re.compile(r"\b(?:debugflow|approvals|audit)\.[EW]\d{3}\b")


def text() -> str:
    return PAGE.read_text(encoding="utf-8")


def listed() -> list[tuple[str, str]]:
    """Name and default of each variable on the page."""
    return [
        (name, row[-1].strip("`")) for row in ROW.findall(text()) for name in NAME.findall(row[0])
    ]


def variables() -> dict[str, str]:
    """Every variable that is read somewhere; where two places read one, a stated default wins."""
    found: dict[str, str] = {}
    for path in sources():
        for name, default in read_by(path).items():
            if found.get(name, COMPUTED) in (COMPUTED, REQUIRED):
                found[name] = default
    return found


@pytest.mark.slow
def test_every_variable_is_listed_and_no_other() -> None:
    assert sorted(name for name, _ in listed()) == sorted(variables())


@pytest.mark.slow
def test_the_listed_defaults_are_the_real_ones() -> None:
    assert dict(listed()) == {name: default or "empty" for name, default in variables().items()}


@pytest.mark.slow
def test_the_search_finds_variables_of_each_kind() -> None:
    found = variables()
    assert found["SECRET_KEY"] == REQUIRED
    assert found["DATABASE_POOL_SIZE"] == "16"
    assert found["DEBUGFLOW_DEMO"] == "False"
    assert found["SECRET_KEY_FALLBACKS"] == ""
    assert {"DEBUGFLOW_STATE_DIR", "SUPERUSER_DATABASE_URL", "NO_COLOR"} <= found.keys()


@pytest.mark.parametrize(
    ("code", "names"),
    [
        (
            "import os\nos.environ['ONE']\nos.environ.get('TWO')\nos.getenv('THREE')",
            "ONE THREE TWO",
        ),
        ("from debugflow import env\nKEY = 'ONE'\nenv.text(KEY, '')\nenv.words('TWO')", "ONE TWO"),
        ("PASSED = ('ONE', 'TWO')\n{n: os.environ[n] for n in PASSED}", "ONE TWO"),
        ("[name for name in ('ONE', 'TWO') if environ.get(name)]", "ONE TWO"),
    ],
)
def test_a_variable_is_found_however_it_is_read(tmp_path: Path, code: str, names: str) -> None:
    source = tmp_path / "source.py"
    source.write_text(code)
    assert sorted(read_by(source)) == names.split()


def test_a_name_that_only_running_could_tell_is_not_let_pass(tmp_path: Path) -> None:
    source = tmp_path / "source.py"
    source.write_text("import os\nos.environ.get(f'{prefix}_URL')")
    with pytest.raises(ValueError, match="which variable"):
        read_by(source)


def checks() -> str:
    return section(text(), "System checks")


def test_every_system_check_is_listed_and_no_other() -> None:
    real = {check for path in sources() for check in CHECK.findall(path.read_text())}
    assert sorted(re.findall(rf"^\| ({CHECK.pattern}) \|", checks(), re.MULTILINE)) == sorted(real)
    assert len(real) >= 8
