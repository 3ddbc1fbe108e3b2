"""Giving up an access that cannot be closed: who may, whose asking counts, how many it takes.

It stays `revoking`, is still tried and is shown as unsafe. The verb that asks is in `grants`; how
seldom it is tried afterwards is in `closing`.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from django.contrib.auth import get_user_model

from approvals import access
from approvals.models import Abandonment, Grant
from approvals.models.grants import STUCK_AFTER
from approvals.policy import Refusal
from approvals.states import GrantState
from approvals.transition import actor
from audit import log

if TYPE_CHECKING:
    from approvals.people import Person

PEOPLE = 2  # the trigger grant_abandoned_by_two holds the same

SELF_ABANDON = Refusal(
    "self_abandon",
    "Nobody abandons access that they hold or asked for. It takes two others: owners of the "
    "target or administrators of targets.",
)


def looks_after(grant: Grant, person: Person) -> bool:
    """Whether they own its target or administer targets, are active, and a person: a service is
    in the hands of whoever made it, who would count twice.

    Read anew: what a person's object remembers may be from before a wait for the grant's lock.
    """
    people = get_user_model().objects.filter(is_active=True, service__isnull=True)
    current = people.filter(pk=person.pk).first()
    if current is None:
        return False
    owned = access.owned_targets(current).filter(pk=grant.target_id)
    return owned.exists() or current.has_perm("approvals.change_target")


def may_abandon(grant: Grant, person: Person, now: datetime) -> Refusal | None:
    """Why `person` may not ask now to give it up, or None if they may."""
    if grant.state != GrantState.REVOKING:
        label = GrantState(grant.state).label.lower()
        return Refusal("wrong_state", f"This access is {label}; there is nothing to give up.")
    if person.pk in (grant.beneficiary_id, grant.request.requester_id):
        return SELF_ABANDON
    if not looks_after(grant, person):
        return Refusal(
            "not_yours",
            "Two together abandon an access: owners of the target, administrators of targets.",
        )
    if grant.abandoned_at is not None:
        return Refusal("wrong_state", "It has been abandoned. It is still tried every hour.")
    return _not_yet(grant, person, now)


def _not_yet(grant: Grant, person: Person, now: datetime) -> Refusal | None:
    if not grant.is_stuck(now):
        wait = f"{STUCK_AFTER.total_seconds():.0f} s"
        return Refusal(
            "not_stuck",
            f"An access is abandoned only after closing it has failed for {wait}. Wait for that.",
            conflict=True,
        )
    if any(asked.person_id == person.pk for asked in standing(grant)):
        return Refusal(
            "already_counted",
            "You have asked for this. It takes one more: another owner of the target, or an "
            "administrator.",
            conflict=True,
        )
    return None


def standing(grant: Grant) -> list[Abandonment]:
    """Who has asked to give it up, in order, and counts as things are now.

    Of one that was abandoned, those who did: what became of them since changes nothing.
    """
    if grant.abandoned_at is not None:
        return _asked(grant)
    if grant.stuck_since is None:
        return []
    return [asked for asked in _asked(grant) if not _void(grant, asked)]


def _asked(grant: Grant) -> list[Abandonment]:
    return list(Abandonment.objects.filter(grant=grant).select_related("person"))


def _void(grant: Grant, asked: Abandonment) -> str:
    """Why it does not count: what they gave up on is over, or they could not ask any more."""
    if grant.stuck_since is None or asked.at < grant.stuck_since:
        return "over"
    return "" if looks_after(grant, asked.person) else "left"


def ask(grant: Grant, *, by: Person, reason: str, now: datetime) -> None:
    """Count one more person who may; the second abandons it. The caller has locked the grant."""
    others = _without_void(grant, by=by, now=now)
    Abandonment.objects.create(grant=grant, person=by, reason=reason, at=now)
    if len(others) + 1 < PEOPLE:
        log.record("grant.abandon_asked", actor=actor(by), subject=grant, at=now, note=reason)
        return
    grant.abandoned_at = now
    grant.save(update_fields=["abandoned_at"])
    log.record(
        "grant.abandoned",
        actor=actor(by),
        subject=grant,
        at=now,
        note=reason,
        others=[other.person.get_username() for other in others],
    )


def _without_void(grant: Grant, *, by: Person, now: datetime) -> list[Abandonment]:
    """Those that count, after the others were taken off, since the trigger counts every row."""
    counting = []
    for asked in _asked(grant):
        if not (why := _void(grant, asked)):
            counting.append(asked)
            continue
        asked.delete()
        log.record(
            "grant.abandon_voided",
            actor=actor(by),
            subject=grant,
            at=now,
            person=asked.person.get_username(),
            reason=why,
        )
    return counting
