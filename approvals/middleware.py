"""A domain error on a page: shown as a page that says why, who can help and what to do."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from approvals.errors import DebugflowError, Invalid, NotAllowed, ProvisionError, WrongState

STATUS: dict[type[DebugflowError], int] = {
    NotAllowed: 403,
    WrongState: 409,
    Invalid: 422,
    ProvisionError: 502,
}


def status_of(error: DebugflowError) -> int:
    """The one mapping of the ways to say no to HTTP; pages and API share it."""
    return next((status for kind, status in STATUS.items() if isinstance(error, kind)), 500)


class DomainErrorMiddleware:
    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        if not isinstance(error, DebugflowError):
            return None
        status = status_of(error)
        return render(request, "approvals/refused.html", {"error": error}, status=status)
