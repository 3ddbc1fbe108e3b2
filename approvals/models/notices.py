"""The outbox: of what somebody should hear, who is told over which channel, and what they wish.

None of it decides about access: losing these rows loses messages only.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import models
from django.db.models import Q

from approvals.states import DeliveryStanding
from audit.log import Subject

INBOX = "inbox"


class Notice(models.Model):
    """One fact of which somebody should hear. Written in the transaction of the change it tells of.

    `key` names what happened, so that it is noted once, however often it is found. What it is about
    is text, as in the Event, and no foreign key: checking one would lock what verbs lock.
    """

    fact = models.CharField(max_length=40)
    key = models.CharField(max_length=120, unique=True)
    event_id = models.BigIntegerField(null=True, help_text="Of the Event; none for mere time.")
    subject_type = models.CharField(max_length=40)
    subject_id = models.CharField(max_length=40)
    thread = models.CharField(max_length=80)
    at = models.DateTimeField(help_text="When it happened.")
    urgent = models.BooleanField(help_text="Somebody must act: neither quiet hours nor digest.")
    next_try_at = models.DateTimeField(null=True, help_text="None once it has its deliveries.")
    attempts = models.PositiveIntegerField(default=0)
    last_error = models.CharField(max_length=500, blank=True)
    told_at = models.DateTimeField(null=True, help_text="When its deliveries were made.")
    # Rendered then: every channel and every try says the same.
    text = models.TextField(blank=True)
    step = models.TextField(blank=True, help_text="What whoever reads it can do next.")
    quote = models.TextField(blank=True, help_text="What somebody wrote; not for webhooks.")
    link = models.CharField(max_length=200, blank=True, help_text="A path of this site.")

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(
                fields=["-urgent", "next_try_at"],
                condition=Q(next_try_at__isnull=False),
                name="notice_to_be_told",
            ),
            models.Index(fields=["subject_type", "subject_id", "fact"], name="notice_about"),
        ]

    def __str__(self) -> str:
        return self.text or f"{self.fact} {self.subject_type} {self.subject_id}"


class WebhookEndpoint(models.Model):
    """Where a program of somebody else's hears of facts. Written by `notify.endpoints` only."""

    name = models.CharField(max_length=80, unique=True)
    url = models.CharField(max_length=500)
    facts: models.JSONField[list[str], list[str]] = models.JSONField(default=list)
    enabled = models.BooleanField(default=True)
    disabled_because = models.CharField(max_length=200, blank=True)
    # Sealed (approvals.secrets): `secret`, and `former`, which signs as well until `former_until`.
    secrets: models.JSONField[dict[str, str], dict[str, str]] = models.JSONField(default=dict)
    former_until = models.DateTimeField(null=True)
    created_at = models.DateTimeField()

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    def audit_subject(self) -> Subject:
        thread = f"webhookendpoint:{self.pk}"
        return Subject("webhookendpoint", str(self.pk), self.name, thread)


class Delivery(models.Model):
    """One notice owed to one person or endpoint over one channel, and what became of it."""

    notice = models.ForeignKey(Notice, models.CASCADE, related_name="deliveries")
    channel = models.CharField(max_length=20)
    person = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="deliveries"
    )
    endpoint = models.ForeignKey(
        WebhookEndpoint, models.CASCADE, null=True, related_name="deliveries"
    )
    urgent = models.BooleanField()
    digest = models.BooleanField(default=False, help_text="Goes out with the others of its day.")
    since = models.DateTimeField(help_text="From when on it has been tried.")
    # None once nothing is left to do. While it is being sent, the moment when others may take it.
    next_try_at = models.DateTimeField(null=True)
    attempts = models.PositiveIntegerField(default=0)
    last_error = models.CharField(max_length=500, blank=True)
    sent_at = models.DateTimeField(null=True)
    dead_at = models.DateTimeField(null=True, help_text="Given up after two days.")
    withdrawn_at = models.DateTimeField(null=True, help_text="Not needed any more.")
    read_at = models.DateTimeField(null=True)
    handle = models.TextField(blank=True, help_text="The channel's own name for what it sent.")

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "deliveries"
        constraints = [
            models.UniqueConstraint(
                fields=["notice", "channel", "person", "endpoint"],
                nulls_distinct=False,
                name="delivery_once",
            ),
            models.CheckConstraint(
                name="delivery_to_one",
                condition=Q(person__isnull=True, endpoint__isnull=False)
                | Q(person__isnull=False, endpoint__isnull=True),
            ),
            models.CheckConstraint(
                name="delivery_due_until_settled",
                condition=Q(next_try_at__isnull=True)
                & (
                    Q(sent_at__isnull=False)
                    | Q(dead_at__isnull=False)
                    | Q(withdrawn_at__isnull=False)
                )
                | Q(
                    next_try_at__isnull=False,
                    sent_at__isnull=True,
                    dead_at__isnull=True,
                    withdrawn_at__isnull=True,
                ),
            ),
        ]
        indexes = [
            models.Index(
                fields=["channel", "-urgent", "next_try_at"],
                condition=Q(next_try_at__isnull=False),
                name="delivery_due",
            ),
            models.Index(
                fields=["person", "-id"], condition=Q(channel=INBOX), name="delivery_in_inbox"
            ),
            models.Index(
                fields=["person"],
                condition=Q(channel=INBOX, read_at__isnull=True),
                name="delivery_unread",
            ),
            models.Index(
                fields=["dead_at"], condition=Q(dead_at__isnull=False), name="delivery_dead"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.channel} to {self.person or self.endpoint}"

    @property
    def standing(self) -> DeliveryStanding:
        if self.sent_at is not None:
            return DeliveryStanding.SENT
        if self.dead_at is not None:
            return DeliveryStanding.DEAD
        if self.withdrawn_at is not None:
            return DeliveryStanding.WITHDRAWN
        return DeliveryStanding.RETRYING if self.last_error else DeliveryStanding.WAITING

    def audit_subject(self) -> Subject:
        return Subject("delivery", str(self.pk), str(self), self.notice.thread)


class Preferences(models.Model):
    """How somebody wishes to be told. Without a row: over every channel, at once."""

    person = models.OneToOneField(
        settings.AUTH_USER_MODEL, models.CASCADE, primary_key=True, related_name="preferences"
    )
    channels_off: models.JSONField[list[str], list[str]] = models.JSONField(default=list)
    # By the person's own clock; the end may be on the next day.
    quiet_from = models.TimeField(null=True)
    quiet_until = models.TimeField(null=True)
    digest_at = models.TimeField(null=True, help_text="What needs no action comes together then.")
    unasked = models.BooleanField(default=False, help_text="May decide, but is not asked to.")

    class Meta:
        constraints = [
            models.CheckConstraint(
                name="preferences_quiet_hours_whole",
                condition=Q(quiet_from__isnull=True, quiet_until__isnull=True)
                | Q(quiet_from__isnull=False, quiet_until__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return f"preferences of {self.person}"

    def told(self) -> dict[str, Any]:
        """As an Event and a form say it."""
        times = {"quiet_from": self.quiet_from, "quiet_until": self.quiet_until}
        times["digest_at"] = self.digest_at
        return {
            "channels_off": sorted(self.channels_off),
            "unasked": self.unasked,
            **{name: f"{at:%H:%M}" if at else "" for name, at in times.items()},
        }
