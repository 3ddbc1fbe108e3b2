"""One thing that was looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from django.db import connections


@dataclass(frozen=True)
class Finding:
    """`what` is well if `ok`; else it is what is wrong, and `fix` says what to do."""

    ok: bool
    what: str
    fix: str = ""


Part = Callable[[], Iterable[Finding]]


def looked_at(part: Part) -> Iterator[Finding]:
    """The findings of one part. That it could not be looked at is one, too."""
    try:
        yield from part()
    except Exception as error:  # noqa: BLE001 - whatever it is, the other parts are looked at
        subject = part.__name__.replace("_", " ")
        told = f"The {subject} could not be looked at: {type(error).__name__}: {error}"
        yield Finding(False, told, "Mend what it says, then look again.")
    finally:
        connections.close_all()


def well(text: str, wrong: list[Finding]) -> list[Finding]:
    """What is wrong; if nothing is, that it is well."""
    return wrong or [Finding(True, text)]


def some(names: Iterable[object], *, most: int = 5) -> str:
    """The first few names, and how many more there are."""
    listed = [str(name) for name in names]
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more
