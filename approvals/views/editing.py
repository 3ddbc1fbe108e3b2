"""Sending a request back, and the form by which whoever asked changes it."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from approvals import editing, policy, wishes
from approvals.errors import DebugflowError, Invalid, NotAllowed, WrongState
from approvals.forms import AskForm, VoteForm
from approvals.models import AccessRequest
from approvals.views import queue
from approvals.views.requests import DAMAGED, typed_again
from approvals.views.shown import found
from approvals.views.viewer import viewer
from audit import clock
from audit.zones import zone_of


@never_cache
@require_POST
def send_back(request: HttpRequest, pk: int) -> HttpResponse:
    asked = found(request, pk)
    form = VoteForm({**request.POST.dict(), "decision": "send_back"})
    if not form.is_valid():
        raise Invalid(
            "This form is damaged. Open the request again and decide there.", code=DAMAGED
        )
    values = {key: form.cleaned_data[key] for key in ("scope_hash", "comment")}
    try:
        editing.send_back(asked.pk, by=viewer(request), **values)
    except Invalid as error:
        typed = {"comment": values["comment"], "problems": error.fields.get("comment")}
        return typed_again(request, pk, typed)
    messages.success(request, f"{queue.title(asked)} was sent back, with what you said.")
    if "queue" in request.POST:
        return redirect(queue.onwards(request.POST))
    return redirect("request", asked.pk)


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def edit(request: HttpRequest, pk: int) -> HttpResponse:
    """The form with what is asked for now; POST asks for what it says instead."""
    asked = found(request, pk)
    zone = zone_of(viewer(request))
    limit, _ = wishes.limit_of(asked.level, asked.policy_version)
    wish = wishes.Wish(**{name: getattr(asked, name) for name in editing.EDITABLE})
    data = request.POST if request.method == "POST" else None
    form = AskForm(data, limit=limit, zone=zone, wish=wish, auto_id="ask-%s")
    if data is None:
        refusal = policy.may_edit(asked, policy.load_chain(asked), viewer(request))
        return _page(request, asked, form, refused=refusal.error() if refusal else None)
    if not form.is_valid():
        return _page(request, asked, form, status=422)
    scope_hash = request.POST.get("scope_hash", "")
    try:
        editing.edit(asked.pk, by=viewer(request), wish=form.wish(), scope_hash=scope_hash)
    except Invalid as error:
        form.take_errors(error.fields, error.message)
        return _page(request, asked, form, status=422)
    except (NotAllowed, WrongState) as error:
        return _page(request, asked, form, refused=error, status=error.status)
    messages.success(request, "Asked again. Those who decide see what is different.")
    return redirect("request", asked.pk)


def _page(
    request: HttpRequest,
    asked: AccessRequest,
    form: AskForm,
    *,
    refused: DebugflowError | None = None,
    status: int = 200,
) -> HttpResponse:
    limit, whose = wishes.limit_of(asked.level, asked.policy_version)
    context = {
        "now": clock.now(),
        "asked": asked,
        "form": form,
        "refused": refused,
        "limit": limit,
        "whose": whose,
        "hint": asked.policy_version.reason_hint,
        "ticket_required": asked.policy_version.ticket_required,
        "zone": zone_of(viewer(request)).key,
    }
    return render(request, "approvals/edit.html", context, status=status)
