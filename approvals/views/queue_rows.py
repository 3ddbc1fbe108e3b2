"""The rows of the queue, page by page, and the figures in its head. How they look is not here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from django.db.models import Q, QuerySet, TextField
from django.db.models.functions import Cast

from approvals import access
from approvals.models import AccessRequest
from approvals.views.progress import Progress, progress, with_progress
from approvals.views.queue_filters import Filters, Place

if TYPE_CHECKING:
    from approvals.models.requests import AccessRequestQuerySet
    from approvals.people import Person

PAGE = 50
COUNTED = 1000  # of what waits for somebody, the most urgent are looked at; "1000+" where more wait
# What no row shows, and what takes longer to read than all the rest.
UNREAD = (
    "scope",
    "target__config",
    "target__secrets",
    "target__labels",
    "target__trust_anchor",
    "level__rights",
    "level__summary",
    "level__guardrails",
    "grant__scope",
)


@dataclass(frozen=True)
class Head:
    """What waits for one person: how many, and of the most urgent the oldest and the first due."""

    count: int
    more: bool
    oldest: datetime | None
    deadline: datetime | None

    def __str__(self) -> str:
        return f"{self.count}{'+' if self.more else ''}"


@dataclass(frozen=True)
class Choices:
    """What is offered to filter by: whatever occurs among the rows that were looked at."""

    targets: Sequence[str]
    requesters: Sequence[str]
    groups: Sequence[str]


@dataclass(frozen=True)
class Survey:
    """One look at what waits for a person: the head's figures, the filters, the first places."""

    head: Head
    choices: Choices
    places: Sequence[Place]


@dataclass(frozen=True)
class Rows:
    """One page, and where the next begins; None at the end."""

    rows: Sequence[Progress]
    next: Place | None


def survey(person: Person) -> Survey:
    looked_at = _looked_at(_mine(person).order_by("due_at", "pk"), COUNTED + 1)
    shown = looked_at[:COUNTED]
    head = Head(
        count=len(shown),
        more=len(looked_at) > COUNTED,
        oldest=min((row["submitted_at"] for row in shown), default=None),
        deadline=shown[0]["due_at"] if shown else None,
    )
    return Survey(head, _choices(shown), [Place(row["pk"], row["due_at"]) for row in shown])


def urgent(person: Person, count: int) -> list[Progress]:
    """The first so many of what waits for a person, with all that is asked for."""
    first = _mine(person).order_by("due_at", "pk").values_list("pk", flat=True)[:count]
    return load(list(first), leaving_out=())


def page(person: Person, filters: Filters, surveyed: Survey) -> Rows:
    """One's own by deadline, all of them the newest first.

    By key and not by offset, so that rows that come or go meanwhile are neither shown twice nor
    left out.
    """
    if filters.everything or filters.narrowed or filters.start:
        places = _places(person, filters)
    else:
        places = list(surveyed.places[: PAGE + 1])
    shown = places[:PAGE]
    return Rows(load([place.pk for place in shown]), shown[-1] if len(places) > PAGE else None)


def load(ids: Sequence[int], *, leaving_out: Sequence[str] = UNREAD) -> list[Progress]:
    """The rows of these requests, in this order, less some columns.

    By id: their joins in the search itself made PostgreSQL go through all that is pending.
    """
    found = with_progress(AccessRequest.objects.with_due().filter(pk__in=ids))
    found = found.defer(*leaving_out)
    by_id = {row.request.pk: row for row in progress(found)}
    return [by_id[pk] for pk in ids if pk in by_id]


def _places(person: Person, filters: Filters) -> list[Place]:
    """Where the rows of a page are, and one more."""
    start = filters.start
    if filters.everything:
        rows = filters.narrow(_visible(person)).order_by("-pk")
        rows = rows.filter(pk__lt=start.pk) if start else rows
        return [Place(pk) for pk in rows.values_list("pk", flat=True)[: PAGE + 1]]
    rows = filters.narrow(_mine(person)).order_by("due_at", "pk")
    if start and start.due_at:
        rows = rows.filter(Q(due_at__gt=start.due_at) | Q(due_at=start.due_at, pk__gt=start.pk))
    return [Place(pk, due) for pk, due in rows.values_list("pk", "due_at")[: PAGE + 1]]


def _mine(person: Person) -> Any:
    return AccessRequest.objects.waiting_for(person).with_due()


def _visible(person: Person) -> Any:
    requests = cast("AccessRequestQuerySet", access.visible_requests(person))
    return requests.undecided().with_due()


def _looked_at(rows: QuerySet[AccessRequest], count: int) -> list[dict[str, Any]]:
    names = ("pk", "submitted_at", "due_at", "target__name", "requester__username")
    groups = Cast("open_stage__group_names", TextField())
    return list(rows.values(*names, groups=groups)[:count])


def _choices(rows: Sequence[dict[str, Any]]) -> Choices:
    asked = {name for text in {row["groups"] for row in rows} for name in json.loads(text).values()}
    return Choices(
        targets=sorted({row["target__name"] for row in rows}),
        requesters=sorted({row["requester__username"] for row in rows}),
        groups=sorted(asked),
    )
