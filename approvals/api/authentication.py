"""Who is asking: whoever the session cookie names. Changes need the CSRF token beside it."""

from __future__ import annotations

from rest_framework.authentication import SessionAuthentication
from rest_framework.exceptions import PermissionDenied
from rest_framework.request import Request


class Session(SessionAuthentication):
    def enforce_csrf(self, request: Request) -> None:
        """Raises PermissionDenied with the code `csrf_failed`."""
        try:
            super().enforce_csrf(request)
        except PermissionDenied:
            raise PermissionDenied(
                "Send the csrf_token of GET /api/v1/session/ as the header X-CSRFToken, together "
                "with the cookies; over TLS an Origin or Referer of this site as well.",
                code="csrf_failed",
            ) from None
