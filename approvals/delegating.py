"""The verbs of delegation: lend one's votes to somebody for a while, and end that.

What a lent vote counts for is in `policy`; that one begins and runs out, `keep` writes down.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from django.contrib.auth import get_user_model
from django.db import connection
from django.db.models import Q, QuerySet

from approvals import access, proposals
from approvals.errors import Invalid, NotAllowed, WrongState
from approvals.models import Delegation, ServiceAccount
from approvals.models.delegations import DelegationQuerySet
from approvals.models.locks import lock
from approvals.proposals import Wanted
from approvals.second_look import Gain
from approvals.transition import actor, verb
from audit import clock, log
from audit.log import SYSTEM, Subject

if TYPE_CHECKING:
    from approvals.people import Person

LONGEST: Final = 90 * 86400  # seconds
AHEAD_MAX: Final = 365 * 86400  # seconds until it begins
NOTE_MAX: Final = 300  # characters
LATE: Final = timedelta(minutes=10)  # how far back "now" may have been when it was typed


@dataclass(frozen=True, kw_only=True)
class Lending:
    """To whom votes are to be lent, by username, and from when until when; at once without."""

    delegate: str
    ends_at: datetime
    starts_at: datetime | None = None
    note: str = ""


def _person_subject(pk: int) -> Subject:
    person = get_user_model()._default_manager.filter(pk=pk).first()
    return Subject("user", str(pk), str(person or f"user {pk}"), f"user:{pk}")


def _subject(pk: int) -> Subject:
    row = Delegation.objects.select_related("person", "delegate").filter(pk=pk).first()
    return row.audit_subject() if row else Subject("delegation", str(pk), f"delegation {pk}")


def visible(person: Person) -> DelegationQuerySet:
    """Those that somebody gave or was given; to admins of policies, all."""
    rows = Delegation.objects.select_related("person", "delegate", "made_by")
    return rows if access.sets_policies(person) else rows.of(person)


def delegate(person_id: int, *, by: Person, lending: Lending) -> Delegation:
    """Lend this person's votes, by themselves or by an admin of policies for them.

    Raises NotAllowed; WrongState where theirs are lent already for some of that time; Invalid for
    a time or a person that cannot be; Proposed where it takes a second admin.
    """
    with proposals.proposing(by=by):
        return _delegate(person_id, by=by, lending=lending)


@verb("delegate.refused", _person_subject)
def _delegate(person_id: int, *, by: Person, lending: Lending) -> Delegation:
    _one_at_a_time()
    now = clock.now()
    person = get_user_model()._default_manager.filter(pk=person_id).first()
    if person is None:
        raise WrongState("This account does not exist.", code="gone")
    if by != person and not access.sets_policies(by):
        raise NotAllowed("Everybody lends their own votes.", code="not_yours")
    to, starts_at = _named(lending.delegate), lending.starts_at or now
    fields = _wrong_time(lending, starts_at, now) | _wrong_note(lending) | _wrong_people(person, to)
    if fields or to is None:
        raise Invalid("Some of what you entered cannot be used.", fields=fields)
    if to == by:
        raise NotAllowed(
            "Nobody takes another's votes for themselves. Ask another admin, or them.",
            code="self_delegation",
        )
    _refuse_twice(person, starts_at, lending.ends_at)
    _refuse_circle(person, to, starts_at, lending.ends_at)
    with proposals.watched(_wanted(person, to, lending, by=by), by=by):
        return _create(person, to, lending, by=by, now=now)


def _wanted(person: Person, to: Person, lending: Lending, *, by: Person) -> Wanted:
    """Somebody else's votes are given away by two. Whether they decide about production is not
    asked: it may come later, as may votes that others lend them."""
    until = f"{lending.ends_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    gain = Gain(f"{to} may vote for {person} until {until}.", frozenset({to.pk}))
    start = lending.starts_at
    return Wanted(
        change="delegation.make",
        obj=person,
        summary=f"Let {to} vote for {person}",
        arguments=lambda: {
            "person": person.pk,
            "delegate": to.pk,
            "starts_at": start.isoformat() if start else None,
            "ends_at": lending.ends_at.isoformat(),
            "note": lending.note,
        },
        subject=lambda: _person_subject(person.pk),
        also=() if proposals.behind(by) == {person.pk} else (gain,),
    )


def _one_at_a_time() -> None:
    """Until the transaction ends: two at once could close a circle together."""
    with connection.cursor() as cursor:
        cursor.execute("LOCK TABLE approvals_delegation IN SHARE ROW EXCLUSIVE MODE")


def _named(username: str) -> Person | None:
    if "\x00" in username:
        return None
    return get_user_model()._default_manager.filter(username=username).first()


def _create(
    person: Person, to: Person, lending: Lending, *, by: Person, now: datetime
) -> Delegation:
    row = Delegation.objects.create(
        person=person,
        delegate=to,
        starts_at=max(lending.starts_at or now, now),
        ends_at=lending.ends_at,
        made_by_id=proposals.author(by),
        made_at=now,
        note=lending.note,
    )
    _tell("delegation.made", row, by=by, now=now, note=lending.note)
    if row.starts_at <= now:
        _begin(row, now=now)
    return row


def _wrong_people(person: Person, to: Person | None) -> dict[str, list[str]]:
    if not _may_hold(person):
        return {"person": ["This account has no vote to lend."]}
    if to is None or not _may_hold(to):
        return {"delegate": ["Nobody of this name can vote. Write their username."]}
    if to == person:
        return {"delegate": ["These votes are theirs already. Name somebody else."]}
    return {}


def _may_hold(person: Person) -> bool:
    return person.is_active and not ServiceAccount.objects.filter(pk=person.pk).exists()


def _wrong_time(lending: Lending, starts_at: datetime, now: datetime) -> dict[str, list[str]]:
    for name, moment in (("starts_at", starts_at), ("ends_at", lending.ends_at)):
        if moment.utcoffset() is None:
            return {name: ["Give a time with its zone, for example 2030-01-31T09:00:00+01:00."]}
    if starts_at < now - LATE:
        return {"starts_at": ["This has passed. Leave it empty to begin at once."]}
    if lending.ends_at <= max(starts_at, now):
        return {"ends_at": ["It has to end after it begins."]}
    if starts_at - now > timedelta(seconds=AHEAD_MAX):
        return {"starts_at": [f"At most {AHEAD_MAX // 86400} days ahead."]}
    if lending.ends_at - starts_at > timedelta(seconds=LONGEST):
        return {"ends_at": [f"At most {LONGEST // 86400} days."]}
    return {}


def _wrong_note(lending: Lending) -> dict[str, list[str]]:
    if len(lending.note) > NOTE_MAX:
        return {"note": [f"Keep it within {NOTE_MAX} characters."]}
    if "\x00" in lending.note:
        return {"note": ["A NUL character cannot be stored. Remove it."]}
    return {}


def _overlapping(starts_at: datetime, ends_at: datetime) -> QuerySet[Delegation]:
    return Delegation.objects.not_over().filter(starts_at__lt=ends_at, ends_at__gt=starts_at)


def _refuse_twice(person: Person, starts_at: datetime, ends_at: datetime) -> None:
    other = _overlapping(starts_at, ends_at).filter(person=person).first()
    if other is not None:
        raise WrongState(
            f"These votes are lent to {other.delegate} for some of that time. End that first.",
            code="delegated_already",
        )


def _refuse_circle(person: Person, to: Person, starts_at: datetime, ends_at: datetime) -> None:
    """Whoever holds a vote lent to `to`, or lent on by them, must not be `person` again."""
    rows = _overlapping(starts_at, ends_at).values_list("person", "delegate")
    onwards: dict[int, set[int]] = {}
    for lender, holder in rows:
        onwards.setdefault(lender, set()).add(holder)
    if person.pk in _reached(to.pk, onwards):
        raise Invalid(
            f"The votes of {to} come back to {person} in that time.",
            fields={"delegate": [f"Their own votes are lent on to {person} in that time."]},
            code="circle",
        )


def _reached(start: int, onwards: dict[int, set[int]]) -> set[int]:
    found: set[int] = set()
    last = {start}
    while last := {one for holder in last for one in onwards.get(holder, ())} - found:
        found |= last
    return found


@verb("end_delegation.refused", _subject)
def end_delegation(delegation_id: int, *, by: Person) -> Delegation:
    """End it now, or call it off: by either of the two, or by an admin of policies.

    Raises NotAllowed, WrongState.
    """
    try:
        lock(Delegation, delegation_id)
    except Delegation.DoesNotExist:
        raise WrongState("This delegation does not exist.", code="gone") from None
    row = Delegation.objects.select_related("person", "delegate").get(pk=delegation_id)
    now = clock.now()
    if by.pk not in {row.person_id, row.delegate_id} and not access.sets_policies(by):
        raise NotAllowed("It is for the two of them to end, or for an admin.", code="not_yours")
    if row.ended_at is not None or row.ends_at <= now:
        raise WrongState("It is over already.")
    _end(row, by=by, now=now, because="ended")
    return row


def keep(most: int = 100) -> int:
    """Tell the log of up to `most` that have begun, and of as many that have run out."""
    return sum(_kept(pk) for pk in _untold(most))


def _untold(most: int) -> Collection[int]:
    begun = Q(begun_at__isnull=True, starts_at__lte=clock.DbNow())
    rows = Delegation.objects.filter(
        Q(ended_at__isnull=True) & (begun | Q(ends_at__lte=clock.DbNow()))
    )
    return rows.order_by("pk").values_list("pk", flat=True)[:most]


@verb("end_delegation.refused", _subject)
def _kept(delegation_id: int) -> bool:
    lock(Delegation, delegation_id)
    row = Delegation.objects.select_related("person", "delegate").get(pk=delegation_id)
    now = clock.now()
    if row.ended_at is not None:
        return False
    if row.ends_at <= now:
        _end(row, by=SYSTEM, now=now, because="over")
        return True
    if row.begun_at is None and row.starts_at <= now:
        _begin(row, now=now)
        return True
    return False


def _begin(row: Delegation, *, now: datetime) -> None:
    row.begun_at = now
    row.save(update_fields=["begun_at"])
    _tell("delegation.begun", row, by=SYSTEM, now=now)


def _end(row: Delegation, *, by: object, now: datetime, because: str) -> None:
    row.ended_at = now
    row.save(update_fields=["ended_at"])
    _tell("delegation.ended", row, by=by, now=now, because=because)


def _tell(action: str, row: Delegation, *, by: object, now: datetime, **more: Any) -> None:
    log.record(
        action,
        actor=actor(by),
        subject=row,
        at=now,
        person=row.person.get_username(),
        delegate=row.delegate.get_username(),
        starts_at=row.starts_at,
        ends_at=row.ends_at,
        **more,
    )
