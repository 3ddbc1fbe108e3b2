"""From a notice to its deliveries: who is told of it, over which channels, and from when on.

Derived at this moment and not when it happened. All of a notice in one transaction, and each
delivery unique, so that a replay or a second worker changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import structlog
from django.contrib.auth import get_user_model
from django.db import transaction
from django.db.models import Q, QuerySet

from approvals import notify
from approvals.mails import one_line
from approvals.models import Delivery, Notice, Preferences, WebhookEndpoint
from approvals.notify import case as cases
from approvals.notify import inbox, preferences, words
from approvals.notify.base import Channel
from approvals.notify.case import Case
from approvals.notify.facts import FACTS, Fact
from audit import clock, log
from audit.log import SYSTEM, Subject

if TYPE_CHECKING:
    from approvals.people import Person

logger = structlog.get_logger(__name__)

BATCH: Final = 50  # notices in one transaction
NOBODY: Final = "There is nobody to tell: no one of those who must act can be reached."
RETRY_FIRST: Final = timedelta(seconds=10)  # doubled with each failure in a row
RETRY_MOST: Final = timedelta(hours=1)
GIVEN_UP: Final = timedelta(days=2)
ERROR_MAX: Final = 500
WEBHOOK: Final = "webhook"


def expand_due(*, batches: int | None = None) -> int:
    """Make the deliveries of every notice that has none yet, or of so many batches; returns how
    many notices.

    Any number of processes may do so at once. What fails is kept in `last_error`, holds up no other
    and is tried again, ever more slowly, for two days.
    """
    done = 0
    while batches is None or batches > 0:
        if not (count := _expand_batch()):
            break
        done += count
        batches = None if batches is None else batches - 1
    return done


@transaction.atomic
def _expand_batch() -> int:
    due = Notice.objects.filter(next_try_at__lte=clock.DbNow())
    locked = due.order_by("-urgent", "next_try_at", "pk").select_for_update(skip_locked=True)
    notices = list(locked[:BATCH])
    if not notices:
        return 0
    now = clock.now()
    endpoints = list(WebhookEndpoint.objects.filter(enabled=True).exclude(secrets={}))
    for case in cases.load(sorted(notices, key=lambda one: one.pk), now):
        _expand(case, endpoints)
    return len(notices)


def _expand(case: Case, endpoints: Sequence[WebhookEndpoint]) -> None:
    notice = case.notice
    try:
        with transaction.atomic():
            _tell(case, FACTS[notice.fact], endpoints)
    except Exception as error:
        # Whatever is wrong with one must not keep the others back.
        logger.exception("a notice could not be told", notice=notice.pk)
        notice.attempts += 1
        notice.last_error = one_line(f"{type(error).__name__}: {error}")[:ERROR_MAX]
        again = case.now + _retry(notice.attempts)
        notice.next_try_at = again if case.now - notice.at < GIVEN_UP else None
        notice.save(update_fields=["attempts", "last_error", "next_try_at"])


def _retry(attempts: int) -> timedelta:
    doublings: int = 2 ** min(attempts - 1, 10)
    return min(RETRY_MOST, RETRY_FIRST * doublings)


def _tell(case: Case, fact: Fact, endpoints: Sequence[WebhookEndpoint]) -> None:
    notice, told = case.notice, fact.words(case)
    notice.text, notice.step = words.harmless(told.text), words.harmless(told.step)
    notice.quote, notice.link = words.harmless(told.quote), words.page(case)
    if fact.settles is not None:
        inbox.settle(fact.settles(case), case.now)
        _change((fact.changes or fact.settles)(case), case.now)
    people = wanted(case, fact)
    deliveries = list(_to_people(case, fact, people or ()))
    unreachable = fact.required and people is not None and not deliveries
    deliveries += _to_endpoints(case, fact, endpoints)
    Delivery.objects.bulk_create(deliveries, ignore_conflicts=True)
    notice.next_try_at, notice.told_at = None, case.now
    notice.last_error = NOBODY if unreachable else ""
    notice.save()
    if unreachable:
        _tell_of_nobody(case, fact)


def _change(settled: Q, now: datetime) -> None:
    """Messages that can be changed in place are due again, to say what became of it.

    One that is being changed just now is changed once more: what is handed over may be older. One
    that is being sent for the first time has no handle yet: whoever sends it looks after it.
    """
    names = [channel.name for channel in notify.channels() if channel.in_place]
    said = Delivery.objects.filter(settled, channel__in=names).exclude(handle="")
    say_anew(said, now)


def say_anew(said: QuerySet[Delivery], now: datetime) -> None:
    """Have these messages changed in place to what there is to say."""
    open_again = {"sent_at": None, "dead_at": None, "withdrawn_at": None}
    said.update(next_try_at=now, since=now, attempts=0, **open_again)


def wanted(case: Case, fact: Fact) -> list[Person] | None:
    """Whoever is to hear of it now; None where nobody needs to any more.

    Whoever did it knows of it; who is inactive, and programs, have nobody who would read it.
    """
    ids = fact.who(case)
    if ids is None:
        return None
    people = get_user_model()._default_manager.filter(
        pk__in=set(ids) - {case.actor}, is_active=True, service__isnull=True
    )
    return list(people.order_by("pk"))


def _to_people(case: Case, fact: Fact, people: Sequence[Person]) -> Iterator[Delivery]:
    wishes = preferences.of(people)
    for person in _spared(fact, people, wishes):
        for channel in notify.channels():
            if _carries(channel, fact, person, wishes[person.pk]):
                yield _delivery(case, fact, channel, person, wishes[person.pk])


def _spared(
    fact: Fact, people: Sequence[Person], wishes: dict[int, Preferences]
) -> Collection[Person]:
    """Without those who may decide but do not wish to be asked, unless nobody else is left."""
    willing = [person for person in people if not wishes[person.pk].unasked]
    return willing if fact.asking and willing else people


def _carries(channel: Channel, fact: Fact, person: Person, wishes: Preferences) -> bool:
    if not channel.for_people or channel.name in fact.not_over:
        return False
    return (channel.always or channel.name not in wishes.channels_off) and channel.reaches(person)


def _delivery(
    case: Case, fact: Fact, channel: Channel, person: Person, wishes: Preferences
) -> Delivery:
    row = Delivery(
        notice=case.notice,
        channel=channel.name,
        person=person,
        urgent=fact.urgent,
        since=case.now,
    )
    if channel.instant:
        row.sent_at = case.now
        return row
    digest = None if fact.urgent else preferences.digest_at(wishes, case.now)
    row.digest = digest is not None
    row.next_try_at = digest or preferences.due_at(wishes, case.now, urgent=fact.urgent)
    row.since = row.next_try_at
    return row


def _to_endpoints(
    case: Case, fact: Fact, endpoints: Sequence[WebhookEndpoint]
) -> Iterator[Delivery]:
    """What happened, whether or not some person still needs to act on it."""
    for endpoint in endpoints:
        if fact.name in endpoint.facts:
            yield Delivery(
                notice=case.notice,
                channel=WEBHOOK,
                endpoint=endpoint,
                urgent=fact.urgent,
                since=case.now,
                next_try_at=case.now,
            )


def _tell_of_nobody(case: Case, fact: Fact) -> None:
    notice = case.notice
    logger.warning("nobody could be told", notice=notice.pk, fact=fact.name, why=NOBODY)
    subject = Subject(notice.subject_type, notice.subject_id, notice.text, notice.thread)
    log.record("notice.reached_nobody", actor=SYSTEM, subject=subject, at=case.now, fact=fact.name)
