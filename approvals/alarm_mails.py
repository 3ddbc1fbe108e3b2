"""The mails about alarms: one for each target and person, however many alarms there are.

Claimed before they are sent, so that several processes may send at once: at worst one is sent
twice, and none is sent again and again. Which alarms there are is `alarms`' affair.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.urls import reverse

from approvals import access, alarm_words
from approvals.lengths import apart
from approvals.mails import Letter, one_line, post
from approvals.models import Alarm, AlarmKind, Target
from audit import clock

logger = structlog.get_logger(__name__)

REPEAT: Final = timedelta(hours=1)
REPEAT_ABANDONED: Final = timedelta(days=1)  # two people know of it, and chose it
RETRY_FIRST: Final = timedelta(minutes=1)  # doubled with each failure in a row
RETRY_MOST: Final = timedelta(minutes=15)
GIVEN_UP: Final = timedelta(days=1)  # of trying to say that it is over
RUN: Final = 20.0  # seconds after which no further letter is begun: whoever stops waits for it
# Longer than a run may last, so that two processes send the same only where one was paused.
CLAIMED: Final = timedelta(minutes=3)
LISTED: Final = 20  # alarms that one mail names; the others are a number
ERROR_MAX: Final = 500
NOBODY: Final = "There is nobody to tell: no owner and no administrator has an address."


@dataclass(frozen=True, kw_only=True)
class _Round:
    """What one target's people are told now: its alarms as they were when they were claimed."""

    target: Target
    alarms: Sequence[Alarm]
    now: datetime

    @property
    def open(self) -> list[Alarm]:
        return [alarm for alarm in self.alarms if alarm.ended_at is None]

    @property
    def over(self) -> list[Alarm]:
        return [alarm for alarm in self.alarms if alarm.ended_at is not None]


def mail_due() -> int:
    """Send the mails that are due; returns how many the mail server took.

    Takes some RUN seconds at the most, and ends at the first target of which nobody could be told:
    the mail server would keep the others waiting as well. No transaction is open while it is waited
    for. Never raises: what fails is kept in `last_error` and tried again, ever more slowly.
    """
    sent, deadline = 0, time.monotonic() + RUN
    try:
        while time.monotonic() < deadline and (due := _claim()) is not None:
            taken = _send(due, deadline)
            sent += taken
            if not taken:
                break
    except Exception:
        logger.exception("mails about alarms could not be sent")
    return sent


def _claim() -> _Round | None:
    """The alarms of one target with a mail that is due, put off so that nobody else sends it.

    The target's lock, not the alarms', so that two processes do not each take a half.
    """
    with transaction.atomic():
        due = Exists(_due().filter(target=OuterRef("pk")))
        targets = Target.objects.filter(due).order_by("pk")
        target = targets.select_for_update(skip_locked=True, no_key=True).first()
        if target is None:
            return None
        now = clock.now()
        # Another may have taken them between the look and the lock.
        alarms = list(_waiting(target)) if _due().filter(target=target).exists() else []
        ids = [alarm.pk for alarm in alarms]
        Alarm.objects.filter(pk__in=ids).update(next_mail_at=now + CLAIMED)
        return _Round(target=target, alarms=alarms, now=now)


def _due() -> QuerySet[Alarm]:
    """What a mail is due for. While there is more of the same, an end is no news: it is told with
    the next mail, so that what comes and goes does not send one each time."""
    more = Alarm.objects.filter(
        target=OuterRef("target"), kind=OuterRef("kind"), ended_at__isnull=True
    )
    due = Alarm.objects.filter(next_mail_at__lte=clock.DbNow())
    return due.filter(Q(ended_at__isnull=True) | ~Exists(more))


def _waiting(target: Target) -> QuerySet[Alarm]:
    """All that is open or whose end is still to be told; those not told yet come first."""
    waiting = Alarm.objects.filter(target=target, next_mail_at__isnull=False)
    return waiting.select_related("grant").order_by("mails", "began_at", "pk")


