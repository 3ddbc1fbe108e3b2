"""Every refusal of the API as problem details (RFC 9457), the framework's own among them.

Which refusals there are is in `approvals.errors`; what raises them, in the verbs.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from django.core.exceptions import BadRequest, PermissionDenied, SuspiciousOperation
from django.http import Http404, HttpResponseBase, JsonResponse, UnreadablePostError
from rest_framework.exceptions import APIException, ValidationError

from approvals.errors import DebugflowError, Invalid, WrongState
from approvals.models import ApiToken, TokenScope

CONTENT_TYPE: Final = "application/problem+json"
Problem = dict[str, Any]


def problem(error: Exception, context: Mapping[str, Any]) -> HttpResponseBase | None:
    """The answer to whatever a view raised; None for a defect, which is Django's to log.

    A conflict carries `current`: the request or grant as it stands after the roll-back.
    """
    described = describe(error) if isinstance(error, DebugflowError) else _framework(error)
    if described is None:
        return None
    current = getattr(context.get("view"), "current", None)
    if isinstance(error, WrongState) and current is not None and _may_read(context.get("request")):
        described["current"] = current(error)
    response = JsonResponse(described, status=described["status"], content_type=CONTENT_TYPE)
    if (wait := getattr(error, "wait", None)) is not None:
        response["Retry-After"] = str(wait)
    if (challenge := getattr(error, "auth_header", None)) is not None:
        response["WWW-Authenticate"] = challenge
    return response


def _may_read(request: Any) -> bool:
    """Whether how things stand may be told: a token that reads nothing learns nothing of it."""
    token = getattr(request, "auth", None)
    return not isinstance(token, ApiToken) or TokenScope.READ in token.scopes


def describe(error: DebugflowError) -> Problem:
    """A domain error as a problem; its details become members of their own."""
    more = dict(error.details)
    if isinstance(error, Invalid) and error.fields:
        more["fields"] = error.fields
    return _body(error.status, error.message, error.code, more)


def _body(status: int, detail: str, code: str, more: Mapping[str, Any] | None = None) -> Problem:
    # With about:blank the title is the status's own phrase (RFC 9457, section 4.2.1).
    return {
        **(more or {}),
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
    }


def _framework(error: Exception) -> Problem | None:
    match error:
        case ValidationError():
            return describe(Invalid(fields=_fields(error.detail)))
        case APIException():
            return _body(error.status_code, str(error.detail), _code(error))
        case Http404():
            return _body(404, "There is nothing here, or you may not see it.", "not_found")
        case PermissionDenied():
            return _body(403, "You may not do this.", "permission_denied")
        case SuspiciousOperation() | BadRequest() | UnreadablePostError():
            return _body(400, "The request is malformed.", "malformed")
    return None


def _code(error: APIException) -> str:
    codes = error.get_codes()
    return codes if isinstance(codes, str) else error.default_code


def _fields(detail: Any) -> dict[str, list[str]]:
    if not isinstance(detail, Mapping):
        return {"non_field_errors": _texts(detail)}
    return {str(name): _texts(messages) for name, messages in detail.items()}


def _texts(messages: Any) -> list[str]:
    if isinstance(messages, Mapping):
        return [text for nested in messages.values() for text in _texts(nested)]
    if isinstance(messages, list):
        return [text for nested in messages for text in _texts(nested)]
    return [str(messages)]
