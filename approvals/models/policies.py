"""Which requests need whose consent. A published version never changes: triggers hold that."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib.auth.models import Group
from django.db import models
from django.db.models import F, Q

from audit.log import Subject


class Policy(models.Model):
    """A named rule. What it says is in its current version; its rank decides who is asked first."""

    name = models.CharField(max_length=80, unique=True)
    rank = models.PositiveSmallIntegerField(
        unique=True, help_text="The first policy that fits wins, lowest rank first."
    )
    enabled = models.BooleanField(default=True)
    current = models.OneToOneField(
        "PolicyVersion", models.PROTECT, null=True, editable=False, related_name="+"
    )

    class Meta:
        ordering = ["rank"]
        verbose_name_plural = "policies"

    def __str__(self) -> str:
        return self.name

    def audit_subject(self) -> Subject:
        return Subject("policy", str(self.pk), self.name, f"policy:{self.pk}")


class ExtensionApproval(models.TextChoices):
    """Whom longer access asks, of the stages that the access itself asked."""

    CHAIN = "chain", "The whole chain"
    LAST = "last", "The last stage"
    NONE = "none", "Nobody"


class PolicyVersion(models.Model):
    """One wording of a policy. `administration.publish` writes it whole and then freezes it."""

    policy = models.ForeignKey(Policy, models.PROTECT, related_name="versions")
    number = models.PositiveIntegerField()
    # Typed by policy.AppliesTo: environments, labels, risks, level ids, requester group ids.
    applies_to: models.JSONField[dict[str, Any], dict[str, Any]] = models.JSONField(default=dict)
    reason_hint = models.CharField(max_length=200, blank=True)
    ticket_required = models.BooleanField(default=False)
    allow_delegation = models.BooleanField(default=True)
    max_duration = models.PositiveIntegerField(help_text="Seconds a grant may last.")
    pending_ttl = models.PositiveIntegerField(help_text="Seconds from submission to decision.")
    activation_ttl = models.PositiveIntegerField(
        help_text="Seconds from approval (or the wanted start) within which access must open."
    )
    # Ids of the groups whose members may open a level without approval; none means nobody.
    emergency_groups: models.JSONField[list[int], list[int]] = models.JSONField(default=list)
    emergency_duration = models.PositiveIntegerField(
        null=True, help_text="Seconds that an emergency lasts."
    )
    emergency_tells = models.ForeignKey(
        Group, models.PROTECT, null=True, related_name="+", help_text="Is told, and may review."
    )
    review_within = models.PositiveIntegerField(
        default=86400, help_text="Seconds within which somebody has to look back."
    )
    review_all = models.BooleanField(default=False)
    # Longer access, in place: with none allowed the rest of these says nothing.
    extensions_most = models.PositiveSmallIntegerField(
        default=0, db_default=0, help_text="How often a grant may be extended."
    )
    extension_max = models.PositiveIntegerField(
        default=0, db_default=0, help_text="Seconds that one extension may add."
    )
    max_total = models.PositiveIntegerField(
        default=0,
        db_default=0,
        help_text="Seconds a grant may last in all, from its opening, extensions included.",
    )
    extension_approval = models.CharField(
        max_length=10,
        choices=ExtensionApproval,
        default=ExtensionApproval.CHAIN,
        db_default=ExtensionApproval.CHAIN,
    )
    extension_window = models.PositiveIntegerField(
        default=0, db_default=0, help_text="Seconds before the end from which it may be asked for."
    )
    bridge = models.PositiveIntegerField(
        default=0,
        db_default=0,
        help_text="Seconds a grant goes on, once, if the decision is still out at its end.",
    )
    published_at = models.DateTimeField(null=True)
    published_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+"
    )

    class Meta:
        ordering = ["policy", "-number"]
        constraints = [
            models.UniqueConstraint(fields=["policy", "number"], name="version_number_unique"),
            models.CheckConstraint(
                name="version_clocks_run",
                condition=Q(max_duration__gt=0, pending_ttl__gt=0, activation_ttl__gt=0),
            ),
            models.CheckConstraint(
                name="version_emergency_whole",
                condition=Q(emergency_groups=[], emergency_duration__isnull=True)
                | (~Q(emergency_groups=[]) & Q(emergency_duration__gt=0)),
            ),
            models.CheckConstraint(name="version_review_within", condition=Q(review_within__gt=0)),
            models.CheckConstraint(
                name="version_extension_approval_known",
                condition=Q(extension_approval__in=ExtensionApproval.values),
            ),
            models.CheckConstraint(
                name="version_extensions_have_bounds",
                condition=Q(extensions_most=0)
                | Q(
                    extension_max__gt=F("bridge"),
                    max_total__gte=F("max_duration"),
                    extension_window__gt=0,
                ),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.policy} v{self.number}"


class Stage(models.Model):
    """One step of a version's chain."""

    version = models.ForeignKey(PolicyVersion, models.CASCADE, related_name="stages")
    order = models.PositiveSmallIntegerField()
    name = models.CharField(max_length=80)
    total = models.PositiveSmallIntegerField(help_text="Approvals needed in all.")
    deny_quorum = models.PositiveSmallIntegerField(default=1)
    deadline = models.PositiveIntegerField(
        null=True,
        blank=True,
        help_text="Seconds the stage may stay open; then the request expires.",
    )
    fallback_group = models.ForeignKey(
        Group, models.PROTECT, null=True, blank=True, related_name="+"
    )
    needs_second_factor = models.BooleanField(default=False)
    remind_every = models.PositiveIntegerField(
        null=True, blank=True, help_text="Seconds between two reminders while the stage is open."
    )
    max_reminders = models.PositiveSmallIntegerField(null=True, blank=True)
    escalate_after = models.PositiveIntegerField(
        null=True,
        blank=True,
        help_text="Seconds the stage may be open before the escalation group is asked as well.",
    )
    escalation_group = models.ForeignKey(
        Group, models.PROTECT, null=True, blank=True, related_name="+"
    )

    class Meta:
        ordering = ["version", "order"]
        constraints = [
            models.UniqueConstraint(fields=["version", "order"], name="stage_order_unique"),
            models.CheckConstraint(name="stage_asks_somebody", condition=Q(total__gt=0)),
            models.CheckConstraint(name="stage_can_be_denied", condition=Q(deny_quorum__gt=0)),
            models.CheckConstraint(
                name="stage_deadline_runs", condition=Q(deadline__isnull=True) | Q(deadline__gt=0)
            ),
            # No second factor exists yet, and a wish that nobody reads fails open.
            models.CheckConstraint(
                name="stage_not_beyond_what_is_built", condition=Q(needs_second_factor=False)
            ),
            models.CheckConstraint(
                name="stage_reminders_whole",
                condition=Q(remind_every__isnull=True, max_reminders__isnull=True)
                | Q(
                    remind_every__isnull=False,
                    remind_every__gt=0,
                    max_reminders__isnull=False,
                    max_reminders__gt=0,
                ),
            ),
            models.CheckConstraint(
                name="stage_escalation_whole",
                condition=Q(escalate_after__isnull=True, escalation_group__isnull=True)
                | Q(
                    escalate_after__isnull=False,
                    escalate_after__gt=0,
                    escalation_group__isnull=False,
                ),
            ),
            models.CheckConstraint(
                name="stage_escalates_in_time",
                condition=Q(escalate_after__isnull=True)
                | Q(deadline__isnull=True)
                | Q(escalate_after__lt=F("deadline")),
            ),
        ]

    def __str__(self) -> str:
        return self.name


class StageGroup(models.Model):
    """A group that may act in a stage, and how many of its people must."""

    stage = models.ForeignKey(Stage, models.CASCADE, related_name="stage_groups")
    group = models.ForeignKey(Group, models.PROTECT, related_name="+")
    minimum = models.PositiveSmallIntegerField(default=0)

    class Meta:
        ordering = ["stage", "group__name"]
        constraints = [
            models.UniqueConstraint(fields=["stage", "group"], name="stage_group_unique"),
        ]

    def __str__(self) -> str:
        return f"{self.minimum} of {self.group}"
