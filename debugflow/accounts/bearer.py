"""Tokens of the API, those that nobody has counted by address."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.views.decorators.debug import sensitive_variables
from rest_framework.exceptions import AuthenticationFailed

from approvals.api import authentication
from debugflow.accounts import throttle

if TYPE_CHECKING:
    from rest_framework.request import Request

    from approvals.models import ApiToken
    from approvals.people import Person


class Bearer(authentication.Bearer):
    @sensitive_variables()
    def authenticate(self, request: Request) -> tuple[Person, ApiToken] | None:
        """Raises AuthenticationFailed, and TooManyTokens in its place after too many."""
        try:
            return super().authenticate(request)
        except AuthenticationFailed as error:
            if error.get_codes() == "token_unknown":
                throttle.take_for_token()
            raise
