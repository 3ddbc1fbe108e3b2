"""Tokens that programs show in place of a person's session, and accounts that only have those."""

from __future__ import annotations

from datetime import datetime

from django.conf import settings
from django.db import models
from django.db.models import Q

from approvals.states import TokenStanding
from audit.log import Subject


class TokenKind(models.TextChoices):
    PERSONAL = "personal", "Personal"
    SERVICE = "service", "Service"


class TokenScope(models.TextChoices):
    READ = "read", "Read what its account may see"
    REQUEST = "request", "Ask, comment, cancel, release, revoke"
    VOTE = "vote", "Approve and deny, up to medium risk"


class ServiceAccount(models.Model):
    """Marks an account as no person's: it has no password, and only tokens act as it."""

    account = models.OneToOneField(
        settings.AUTH_USER_MODEL, models.PROTECT, primary_key=True, related_name="service"
    )
    made_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    made_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"service {self.account}"


class ApiToken(models.Model):
    """One token, of which only a hash is kept. Written by `tokens` only."""

    account = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="api_tokens")
    made_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    kind = models.CharField(max_length=10, choices=TokenKind)
    name = models.CharField(max_length=80)
    # SHA-256 of the whole token: it holds 256 random bits, which no dictionary helps to guess.
    digest = models.CharField(max_length=64, unique=True)
    hint = models.CharField(max_length=12, help_text="Its first characters, to tell it by.")
    scopes: models.JSONField[list[str], list[str]] = models.JSONField(default=list)
    made_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True)
    last_used_at = models.DateTimeField(null=True, help_text="To the minute.")
    refused_at = models.DateTimeField(null=True, help_text="Shown after its end; to the minute.")

    looked_at: datetime  # the database's time; of a token found by `tokens.presented` only

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(name="token_kind_known", condition=Q(kind__in=TokenKind.values)),
            models.CheckConstraint(
                name="token_scopes_known",
                condition=Q(scopes__contained_by=TokenScope.values) & ~Q(scopes=[]),
            ),
            models.CheckConstraint(
                name="token_service_never_votes",
                condition=Q(kind=TokenKind.PERSONAL) | ~Q(scopes__contains=[TokenScope.VOTE.value]),
            ),
            models.CheckConstraint(
                name="token_personal_is_ones_own",
                condition=Q(kind=TokenKind.SERVICE) | Q(account=models.F("made_by")),
            ),
            models.CheckConstraint(
                name="token_ends", condition=Q(expires_at__gt=models.F("made_at"))
            ),
        ]
        indexes = [
            models.Index(
                fields=["account"], condition=Q(revoked_at__isnull=True), name="token_unrevoked"
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def standing(self, now: datetime) -> TokenStanding:
        """Whether it counts at this time, and if not, why."""
        if self.revoked_at is not None:
            return TokenStanding.REVOKED
        if self.expires_at <= now:
            return TokenStanding.EXPIRED
        return TokenStanding.LIVE if self.account.is_active else TokenStanding.INACTIVE

    def audit_subject(self) -> Subject:
        label = f"{self.kind} token {self.name} of {self.account}"
        return Subject("apitoken", str(self.pk), label, f"user:{self.account_id}")
