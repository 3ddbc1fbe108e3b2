"""The audit log's page: one line to search by, and a sentence for each Event that is found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from audit import clock, looking
from audit.looking import sent_from_elsewhere
from audit.models import Event
from audit.reading import reader
from audit.search import HINTS, Found, Term, TookTooLong, Unsearchable, find, parse
from audit.zones import zone_of

SHOWN = ("action", "thread", "request_id", "policy_version", "scope_hash")
# Where somebody sits is not everybody's business.
SHOWN_TO_AUDITORS = (*SHOWN, "address", "agent")
SENT = "Another page sent you here. Look at what it wants to search for, then press Search."
TOO_LONG = "That takes too long to find. Narrow it, by a time (since:7d), a person or a target."


@dataclass(frozen=True)
class Told:
    """One Event as the page shows it; `together` searches for what was done at once with it."""

    event: Event
    sentence: str
    about: str
    page: str
    together: str
    refused: bool
    details: dict[str, str]
    data: dict[str, Any]
    wrong: list[str]
    hash: str


@dataclass(frozen=True)
class Chip:
    """A term of the search, and the search without it."""

    term: Term
    without: str


@never_cache
@require_GET
def search(request: HttpRequest) -> HttpResponse:
    """Search what the viewer may see. A search is an Event itself, so that another site's link
    fills in the form and no more."""
    text, before = request.GET.get("q", ""), request.GET.get("before", "")
    own = not text or not sent_from_elsewhere(request)
    terms, found, problem = _found(request, text, before) if own else ([], Found((), None), SENT)
    if own and not problem:
        looking.tell(request.user, " ".join(map(str, terms)))
    shown = SHOWN_TO_AUDITORS if reader().reads_all(request.user) else SHOWN
    context = {
        "now": clock.now(),
        "text": text,
        "chips": [_chip(terms, number) for number in range(len(terms))],
        "told": [_told(event, shown) for event in found.events],
        "next": found.next,
        "first": not before,
        "problem": problem,
        "hints": HINTS.values(),
    }
    return render(request, "audit/log.html", context, status=422 if problem and own else 200)


def _found(request: HttpRequest, text: str, before: str) -> tuple[list[Term], Found, str]:
    terms: list[Term] = []
    try:
        terms = parse(text)
        return terms, find(request.user, terms, zone=zone_of(request.user), before=before), ""
    except Unsearchable as error:
        return terms, Found((), None), str(error)
    except TookTooLong:
        return terms, Found((), None), TOO_LONG


def _chip(terms: Sequence[Term], number: int) -> Chip:
    without = [str(term) for at, term in enumerate(terms) if at != number]
    return Chip(terms[number], " ".join(without))


def _told(event: Event, shown: Sequence[str]) -> Told:
    values = {name.replace("_", " "): str(getattr(event, name)) for name in shown}
    return Told(
        event=event,
        sentence=reader().sentence(event),
        about=" · ".join([event.subject_label, event.thread.replace(":", " ")]).removeprefix(" · "),
        page=reader().page(event),
        together=str(Term("origin", event.request_id)) if event.request_id else "",
        refused=event.action.endswith(".refused"),
        details={name: value for name, value in values.items() if value},
        data=event.data,
        wrong=event.mismatches(),
        hash=bytes(event.leaf_hash).hex(),
    )
