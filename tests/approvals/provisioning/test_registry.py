"""Kinds: ours by dotted path, others' by entry point, and no special case anywhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

import approvals
from approvals import provisioning
from approvals.errors import Invalid
from approvals.provisioning.memory import MemoryProvisioner
from approvals.provisioning.postgresql import PostgreSQL

ROOT = Path(approvals.__file__).parents[1]


def test_our_kinds_are_found_by_name() -> None:
    assert provisioning.get("postgresql") is PostgreSQL
    assert provisioning.get("memory") is MemoryProvisioner


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(Invalid, match="no kind of target called “mainframe”"):
        provisioning.get("mainframe")


def test_a_rehearsal_is_offered_in_no_form() -> None:
    assert provisioning.kinds()["postgresql"] == "PostgreSQL"
    assert "memory" not in provisioning.kinds()


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two kinds from elsewhere, one of which lacks its library, and one that would replace ours."""
    points = [
        metadata.EntryPoint("theirs", "approvals.provisioning.memory:MemoryProvisioner", "g"),
        metadata.EntryPoint("broken", "no_such_library:Kind", "g"),
        metadata.EntryPoint("postgresql", "approvals.provisioning.memory:MemoryProvisioner", "g"),
    ]
    monkeypatch.setattr(metadata, "entry_points", lambda **_: points)
    provisioning.paths.cache_clear()
    provisioning.get.cache_clear()
    yield
    provisioning.paths.cache_clear()
    provisioning.get.cache_clear()


@pytest.mark.usefixtures("others")
def test_others_add_kinds_but_replace_none_of_ours() -> None:
    assert provisioning.get("theirs") is MemoryProvisioner
    assert provisioning.get("postgresql") is PostgreSQL


@pytest.mark.usefixtures("others")
def test_a_kind_that_cannot_be_loaded_breaks_that_kind_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert "postgresql" in provisioning.kinds()
    assert "broken" not in provisioning.kinds()
    assert "cannot be loaded" in caplog.text
    with pytest.raises(ImportError):
        provisioning.get("broken")


def test_no_code_outside_asks_which_kind_it_has() -> None:
    asking = re.compile(r"\.kind\s*(==|!=|in)\s*[\[({]?\s*[\"'](postgresql|ssh|memory)")
    assert asking.search("if target.kind == 'postgresql':")
    sources = [path for name in ("approvals", "debugflow") for path in (ROOT / name).rglob("*.py")]
    assert [path for path in sources if asking.search(path.read_text())] == []
