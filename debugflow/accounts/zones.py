"""The time zones there are, and which one somebody means by what they typed."""

from __future__ import annotations

import difflib
import functools
import zoneinfo
from typing import Final

# Files beside the zones that name none: the machine's own, and one that stands for "not set".
NO_ZONES: Final = {"localtime", "Factory", "posixrules"}
NEAR_MOST: Final = 3


@functools.cache
def offered() -> tuple[str, ...]:
    """UTC, and a region with a city each; old names and bare offsets are known, but not offered."""
    named = [name for name in _known().values() if "/" in name and not name.startswith("Etc/")]
    return ("UTC", *sorted(named))


def find(typed: str) -> str | None:
    """The zone of that name, in whatever case and with spaces for underscores; None without one."""
    return _known().get(_plain(typed))


def near(typed: str) -> list[str]:
    """Zones that may have been meant: spelt much like it, with or without the region."""
    words = {_plain(name).rpartition("/")[2]: name for name in offered()}
    words |= {_plain(name): name for name in offered()}
    spelt = difflib.get_close_matches(_plain(typed), words, NEAR_MOST)
    return list(dict.fromkeys(words[word] for word in spelt))


@functools.cache
def _known() -> dict[str, str]:
    return {_plain(name): name for name in zoneinfo.available_timezones() - NO_ZONES}


def _plain(name: str) -> str:
    return "_".join(name.split()).casefold()
