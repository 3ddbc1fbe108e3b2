"""Which part of the queue an address asks for. What cannot be read is left out, and said so."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import reduce
from operator import or_
from typing import Any

from django.core.exceptions import ValidationError
from django.db.models import Q, TextField
from django.db.models.functions import Cast
from django.http import QueryDict

from approvals.models.targets import NAME, Risk

NAME_MAX = 150  # characters of a person's or a group's name
SEARCH_MAX, WORDS_MAX = 100, 6  # characters and words of a search; each word is looked for
SEARCHED = (
    "reason",
    "ticket",
    "target__name",
    "requester__username",
    "beneficiary__username",
)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DIGITS = 18  # of an id, and of a moment in microseconds: both are within PostgreSQL's bigint


@dataclass(frozen=True)
class Place:
    """Where a page of the queue begins: after the row with this id (and, in one's own, time)."""

    pk: int
    due_at: datetime | None = None

    def __str__(self) -> str:
        if self.due_at is None:
            return str(self.pk)
        return f"{(self.due_at - EPOCH) // timedelta(microseconds=1)}.{self.pk}"

    @classmethod
    def read(cls, text: str) -> Place | None:
        """The place that `str` wrote; None if it wrote no such text."""
        due, dot, pk = text.rpartition(".")
        if not all(_is_number(part) for part in ([due, pk] if dot else [pk])):
            return None
        try:
            moment = EPOCH + timedelta(microseconds=int(due)) if dot else None
        except OverflowError:
            return None
        return cls(int(pk), moment)


def number(text: str) -> int | None:
    """An id as an address gives it; None for anything else."""
    return int(text) if _is_number(text) else None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= DIGITS


@dataclass(frozen=True)
class Filters:
    """What the address says. `ignored` are sentences about what it says and nobody can mean."""

    everything: bool = False
    target: str = ""
    risk: str = ""
    group: str = ""
    requester: str = ""
    search: str = ""
    start: Place | None = None
    opened: int | None = None  # the request that is shown beside the list
    ignored: tuple[str, ...] = ()

    @property
    def faceted(self) -> bool:
        """Whether more than words are looked for."""
        return bool(self.target or self.risk or self.group or self.requester)

    @property
    def narrowed(self) -> bool:
        return self.faceted or bool(self.search)

    def query(self, *, start: Place | None = None, opened: int | None = None) -> str:
        """The address's query again, from another row on or with another request beside it."""
        said = QueryDict(mutable=True)
        said.update({"show": "all"} if self.everything else {})
        named = {
            "target": self.target,
            "risk": self.risk,
            "group": self.group,
            "requester": self.requester,
            "q": self.search,
            "from": str(start or ""),
            "open": str(opened or ""),
        }
        said.update({name: value for name, value in named.items() if value})
        return said.urlencode()

    def showing(self, pk: int | None) -> Filters:
        """The same, with the request of this id beside the list."""
        return replace(self, opened=pk)

    @property
    def here(self) -> str:
        """The same page of the queue, without what is open beside it."""
        return self.query(start=self.start)

    @property
    def beginning(self) -> str:
        return self.query()

    @property
    def unfiltered(self) -> str:
        return Filters(everything=self.everything).query()

    def narrow(self, rows: Any) -> Any:
        """Of requests `with_due`, those that the filters let through."""
        if self.target:
            rows = rows.filter(target__name=self.target)
        if self.risk:
            rows = rows.filter(level__risk=self.risk)
        if self.requester:
            asks = Q(requester__username=self.requester) | Q(beneficiary__username=self.requester)
            rows = rows.filter(asks)
        if self.group:
            # As the open stage's own copy names it: JSON with ids for keys and names for values.
            names = Cast("open_stage__group_names", TextField())
            quoted = json.dumps(self.group, ensure_ascii=False)
            rows = rows.alias(asked_groups=names).filter(asked_groups__contains=quoted)
        for word in self.search.split():
            found = (Q((f"{field}__icontains", word)) for field in SEARCHED)
            rows = rows.filter(reduce(or_, found))
        return rows


def _is_name(text: str) -> bool:
    return len(text) <= NAME_MAX and "\x00" not in text


def _is_target(text: str) -> bool:
    try:
        NAME(text)
    except ValidationError:
        return False
    return True


def _is_search(text: str) -> bool:
    return len(text) <= SEARCH_MAX and len(text.split()) <= WORDS_MAX and "\x00" not in text


# By parameter: whether a value can be used, and what is said when it cannot.
CHECKS: Mapping[str, tuple[Callable[[str], bool], str]] = {
    "show": (
        lambda text: text in ("mine", "all"),
        "The queue is either what needs you or all that you may see; this is what needs you.",
    ),
    "target": (_is_target, "No target can be called that."),
    "risk": (lambda text: text in Risk.values, "A risk is low, medium or high."),
    "group": (_is_name, "No group can be called that."),
    "requester": (_is_name, "Nobody can be called that."),
    "q": (_is_search, f"A search has at most {WORDS_MAX} words and {SEARCH_MAX} characters."),
    "from": (
        lambda text: Place.read(text) is not None,
        "That place in the list could not be read; this is its beginning.",
    ),
    "open": (lambda text: number(text) is not None, "No request has such a number."),
}


def read(said: QueryDict) -> Filters:
    """The filters of an address's query, whatever it contains. Never raises."""
    given = {name: said.get(name, "").strip() for name in CHECKS}
    wrong = {name for name, text in given.items() if text and not CHECKS[name][0](text)}
    used = {name: "" if name in wrong else text for name, text in given.items()}
    return Filters(
        everything=used["show"] == "all",
        target=used["target"],
        risk=used["risk"],
        group=used["group"],
        requester=used["requester"],
        search=used["q"],
        start=Place.read(used["from"]),
        opened=number(used["open"]),
        ignored=tuple(CHECKS[name][1] for name in given if name in wrong),
    )
