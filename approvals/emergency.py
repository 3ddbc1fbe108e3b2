"""Access without approval, for those whom a policy names: it opens at once, and is looked back at.

It is no approval: the request is `bypassed`, its stages `skipped`, and the review that it owes
keeps its holder from the next one until somebody has given it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from django.db import IntegrityError

from approvals import grants, policy, reviews, rounds, wishes, workflow
from approvals.errors import Invalid, NotAllowed
from approvals.models import (
    AccessLevel,
    AccessRequest,
    Grant,
    PolicyVersion,
    RequestKind,
    Review,
)
from approvals.policy import Refusal
from approvals.transition import verb
from audit import clock

if TYPE_CHECKING:
    from approvals.people import Person


@dataclass(frozen=True)
class Offer:
    """What an emergency would open: under which policy, for how many seconds, telling whom."""

    version: PolicyVersion
    duration: int
    tells: tuple[str, ...]


def offer(level: AccessLevel, person: Person) -> Offer | None:
    """What this person could open now without approval; None where no policy lets them."""
    version = policy.choose(level, person).version
    if version is None or may_open(version, person) is not None:
        return None
    plan = policy.plan(version, barred={person.pk})
    groups = [name for stage in plan.stages for name in stage.group_names.values()]
    if version.emergency_tells:
        groups.append(version.emergency_tells.name)
    return Offer(version, _duration(level, version), tuple(dict.fromkeys(groups)))


def may_open(version: PolicyVersion, person: Person) -> Refusal | None:
    """Whether the policy names this person. An empty list names nobody."""
    named = set(version.emergency_groups)
    theirs = set(person.groups.values_list("pk", flat=True)) if named else set()
    if named & theirs:
        return None
    return Refusal(
        "not_eligible",
        f"The policy {version.policy} does not let you open this without approval. Ask for it.",
    )


def owed(person: Person) -> Review | None:
    """The review of their last emergency, if nobody has given it yet."""
    return Review.objects.open().with_ground().filter(person=person, emergency=True).first()


def _duration(level: AccessLevel, version: PolicyVersion) -> int:
    """Seconds: fixed, and the smallest of all that applies."""
    return min(version.emergency_duration or 0, version.max_duration, level.max_duration)


@verb("emergency.refused", workflow.level_subject)
def break_glass(
    level_id: int, *, by: Person, reason: str, confirmation: str, proven: bool, ticket: str = ""
) -> AccessRequest:
    """Open a level at once, without approval, telling everybody who would have been asked.

    `confirmation` is the target's name, typed; `proven` whether they have just proved who they
    are, with their password. Raises NotAllowed with a reason code, Invalid, WrongState.
    """
    level = workflow.hold_level(level_id)
    now = clock.now()
    version = _require_allowed(level, by, proven=proven)
    wish = wishes.Wish(duration=_duration(level, version), reason=reason, ticket=ticket)
    _require(level, wish, confirmation)
    request = workflow.create_request(
        level,
        by=by,
        wish=wish,
        version=version,
        now=now,
        kind=RequestKind.EMERGENCY,
    )
    rounds.skip_all(request, policy.plan(version, barred={by.pk}))
    grant = grants.schedule(request, by=by, now=now)
    _owe_review(grant, now=now)
    return request


def _owe_review(grant: Grant, *, now: datetime) -> None:
    """In the same transaction: of two emergencies of one person at once, one is refused here."""
    try:
        reviews.open_for([grant], emergency=True, now=now)
    except IntegrityError as error:
        if "review_one_open_emergency" not in str(error):
            raise
        raise _review_first(owed(grant.beneficiary)) from None


def _require_allowed(level: AccessLevel, by: Person, *, proven: bool) -> PolicyVersion:
    if (problem := wishes.not_askable(level, by)) is not None:
        raise problem
    choice = policy.choose(level, by)
    if choice.version is None:
        raise wishes.unmatched(level, choice)
    if (refusal := may_open(choice.version, by)) is not None:
        raise refusal.error()
    if (review := owed(by)) is not None:
        raise _review_first(review)
    if not proven:
        raise NotAllowed(
            "Prove that it is you: an emergency wants your password once more.",
            code="step_up_required",
        )
    return choice.version


def _review_first(review: Review | None) -> NotAllowed:
    about = f" (request {review.grant.request_id})" if review else ""
    return NotAllowed(
        f"Your last emergency{about} has not been looked back at yet. Ask one of those who can.",
        code="review_open",
        request=review.grant.request_id if review else 0,
    )


def _require(level: AccessLevel, wish: wishes.Wish, confirmation: str) -> None:
    fields = wishes.wrong_words(wish)
    if confirmation.strip() != level.target.name:
        fields["confirmation"] = [f"Type the target's name, {level.target.name}, to confirm."]
    if fields:
        raise Invalid("Some of what you entered cannot be used.", fields=fields)
