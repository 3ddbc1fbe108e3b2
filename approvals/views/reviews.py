"""Looking back: what waits for somebody to do so, and giving it on the page of its request."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from approvals import reviews
from approvals.errors import Invalid
from approvals.forms import ReviewForm
from approvals.states import ReviewOutcome
from approvals.views.shown import found, shown
from approvals.views.viewer import page, viewer
from audit import clock


@never_cache
@require_safe
def index(request: HttpRequest) -> HttpResponse:
    """Those that this person may give, then all others that they may see, the newest first."""
    person, now = viewer(request), clock.now()
    context = {
        "now": now,
        "mine": reviews.waiting_for(person, now),
        "page": page(reviews.visible(person), cursor=request.GET.get("before", "")),
    }
    return render(request, "approvals/reviews.html", context)


@never_cache
@require_POST
def give(request: HttpRequest, pk: int) -> HttpResponse:
    person = viewer(request)
    review = get_object_or_404(reviews.visible(person), pk=pk)
    form = ReviewForm(request.POST)
    form.is_valid()
    typed = {
        "outcome": form.cleaned_data.get("outcome", ""),
        "note": form.cleaned_data.get("note", ""),
        "end_access": form.cleaned_data.get("end_access", False),
    }
    take_away = typed["end_access"] and typed["outcome"] != ReviewOutcome.JUSTIFIED
    try:
        reviews.review(review.pk, by=person, **{**typed, "end_access": take_away})
    except Invalid as error:
        asked = found(request, review.grant.request_id)
        problems = [text for texts in error.fields.values() for text in texts]
        context = shown(asked, person) | {"review_typed": typed, "review_problems": problems}
        return render(request, "approvals/request.html", context, status=422)
    messages.success(request, "Your review counts. It is written in the timeline.")
    return redirect("request", review.grant.request_id)
