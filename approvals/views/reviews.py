"""Looking back: what waits for somebody to do so, and the page of one look back."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe

from approvals import reviews
from approvals.errors import Invalid
from approvals.forms import ReviewForm
from approvals.models import AccessRequest, Grant, Review
from approvals.views.shown import RELATED, shown
from approvals.views.viewer import PAGE, page, viewer
from audit import clock


@never_cache
@require_safe
def index(request: HttpRequest) -> HttpResponse:
    """Those that this person may give, then all others that they may see, the newest first."""
    person, now = viewer(request), clock.now()
    mine = list(reviews.waiting_for(person, now)[: PAGE + 1])
    context = {
        "now": now,
        "mine": mine[:PAGE],
        "more": len(mine) > PAGE,
        "page": page(reviews.visible(person), cursor=request.GET.get("before", "")),
    }
    return render(request, "approvals/reviews.html", context)


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def one(request: HttpRequest, pk: int) -> HttpResponse:
    """GET shows what there is to look back at; POST says what was found."""
    review = get_object_or_404(reviews.visible(viewer(request)), pk=pk)
    if request.method == "POST":
        return _give(request, review)
    return render(request, "approvals/review.html", _shown(request, review))


def _give(request: HttpRequest, review: Review) -> HttpResponse:
    form = ReviewForm(request.POST)
    form.is_valid()
    typed = {
        "outcome": form.cleaned_data.get("outcome", ""),
        "note": form.cleaned_data.get("note", ""),
        "end_access": form.cleaned_data.get("end_access", False),
    }
    try:
        reviews.review(review.pk, by=viewer(request), **typed)
    except Invalid as error:
        problems = [text for texts in error.fields.values() for text in texts]
        context = {"review_typed": typed, "review_problems": problems}
        return render(
            request, "approvals/review.html", _shown(request, review) | context, status=422
        )
    messages.success(request, "Your review counts. It is written in the timeline.")
    return redirect("review", review.pk)


def _shown(request: HttpRequest, review: Review) -> dict[str, Any]:
    """What the page of a request has, and how long the access was really open."""
    asked = AccessRequest.objects.select_related(*RELATED).get(pk=review.grant.request_id)
    context = shown(asked, viewer(request))
    grant, now = review.grant, context["now"]
    refused = [event for event in context["events"] if event.action.endswith(".refused")]
    return context | {
        "held": grant,
        "steps": list(grant.steps.order_by("started_at")),
        "was_open": _was_open(grant, now),
        "late": grant.late_by(now),
        "refused_count": len(refused),
    }


def _was_open(grant: Grant, now: datetime) -> timedelta | None:
    """From becoming usable to its cut, or to now; None if it never was."""
    if grant.activated_at is None:
        return None
    return (grant.cut_at or grant.ended_at or now) - grant.activated_at
