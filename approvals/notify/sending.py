"""Handing deliveries over: claimed for a while, sent with no transaction open, settled one by one.

At least once: whoever dies between a channel's yes and the note of it lets the same be sent again
when the claim has run out. That is why each is noted before the next is begun. What fails is tried
again for two days, ever more slowly, and is then shown as given up.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Final

import structlog
from django.db import transaction
from django.db.models import QuerySet

from approvals import notify
from approvals.mails import one_line
from approvals.models import Delivery, Notice, Preferences
from approvals.notify import case as cases
from approvals.notify import expanding, preferences
from approvals.notify.base import Channel, Item, Outcome, Parcel
from approvals.notify.case import Case
from approvals.notify.facts import FACTS
from approvals.notify.recipients import ASKING, ASKING_ANEW, ASKING_TO_AGREE
from audit import clock, log
from audit.log import SYSTEM

logger = structlog.get_logger(__name__)

BATCH: Final = 50  # deliveries claimed at once
RUN: Final = 20.0  # seconds after which no further one is begun: whoever stops waits for it
# Longer than a run and its last message may last, so that two send the same only where one died
# or was paused.
CLAIMED: Final = timedelta(seconds=60)
RETRY_FIRST: Final = timedelta(seconds=30)  # doubled with each failure in a row
RETRY_MOST: Final = timedelta(hours=3)
GIVEN_UP: Final = timedelta(days=2)
FRESH: Final = timedelta(minutes=1)  # within which whoever is to be told is not derived anew
ERROR_MAX: Final = 500
ASK: Final = (*ASKING, *ASKING_ANEW, *ASKING_TO_AGREE)  # said otherwise once they are settled
SETTLE: Final = [fact.name for fact in FACTS.values() if fact.settles]

_busy: dict[str, threading.Lock] = {}


def send_due(name: str) -> int:
    """Send what is due over one channel; returns how many messages were taken.

    Takes some RUN seconds at the most. One thread of a process at a time for each channel, so that
    a server which keeps one waiting holds up nothing else. Never raises.
    """
    lock = _busy.setdefault(name, threading.Lock())
    if not lock.acquire(blocking=False):
        return 0
    try:
        return _send_due(notify.get(name))
    except Exception:
        logger.exception("messages could not be sent", channel=name)
        return 0
    finally:
        lock.release()


def _send_due(channel: Channel) -> int:
    sent, deadline = 0, time.monotonic() + RUN
    while time.monotonic() < deadline:
        claimed, until = _claim(channel)
        if until is None:
            break
        sent += _send(channel, claimed, deadline)
    return sent


def _claim(channel: Channel) -> tuple[list[Delivery], datetime | None]:
    """What is due, put off so that nobody else sends it, and until when; None if nothing is due.

    What is not needed any more, or comes at a bad time, is settled or put off and left out.
    """
    with transaction.atomic():
        due = Delivery.objects.filter(channel=channel.name, next_try_at__lte=clock.DbNow())
        rows = list(
            due.order_by("-urgent", "next_try_at", "pk")
            .select_for_update(skip_locked=True, of=("self",))
            .select_related("notice", "person", "endpoint")[:BATCH]
        )
        if not rows:
            return [], None
        now = clock.now()
        kept = _sift(rows, now)
        for row in kept:
            row.next_try_at, row.attempts = now + CLAIMED, row.attempts + 1
        Delivery.objects.bulk_update(rows, ["next_try_at", "attempts", "withdrawn_at"])
        return kept, now + CLAIMED


def _sift(rows: Sequence[Delivery], now: datetime) -> list[Delivery]:
    """Those that are still to go out now. Writes down, unsaved, what becomes of the others."""
    old = {row.notice_id: row.notice for row in rows if not row.handle and _is_old(row, now)}
    still: dict[int, set[int]] = {}
    for case in cases.load(list(old.values()), now):
        still |= _still_wanted(case)
    wishes = preferences.of([row.person for row in rows if row.person is not None])
    kept = []
    for row in rows:
        wish = wishes.get(row.person_id or 0)
        if row.handle:
            kept.append(row)  # changed in place, which disturbs nobody
        elif _is_unwanted(row, wish, still):
            row.next_try_at, row.withdrawn_at = None, now
        elif wish and (later := preferences.due_at(wish, now, urgent=row.urgent)) > now:
            row.next_try_at = later
        else:
            kept.append(row)
    return kept


def _still_wanted(case: Case) -> dict[int, set[int]]:
    """By the notice's id, who is to hear of it still; nothing where that cannot be told."""
    try:
        with transaction.atomic():
            people = expanding.wanted(case, FACTS[case.notice.fact]) or []
    except Exception:
        # Sent late is better than not at all, and nothing else has to wait for it.
        logger.exception("whom a notice concerns could not be told", notice=case.notice.pk)
        return {}
    return {case.notice.pk: {person.pk for person in people}}


def _is_old(row: Delivery, now: datetime) -> bool:
    told = row.notice.told_at
    return row.person_id is not None and told is not None and told < now - FRESH


def _is_unwanted(row: Delivery, wish: Preferences | None, still: dict[int, set[int]]) -> bool:
    """They left, have voted since, or it is over: nothing that was true then is sent late. An
    endpoint was switched off."""
    if wish is None:
        return row.endpoint is not None and not row.endpoint.enabled
    if not wish.person.is_active or row.channel in wish.channels_off:
        return True
    return row.notice_id in still and row.person_id not in still[row.notice_id]


