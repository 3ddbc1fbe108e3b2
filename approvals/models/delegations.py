"""Votes lent to somebody else for a while."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Self

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import models
from django.db.models import F, Q

from audit import clock
from audit.log import Subject

if TYPE_CHECKING:
    from approvals.people import Person

DEEP = 3  # how often a vote may be lent on


class DelegationQuerySet(models.QuerySet["Delegation"]):
    def not_over(self) -> Self:
        """Those in force, and those to come."""
        return self.filter(ended_at__isnull=True, ends_at__gt=clock.DbNow())

    def of(self, person: Person) -> Self:
        """Those that somebody has given, and those they have been given."""
        return self.filter(Q(person=person) | Q(delegate=person))


class Delegation(models.Model):
    """One person's votes, given for them by another within a half-open time."""

    person = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    delegate = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField()
    made_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    made_at = models.DateTimeField()
    # When the log was told that it has begun, and when it was ended or found to be over.
    begun_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    note = models.CharField(max_length=300, blank=True)

    objects = DelegationQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(
                name="delegation_lasts", condition=Q(ends_at__gt=F("starts_at"))
            ),
            models.CheckConstraint(
                name="delegation_to_another", condition=~Q(person=F("delegate"))
            ),
        ]
        indexes = [
            models.Index(
                fields=["ends_at"], condition=Q(ended_at=None), name="delegation_not_over"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.person} to {self.delegate}"

    def audit_subject(self) -> Subject:
        return Subject("delegation", str(self.pk), str(self), f"user:{self.person_id}")


@functools.cache
def lenders_query(start: str = "%s", *, barred: str = "") -> str:
    """Whose votes the person `start`, by default its one parameter, may give now: who lent them
    theirs, or to somebody who lent them on. None by way of who is `barred`, columns of a request's,
    or by their choice."""
    free = (
        f"AND d.person_id NOT IN ({barred})"
        f" AND (d.made_by_id = d.person_id OR d.made_by_id NOT IN ({barred}))"
        if barred
        else ""
    )
    people = get_user_model()._meta.db_table
    return f"""
        WITH RECURSIVE lender(id, deep) AS (
            SELECT {start}::bigint, 0
            UNION
            SELECT d.person_id, deep + 1 FROM lender
            JOIN approvals_delegation d ON d.delegate_id = lender.id AND d.ended_at IS NULL
                AND d.starts_at <= (SELECT dbnow()) AND d.ends_at > (SELECT dbnow())
            JOIN {people} u ON u.id = d.person_id AND u.is_active
                {free}
            WHERE deep < {DEEP}
        )
        SELECT id FROM lender WHERE deep > 0
    """  # noqa: S608 - the names of Django's own tables
