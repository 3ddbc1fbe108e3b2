"""The inbox of the site: a channel whose deliveries are the messages themselves.

What is read is one's own mark, of no weight for anybody else, and so writes no Event.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final

from django.core import signing
from django.db.models import Q, QuerySet

from approvals.models import INBOX, Delivery
from approvals.notify.base import Channel, Outcome, Parcel
from audit import clock

if TYPE_CHECKING:
    from approvals.people import Person

SALT: Final = "approvals.notify.inbox"


class Inbox(Channel):
    """Everybody has it, and nobody can switch it off: it disturbs no one."""

    name = INBOX
    label = "Inbox on this site"
    instant = True
    always = True

    def reaches(self, person: Person) -> bool:
        return True

    def send(self, parcels: Sequence[Parcel], *, within: float) -> Iterator[tuple[Parcel, Outcome]]:
        yield from ((parcel, Outcome()) for parcel in parcels)


def entries(person: Person) -> QuerySet[Delivery]:
    """What this person was told, newest first."""
    mine = Delivery.objects.filter(person=person, channel=INBOX)
    return mine.select_related("notice").order_by("-pk")


def unread(person: Person) -> QuerySet[Delivery]:
    return entries(person).filter(read_at__isnull=True)


def read(person: Person, pk: int) -> Delivery | None:
    """One entry of theirs, marked as read; None where they have no such entry."""
    entry = entries(person).filter(pk=pk).first()
    if entry is not None:
        read_some(person, [pk])
    return entry


def read_some(person: Person, pks: Collection[int]) -> int:
    """Mark those of these entries that are theirs as read. Returns how many were new."""
    return unread(person).order_by().filter(pk__in=pks).update(read_at=clock.DbNow())


def read_all(person: Person, *, until: int) -> int:
    """Mark everything up to this entry as read; what came since stays new. Returns how many."""
    return unread(person).order_by().filter(pk__lte=until).update(read_at=clock.DbNow())


def settle(settled: Q, now: datetime) -> None:
    """What is old news is new to nobody any more."""
    Delivery.objects.filter(settled, channel=INBOX, read_at__isnull=True).update(read_at=now)


def sign(delivery: int) -> str:
    """For a link in a message: it says which message it was in, and gives nobody any right."""
    return signing.dumps(delivery, salt=SALT)


def from_message(signed: str) -> Delivery | None:
    """The message that a link was in; None for a link that we have not made."""
    try:
        pk = signing.loads(signed, salt=SALT)
    except signing.BadSignature:
        return None
    return Delivery.objects.select_related("notice", "person").filter(pk=pk).first()


def read_notice(person: Person, message: Delivery) -> None:
    """Mark the entry of the same notice as read, for whoever opened the message it was sent in."""
    unread(person).order_by().filter(notice=message.notice_id).update(read_at=clock.DbNow())