def _send(channel: Channel, rows: Sequence[Delivery], deadline: float) -> int:
    """Hand over what was claimed, and give back what was not begun."""
    known = {row.pk: row for row in rows}
    sent = 0
    for parcel, outcome in _handed_over(channel, list(_parcels(rows)), deadline):
        mine = [known.pop(item.delivery) for item in parcel.items]
        _settle(mine, outcome)
        if channel.in_place and outcome.handle and not parcel.handle:
            _catch_up(mine)
        sent += not outcome.why
        if outcome.all_of_it:
            _put_off(channel, parcel, mine[0], outcome)
    for row in known.values():
        _mine(row).update(next_try_at=clock.DbNow(), attempts=row.attempts - 1)
    return sent


def _handed_over(
    channel: Channel, parcels: Sequence[Parcel], deadline: float
) -> Iterator[tuple[Parcel, Outcome]]:
    """Together; and what a defect has left undone one by one, so that only that one fails."""
    left = {parcel.key: parcel for parcel in parcels}
    try:
        for parcel, outcome in channel.send(parcels, within=deadline - time.monotonic()):
            del left[parcel.key]
            yield parcel, outcome
    except Exception:
        logger.exception("a channel broke off", channel=channel.name)
        for parcel in left.values():
            yield from _alone(channel, parcel, deadline)


def _alone(channel: Channel, parcel: Parcel, deadline: float) -> Iterator[tuple[Parcel, Outcome]]:
    try:
        yield from list(channel.send([parcel], within=deadline - time.monotonic()))
    except Exception as error:
        logger.exception("a message could not be sent", channel=channel.name, parcel=parcel.key)
        yield parcel, Outcome(why=f"{type(error).__name__}: {error}")


def _parcels(rows: Sequence[Delivery]) -> Iterable[Parcel]:
    """Each by itself, but for what a person is told once a day."""
    yield from (parcel([row]) for row in rows if not row.digest)
    daily = sorted((row for row in rows if row.digest), key=lambda row: (row.person_id, row.pk))
    for _, group in groupby(daily, key=lambda row: row.person_id):
        yield parcel(list(group))


def parcel(rows: Sequence[Delivery]) -> Parcel:
    """What a channel is given for these: one message."""
    first = rows[0]
    items = [_item(row) for row in rows]
    return Parcel(items=items, person=first.person, endpoint=first.endpoint, handle=first.handle)


def _item(row: Delivery) -> Item:
    notice = row.notice
    return Item(
        delivery=row.pk,
        notice=notice.pk,
        fact=notice.fact,
        text=notice.text,
        step=notice.step,
        quote=notice.quote,
        link=notice.link,
        at=notice.at,
        subject=(notice.subject_type, notice.subject_id),
        thread=notice.thread,
    )


def _mine(row: Delivery) -> QuerySet[Delivery]:
    """The row, as long as the claim stands: whoever was paused for longer writes nothing."""
    return Delivery.objects.filter(pk=row.pk, next_try_at=row.next_try_at)


def _settle(rows: Sequence[Delivery], outcome: Outcome) -> None:
    """Write down at once what became of one message."""
    if not outcome.why:
        for row in rows:
            _mine(row).update(
                next_try_at=None, sent_at=clock.DbNow(), last_error="", handle=outcome.handle
            )
        return
    error = one_line(outcome.why)[:ERROR_MAX]
    with transaction.atomic():
        now = clock.now()
        for row in rows:
            _settle_failed(row, error, now, outcome)


def _catch_up(rows: Sequence[Delivery]) -> None:
    """What came up while these were sent for the first time could not change them: they had no
    handle. What comes up from now on finds it."""
    for row in rows:
        notice = row.notice
        if notice.fact not in ASK:
            continue
        # Whatever is of one thread is written under one lock, so later ones have greater keys.
        later = Notice.objects.filter(thread=notice.thread, pk__gt=notice.pk, fact__in=SETTLE)
        if later.exists():
            said = Delivery.objects.filter(pk=row.pk, next_try_at=None)
            expanding.say_anew(said, clock.now())


def _settle_failed(row: Delivery, error: str, now: datetime, outcome: Outcome) -> None:
    if not outcome.final and now - row.since < GIVEN_UP:
        _mine(row).update(next_try_at=now + _pause(row, outcome), last_error=error)
        return
    if not _mine(row).update(next_try_at=None, dead_at=now, last_error=error):
        return
    logger.warning("a message was given up", delivery=row.pk, channel=row.channel, why=error)
    log.record(
        "delivery.failed",
        actor=SYSTEM,
        subject=row,
        at=now,
        channel=row.channel,
        recipient=str(row.person or row.endpoint),
        fact=row.notice.fact,
        error=error,
    )


def retry(attempts: int) -> timedelta:
    """Ever longer, and never the same for all: what failed together does not come back together."""
    doublings: int = 2 ** min(attempts - 1, 12)
    return min(RETRY_MOST, RETRY_FIRST * doublings) * random.uniform(0.8, 1.2)  # noqa: S311


def _pause(row: Delivery, outcome: Outcome) -> timedelta:
    """As long as the other side wants us to wait, if it said so."""
    if outcome.wait:
        return timedelta(seconds=outcome.wait) * random.uniform(1.0, 1.2)  # noqa: S311
    return retry(row.attempts)


def _put_off(channel: Channel, parcel: Parcel, tried: Delivery, outcome: Outcome) -> None:
    """Whoever does not answer, an endpoint or the server of a channel, is asked by one message at
    a time."""
    due = Delivery.objects.filter(channel=channel.name, next_try_at__lte=clock.DbNow())
    if parcel.endpoint is not None:
        due = due.filter(endpoint=parcel.endpoint)
    due.exclude(pk=tried.pk).update(next_try_at=clock.DbNow() + _pause(tried, outcome))
