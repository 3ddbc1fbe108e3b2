"""The look back at an access: was it needed, and was nothing done but what it was given for?"""

from __future__ import annotations

from datetime import datetime
from typing import Self

from django.conf import settings
from django.db import models
from django.db.models import F, Q

from approvals.models.grants import Grant
from approvals.models.locks import lock
from approvals.states import ReviewOutcome, ReviewStanding
from audit.log import Subject


class ReviewQuerySet(models.QuerySet["Review"]):
    def locked(self, pk: int) -> Review:
        """The review, its row locked until the transaction ends. Raises DoesNotExist."""
        lock(self.model, pk)
        return self.with_ground().get(pk=pk)

    def with_ground(self) -> Self:
        related = ("person", "grant__level", "grant__target", "grant__beneficiary", "reviewed_by")
        return self.select_related(*related, "grant__request__policy_version__policy")

    def open(self) -> Self:
        return self.filter(reviewed_at__isnull=True)


class Review(models.Model):
    """Owed for one grant: after an emergency always, after others where their policy asks for it.

    Its holder never gives it (a constraint), and has at most one open after emergencies: the next
    emergency waits for it.
    """

    grant = models.OneToOneField(Grant, models.PROTECT, related_name="review")
    person = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    emergency = models.BooleanField()
    opened_at = models.DateTimeField()
    due_at = models.DateTimeField()
    remind_at = models.DateTimeField(help_text="When its reviewers are reminded next.")
    reminders = models.PositiveSmallIntegerField(default=0)
    overdue_at = models.DateTimeField(null=True, help_text="When more people were asked.")
    outcome = models.CharField(max_length=20, choices=ReviewOutcome, blank=True)
    note = models.TextField(blank=True)
    reviewed_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+"
    )
    reviewed_at = models.DateTimeField(null=True)

    objects = ReviewQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(
                name="review_outcome_known",
                condition=Q(outcome="") | Q(outcome__in=ReviewOutcome.values),
            ),
            models.CheckConstraint(
                name="review_done_whole",
                condition=Q(outcome="", reviewed_by__isnull=True, reviewed_at__isnull=True)
                | (~Q(outcome="") & Q(reviewed_by__isnull=False, reviewed_at__isnull=False)),
            ),
            models.CheckConstraint(
                name="review_not_of_oneself",
                condition=Q(reviewed_by__isnull=True) | ~Q(reviewed_by=F("person")),
            ),
            models.UniqueConstraint(
                fields=["person"],
                condition=Q(emergency=True, reviewed_at__isnull=True),
                name="review_one_open_emergency",
            ),
        ]
        indexes = [
            models.Index(
                fields=["remind_at"], condition=Q(reviewed_at__isnull=True), name="review_due"
            ),
        ]

    def __str__(self) -> str:
        return f"review {self.pk}"

    def is_overdue(self, now: datetime) -> bool:
        return self.reviewed_at is None and self.due_at <= now

    def standing(self, now: datetime) -> ReviewStanding:
        if self.outcome:
            return ReviewStanding(self.outcome)
        return ReviewStanding.OVERDUE if self.is_overdue(now) else ReviewStanding.OPEN

    def audit_subject(self) -> Subject:
        told = self.grant.audit_subject()
        return Subject("review", str(self.pk), told.label, told.thread)
