"""What a summary comes to, in a sentence: what can be read, changed, made and run.

A sentence leaves things out, so it never says that something cannot be done unless every line of
the summary is known to be harmless. The lines themselves are what is approved.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

_LINE: Final = re.compile(
    r"(?P<where>.+?): (?P<privileges>[A-Z][A-Z, ]*) on (?P<count>\d+) (?P<kind>[A-Za-z ]+?)"
    r"(?P<rest>(?: of schema .+?)?(?: \(as everyone may\))?): "
)
_READABLE: Final = ("table", "view", "foreign table", "column", "large object")
_CHANGING: Final = frozenset({"INSERT", "UPDATE", "DELETE", "TRUNCATE"})
_RUNNING: Final = "SECURITY DEFINER function"
_DEFINERS: Final = "with the rights of whoever made them"
# What changes nothing that others could see. Temporary tables end with their session.
_HARMLESS: Final = {
    "database": {"CONNECT", "TEMPORARY"},
    "schema": {"USAGE"},
    "type": {"USAGE"},
    "language": {"USAGE"},
    "sequence": {"SELECT"},
    **{kind: {"SELECT"} for kind in _READABLE},
}


@dataclass
class _Found:
    """What may be done in one database: numbers of things, by kind."""

    read: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    run: int = 0
    makes: bool = False


def in_words(summary: Sequence[str]) -> str:
    """One sentence; empty where nothing is known.

    It takes only the lines of `summarise_level` for what they are.
    """
    found: dict[str, _Found] = {}
    harmless = bool(summary)
    for line in summary:
        right = _LINE.match(line)
        if right is None:
            harmless = harmless and _is_header(line)
            continue
        privileges = set(right["privileges"].split(", "))
        kind = _singular(right["kind"], int(right["count"]))
        harmless = harmless and privileges <= _HARMLESS.get(kind, set())
        _add(found.setdefault(right["where"], _Found()), kind, privileges, int(right["count"]))
    said = [told for where, one in found.items() for told in _told(where, one)]
    if not said:
        return "Reads and changes nothing." if harmless else ""
    sentence = "; ".join([*said, *(["changes nothing"] if harmless else [])])
    return f"{sentence[0].upper()}{sentence[1:]}."


def _is_header(line: str) -> bool:
    """What is inherited is listed right by right, but for what the server's own roles may do."""
    _, inherits, name = line.rpartition(" inherits ")
    if inherits:
        return not name.lstrip('"').startswith("pg_")
    return line.startswith(("member of ", "signs in to ", "at most "))


def _singular(kind: str, count: int) -> str:
    return kind.removesuffix("s") if count > 1 else kind


def _add(found: _Found, kind: str, privileges: set[str], count: int) -> None:
    if kind in _READABLE:
        if "SELECT" in privileges:
            found.read[kind] += count
        if privileges & _CHANGING:
            found.changed[kind] += count
    found.run += count if kind == _RUNNING else 0
    found.makes = found.makes or "CREATE" in privileges


def _told(where: str, found: _Found) -> Iterator[str]:
    if found.read and found.read == found.changed:
        yield f"reads and changes {_counted(found.read)} in {where}"
    else:
        if found.read:
            yield f"reads {_counted(found.read)} in {where}"
        if found.changed:
            yield f"changes {_counted(found.changed)} in {where}"
    if found.makes:
        yield f"makes things of its own in {where}"
    if found.run:
        yield f"runs {_counted({'function': found.run})} in {where} {_DEFINERS}"


def _counted(things: Counter[str] | dict[str, int]) -> str:
    return _listed(f"{n} {kind}s" if n > 1 else f"{n} {kind}" for kind, n in things.items())


def _listed(items: Iterable[str]) -> str:
    *most, last = items
    return f"{', '.join(most)} and {last}" if most else last
