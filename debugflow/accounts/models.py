"""People. Ours from the first migration, since a user model cannot be swapped later."""

from __future__ import annotations

from typing import Final

from django.contrib.auth.models import AbstractUser
from django.core.exceptions import ValidationError
from django.db import models

# What the audit log calls the system, and those that nobody knows.
RESERVED: Final = frozenset({"debugflow", "system", "anonymous", "somebody"})


class User(AbstractUser):
    time_zone = models.CharField(
        max_length=64, default="UTC", help_text="IANA name, for example Europe/Berlin."
    )

    def __str__(self) -> str:
        return self.get_username()

    def clean(self) -> None:
        super().clean()
        if self.username.casefold() in RESERVED:
            told = "The audit log means somebody else by this name. Choose another."
            raise ValidationError({"username": told})


class SignInLimit(models.Model):
    """One counter of `throttle`: tries at an account, from an address, or by a known browser."""

    key = models.CharField(max_length=64, primary_key=True)  # a hash: it names nobody
    free_at = models.DateTimeField(db_index=True)  # when all of its tries can be had again
    told = models.BooleanField(default=False)  # whether its being used up has its Event

    def __str__(self) -> str:
        return self.key
