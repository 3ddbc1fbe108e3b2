"""Grants: the list, one grant, and what its holder and its target's owners do with it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from django.contrib import messages
from django.db.models import F, Q, QuerySet
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_variables
from django.views.decorators.http import require_POST, require_safe

from approvals import abandoning, access, extensions, grants, workflow
from approvals.errors import Invalid
from approvals.forms import LongerForm, ReasonForm
from approvals.models import AccessRequest, Grant, Reach
from approvals.states import GrantState, RequestState
from approvals.views.finding import having, wanted
from approvals.views.viewer import page, viewer
from audit import clock
from audit.models import Event

if TYPE_CHECKING:
    from approvals.people import Person

STUCK, GOING = 20, 100  # shown at once; a page that is longer is not read
TIMELINE = 200
SEARCHED = ("target__name", "target__environment", "level__name", "beneficiary__username")


@never_cache
@require_safe
def index(request: HttpRequest) -> HttpResponse:
    """Stuck ones first, then what is open by its end, then what has ended, newest first.

    `q` finds by target, level and holder.
    """
    person, typed = viewer(request), wanted(request)
    everything = request.GET.get("show") == "all"
    visible = _visible(person) if everything else _visible(person).held_by(person)
    visible = having(visible, typed, SEARCHED)
    going = visible.not_ended()
    in_trouble = Q(stuck_since__isnull=False) | Q(abandoned_at__isnull=False)
    ended = page(visible.filter(state=GrantState.ENDED), cursor=request.GET.get("from", ""))
    context = {
        "now": clock.now(),
        "everything": everything,
        "wanted": typed,
        "first": not request.GET.get("from"),
        "stuck": going.filter(in_trouble).order_by("stuck_since", "pk")[:STUCK],
        "going": _by_end(going.exclude(in_trouble))[:GOING],
        "ended": ended,
    }
    return render(request, "approvals/grants.html", context)


def _by_end(rows: QuerySet[Grant]) -> QuerySet[Grant]:
    return rows.order_by(F("expires_at").asc(nulls_last=True), "pk")


def _visible(person: Person) -> Any:
    return access.visible_grants(person).select_related(
        "target", "level", "beneficiary", "request__requester", "request__policy_version__policy"
    )


@never_cache
@require_safe
def show(request: HttpRequest, pk: int) -> HttpResponse:
    """The page; for htmx the parts that change, or 204 while nothing has."""
    context = _context(_grant(request, pk), viewer(request))
    if request.headers.get("HX-Request") != "true":
        return render(request, "approvals/grant.html", context)
    if request.GET.get("seen") == context["seen"]:
        return HttpResponse(status=204)
    return render(request, "approvals/_grant_live.html", {**context, "part": True})


@never_cache
@require_POST
@sensitive_variables()
def reveal(request: HttpRequest, pk: int) -> HttpResponse:
    """The credential, once and in this answer only: it is kept nowhere and never redirected."""
    grant = _grant(request, pk)
    credential = grants.reveal(grant.pk, by=viewer(request))
    context = {"now": clock.now(), "grant": grant, "credential": credential}
    templates = [f"approvals/connect/{grant.target.kind}.html", "approvals/connect/any.html"]
    return render(request, "approvals/credential.html", {**context, "ways": templates})


@never_cache
@require_POST
def extend(request: HttpRequest, pk: int) -> HttpResponse:
    """Ask for longer access; what was typed stays where that will not do."""
    grant = _grant(request, pk)
    form = _longer_form(extensions.room(grant), request.POST)
    form.is_valid()
    try:
        asked = workflow.ask_longer(grant.pk, by=viewer(request), wish=form.wish())
    except Invalid as error:
        form.take_errors(error.fields, error.message)
        return _typed_again(request, grant, {"longer": form})
    if asked.state == RequestState.APPROVED:
        messages.success(request, "Your policy asks nobody for this. The end moves in a moment.")
        return redirect("grant", grant.pk)
    messages.success(request, "Asked. The end moves by itself once it is agreed to.")
    return redirect("request", asked.pk)


@never_cache
@require_POST
def release(request: HttpRequest, pk: int) -> HttpResponse:
    grant = _grant(request, pk)
    grants.release(grant.pk, by=viewer(request))
    messages.success(request, "Released. The access is being closed.")
    return redirect("grant", grant.pk)


@never_cache
@require_POST
def revoke(request: HttpRequest, pk: int) -> HttpResponse:
    grant = _grant(request, pk)
    reason = _reason(request)
    try:
        grants.revoke(grant.pk, by=viewer(request), reason=reason)
    except Invalid as error:
        return _typed_again(request, grant, {"revoke_reason": reason, "revoke_problems": error})
    messages.success(request, "Revoked. The access is being cut off.")
    return redirect("grant", grant.pk)


@never_cache
@require_POST
def try_again(request: HttpRequest, pk: int) -> HttpResponse:
    grant = _grant(request, pk)
    grants.try_again(grant.pk, by=viewer(request))
    messages.success(request, "It is tried again now. What comes of it shows here.")
    return redirect("grant", grant.pk)


@never_cache
@require_POST
def abandon(request: HttpRequest, pk: int) -> HttpResponse:
    grant = _grant(request, pk)
    reason = _reason(request)
    try:
        after = grants.abandon(grant.pk, by=viewer(request), reason=reason)
    except Invalid as error:
        return _typed_again(request, grant, {"abandon_reason": reason, "abandon_problems": error})
    if after.is_abandoned:
        messages.success(request, "Abandoned. It is still tried every hour.")
    else:
        messages.success(request, "Noted. It takes one more person.")
    return redirect("grant", grant.pk)


def _reason(request: HttpRequest) -> str:
    form = ReasonForm(request.POST)
    form.is_valid()
    return str(form.cleaned_data.get("reason", ""))


def _typed_again(request: HttpRequest, grant: Grant, typed: dict[str, Any]) -> HttpResponse:
    """The page with what was typed, and why it will not do."""
    context = _context(grant, viewer(request)) | typed
    return render(request, "approvals/grant.html", context, status=422)


def _grant(request: HttpRequest, pk: int) -> Grant:
    found: Grant = get_object_or_404(_visible(viewer(request)), pk=pk)
    return found


def _context(grant: Grant, person: Person) -> dict[str, Any]:
    now = clock.now()
    events = _timeline(grant)
    actions = grants.permitted_actions(grant, person, now)
    usable = grants.is_usable(grant, now)
    trouble = (grant.attempts, grant.last_error, grant.stuck_since, grant.is_overdue(now))
    asked = abandoning.standing(grant)
    room, wanted_longer = extensions.room(grant), extensions.undecided(grant) if usable else None
    ends = (grant.expires_at, grant.extended_until, wanted_longer and wanted_longer.pk)
    fingerprint = (grant.state, usable, ends, trouble, [one.pk for one in asked])
    codes = {name: no and no.code for name, no in actions.items()}
    last = events[-1].pk if events else 0
    seen = hashlib.sha256(repr((last, fingerprint, codes)).encode()).hexdigest()[:16]
    return {
        "now": now,
        "grant": grant,
        "actions": actions,
        "usable": usable,
        "asked": asked,
        "room": room,
        "wanted_longer": wanted_longer,
        "bridged": _is_bridged(grant, wanted_longer),
        "longer": None if actions["extend"] else _longer_form(room),
        "late": grant.late_by(now),
        "holder": person.pk == grant.beneficiary_id,
        "request_visible": access.visible_requests(person).filter(pk=grant.request_id).exists(),
        "direct": grant.scope.get("reach") == Reach.DIRECT,
        "events": events,
        "seen": seen,
        "over": grant.state == GrantState.ENDED,
    }


def _longer_form(room: extensions.Room, data: QueryDict | None = None) -> LongerForm:
    return LongerForm(data, least=room.bridge, limit=room.longest)


def _is_bridged(grant: Grant, wanted: AccessRequest | None) -> bool:
    """Whether it goes on only because the decision about more of it is out."""
    return bool(grant.bridged_at and wanted and wanted.starts_at != grant.expires_at)


def _timeline(grant: Grant) -> list[Event]:
    """The grant's own Events, refused attempts included, which are in a thread of their own."""
    own = Event.objects.filter(subject_type="grant", subject_id=str(grant.pk))
    return list(reversed(own.order_by("-id")[:TIMELINE]))
