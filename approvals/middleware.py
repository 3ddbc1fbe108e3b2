"""A domain error on a page: shown as a page that says why, who can help and what to do.

What was not done since it takes a second person is none: its page says what happens next.
"""

from __future__ import annotations

from collections.abc import Callable

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render

from approvals.errors import DebugflowError, Proposed

PROPOSED = (
    "Proposed, and not done yet: it widens access to production, so somebody else has to agree."
)


class DomainErrorMiddleware:
    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        if isinstance(error, Proposed):
            messages.success(request, PROPOSED)
            return redirect("admin:approvals_proposal_change", error.proposal_id)
        if not isinstance(error, DebugflowError):
            return None
        page = render(request, "approvals/refused.html", {"error": error}, status=error.status)
        if (wait := getattr(error, "wait", None)) is not None:
            page["Retry-After"] = str(wait)
        return page
