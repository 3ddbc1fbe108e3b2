"""What may be wished for: how long, why, when and for whom. Nothing here writes anything.

Who would be asked for it is in `policy`; asking is `workflow.submit`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from django.contrib.auth import get_user_model

from approvals import access, extensions, policy
from approvals.errors import Invalid, NotAllowed
from approvals.lengths import lasting
from approvals.models import (
    AccessLevel,
    PolicyVersion,
)

if TYPE_CHECKING:
    from approvals.people import Person

REASON_MAX = 2000  # characters; long enough for an incident's story, short enough to be read
TICKET_MAX = 100  # characters
NOBODY_OF_THAT_NAME = "Nobody of that name may use this level."
AHEAD_MAX = 30 * 86400  # seconds a wanted start may lie ahead


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What somebody asks for: seconds of access, why, and optionally when it should begin.

    `whom` is the username of whoever is to have it; empty for oneself.
    """

    duration: int
    reason: str
    ticket: str = ""
    starts_at: datetime | None = None
    whom: str = ""


def wrong_longer(wish: Wish, left: extensions.Room) -> dict[str, list[str]]:
    fields = wrong_words(wish)
    if wish.duration > left.longest:
        longest = lasting(left.longest)
        fields["duration"] = [f"Up to {longest}; the limit is that of {left.set_by}."]
    elif wish.duration <= left.bridge:
        fields["duration"] = [
            f"More than {lasting(left.bridge)}, which the policy bridges by itself."
            if left.bridge
            else "At least one second."
        ]
    return fields


def whom_of(level: AccessLevel, by: Person, wish: Wish) -> Person | None:
    """Who is to have it; None for whoever may not, or does not exist, which is not told apart."""
    if wish.whom in ("", by.get_username()):
        return by
    people = get_user_model()._default_manager.filter(is_active=True, service__isnull=True)
    found = people.filter(username=wish.whom).first() if "\x00" not in wish.whom else None
    if found is None or not access.requestable_levels(found).filter(pk=level.pk).exists():
        return None
    return found


def limit_of(level: AccessLevel, version: PolicyVersion | None) -> tuple[int, str]:
    """The longest that may be asked for, in seconds, and whose limit that is."""
    if version is not None and version.max_duration < level.max_duration:
        return version.max_duration, f"the policy {version.policy.name}"
    return level.max_duration, f"the level {level.name}"


def not_askable(level: AccessLevel, by: Person) -> NotAllowed | None:
    """Why this person may not ask for the level at all, or None."""
    if not access.requestable_levels(by).filter(pk=level.pk).exists():
        return NotAllowed(
            f"You may not ask for {level}. Its target's owners can give your group that right.",
            code="not_requestable",
        )
    if level.summarised_at is None:
        return NotAllowed(
            f"{level} has not been checked on its target yet. An admin has to save it again.",
            code="not_checked",
        )
    return None


def wrong_wish(
    wish: Wish, version: PolicyVersion | None, limit: int, whose: str, now: datetime
) -> Invalid | None:
    """What cannot be asked for like that, by field; `limit` and `whose` as `limit_of` has them."""
    fields = wrong_words(wish)
    if not 0 < wish.duration <= limit:
        fields["duration"] = [f"Up to {lasting(limit)}; the limit is that of {whose}."]
    if version is not None and version.ticket_required and not wish.ticket.strip():
        fields["ticket"] = [f"The policy {version.policy.name} wants a ticket."]
    fields |= _wrong_start(wish, now)
    return Invalid("Some of what you entered cannot be used.", fields=fields) if fields else None


def wrong_words(wish: Wish) -> dict[str, list[str]]:
    """What is wrong with the texts of a wish, by field."""
    fields: dict[str, list[str]] = {}
    if not wish.reason.strip():
        fields["reason"] = ["Say what is broken and what you mean to look at."]
    elif len(wish.reason) > REASON_MAX:
        fields["reason"] = [f"Keep it within {REASON_MAX} characters ({len(wish.reason)} now)."]
    if len(wish.ticket) > TICKET_MAX:
        fields["ticket"] = [f"Keep it within {TICKET_MAX} characters."]
    for name, text in (("reason", wish.reason), ("ticket", wish.ticket)):
        if "\x00" in text:
            fields[name] = ["A NUL character cannot be stored. Remove it."]
    return fields


def _wrong_start(wish: Wish, now: datetime) -> dict[str, list[str]]:
    if wish.starts_at is None:
        return {}
    if wish.starts_at.utcoffset() is None:
        return {"starts_at": ["Give a time with its zone, for example 2030-01-31T09:00:00+01:00."]}
    if wish.starts_at <= now:
        return {"starts_at": ["This has passed. Leave it empty to start at once."]}
    if wish.starts_at > now + timedelta(seconds=AHEAD_MAX):
        return {"starts_at": [f"At most {AHEAD_MAX // 86400} days ahead."]}
    return {}


def unmatched(level: AccessLevel, choice: policy.Choice) -> Invalid:
    """What is said where no policy governs it."""
    misses = [str(miss) for miss in choice.near_misses]
    return Invalid(
        f"No policy governs {level} for you, so it cannot be asked for. "
        "A policy admin can publish one. " + (" · ".join(misses) or "There is no policy yet."),
        code="no_policy",
        near_misses=misses,
    )
