"""Passwords, each try of which is counted: whoever calls `authenticate` cannot go around it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from django.contrib.auth.backends import ModelBackend

from approvals.models import ServiceAccount
from debugflow.accounts import throttle
from debugflow.accounts.browsers import known_as

if TYPE_CHECKING:
    from django.http import HttpRequest

    from debugflow.accounts.models import User


class PasswordBackend(ModelBackend):
    def authenticate(
        self,
        request: HttpRequest | None,
        username: str | None = None,
        password: str | None = None,
        **kwargs: Any,
    ) -> User | None:
        """Raises TooManyTries. Whoever made a service, or its password, does not sign in as it."""
        if username is None or password is None:
            return None
        slots = throttle.take(username, browser=known_as(request, username))
        user: User | None = super().authenticate(request, username, password)
        if user is None or ServiceAccount.objects.filter(account=user).exists():
            return None
        throttle.give_back(slots)
        return user

    async def aauthenticate(self, *args: Any, **kwargs: Any) -> User | None:
        """The same: Django's own would look at the password uncounted."""
        return await sync_to_async(self.authenticate)(*args, **kwargs)
