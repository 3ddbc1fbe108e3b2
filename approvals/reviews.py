"""The look back at an access: who may give it, its verb, and who is asked again until it is given.

Reviewers are those whose approval an emergency went past, or who were asked to approve; never the
holder. Once it is overdue the target's owners and administrators may give it too.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from django.contrib.auth import get_user_model
from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet

from approvals import access, grants, queue
from approvals.errors import Invalid, WrongState
from approvals.models import Candidate, Grant, Review
from approvals.policy import SELF_APPROVAL, Refusal
from approvals.states import EndReason, ReviewOutcome
from approvals.transition import actor, verb
from audit import clock, log
from audit.log import SYSTEM, Subject

if TYPE_CHECKING:
    from approvals.models.reviews import ReviewQuerySet
    from approvals.people import Person

NOTE_MAX: Final = 2000  # characters
AGAIN: Final = timedelta(days=1)  # between two reminders of one that is overdue
STILL_OPEN: Final = Refusal(
    "wrong_state",
    "The access is still open; it can be decided when it has ended, or take it away now.",
)
MOST: Final = 100  # in one look


def review_subject(pk: int) -> Subject:
    review = Review.objects.with_ground().filter(pk=pk).first()
    return review.audit_subject() if review else Subject("review", str(pk), f"review {pk}")


def open_for(grants_: Sequence[Grant], *, emergency: bool, now: datetime) -> None:
    """Owe a review for each, in the caller's transaction. One that has its review keeps it."""
    for grant in grants_:
        within = timedelta(seconds=grant.request.policy_version.review_within)
        review, made = Review.objects.get_or_create(
            grant=grant,
            defaults={
                "person": grant.beneficiary,
                "emergency": emergency,
                "opened_at": now,
                "due_at": now + within,
                "remind_at": now + within / 2,
            },
        )
        if made:
            log.record("review.opened", actor=SYSTEM, subject=review, at=now, due_at=review.due_at)


def open_for_ended(ended: Sequence[Grant], *, now: datetime) -> None:
    """The same for grants that have just ended, as far as their policy asks for it."""
    wanted = Grant.objects.filter(
        pk__in=[grant.pk for grant in ended],
        activated_at__isnull=False,
        request__policy_version__review_all=True,
        review__isnull=True,
    )
    related = ("beneficiary", "level", "target", "request__policy_version")
    open_for(list(wanted.select_related(*related)), emergency=False, now=now)


def reviewers(review: Review, now: datetime) -> QuerySet[Person]:
    """Whoever may give it now: active people, never its holder."""
    request = review.grant.request
    drawn = Candidate.objects.filter(stage__request=request, user=OuterRef("pk"))
    asked = drawn.filter(group__user=OuterRef("pk"))  # still a member
    told = request.policy_version.emergency_tells_id
    able = Q(Exists(asked))
    if review.emergency and told:
        able |= Q(groups=told)
    people = _people().exclude(pk__in={review.person_id, request.requester_id})
    if review.is_overdue(now) or not people.filter(able).exists():
        others = [access.owners(review.grant.target), access.administrators()]
        able |= Q(pk__in=[person.pk for found in others for person in found])
    found: QuerySet[Person] = people.filter(able).distinct().order_by("pk")
    return found


def may_review(review: Review, person: Person, now: datetime) -> Refusal | None:
    if person.pk in {review.person_id, review.grant.request.requester_id}:
        return SELF_APPROVAL
    if review.reviewed_at is not None:
        label = ReviewOutcome(review.outcome).label.lower()
        return Refusal("wrong_state", f"This was looked back at already, and found {label}.")
    if not reviewers(review, now).filter(pk=person.pk).exists():
        return Refusal(
            "not_eligible",
            "Those who were asked to approve it look back at it; owners of the target too, once "
            "that is overdue.",
        )
    return None


@verb("review.refused", review_subject)
def review(
    review_id: int, *, by: Person, outcome: str, note: str, end_access: bool = False
) -> Review:
    """Say what was found; `end_access` takes the access away with it, if it is still there.

    What is still open is decided in no other way, since more may be done with it.
    Raises NotAllowed, WrongState, Invalid.
    """
    review_ = _locked(review_id)
    now = clock.now()
    if (refusal := may_review(review_, by, now)) is not None:
        raise refusal.error()
    _require(outcome, note)
    grant, is_open = review_.grant, grants.is_going(review_.grant)
    if is_open and not end_access:
        raise STILL_OPEN.error()
    review_.outcome, review_.note = outcome, note.strip()
    review_.reviewed_by, review_.reviewed_at = by, now
    review_.save(update_fields=["outcome", "note", "reviewed_by", "reviewed_at"])
    log.record(
        "review.done",
        actor=actor(by),
        subject=review_,
        at=now,
        outcome=outcome,
        note=review_.note,
        emergency=review_.emergency,
    )
    if is_open:
        why = f"After the review: {review_.note}"[: grants.NOTE_MAX]
        grants.finish(grant, EndReason.REVOKED, by=by, now=now, note=why)
        queue.ring(grants.CLOSE_TASK, grant.pk)
    return review_


