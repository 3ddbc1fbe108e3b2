"""Browsers that have signed in to an account before: a signed cookie, which is no sign-in itself.

It gets its browser slots of its own in `throttle`, and nothing else.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any, Final

from django.conf import settings
from django.contrib.auth.signals import user_logged_in
from django.dispatch import receiver
from django.http import HttpRequest, HttpResponse

from debugflow.accounts.throttle import account_key

SALT: Final = "debugflow.known-browser"
LASTS: Final = 180 * 86400  # seconds
SEPARATOR: Final = "."


def known_as(request: HttpRequest | None, name: str) -> str:
    """What this browser is known by at the account called `name`; empty if it is not known."""
    if request is None:
        return ""
    cookie = settings.KNOWN_BROWSER_COOKIE_NAME
    value = request.get_signed_cookie(cookie, default="", salt=SALT, max_age=LASTS) or ""
    account, _, browser = value.partition(SEPARATOR)
    return browser if account == account_key(name) else ""


@receiver(user_logged_in)
def _remember(sender: Any, request: Any, user: Any, **kwargs: Any) -> None:
    request.now_known_at = account_key(user.get_username())


class KnownBrowserMiddleware:
    """Gives the cookie to whoever has just signed in, by whichever way."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if account := getattr(request, "now_known_at", ""):
            response.set_signed_cookie(
                settings.KNOWN_BROWSER_COOKIE_NAME,
                f"{account}{SEPARATOR}{secrets.token_urlsafe(12)}",
                salt=SALT,
                max_age=LASTS,
                secure=settings.SECURE,
                httponly=True,
                samesite="Lax",
            )
        return response
