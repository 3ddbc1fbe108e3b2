"""The inbox: what somebody was told, newest first; and the links of mails, which lead to pages.

Opening something marks it as read, and decides nothing.
"""

from __future__ import annotations

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from approvals.notify import inbox
from approvals.views.viewer import page, viewer
from audit import clock


@never_cache
@require_safe
def index(request: HttpRequest) -> HttpResponse:
    """The page; for htmx the first part of the list, or 204 while nothing has changed."""
    person = viewer(request)
    only_new, start = request.GET.get("show") == "new", request.GET.get("from", "")
    rows = inbox.unread(person) if only_new else inbox.entries(person)
    shown = page(rows, cursor=start)
    newest = inbox.entries(person).values_list("pk", flat=True).first() or 0
    unread = inbox.unread(person).order_by().count()
    context = {
        "now": clock.now(),
        "only_new": only_new,
        "first": not start,
        "entries": shown,
        "newest": newest,
        "unread": unread,
        "seen": f"{newest}.{unread}",
    }
    if request.headers.get("HX-Request") != "true":
        return render(request, "approvals/inbox.html", context)
    if request.GET.get("seen") == context["seen"]:
        return HttpResponse(status=204)
    return render(request, "approvals/_inbox_live.html", context)


@never_cache
@require_safe
def show(request: HttpRequest, pk: int) -> HttpResponse:
    """Where it leads, marked as read."""
    entry = inbox.read(viewer(request), pk)
    if entry is None:
        raise Http404
    return redirect(entry.notice.link or "inbox")


@never_cache
@require_POST
def read(request: HttpRequest) -> HttpResponse:
    """Mark one as read, or all that the page has shown."""
    person, posted = viewer(request), request.POST
    if (pk := _number(posted.get("entry", ""))) is not None:
        inbox.read(person, pk)
    elif (until := _number(posted.get("until", ""))) is not None:
        inbox.read_all(person, until=until)
    return redirect("inbox")


@never_cache
@require_safe
def from_message(request: HttpRequest, signed: str) -> HttpResponse:
    """A link of a mail: its page, whoever opens it and however often. It gives nobody any right."""
    person, message = viewer(request), inbox.from_message(signed)
    if message is None:
        raise Http404
    if message.person_id == person.pk:
        inbox.read_notice(person, message)
    else:
        told = f"That link was sent to {message.person}; you are signed in as {person}."
        messages.warning(request, told)
    return redirect(message.notice.link or "inbox")


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else None
