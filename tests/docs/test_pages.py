"""What is true of every page and every file: links lead somewhere, no registry is named."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.docs.pages import ROOT, anchors, files, links, pages

# In pieces, so that this file does not hold what it forbids.
REGISTRIES = tuple(
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("python" + "hosted", "org"),
        ("pypi", "python", "org"),
        ("npmjs", "org"),
        ("npmjs", "com"),
        ("yarnpkg", "com"),
        ("crates", "io"),
        ("rubygems", "org"),
        ("proxy", "golang", "org"),
        ("conda", "anaconda", "org"),
        ("maven", "org"),
    )
)


def broken(page: Path) -> list[str]:
    """The links of a page into this repository that lead nowhere."""
    return [link for link in links(page) if not _leads_somewhere(page, link)]


def _leads_somewhere(page: Path, link: str) -> bool:
    url = urlsplit(link)
    if url.scheme:
        return True
    target = (page.parent / unquote(url.path)).resolve() if url.path else page
    left_us = page.is_relative_to(ROOT) and not target.is_relative_to(ROOT)
    if left_us or not target.exists():
        return False
    return not url.fragment or (target.suffix == ".md" and url.fragment in anchors(target))


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    assert broken(page) == []


def test_a_link_that_leads_nowhere_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# Title here\n[good](page.md#title-here) [gone](no.md) [wrong](#nowhere)\n"
        "[out](https://example.com/)\n```\n[code](is-no-link.md)\n```\n"
    )
    assert broken(page) == ["no.md", "#nowhere"]


def named_registries(path: Path) -> list[str]:
    content = path.read_bytes().lower()
    return [host for host in REGISTRIES if host.encode() in content]


def test_no_file_names_a_package_registry() -> None:
    """An installation may use a mirror; a host written into a file would go around it."""
    found = {str(path.relative_to(ROOT)): named_registries(path) for path in files()}
    assert {path: hosts for path, hosts in found.items() if hosts} == {}


def test_a_file_that_names_a_registry_is_noticed(tmp_path: Path) -> None:
    lock = tmp_path / "some.lock"
    lock.write_text(f"--index-url https://{REGISTRIES[0].upper()}/simple\n")
    assert named_registries(lock) == [REGISTRIES[0]]


def test_the_walk_sees_the_project() -> None:
    seen = {str(path.relative_to(ROOT)) for path in files()}
    assert {"README.md", "requirements.lock", ".ci/run", "docs/laws.md", "manage.py"} <= seen
