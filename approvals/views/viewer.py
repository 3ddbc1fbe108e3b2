"""Who looks at a page, and a long list cut into pages. Nothing about requests or grants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from django.db.models import Model, QuerySet

if TYPE_CHECKING:
    from django.http import HttpRequest

    from approvals.people import Person

M = TypeVar("M", bound=Model)

PAGE = 25


def viewer(request: HttpRequest) -> Person:
    """The signed-in person: the middleware lets nobody else reach a view."""
    return cast("Person", request.user)


@dataclass(frozen=True)
class Page(Generic[M]):
    """Part of a list, and the id to go on from; None at its end."""

    rows: Sequence[M]
    next: int | None


def page(queryset: QuerySet[M], *, cursor: str, newest_first: bool = True) -> Page[M]:
    """The next rows beyond the id `cursor` (a text from the address; anything else: the first).

    By key and not by offset, so that rows that come or go meanwhile are neither shown twice nor
    left out.
    """
    order, beyond = ("-pk", "pk__lt") if newest_first else ("pk", "pk__gt")
    if cursor.isdecimal() and cursor.isascii():
        queryset = queryset.filter(**{beyond: int(cursor[:20])})
    rows = list(queryset.order_by(order)[: PAGE + 1])
    return Page(rows[:PAGE], rows[PAGE - 1].pk if len(rows) > PAGE else None)
