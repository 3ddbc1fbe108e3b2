"""The channel of webhooks: facts as signed JSON, by the Standard Webhooks specification.

What is sent is ids and words, without what somebody wrote: a reason may hold more than its receiver
is to know. Where it may be sent to is in `pinned`, who sets it up in `endpoints`.
"""

from __future__ import annotations

import json
import queue
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

import standardwebhooks
from django.conf import settings

from approvals.errors import WrongState
from approvals.notify import endpoints, pinned
from approvals.notify.base import Channel, Item, Outcome, Parcel
from approvals.secrets import SecretUnreadable
from audit import clock
from audit.models import timestamp

if TYPE_CHECKING:
    from approvals.people import Person

AT_ONCE: Final = 8  # endpoints, so that one which keeps us waiting holds up none of the others
GONE: Final = 410
NOT_SET_UP: Final = "It has no secret yet: make one."
NOT_TRIED: Final = "It did not take what was sent just before."


@dataclass(frozen=True)
class _Letter:
    """One parcel, signed: threads need no database for it."""

    parcel: Parcel
    url: str
    body: bytes
    headers: Mapping[str, str]


class Webhook(Channel):
    name = "webhook"
    label = "Webhooks"
    for_people = False

    def reaches(self, person: Person) -> bool:
        return False

    def send(self, parcels: Sequence[Parcel], *, within: float) -> Iterator[tuple[Parcel, Outcome]]:
        deadline, letters = time.monotonic() + within, []
        for parcel in parcels:
            try:
                letters.append(_letter(parcel))
            except (SecretUnreadable, LookupError):
                yield parcel, Outcome(why=NOT_SET_UP, all_of_it=True)
        for parcel, status, why in _all_sent(letters, deadline):
            if status == GONE:
                _forget(parcel.addressee.pk)
            yield parcel, _outcome(status, why)


def _outcome(status: int, why: str) -> Outcome:
    if 200 <= status < 300:
        return Outcome()
    if status == GONE:
        return Outcome(why="It answered 410: it is gone.", final=True)
    return Outcome(why=why or f"It answered {status}.", all_of_it=why != NOT_TRIED)


def _forget(endpoint: int) -> None:
    try:
        endpoints.gone(endpoint)
    except WrongState:
        pass  # Somebody has deleted it meanwhile.


def _letter(parcel: Parcel) -> _Letter:
    """Raises SecretUnreadable, and LookupError without a secret."""
    endpoint, at = parcel.addressee, clock.now()
    body = json.dumps(payload(parcel.items[0]), ensure_ascii=False)
    keys = endpoints.keys(endpoint, at)
    signed = [standardwebhooks.Webhook(key).sign(parcel.key, at, body) for key in keys]
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "debugflow",
        "webhook-id": parcel.key,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(signed),
    }
    return _Letter(parcel, endpoint.url, body.encode(), headers)


def _all_sent(letters: Sequence[_Letter], deadline: float) -> Iterator[tuple[Parcel, int, str]]:
    """Each as soon as it is known how it went, whichever endpoint it was for."""
    ordered = sorted(letters, key=_endpoint)
    groups = [list(group) for _, group in groupby(ordered, key=_endpoint)]
    told: queue.SimpleQueue[tuple[Parcel, int, str] | None] = queue.SimpleQueue()
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="webhook") as pool:
        for group in groups:
            pool.submit(_to_one, group, deadline, told.put)
        left = len(groups)
        while left:
            if (one := told.get()) is None:
                left -= 1
            else:
                yield one


def _endpoint(letter: _Letter) -> int:
    return letter.parcel.addressee.pk


def _to_one(
    letters: Sequence[_Letter],
    deadline: float,
    tell: Callable[[tuple[Parcel, int, str] | None], None],
) -> None:
    """What one endpoint is owed, in order; after a failure the rest is not tried now."""
    failed = False
    try:
        for letter in letters:
            if time.monotonic() >= deadline:
                return
            status, why = (0, NOT_TRIED) if failed else _posted(letter)
            failed = failed or not 200 <= status < 300
            tell((letter.parcel, status, why))
    finally:
        tell(None)


def _posted(letter: _Letter) -> tuple[int, str]:
    try:
        return pinned.post(letter.url, letter.body, letter.headers), ""
    except (pinned.Refused, pinned.Unanswered) as error:
        return 0, str(error)


def payload(item: Item) -> dict[str, Any]:
    """`type` is the fact; ids are those of the API."""
    about, number = item.subject
    thread, _, request = item.thread.partition(":")
    ids = {about: int(number)} if number.isdecimal() else {}
    if thread == "request" and request.isdecimal():
        ids["request"] = int(request)
    ids.pop("accessrequest", None)
    return {
        "type": item.fact,
        "timestamp": timestamp(item.at),
        "data": {
            **ids,
            "text": item.text,
            "next_step": item.step,
            "url": settings.SITE_URL + item.link if settings.SITE_URL else "",
        },
    }
