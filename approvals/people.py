"""The user model as this package sees it: Django's own, whatever the project swapped in.

The type checker alone is told which one that is; nothing is imported from above at run-time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from debugflow.accounts.models import User as Person
else:
    from django.contrib.auth.models import AbstractUser as Person

__all__ = ["Person"]
