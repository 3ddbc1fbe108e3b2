"""Longer access: how much of it its policy leaves a grant, from when, and whether one may ask now.

Reads only. `workflow.ask_longer` asks, `grants.extend` commits to it, `extending` carries it out.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from approvals import access, scope
from approvals.lengths import lasting
from approvals.models import AccessRequest, Grant
from approvals.models.requests import RequestKind
from approvals.policy import Refusal
from audit.zones import zone_of

if TYPE_CHECKING:
    from approvals.people import Person


@dataclass(frozen=True, kw_only=True)
class Room:
    """What is left of longer access. `longest` is in seconds, 0 if no more fits, and `set_by` says
    whose limit that is.

    `bridge` is in seconds as well: so much the policy adds by itself, once, while a decision is
    out, and so one asks for more than that. `opens_at` is None where there never is any.
    """

    used: int
    most: int
    opens_at: datetime | None
    bridge: int = 0
    longest: int = 0
    set_by: str = ""
    total_left: int = 0


def room(grant: Grant) -> Room:
    """What the policy version that the grant was asked under leaves it, at its present end."""
    version, end, begin = grant.request.policy_version, grant.expires_at, grant.activated_at
    used, most = grant.extended_count, version.extensions_most if allows_any(grant) else 0
    if end is None or begin is None or not most:
        return Room(used=used, most=most, opens_at=None)
    left = int((begin + timedelta(seconds=version.max_total) - end).total_seconds())
    total_left = max(0, left) if used < most else 0
    longest, set_by = min(
        (total_left, "all that it may last"),
        (version.extension_max, "the policy"),
        (grant.level.max_duration, f"the level {grant.level.name}"),
    )
    bridge = 0 if grant.bridged_at else version.bridge
    return Room(
        used=used,
        most=most,
        opens_at=max(begin, end - timedelta(seconds=version.extension_window)),
        bridge=bridge,
        longest=longest if longest > bridge else 0,
        set_by=set_by,
        total_left=total_left,
    )


def allows_any(grant: Grant) -> bool:
    """Whether a grant of its policy and kind can be extended at all. One that was taken in an
    emergency cannot."""
    regular = grant.request.kind == RequestKind.ACCESS
    return regular and grant.request.policy_version.extensions_most > 0


def decided_before(grant: Grant) -> datetime | None:
    """When an extension that is asked for now is of no use any more: at the end, which the bridge
    puts off once."""
    bridge = 0 if grant.bridged_at else grant.request.policy_version.bridge
    return grant.expires_at and grant.expires_at + timedelta(seconds=bridge)


def undecided(grant: Grant) -> AccessRequest | None:
    """The request for longer access that waits for its decision."""
    return AccessRequest.objects.undecided().filter(extends=grant).first()


def is_near_end(grant: Grant, now: datetime) -> bool:
    """Whether longer access could be asked for by the clock and the count; `may_extend` says
    whether it may, for which it asks the database."""
    left = room(grant)
    open_now = left.opens_at is not None and left.opens_at <= now
    return grant.goes_on(now) and not grant.is_extending and bool(left.longest) and open_now


def may_extend(grant: Grant, person: Person, now: datetime) -> Refusal | None:
    """Why `person` may not ask for longer access now, or None if they may."""
    if person.pk != grant.beneficiary_id:
        return Refusal("not_yours", "Only its holder asks for longer access.")
    if not allows_any(grant):
        return Refusal(
            "no_extensions",
            f"{grant.request.policy_version} allows no longer access. Ask for access again.",
            conflict=True,
        )
    return (
        _not_going_on(grant, now)
        or _asked(grant)
        or _used_up(room(grant))
        or _too_early(grant, person, now)
        or _ground_lost(grant, person)
    )


def _not_going_on(grant: Grant, now: datetime) -> Refusal | None:
    if not grant.goes_on(now):
        return Refusal("wrong_state", "Only access that is open can be extended. Ask for it again.")
    if grant.is_extending and grant.next_try_at is None:
        return Refusal("wrong_state", "It could not be extended, and ends as it was to.")
    if grant.is_extending:
        return Refusal("wrong_state", "It is being extended at this very moment.")
    return None


def _asked(grant: Grant) -> Refusal | None:
    if (asked := undecided(grant)) is None:
        return None
    return Refusal(
        "asked_already",
        f"Longer access is asked for already (request {asked.pk}) and not decided yet. "
        "Wait for it, or cancel it.",
        conflict=True,
    )


def _used_up(left: Room) -> Refusal | None:
    if left.used >= left.most:
        why = f"{left.used} of {left.most} extensions are used."
    elif not left.longest:
        why = "It lasts as long as its policy lets it in all."
    else:
        return None
    return Refusal("used_up", f"{why} Ask for access again.", conflict=True)


def _too_early(grant: Grant, person: Person, now: datetime) -> Refusal | None:
    opens_at = room(grant).opens_at
    if opens_at is None or opens_at <= now:
        return None
    window = lasting(grant.request.policy_version.extension_window)
    when = clock_time(opens_at, person, now)
    return Refusal(
        "too_early",
        f"Longer access can be asked for from {when} on: in the last {window}.",
        conflict=True,
    )


def clock_time(at: datetime, person: Person, now: datetime) -> str:
    """A moment by the person's own clock, with its day if that is another."""
    zone = zone_of(person)
    local = at.astimezone(zone)
    same_day = local.date() == now.astimezone(zone).date()
    return f"{local:%H:%M %Z}" if same_day else f"{local.day} {local:%b %H:%M %Z}"


def _ground_lost(grant: Grant, person: Person) -> Refusal | None:
    if not (grant.target.enabled and grant.level.enabled):
        return Refusal("wrong_state", "The target or level was switched off.")
    if not grant.request.policy_version.policy.enabled:
        return Refusal("wrong_state", "The policy it was asked under was switched off.")
    if changed := drift(grant):
        return Refusal(
            "scope_changed",
            f"Changed since it was approved: {', '.join(changed)}. Ask for access again.",
            conflict=True,
        )
    if not access.requestable_levels(person).filter(pk=grant.level_id).exists():
        return Refusal(
            "not_requestable", f"You may not ask for {grant.level} any more, nor for more of it."
        )
    return None


def drift(grant: Grant) -> list[str]:
    """The dotted names of what is not as it was when the grant was approved."""
    fresh = scope.freeze(
        beneficiary=grant.beneficiary,
        level=grant.level,
        duration=grant.duration,
        starts_at=None,
        reason="",
        ticket="",
        policy_version=grant.request.policy_version,
    )
    return scope.drift(grant.scope, fresh)
