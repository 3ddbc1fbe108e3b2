"""The first page: your access now, what waits for you, what you asked for."""

from __future__ import annotations

from django.db.models import F, Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from approvals import discussion, extensions, proposals, reviews
from approvals.models import AccessRequest, Grant
from approvals.views import queue_rows
from approvals.views.progress import progress, with_progress
from approvals.views.viewer import viewer
from audit import clock

URGENT, ASKED, HELD, MENTIONS = 3, 6, 12, 6  # how many of each fit a page that is read in a glance


@never_cache
@require_safe
def home(request: HttpRequest) -> HttpResponse:
    person = viewer(request)
    related = ("target", "level", "beneficiary", "request__policy_version__policy")
    held = Grant.objects.held_by(person).not_ended().select_related(*related)
    shown = list(held.order_by(F("expires_at").asc(nulls_last=True), "pk")[:HELD])
    now = clock.now()
    wanted = AccessRequest.objects.undecided().filter(extends__in=shown)
    asked = AccessRequest.objects.filter(Q(requester=person) | Q(beneficiary=person))
    context = {
        "now": now,
        "proposals": proposals.waiting_for(person, now)[:URGENT],
        "reviews": reviews.waiting_for(person, now)[:URGENT],
        "held": shown,
        "longer": {one.pk for one in shown if extensions.is_near_end(one, now)},
        "waiting_longer": set(wanted.values_list("extends", flat=True)),
        "waiting": queue_rows.urgent(person, URGENT),
        "mentions": discussion.open_mentions(person)[:MENTIONS],
        "asked": progress(with_progress(asked).order_by("-pk")[:ASKED]),
    }
    return render(request, "approvals/home.html", context)
