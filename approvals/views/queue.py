"""The queue: what waits for the viewer's vote, or everything undecided that they may see."""

from __future__ import annotations

from django.db.models import Count, Min
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from approvals import access
from approvals.models import AccessRequest
from approvals.states import UNDECIDED
from approvals.views.progress import progress, with_progress
from approvals.views.viewer import page, viewer
from audit import clock


@never_cache
@require_safe
def queue(request: HttpRequest) -> HttpResponse:
    """Mine has the longest waiting first, all of them the newest first."""
    person = viewer(request)
    everything = request.GET.get("show") == "all"
    mine = AccessRequest.objects.waiting_for(person)
    visible = access.visible_requests(person).filter(state__in=UNDECIDED)
    rows = visible if everything else mine
    shown = page(with_progress(rows), cursor=request.GET.get("from", ""), newest_first=everything)
    context = {
        "now": clock.now(),
        "everything": everything,
        "rows": progress(shown.rows),
        "next": shown.next,
        "first": not request.GET.get("from"),
        "head": mine.aggregate(
            count=Count("pk"), oldest=Min("submitted_at"), deadline=Min("pending_until")
        ),
    }
    return render(request, "approvals/queue.html", context)
