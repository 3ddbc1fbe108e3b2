"""What a program was answered, kept so that the same call sent twice is carried out once."""

from __future__ import annotations

from django.conf import settings
from django.db import models


class Answer(models.Model):
    """The answer to one person's `Idempotency-Key`; without a status while it is being made."""

    person = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+")
    key = models.CharField(max_length=255)
    # SHA-256 of method, path and body: the same key with anything else is a mistake.
    fingerprint = models.CharField(max_length=64)
    begun_at = models.DateTimeField()
    status = models.PositiveSmallIntegerField(null=True)
    content_type = models.CharField(max_length=40, blank=True)
    location = models.CharField(max_length=200, blank=True)
    body = models.TextField(blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["person", "key"], name="answer_one_per_key"),
        ]
        indexes = [models.Index(fields=["begun_at"], name="answer_by_age")]

    def __str__(self) -> str:
        return self.key
