"""People. Ours from the first migration, since a user model cannot be swapped later."""

from __future__ import annotations

from django.contrib.auth.models import AbstractUser
from django.db import models


class User(AbstractUser):
    time_zone = models.CharField(
        max_length=64, default="UTC", help_text="IANA name, for example Europe/Berlin."
    )

    def __str__(self) -> str:
        return self.get_username()
