"""Searching the log: a line of text with filters in it, such as `actor:bob since:2d "no invoice"`.

The text is what the page's address keeps, so that a search can be sent to somebody.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta, tzinfo
from typing import Final

from django.db import DatabaseError, connection, transaction
from django.db.models import Q
from psycopg.errors import QueryCanceled

from audit import clock
from audit.models import Event, EventQuerySet
from audit.reading import reader

PAGE: Final = 50
TEXT_MAX: Final = 500  # characters of a search
PATIENCE_MS: Final = 3000  # what a search may cost the database that everything else runs on
HINTS: Final = {
    "actor": "whoever did it, by user name: actor:bob",
    "action": "what was done, whole or its first part: action:grant.ended, action:vote",
    "target": "a target, with all that was asked on it: target:orders",
    "request": "a request, with its votes and its access: request:12",
    "since": "from then on: since:2026-11-01, since:12h, since:7d",
    "until": "up to then, a day included: until:2026-11-30",
    "refused": "what was refused, or what was not: refused:yes, refused:no",
    "origin": "all that one page or worker did at once: origin:8f14e45f",
}
_LENGTH: Final = re.compile(r"(\d{1,5})([mhd])")
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days"}


class Unsearchable(ValueError):
    """The text cannot be searched for. The message says why, and what to do."""


class TookTooLong(Exception):
    """The database did not find it in time."""


@dataclass(frozen=True)
class Term:
    """One filter of a search, or a word where `key` is empty."""

    key: str
    value: str

    def __str__(self) -> str:
        value = self.value if re.fullmatch(r"[^\s'\"\\:]+", self.value) else _quoted(self.value)
        return f"{self.key}:{value}" if self.key else value


@dataclass(frozen=True)
class Found:
    """A page of Events, newest first, and the id to go on from; None at the end."""

    events: Sequence[Event]
    next: int | None


def parse(text: str) -> list[Term]:
    """The terms of a text. Raises Unsearchable."""
    if len(text) > TEXT_MAX or "\x00" in text:
        raise Unsearchable(f"A search has at most {TEXT_MAX} printable characters.")
    try:
        words = shlex.split(text)
    except ValueError:
        raise Unsearchable("A quotation mark is not closed.") from None
    return [_term(word) for word in words if word]


def find(person: object, terms: Sequence[Term], *, zone: tzinfo, before: str = "") -> Found:
    """What this person may see of it, beyond the id `before`. Raises Unsearchable, TookTooLong."""
    events = reader().visible_to(person)
    for term in terms:
        events = events.filter(_condition(term, zone))
    if before.isdecimal() and before.isascii():
        events = events.filter(pk__lt=int(before[:18]))
    rows = _read(events)
    return Found(rows[:PAGE], rows[PAGE - 1].pk if len(rows) > PAGE else None)


def _read(events: EventQuerySet) -> list[Event]:
    try:
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute(f"SET LOCAL statement_timeout = {PATIENCE_MS}")
            return list(events.order_by("-id")[: PAGE + 1])
    except DatabaseError as error:
        if isinstance(error.__cause__, QueryCanceled):
            raise TookTooLong from error
        raise


def _term(word: str) -> Term:
    key, colon, value = word.partition(":")
    if not colon or not re.fullmatch(r"[a-z]+", key):
        return Term("", word)
    if key not in HINTS:
        known = ", ".join(HINTS)
        raise Unsearchable(f"There is no filter “{key}”. There are: {known}.")
    if not value:
        raise Unsearchable(f"“{key}:” needs a value: {HINTS[key]}.")
    return Term(key, value)


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _condition(term: Term, zone: tzinfo) -> Q:
    return _CONDITIONS[term.key](term.value, zone)


def _words(value: str, zone: tzinfo) -> Q:
    named = Q(subject_label__icontains=value) | Q(actor_name__icontains=value)
    return named | Q(data__note__icontains=value) | Q(data__comment__icontains=value)


def _actor(value: str, zone: tzinfo) -> Q:
    return Q(actor_name=value) | Q(on_behalf_of_name=value)


def _action(value: str, zone: tzinfo) -> Q:
    return Q(action=value) | Q(action__startswith=f"{value.rstrip('.')}.")


def _target(value: str, zone: tzinfo) -> Q:
    return reader().about_target(value)


def _request(value: str, zone: tzinfo) -> Q:
    if not (value.isdecimal() and value.isascii()):
        raise Unsearchable(f"A request has a number: {HINTS['request']}.")
    return Q(thread=f"request:{int(value[:18])}")


def _since(value: str, zone: tzinfo) -> Q:
    return Q(at__gte=_moment("since", value, zone, after=False))


def _until(value: str, zone: tzinfo) -> Q:
    return Q(at__lt=_moment("until", value, zone, after=True))


def _moment(key: str, value: str, zone: tzinfo, *, after: bool) -> datetime:
    """A day is its first moment, or the first after it; a length is so long ago."""
    try:
        if length := _LENGTH.fullmatch(value):
            return clock.now() - timedelta(**{_UNITS[length[2]]: int(length[1])})
        moment = datetime.fromisoformat(value)
        if len(value) <= len("2026-11-01"):
            day = moment.date() + timedelta(days=1 if after else 0)
            return datetime.combine(day, time.min, zone)
        return moment if moment.tzinfo else moment.replace(tzinfo=zone)
    except (ValueError, OverflowError):
        raise Unsearchable(f"“{value}” is no time: {HINTS[key]}.") from None


def _refused(value: str, zone: tzinfo) -> Q:
    if value not in ("yes", "no"):
        raise Unsearchable(f"Say yes or no: {HINTS['refused']}.")
    refused = Q(action__endswith=".refused")
    return refused if value == "yes" else ~refused


def _origin(value: str, zone: tzinfo) -> Q:
    return Q(request_id=value)


_CONDITIONS: Final[dict[str, Callable[[str, tzinfo], Q]]] = {
    "": _words,
    "actor": _actor,
    "action": _action,
    "target": _target,
    "request": _request,
    "since": _since,
    "until": _until,
    "refused": _refused,
    "origin": _origin,
}
