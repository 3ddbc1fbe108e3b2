"""Who may call at all, and with which token. What they may see is in `access`, and do in verbs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NoReturn

from rest_framework.exceptions import PermissionDenied
from rest_framework.permissions import BasePermission, IsAuthenticated
from rest_framework.request import Request

from approvals import tokens
from approvals.models import ApiToken, TokenKind, TokenScope

if TYPE_CHECKING:
    # The framework's views load the permissions that settings name, this module's among them.
    from rest_framework.views import APIView

Scopes = Mapping[str, TokenScope]
READS: Final[Scopes] = {"GET": TokenScope.READ, "HEAD": TokenScope.READ}
CHANGES: Final[Scopes] = {**READS, "POST": TokenScope.REQUEST, "DELETE": TokenScope.REQUEST}
VOTES: Final[Scopes] = {"POST": TokenScope.VOTE}
IN_PERSON: Final[Scopes] = {}
NO_SERVICE: Final = "A service asks for no access itself. Whoever needs it asks."


class SignedInUnlessSigningIn(IsAuthenticated):
    def has_permission(self, request: Request, view: APIView) -> bool:
        return request.method == "POST" or super().has_permission(request, view)


class WithinScope(BasePermission):
    """A token does what the view's `token_scopes` name for the method, if it has that scope.

    A view or method that names none is for people who have signed in; so are all credentials.
    """

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Raises PermissionDenied with the codes `needs_session`, `token_scope`, and tells it."""
        token = request.auth
        if not isinstance(token, ApiToken) or request.method not in view.allowed_methods:
            return True
        needed = getattr(view, "token_scopes", IN_PERSON).get(request.method)
        if needed is None:
            _refuse(request, token, "No token does this. Sign in.", code="needs_session")
        if needed not in token.scopes:
            _refuse(request, token, f"This token lacks the scope {needed}.", code="token_scope")
        return True


class NoServiceAsks(BasePermission):
    """A service has no access of its own: nobody could be shown its credential.

    Nor could it be told whose access that would be, and so who must not decide about it.
    """

    def has_permission(self, request: Request, view: APIView) -> bool:
        token = request.auth
        if not isinstance(token, ApiToken) or request.method != "POST":
            return True
        if token.kind == TokenKind.SERVICE:
            _refuse(request, token, NO_SERVICE, code="service_cannot_ask")
        return True


def _refuse(request: Request, token: ApiToken, message: str, *, code: str) -> NoReturn:
    tokens.record_out_of_scope(
        token, method=str(request.method), path=request.path[:200], code=code
    )
    raise PermissionDenied(message, code=code)
