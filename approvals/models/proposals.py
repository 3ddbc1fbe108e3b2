"""Changes that wait for a second person, and since when there is one."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import models
from django.db.models import F, Q

from approvals.states import ProposalState
from audit.log import Subject


class FourEyes(models.Model):
    """Since when a second person has to agree. One row, which is never taken back.

    Whoever changes what may widen access locks it, so that no two of them overlook each other.
    """

    id = models.SmallIntegerField(primary_key=True, default=1)
    since = models.DateTimeField(null=True, help_text="None while there was one superuser only.")

    class Meta:
        default_permissions = ()
        constraints = [models.CheckConstraint(name="four_eyes_is_one", condition=Q(id=1))]

    def __str__(self) -> str:
        return f"in force since {self.since}" if self.since else "not in force yet"


class Proposal(models.Model):
    """One change that would widen access, as it was when it was proposed. Written by `proposals`.

    `digest` covers what is to be done, what it was to be done to, and what comes of it: all that
    whoever agrees has to know. None of these is changed afterwards.
    """

    change = models.CharField(max_length=40, help_text="Which verb, by its registered name.")
    arguments: models.JSONField[dict[str, Any], dict[str, Any]] = models.JSONField()
    summary = models.CharField(max_length=300)
    effects: models.JSONField[list[str], list[str]] = models.JSONField()
    # Rows of [what, before, after], in words.
    differences: models.JSONField[list[list[str]], list[list[str]]] = models.JSONField(default=list)
    beneficiaries: models.JSONField[list[int], list[int]] = models.JSONField(default=list)
    digest = models.CharField(max_length=64)
    state = models.CharField(
        max_length=20, choices=ProposalState, default=ProposalState.PROPOSED, editable=False
    )
    proposer = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="proposals")
    proposed_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    decided_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+"
    )
    decided_at = models.DateTimeField(null=True, help_text="When it came to its end.")
    note = models.CharField(max_length=500, blank=True, help_text="Why it ended as it did.")
    used_at = models.DateTimeField(null=True, help_text="When a leave that it gave was used.")

    class Meta:
        ordering = ["-id"]
        default_permissions = ("view",)
        constraints = [
            models.CheckConstraint(
                name="proposal_state_known", condition=Q(state__in=ProposalState.values)
            ),
            models.CheckConstraint(
                name="proposal_not_decided_by_its_proposer",
                condition=Q(decided_by=None) | ~Q(decided_by=F("proposer")),
            ),
            models.CheckConstraint(
                name="proposal_decided_by_somebody",
                condition=~Q(state__in=[ProposalState.CARRIED_OUT, ProposalState.DENIED])
                | Q(decided_by__isnull=False, decided_at__isnull=False),
            ),
            models.CheckConstraint(
                name="proposal_expires_later", condition=Q(expires_at__gt=F("proposed_at"))
            ),
            models.UniqueConstraint(
                fields=["digest"],
                condition=Q(state=ProposalState.PROPOSED),
                name="proposal_once_at_a_time",
            ),
        ]
        indexes = [
            models.Index(
                fields=["expires_at"],
                condition=Q(state=ProposalState.PROPOSED),
                name="proposal_to_expire",
            ),
        ]

    def __str__(self) -> str:
        return self.summary

    def audit_subject(self) -> Subject:
        return Subject("proposal", str(self.pk), self.summary, f"proposal:{self.pk}")
