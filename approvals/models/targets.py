"""What access can be opened to: production systems and the levels prepared on them."""

from __future__ import annotations

from typing import Any

from django.core.validators import RegexValidator
from django.db import models
from django.db.models import Q

from audit.log import Subject

# A name goes into URLs, logs and mails, so it must not need quoting in any of them.
NAME = RegexValidator(
    r"^[a-z0-9][a-z0-9._-]{0,62}\Z",
    "Use lower-case letters, digits, dots, hyphens and underscores; start with a letter or digit.",
)


class Environment(models.TextChoices):
    PRODUCTION = "production", "Production"
    STAGING = "staging", "Staging"
    DEVELOPMENT = "development", "Development"


class Risk(models.TextChoices):
    LOW = "low", "Low"
    MEDIUM = "medium", "Medium"
    HIGH = "high", "High"


class Reach(models.TextChoices):
    DIRECT = "direct", "Direct: the holder connects to the target"
    GATEWAY = "gateway", "Gateway: every command is recorded"


class Target(models.Model):
    """A production system. Written by `administration.save_target` only."""

    name = models.CharField(max_length=63, unique=True, validators=[NAME])
    description = models.CharField(max_length=200, blank=True)
    kind = models.CharField(max_length=40)
    environment = models.CharField(max_length=20, choices=Environment)
    labels = models.JSONField(default=dict, blank=True)
    config = models.JSONField(default=dict)
    address = models.CharField(max_length=300, editable=False)
    trust_anchor = models.TextField(
        blank=True, help_text="PEM certificates that the target's own certificate must chain to."
    )
    secrets = models.JSONField(default=dict, editable=False)
    enabled = models.BooleanField(default=True)
    created_at = models.DateTimeField(editable=False)

    class Meta:
        ordering = ["name"]
        permissions = [
            ("own_target", "Owns this target: may cut any grant on it and gets its alarms"),
            ("watch_target", "May watch and end sessions on this target"),
            ("audit_target", "May read recordings of this target"),
        ]
        constraints = [
            models.CheckConstraint(
                name="target_environment_known", condition=Q(environment__in=Environment.values)
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def audit_subject(self) -> Subject:
        return Subject("target", str(self.pk), self.name, f"target:{self.pk}")


class AccessLevel(models.Model):
    """What may be opened on one target. Written by `administration.save_level` only."""

    target = models.ForeignKey(Target, models.PROTECT, related_name="levels")
    name = models.CharField(max_length=63, validators=[NAME])
    description = models.CharField(max_length=200, blank=True)
    rights = models.JSONField(default=dict)
    # What a holder could do when the level was last checked on the target, in words: pages show
    # it, the scope covers it, and `open` refuses to open anything that reads differently.
    summary: models.JSONField[list[str], list[str]] = models.JSONField(default=list, editable=False)
    summarised_at = models.DateTimeField(null=True, editable=False)
    risk = models.CharField(max_length=10, choices=Risk)
    max_duration = models.PositiveIntegerField(help_text="Seconds.")
    reach = models.CharField(max_length=10, choices=Reach, default=Reach.DIRECT)
    rank = models.PositiveSmallIntegerField(
        help_text="Order among the target's levels; the least powerful has the lowest."
    )
    guardrails: models.JSONField[list[dict[str, Any]], list[dict[str, Any]]] = models.JSONField(
        default=list, editable=False
    )
    enabled = models.BooleanField(default=True)

    class Meta:
        ordering = ["target__name", "rank"]
        permissions = [("request_accesslevel", "May ask for this level")]
        constraints = [
            models.UniqueConstraint(fields=["target", "name"], name="level_name_unique_per_target"),
            models.UniqueConstraint(fields=["target", "rank"], name="level_rank_unique_per_target"),
            models.CheckConstraint(name="level_risk_known", condition=Q(risk__in=Risk.values)),
            models.CheckConstraint(name="level_reach_known", condition=Q(reach__in=Reach.values)),
            models.CheckConstraint(name="level_lasts", condition=Q(max_duration__gt=0)),
            # Neither is enforced by anything yet, and a field that nobody reads fails open.
            models.CheckConstraint(
                name="level_not_beyond_what_is_built",
                condition=Q(reach=Reach.DIRECT) & ~Q(risk=Risk.HIGH),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} on {self.target}"

    def audit_subject(self) -> Subject:
        return Subject("accesslevel", str(self.pk), str(self), f"target:{self.target_id}")