def _locked(review_id: int) -> Review:
    """With its grant, locked first: every verb locks a grant before what belongs to it."""
    grant = Review.objects.filter(pk=review_id).values_list("grant", flat=True).first()
    if grant is None:
        raise WrongState("This review does not exist.", code="gone")
    held = Grant.objects.locked(grant)
    review_ = Review.objects.locked(review_id)
    held.request.policy_version = review_.grant.request.policy_version
    review_.grant = held
    return review_


def _require(outcome: str, note: str) -> None:
    fields: dict[str, list[str]] = {}
    if outcome not in ReviewOutcome.values:
        fields["outcome"] = ["justified, not_justified or needs_action"]
    if not note.strip() or len(note) > NOTE_MAX or "\x00" in note:
        fields["note"] = [f"Say what you found, in 1 to {NOTE_MAX} characters."]
    if fields:
        raise Invalid(fields=fields)


def visible(person: Person) -> ReviewQuerySet:
    """Of the requests that this person may see, and those that their group is told of."""
    seen = access.visible_requests(person).values("pk")
    told = Q(emergency=True, grant__request__policy_version__emergency_tells__user=person)
    rows = Review.objects.filter(Q(grant__request__in=seen) | told).distinct()
    return rows.with_ground()


def waiting_for(person: Person, now: datetime) -> ReviewQuerySet:
    """Those that this person may give now, the most urgent first: in SQL what `may_review` says
    of one."""
    drawn = Candidate.objects.filter(stage__request=OuterRef("grant__request"))
    mine = Exists(drawn.filter(user=person, group__user=person))
    groups = person.groups.values("pk")
    told = Q(emergency=True, grant__request__policy_version__emergency_tells__in=groups)
    others = Q(grant__target__in=access.owned_targets(person).values("pk"))
    if access.administers(person):
        others = Q()
    late = Q(due_at__lte=now) | ~(Q(Exists(_able(drawn))) | Q(Exists(_told()), emergency=True))
    undone = visible(person).filter(Exists(_people().filter(pk=person.pk)), reviewed_at=None)
    theirs = undone.exclude(person=person).exclude(grant__request__requester=person)
    return theirs.filter(mine | told | late & others).order_by("due_at", "pk")


def _people() -> QuerySet[Person]:
    """Whoever is active and no service."""
    people: QuerySet[Person] = get_user_model()._default_manager.filter(
        is_active=True, service__isnull=True
    )
    return people


def _able(drawn: QuerySet[Candidate]) -> QuerySet[Candidate]:
    """Of the candidates of a review's request, those who may give it, whoever they are."""
    able = drawn.filter(user__in=_people(), group__user=F("user"))
    return able.exclude(user=OuterRef("person")).exclude(user=OuterRef("grant__request__requester"))


def _told() -> QuerySet[Person]:
    """The same of those whom the policy of an emergency has told of it."""
    told = _people().filter(groups=OuterRef("grant__request__policy_version__emergency_tells"))
    return told.exclude(pk=OuterRef("person")).exclude(pk=OuterRef("grant__request__requester"))


def remind() -> int:
    """Remind of those that are due to be; returns of how many. Safe at any number of places.

    Once half of its time is over, when it is overdue, and daily from then on. After an outage
    that is one reminder, not one for each that was missed.
    """
    due = Review.objects.open().filter(remind_at__lte=clock.DbNow()).order_by("remind_at")
    keys = list(due.values_list("pk", flat=True)[:MOST])
    return sum(_remind(pk) for pk in keys)


@transaction.atomic
def _remind(pk: int) -> bool:
    rows = Review.objects.open().filter(pk=pk, remind_at__lte=clock.DbNow())
    if not rows.select_for_update(skip_locked=True, of=("self",)).exists():
        return False
    review_ = Review.objects.with_ground().get(pk=pk)
    now = clock.now()
    if review_.is_overdue(now) and review_.overdue_at is None:
        review_.overdue_at, action = now, "review.overdue"
    else:
        action = "review.reminded"
    review_.reminders += 1
    review_.remind_at = review_.due_at if now < review_.due_at else now + AGAIN
    review_.save(update_fields=["overdue_at", "reminders", "remind_at"])
    with log.batch():
        log.record(action, actor=SYSTEM, subject=review_, at=now, n=review_.reminders)
    return True
