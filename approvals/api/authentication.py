"""Who is asking: whoever a token acts as, or else whoever the session cookie names.

With a session, changes need the CSRF token beside it; a token is sent by nobody unawares.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from django.views.decorators.debug import sensitive_variables
from rest_framework.authentication import (
    BaseAuthentication,
    SessionAuthentication,
    get_authorization_header,
)
from rest_framework.exceptions import AuthenticationFailed, PermissionDenied
from rest_framework.request import Request

from approvals import tokens
from approvals.errors import NotAllowed
from approvals.models import ApiToken

if TYPE_CHECKING:
    from approvals.people import Person

SCHEME: Final = re.compile(rb"bearer +([!-~]+) *", re.IGNORECASE)


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


class Bearer(BaseAuthentication):
    """`Authorization: Bearer dbf_…`. Where it is sent it alone counts, whatever cookies say."""

    @sensitive_variables()
    def authenticate(self, request: Request) -> tuple[Person, ApiToken] | None:
        """Raises AuthenticationFailed, whose message repeats nothing of what was sent."""
        header = get_authorization_header(request)
        if not header:
            return None
        given = SCHEME.fullmatch(header)
        if given is None:
            raise AuthenticationFailed("Send Authorization: Bearer dbf_….", code="token_unknown")
        try:
            token = tokens.presented(given[1].decode())
        except NotAllowed as error:
            raise AuthenticationFailed(error.message, code=error.code) from None
        return token.account, token

    def authenticate_header(self, request: Request) -> str | None:
        """401 to whoever showed a token; whoever showed nothing gets 403, as ever."""
        return 'Bearer error="invalid_token"' if get_authorization_header(request) else None
