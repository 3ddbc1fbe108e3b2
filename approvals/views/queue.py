"""The queue: what waits for the viewer's vote, or everything undecided that they may see.

A list, and beside it one request whole. Which rows there are is in `queue_rows`, what an address
says in `queue_filters`; deciding about many at once is in `queue_bulk`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from approvals import access
from approvals.models import AccessRequest
from approvals.models.targets import Risk
from approvals.views import queue_filters, queue_rows
from approvals.views.progress import Progress
from approvals.views.queue_filters import Filters
from approvals.views.shown import RELATED, found, shown
from approvals.views.viewer import viewer
from audit import clock

RESULTS = "queue_results"  # of the session: what came of the last decisions about many at once


@dataclass(frozen=True)
class Row:
    """A row, its links within the queue, and whether it can be selected and is."""

    progress: Progress
    link: str
    then: int | None
    open: bool
    selectable: bool
    selected: bool


@never_cache
@require_safe
def queue(request: HttpRequest) -> HttpResponse:
    """The page; for htmx what is beside the list; for a poll the list, or 204 while it holds."""
    filters = queue_filters.read(request.GET)
    if request.headers.get("HX-Target") == "pane" and filters.opened:
        return _pane(request, filters)
    return page(request, filters)


def page(
    request: HttpRequest,
    filters: Filters,
    typed: Mapping[str, Any] | None = None,
    *,
    selected: Collection[int] = (),
    status: int = 200,
) -> HttpResponse:
    """The whole queue. `typed` is what its forms are to show again, `selected` the rows chosen."""
    person = viewer(request)
    surveyed = queue_rows.survey(person)
    listed = queue_rows.page(person, filters, surveyed)
    asked = _beside(request, filters, listed.rows)
    rows = _rows(filters, listed.rows, asked, {place.pk for place in surveyed.places}, selected)
    context = {
        "filters": filters,
        "head": surveyed.head,
        "rows": rows,
        "next": filters.query(start=listed.next) if listed.next else "",
        "list_seen": _fingerprint(rows, surveyed.head),
    }
    if request.GET.get("part") == "list":
        if request.GET.get("seen") == context["list_seen"]:
            return HttpResponse(status=204)
        return render(request, "approvals/_queue_list.html", {**context, "now": clock.now()})
    then = next((row.then for row in rows if row.open), None)
    context |= {
        "choices": surveyed.choices,
        "risks": Risk.choices,
        "here": address(filters, opened=filters.opened),
        "missing": bool(filters.opened and asked is None),
        "results": request.session.get(RESULTS) if "done" in request.GET else None,
    }
    lower = "less_typed" in (typed or {})
    context |= _shown(asked, request, filters, then, lower) if asked else {"now": clock.now()}
    return render(request, "approvals/queue.html", {**context, **(typed or {})}, status=status)


def _pane(request: HttpRequest, filters: Filters) -> HttpResponse:
    asked = found(request, filters.opened or 0)
    then = queue_filters.number(request.GET.get("then", ""))
    context = {"filters": filters, **_shown(asked, request, filters, then)}
    return render(request, "approvals/_queue_pane.html", context)


def _beside(request: HttpRequest, filters: Filters, rows: Sequence[Progress]) -> Any:
    """The request that the address names, else the first of the list; None if there is none."""
    ids = [row.request.pk for row in rows]
    pk = filters.opened or next(iter(ids), 0)
    # What is listed may be seen.
    seen = AccessRequest.objects.all() if pk in ids else access.visible_requests(viewer(request))
    return seen.select_related(*RELATED).filter(pk=pk).first() if pk else None


def _shown(
    asked: AccessRequest,
    request: HttpRequest,
    filters: Filters,
    then: int | None,
    lower: bool = False,
) -> dict[str, Any]:
    """Which levels are lower ones only if somebody has chosen from them: it takes six queries."""
    shown_ = shown(asked, viewer(request), lower=lower)
    return {**shown_, "in_queue": True, "queue": filters.here, "then": then or ""}


def _rows(
    filters: Filters,
    listed: Sequence[Progress],
    asked: AccessRequest | None,
    mine: Collection[int],
    selected: Collection[int],
) -> list[Row]:
    ids = [row.request.pk for row in listed]
    return [
        Row(
            progress=row,
            link=filters.query(start=filters.start, opened=pk),
            then=then,
            open=asked is not None and pk == asked.pk,
            selectable=pk in mine,
            selected=pk in selected,
        )
        for row, pk, then in zip(listed, ids, [*ids[1:], None], strict=False)
    ]


def _fingerprint(rows: list[Row], head: queue_rows.Head) -> str:
    """What a list showed, to tell later whether it still holds."""
    told = [
        (
            one.request.pk,
            one.request.scope_hash,
            one.number,
            one.approvals,
            one.less,
            row.selectable,
        )
        for row in rows
        for one in [row.progress]
    ]
    return hashlib.sha256(repr((told, head)).encode()).hexdigest()[:16]


def beside(said: QueryDict) -> dict[str, Any]:
    """For what is shown beside the queue: the list that its decision goes back to, if it is."""
    if "queue" not in said:
        return {}
    filters = queue_filters.read(QueryDict(said.get("queue", "")))
    then = queue_filters.number(said.get("then", ""))
    return {"in_queue": True, "queue": filters.here, "then": then or ""}


def onwards(said: QueryDict) -> str:
    """The address of the queue that a form came from, with the next request beside it."""
    filters = queue_filters.read(QueryDict(said.get("queue", "")))
    return address(filters, opened=queue_filters.number(said.get("then", "")))


def address(filters: Filters, *, opened: int | None = None, done: bool = False) -> str:
    """Of a page of the queue; `done` shows what came of the last decisions about many."""
    query = filters.query(start=filters.start, opened=opened)
    parts = [part for part in (query, "done=1" if done else "") if part]
    return f"{reverse('queue')}?{'&'.join(parts)}" if parts else reverse("queue")


def title(asked: AccessRequest) -> str:
    return f"{asked.beneficiary}: {asked.level.name} on {asked.target.name}"
