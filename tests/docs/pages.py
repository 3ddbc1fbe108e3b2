"""Where the pages are and what they link to. The tests beside this one say what must hold."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
# Made by tools, or not the project's own text. Hidden directories are left out as well.
MADE = {"staticfiles", "node_modules", "__pycache__"}
KEPT_HIDDEN = {".ci", ".github"}
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)


def files() -> Iterator[Path]:
    """Every file of the project."""
    for directory, below, names in os.walk(ROOT):
        below[:] = [name for name in below if name not in MADE and _ours(name)]
        yield from (Path(directory) / name for name in names)


def _ours(directory: str) -> bool:
    return not directory.startswith(".") or directory in KEPT_HIDDEN


def pages() -> list[Path]:
    """The pages for people: those at the root, and those in docs."""
    return sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])


def links(page: Path) -> list[str]:
    """What a page links to, code left out."""
    return LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8")))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as repository hosts make them."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    return {_anchor(heading) for heading in HEADING.findall(text)}


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def section(text: str, heading: str) -> str:
    """What stands under a heading of the second order. Raises ValueError without it."""
    found = re.search(
        rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL
    )
    if found is None:
        raise ValueError(f"There is no section “{heading}”.")
    return found.group(1)
