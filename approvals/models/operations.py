"""What running it needs to remember: who is alive, what targets hold, what somebody must know.

None of it decides about access: losing these rows loses no access and ends none.
"""

from __future__ import annotations

import uuid
from typing import Any

from django.db import models
from django.db.models import Q

from approvals.models.grants import Grant
from approvals.models.targets import Target


class Heartbeat(models.Model):
    """One process of ours with a sweeper inside. It alone writes the row, every few seconds."""

    process = models.UUIDField(primary_key=True, default=uuid.uuid4)
    name = models.CharField(max_length=120)
    started_at = models.DateTimeField()
    swept_at = models.DateTimeField(help_text="When its sweeper last looked.")
    # Of a Celery worker only: a task of its own came through the broker and its pool.
    is_worker = models.BooleanField(default=False)
    served_at = models.DateTimeField(null=True)
    skew_ms = models.IntegerField(default=0, help_text="Its clock, less the database's.")
    # What it counted since it started; a scrape adds up all rows.
    tallies: models.JSONField[dict[str, Any], dict[str, Any]] = models.JSONField(default=dict)
    stopped_at = models.DateTimeField(null=True, help_text="Set when it ended in good order.")

    class Meta:
        ordering = ["name", "started_at"]

    def __str__(self) -> str:
        return self.name


class Installation(models.Model):
    """This installation's own name, and which cluster its database was last seen in. One row."""

    id = models.SmallIntegerField(primary_key=True, default=1)
    key = models.UUIDField(default=uuid.uuid4, editable=False)
    # PostgreSQL's system_identifier: another one means that the database was restored elsewhere.
    cluster = models.CharField(max_length=20)

    class Meta:
        constraints = [models.CheckConstraint(name="installation_is_one", condition=Q(id=1))]

    def __str__(self) -> str:
        return str(self.key)


class Reconciliation(models.Model):
    """The last comparison of one target with the ledger. Written by `reconciler` only."""

    target = models.OneToOneField(Target, models.CASCADE, primary_key=True)
    next_at = models.DateTimeField()
    # Until then a run has the target to itself; the moment is also how a late one is told.
    lease_until = models.DateTimeField(null=True)
    worker = models.CharField(max_length=80, blank=True, help_text="Who made the last run.")
    ran_at = models.DateTimeField(null=True, help_text="When it last came to its end.")
    failures = models.PositiveIntegerField(default=0, help_text="Runs in a row that failed.")
    last_error = models.CharField(max_length=500, blank=True)
    findings: models.JSONField[list[str], list[str]] = models.JSONField(default=list)
    # Accounts, each as name:trace, that the ledger does not know, and when each was first seen.
    unknown: models.JSONField[dict[str, str], dict[str, str]] = models.JSONField(default=dict)
    # More than a run may remove by itself: somebody must allow it, for exactly these.
    held_back: models.JSONField[list[str], list[str]] = models.JSONField(default=list)
    held_back_since = models.DateTimeField(null=True)
    allowed: models.JSONField[list[str], list[str]] = models.JSONField(default=list)

    class Meta:
        indexes = [models.Index(fields=["next_at"], name="reconciliation_due")]

    def __str__(self) -> str:
        return f"reconciliation of {self.target}"


class AlarmKind(models.TextChoices):
    OVERDUE = "overdue", "Access past its end"
    STUCK = "stuck", "Ending access keeps failing"
    ABANDONED = "abandoned", "Abandoned, unsafe"
    STRANGE = "strange", "A target differs from the ledger"
    HELD_BACK = "held_back", "A clean-up waits for consent"


class Alarm(models.Model):
    """Something that people must know of until it is over, and the mails about it."""

    kind = models.CharField(max_length=12, choices=AlarmKind)
    target = models.ForeignKey(Target, models.CASCADE, related_name="alarms")
    # No constraint in the database: checking it would lock the grant, and cuts skip what is locked.
    grant = models.ForeignKey(
        Grant, models.CASCADE, null=True, related_name="alarms", db_constraint=False
    )
    text = models.CharField(max_length=500)
    began_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True)
    # Null once the mail that tells of its end has gone out, or nobody needs one.
    next_mail_at = models.DateTimeField(null=True)
    mails = models.PositiveIntegerField(default=0)
    failures = models.PositiveIntegerField(default=0, help_text="Mails in a row that none took.")
    last_error = models.CharField(max_length=500, blank=True)

    class Meta:
        ordering = ["-began_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["kind", "target", "grant"],
                condition=Q(ended_at__isnull=True),
                nulls_distinct=False,
                name="alarm_once_at_a_time",
            ),
            models.CheckConstraint(name="alarm_kind_known", condition=Q(kind__in=AlarmKind.values)),
        ]
        indexes = [
            models.Index(
                fields=["next_mail_at"],
                condition=Q(next_mail_at__isnull=False),
                name="alarm_to_be_mailed",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()}: {self.text}"