def _send(due: _Round, deadline: float) -> int:
    if not due.alarms:
        return 0
    addresses = _addresses(due.target)
    letters = [_letter(due, address) for address in addresses]
    failures = post(letters, within=deadline - time.monotonic())
    _settle(due, dict(zip(addresses, failures, strict=True)))
    return failures.count("")


def _addresses(target: Target) -> list[str]:
    """Of the target's owners and of administrators, each once, owners first."""
    people = [*access.owners(target), *access.administrators()]
    return list({one.email.lower(): one.email for one in people if one.email.strip()}.values())


def _settle(due: _Round, failures: Mapping[str, str]) -> None:
    """Write down what became of it, on the rows as they are by now.

    One that took it is enough: whom the server refused is told by the next mail, an hour later,
    since trying sooner would tell all the others again.
    """
    told = "" in failures.values()
    wrong = "; ".join(f"{address}: {why}" for address, why in failures.items() if why)
    error = one_line(wrong if failures else NOBODY)[:ERROR_MAX]
    if error:
        logger.warning("a mail about an alarm was not taken", target=due.target.pk, why=error)
    ended = {alarm.pk for alarm in due.over}
    with transaction.atomic():
        ids = [alarm.pk for alarm in due.alarms]
        rows = list(Alarm.objects.select_for_update().filter(pk__in=ids).order_by("pk"))
        now = clock.now()
        for alarm in rows:
            alarm.last_error = error
            _next(alarm, now, told=told, end_told=told and alarm.pk in ended)
        Alarm.objects.bulk_update(rows, ["next_mail_at", "mails", "failures", "last_error"])


def _next(alarm: Alarm, now: datetime, *, told: bool, end_told: bool) -> None:
    """When it is mailed again. It may have ended while the mail went out."""
    alarm.mails, alarm.failures = alarm.mails + told, 0 if told else alarm.failures + 1
    if end_told or (alarm.ended_at and _of_no_use(alarm, alarm.ended_at, now)):
        alarm.next_mail_at = None
    elif not told:
        alarm.next_mail_at = now + _retry(alarm.failures)
    elif alarm.ended_at:
        alarm.next_mail_at = now
    else:
        abandoned = alarm.kind == AlarmKind.ABANDONED
        alarm.next_mail_at = now + (REPEAT_ABANDONED if abandoned else REPEAT)


def _of_no_use(alarm: Alarm, ended_at: datetime, now: datetime) -> bool:
    """To tell of an end: nobody heard of the alarm, or nobody could be told for a day."""
    return not alarm.mails or ended_at <= now - GIVEN_UP


def _retry(failures: int) -> timedelta:
    doublings: int = 2 ** min(failures - 1, 10)
    return min(RETRY_MOST, RETRY_FIRST * doublings)


def _letter(due: _Round, address: str) -> Letter:
    context = {
        "target": one_line(due.target.name),
        "environment": due.target.environment,
        "open": [_line(alarm, due.now) for alarm in due.open[:LISTED]],
        "more_open": max(0, len(due.open) - LISTED),
        "over": [_line(alarm, due.now) for alarm in due.over[:LISTED]],
        "more_over": max(0, len(due.over) - LISTED),
        "site": settings.SITE_URL,
    }
    return Letter(to=address, subject=_subject(due), template="alarm", context=context)


def _subject(due: _Round) -> str:
    kinds = Counter(AlarmKind(alarm.kind).label for alarm in due.open or due.over)
    words = ", ".join(f"{label.lower()} ({count})" for label, count in kinds.items())
    return f"[debugflow] {due.target.name}: {'' if due.open else 'over: '}{words}"


def _line(alarm: Alarm, now: datetime) -> dict[str, str]:
    """What a mail says of one alarm: all of it other people's text, made harmless here."""
    site, grant = settings.SITE_URL, alarm.grant
    return {
        "label": AlarmKind(alarm.kind).label,
        "text": one_line(alarm.text),
        "since": f"{alarm_words.moment(alarm.began_at)} ({apart(now - alarm.began_at)})",
        "by_now": "" if alarm.ended_at else alarm_words.by_now(alarm),
        "link": site + reverse("grant", args=[grant.pk]) if site and grant else "",
    }
