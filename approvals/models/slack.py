"""The Slack workspace that people are told in, and whose Slack accounts are whose.

Written by the verbs in `notify.slack` only.
"""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q

from audit.log import Subject


class SlackWorkspace(models.Model):
    """The one workspace, as Slack itself named it when its token was given."""

    id = models.SmallIntegerField(primary_key=True, default=1)
    team_id = models.CharField(max_length=20)
    name = models.CharField(max_length=200)
    bot_user = models.CharField(max_length=20, help_text="The member that posts.")
    enabled = models.BooleanField(default=True)
    # Sealed (approvals.secrets): `bot_token` and `signing_secret`.
    secrets: models.JSONField[dict[str, str], dict[str, str]] = models.JSONField(default=dict)
    last_error = models.CharField(max_length=200, blank=True, help_text="Why it takes nothing.")
    held_until = models.DateTimeField(null=True, help_text="Too much was sent: nothing until then.")

    class Meta:
        verbose_name = "Slack workspace"
        constraints = [models.CheckConstraint(name="slackworkspace_is_one", condition=Q(id=1))]

    def __str__(self) -> str:
        return self.name

    def audit_subject(self) -> Subject:
        return Subject("slackworkspace", str(self.pk), self.name, f"slackworkspace:{self.pk}")


class SlackAccount(models.Model):
    """Whose Slack account it is, as they have proved."""

    person = models.OneToOneField(
        settings.AUTH_USER_MODEL, models.PROTECT, related_name="slack_account"
    )
    team_id = models.CharField(max_length=20)
    member_id = models.CharField(max_length=20)
    channel = models.CharField(max_length=20, blank=True, help_text="Where we write to them.")
    connected_at = models.DateTimeField()

    class Meta:
        ordering = ["person__username"]
        verbose_name = "Slack account"
        constraints = [
            models.UniqueConstraint(fields=["team_id", "member_id"], name="slackaccount_of_one"),
        ]

    def __str__(self) -> str:
        return f"{self.member_id} of {self.person}"

    def audit_subject(self) -> Subject:
        return Subject("slackaccount", str(self.pk), str(self), f"user:{self.person_id}")


class SlackProof(models.Model):
    """A code that was sent to a Slack account which somebody says is theirs. Kept as its hash."""

    person = models.OneToOneField(
        settings.AUTH_USER_MODEL, models.CASCADE, primary_key=True, related_name="slack_proof"
    )
    team_id = models.CharField(max_length=20)
    member_id = models.CharField(max_length=20)
    digest = models.CharField(max_length=64)
    expires_at = models.DateTimeField()
    tries = models.PositiveSmallIntegerField(default=0)
    # How many were sent since; none beyond a few an hour.
    counted_from = models.DateTimeField()
    sent = models.PositiveSmallIntegerField(default=0)

    def __str__(self) -> str:
        return f"a code for {self.member_id}, sent for {self.person}"


class SlackCall(models.Model):
    """A signature of Slack's that has been acted upon: never twice."""

    signature = models.CharField(max_length=64, primary_key=True)
    at = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return self.signature
