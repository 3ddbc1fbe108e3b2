"""One request: what is asked, whose move it is, what was said; and deciding or cancelling it."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from approvals import discussion, escalation, workflow
from approvals.errors import Invalid
from approvals.forms import CommentForm, VoteForm
from approvals.views import queue, queue_filters
from approvals.views.shown import found, lower_levels, shown
from approvals.views.viewer import viewer

DAMAGED = "damaged"  # the code of what no verb was asked, and so none has told


@never_cache
@require_safe
def show(request: HttpRequest, pk: int) -> HttpResponse:
    """The page; for htmx the parts that change, or 204 while nothing has."""
    asked = found(request, pk)
    context = shown(asked, viewer(request))
    if request.headers.get("HX-Request") != "true":
        return render(request, "approvals/request.html", context)
    if request.GET.get("seen") == context["seen"]:
        return HttpResponse(status=204)
    context["scope_moved"] = request.GET.get("scope") != asked.scope_hash
    context["box_moved"] = request.GET.get("box") != context["box"]
    context |= queue.beside(request.GET)
    return render(request, "approvals/_request_live.html", {**context, "part": True})


@never_cache
@require_safe
def lower(request: HttpRequest, pk: int) -> HttpResponse:
    """The part of a decision that offers lower levels, for a page that left it out."""
    asked = found(request, pk)
    context = {"asked": asked, "less": lower_levels(asked, viewer(request))}
    return render(request, "approvals/_lower_levels.html", context)


@never_cache
@require_POST
def vote(request: HttpRequest, pk: int) -> HttpResponse:
    asked = found(request, pk)
    form = VoteForm(request.POST)
    if not form.is_valid():
        raise Invalid(
            "This form is damaged. Open the request again and decide there.", code=DAMAGED
        )
    names = ("scope_hash", "comment", "on_behalf_of")
    values = {name: form.cleaned_data[name] for name in names}
    values |= {"decision": form.decided(), "replaces": form.cleaned_data["replaces"] or 0}
    try:
        workflow.vote(asked.pk, by=viewer(request), less=form.less(), **values)
    except Invalid as error:
        typed = {
            "comment": values["comment"],
            "problems": error.fields.get("comment"),
            "whose": values["on_behalf_of"],
            "whose_problems": error.fields.get("on_behalf_of"),
            "less_problems": error.fields.get("less"),
            "less_typed": form.cleaned_data,
        }
        return typed_again(request, pk, typed)
    if "queue" in request.POST:
        messages.success(request, f"Your vote on {queue.title(asked)} counts.")
        return redirect(queue.onwards(request.POST))
    if "home" in request.POST:
        messages.success(request, f"Your vote on {queue.title(asked)} counts.")
        return redirect("home")
    messages.success(request, "Your vote counts. It is written in the timeline.")
    return redirect("request", asked.pk)


def typed_again(request: HttpRequest, pk: int, typed: dict[str, Any]) -> HttpResponse:
    """The page that it was typed into, with what was typed, and why it will not do."""
    if "queue" in request.POST:
        filters = queue_filters.read(QueryDict(request.POST["queue"]))
        return queue.page(request, filters.showing(pk), typed, status=422)
    context = shown(found(request, pk), viewer(request)) | typed
    return render(request, "approvals/request.html", context, status=422)


@never_cache
@require_POST
def comment(request: HttpRequest, pk: int) -> HttpResponse:
    asked = found(request, pk)
    form = CommentForm(request.POST)
    if not form.is_valid():
        raise Invalid("This form is damaged. Open the request again and write there.", code=DAMAGED)
    text, after = form.cleaned_data["comment"], form.cleaned_data["after"] or 0
    try:
        said = discussion.comment(asked.pk, by=viewer(request), text=text, after=after)
    except Invalid as error:
        return typed_again(request, pk, {"saying": text, "unsaid": error.fields.get("comment")})
    if unseen := said.data["unseen"]:
        names = " and ".join(unseen)
        messages.warning(request, f"Said. But {names} cannot see this request, and is not told.")
    else:
        messages.success(request, "Said. It is in the timeline, and cannot be changed.")
    return redirect("request", asked.pk)


@never_cache
@require_POST
def redraw(request: HttpRequest, pk: int) -> HttpResponse:
    asked = found(request, pk)
    escalation.redraw(asked.pk, by=viewer(request))
    messages.success(request, "Drawn anew. The timeline says who is asked now, and who no longer.")
    return redirect("request", asked.pk)


@never_cache
@require_POST
def cancel(request: HttpRequest, pk: int) -> HttpResponse:
    asked = found(request, pk)
    workflow.cancel(asked.pk, by=viewer(request))
    messages.success(request, "Cancelled. Nobody is asked any more.")
    return redirect("request", asked.pk)
