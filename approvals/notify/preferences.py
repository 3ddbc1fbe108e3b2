"""How somebody wishes to be told: which channels, quiet hours, a digest, and not to be asked.

A wish is no access: it changes who is disturbed and when, and never who may decide. What somebody
has to act on before long is never held back.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from approvals import notify
from approvals.errors import Invalid, NotAllowed
from approvals.models import Preferences
from approvals.notify.base import Channel
from approvals.tokens import account_subject
from approvals.transition import actor, verb
from audit import log
from audit.zones import zone_of

if TYPE_CHECKING:
    from approvals.people import Person

DAY: Final = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What somebody wishes. Times are of their own clock; both quiet hours or none."""

    channels_off: Collection[str] = ()
    quiet_from: time | None = None
    quiet_until: time | None = None
    digest_at: time | None = None
    unasked: bool = False


@verb("notifications.refused", account_subject)
def save(person_id: int, *, by: Person, wishes: Wishes) -> Preferences:
    """Wish to be told in this way from now on. Raises NotAllowed, Invalid."""
    if by.pk != person_id:
        raise NotAllowed("Everybody sets their own notifications.", code="not_yours")
    _require_sense(wishes)
    row, _ = Preferences.objects.select_for_update().get_or_create(person_id=person_id)
    before = row.told()
    row.channels_off = sorted(wishes.channels_off)
    row.quiet_from, row.quiet_until = wishes.quiet_from, wishes.quiet_until
    row.digest_at, row.unasked = wishes.digest_at, wishes.unasked
    row.save()
    if row.told() != before:
        log.record(
            "account.notifications_changed",
            actor=actor(by),
            subject=account_subject(person_id),
            before=before,
            after=row.told(),
        )
    return row


def _require_sense(wishes: Wishes) -> None:
    fields: dict[str, list[str]] = {}
    if unknown := set(wishes.channels_off) - {channel.name for channel in optional()}:
        fields["channels"] = [f"There is no channel {', '.join(sorted(unknown))} to switch off."]
    if (wishes.quiet_from is None) != (wishes.quiet_until is None):
        fields["quiet_until"] = ["Give both, from when and until when, or neither."]
    elif wishes.quiet_from is not None and wishes.quiet_from == wishes.quiet_until:
        fields["quiet_until"] = ["This is the whole day. Switch the channel off instead."]
    if fields:
        raise Invalid("Some of what you entered cannot be used.", fields=fields)


def optional() -> list[Channel]:
    """The channels that a person may switch off."""
    return [one for one in notify.channels() if one.for_people and not one.always]


def of(people: Collection[Person]) -> dict[int, Preferences]:
    """The wishes of each, by id; of whoever has said nothing, what is usual."""
    said = Preferences.objects.in_bulk([person.pk for person in people])
    found = {one.pk: said.get(one.pk) or Preferences(person=one) for one in people}
    for one in people:
        found[one.pk].person = one  # as it was read now, and without asking for it again
    return found


def due_at(wishes: Preferences, now: datetime, *, urgent: bool) -> datetime:
    """When they may be disturbed: now, or when their quiet hours end."""
    if urgent or wishes.quiet_from is None or wishes.quiet_until is None:
        return now
    zone = zone_of(wishes.person)
    here = now.astimezone(zone)
    if not _within(here.time(), wishes.quiet_from, wishes.quiet_until):
        return now
    return _next(wishes.quiet_until, here, zone)


def digest_at(wishes: Preferences, now: datetime) -> datetime | None:
    """When the next digest goes out; None where they wish for none."""
    if wishes.digest_at is None:
        return None
    zone = zone_of(wishes.person)
    return _next(wishes.digest_at, now.astimezone(zone), zone)


def _within(at: time, start: time, end: time) -> bool:
    """Half open, and over midnight where it ends earlier than it begins."""
    return start <= at < end if start < end else at >= start or at < end


def _next(at: time, here: datetime, zone: ZoneInfo) -> datetime:
    """The next moment at which that clock shows this time."""
    today = datetime.combine(here.date(), at, tzinfo=zone)
    return today if today > here else datetime.combine(here.date() + DAY, at, tzinfo=zone)
