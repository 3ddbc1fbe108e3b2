"""Reading the log is an Event too: one for each search, not for each page or poll of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from django.db import transaction
from django.http import HttpRequest

from audit import actions, clock, log
from audit.log import Actor, Subject
from audit.models import Event

SEARCHED: Final = "log.searched"
LOG: Final = Subject("log", "", "the audit log", "log")
MOST: Final = 600  # characters of a search that are kept; no page takes more
# A program that asks the same every minute, and somebody who pages on, search once.
AGAIN: Final = timedelta(hours=1)

actions.declare(SEARCHED)


def tell(person: Any, searched: str, *, where: str = "") -> None:
    """Write down that they looked for this there, unless they did within the last hour."""
    searched = searched.replace("\x00", "\N{REPLACEMENT CHARACTER}")[:MOST]
    with transaction.atomic():
        theirs = Event.objects.filter(action=SEARCHED, actor_id=str(person.pk))
        lately = theirs.filter(at__gt=clock.now() - AGAIN)
        if not lately.filter(data__searched=searched, data__where=where).exists():
            actor = Actor.of(person)
            log.record(SEARCHED, actor=actor, subject=LOG, searched=searched, where=where)


def sent_from_elsewhere(request: HttpRequest) -> bool:
    """Whether another site sent the browser here, or it only fetches what may be wanted next.

    Then nobody has asked for anything yet, and nothing must be written under their name.
    """
    site = request.headers.get("Sec-Fetch-Site", "none")
    return site in ("cross-site", "same-site") or "Sec-Purpose" in request.headers
