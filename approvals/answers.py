"""One call, carried out once: what was answered to a key, kept for a day.

A key is claimed before the call is carried out. If the process dies in between, whether it was
carried out cannot be told, and the key stays claimed: at most once, never twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from django.db import connection
from django.db.models import F

from approvals.errors import Invalid, WrongState
from approvals.models import Answer
from audit import clock

if TYPE_CHECKING:
    from approvals.people import Person

KEPT: Final = timedelta(hours=24)
# Longer than any call takes: whoever claimed a key then has died, or lost the database.
MAKING_MOST: Final = timedelta(seconds=60)
BATCH: Final = 1000


@dataclass(frozen=True)
class Claim:
    """A key that nobody had: carry the call out, then `keep` what was answered, or `free` it."""

    pk: int


def claim(key: str, *, by: Person, fingerprint: str) -> Claim | Answer:
    """Claim a key of `by`, or find the answer that it has got.

    Raises Invalid if another call was made with it; WrongState while the first is under way, or
    if it never came to an end.
    """
    mine = Answer.objects.filter(person=by, key=key)
    mine.filter(begun_at__lte=clock.DbNow() - KEPT).delete()
    if (pk := _insert(key, by=by, fingerprint=fingerprint)) is not None:
        return Claim(pk)
    found = mine.annotate(age=clock.DbNow() - F("begun_at")).first()
    if found is not None and found.fingerprint != fingerprint:
        raise Invalid("This key was used for another call. Take a new one.", code="key_reused")
    if found is None or (found.status is None and found.age < MAKING_MOST):
        raise WrongState("The first call with this key is under way.", code="key_in_progress")
    if found.status is None:
        raise WrongState(
            "The first call with this key broke off, and may have been carried out. "
            "Look at how things stand, then take a new key.",
            code="key_lost",
        )
    return found


def _insert(key: str, *, by: Person, fingerprint: str) -> int | None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO approvals_answer"
            " (person_id, key, fingerprint, begun_at, content_type, location, body)"
            " VALUES (%s, %s, %s, dbnow(), '', '', '')"
            " ON CONFLICT (person_id, key) DO NOTHING RETURNING id",
            [by.pk, key, fingerprint],
        )
        row = cursor.fetchone()
    return row[0] if row else None


def keep(claim: Claim, *, status: int, content_type: str, location: str, body: str) -> None:
    Answer.objects.filter(pk=claim.pk).update(
        status=status, content_type=content_type, location=location, body=body
    )


def free(claim: Claim) -> None:
    """Let the key be used again: the call failed and its transaction was rolled back."""
    Answer.objects.filter(pk=claim.pk).delete()


def forget_old() -> int:
    """Remove answers past their time, at most so many at once. Returns how many."""
    old = Answer.objects.filter(begun_at__lte=clock.DbNow() - KEPT)
    some = old.order_by("begun_at").values("pk")[:BATCH]
    return Answer.objects.filter(pk__in=some).delete()[0]
