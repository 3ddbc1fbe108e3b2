"""Opening a level without approval: a page of its own, which nobody gets through by accident."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth import authenticate
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods

from approvals import emergency as verbs
from approvals.errors import DebugflowError, Invalid
from approvals.forms import EmergencyForm
from approvals.models import AccessLevel
from approvals.views.ask import requestable
from approvals.views.viewer import viewer
from audit import clock


@never_cache
@sensitive_post_parameters("password")
@require_http_methods(["GET", "HEAD", "POST"])
def emergency(request: HttpRequest, pk: int) -> HttpResponse:
    """The form; POST opens it. For whom no policy names the page does not exist."""
    person = viewer(request)
    level = requestable(person, pk)
    if request.method != "POST":
        return _page(request, level, EmergencyForm())
    form = EmergencyForm(request.POST)
    form.is_valid()
    typed = {name: form.cleaned_data.get(name, "") for name in ("reason", "ticket", "confirmation")}
    password = form.cleaned_data.get("password", "")
    # Counted like a sign-in, and so bounded like one.
    known = bool(password) and authenticate(
        request, username=person.get_username(), password=password
    )
    try:
        opened = verbs.break_glass(
            level.pk, by=person, proven=bool(known) and known == person, **typed
        )
    except Invalid as error:
        form.take_errors(error.fields)
        return _page(request, level, form, refused=None if error.fields else error, status=422)
    except DebugflowError as error:
        if error.code == "step_up_required":
            form.add_error("password", "This is not your password." if password else "Type it.")
            return _page(request, level, form, status=422)
        return _page(request, level, form, refused=error, status=error.status)
    messages.success(request, "It is being opened. Everybody who would have been asked is told.")
    return redirect("request", opened.pk)


def _page(
    request: HttpRequest,
    level: AccessLevel,
    form: EmergencyForm,
    *,
    refused: DebugflowError | None = None,
    status: int = 200,
) -> HttpResponse:
    person = viewer(request)
    offer = verbs.offer(level, person)
    if offer is None and refused is None:
        raise Http404
    context = {
        "now": clock.now(),
        "level": level,
        "offer": offer,
        "owed": verbs.owed(person),
        "form": form,
        "refused": refused,
    }
    return render(request, "approvals/emergency.html", context, status=status)
