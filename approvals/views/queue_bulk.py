"""Deciding about many requests at once: one verb each, and what came of each told by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from approvals import access, workflow
from approvals.errors import DebugflowError, Invalid
from approvals.forms import BulkForm
from approvals.models import AccessRequest
from approvals.views import queue, queue_filters
from approvals.views.viewer import viewer
from audit import clock

if TYPE_CHECKING:
    from approvals.people import Person

UNSEEN = "It does not exist, or you may not see it."


@never_cache
@require_POST
def decide(request: HttpRequest) -> HttpResponse:
    """Approve or deny each of the chosen, then show the queue with what came of each.

    One that is refused stops none of the others. Raises Invalid for a damaged form.
    """
    form = BulkForm(request.POST)
    filters = queue_filters.read(QueryDict(request.POST.get("queue", "")))
    if not form.is_valid():
        typed = {"bulk_comment": form["comment"].value(), "bulk_problems": form.problems}
        return queue.page(request, filters, typed, selected=form.ids, status=422)
    decision, comment = form.cleaned_data["decision"], form.cleaned_data["comment"]
    results = _decide_all(form.cleaned_data["chosen"], viewer(request), decision, comment)
    request.session[queue.RESULTS] = {
        "at": clock.now().isoformat(),
        "done": [result for result in results if not result["refused"]],
        "refused": [result for result in results if result["refused"]],
        "decision": decision,
    }
    return redirect(queue.address(filters, done=True))


def _decide_all(
    chosen: Mapping[int, str], person: Person, decision: str, comment: str
) -> list[dict[str, Any]]:
    """`chosen` maps the id of each request to the hash of the scope that was read."""
    visible = access.visible_requests(person).select_related("beneficiary", "level", "target")
    asked = visible.in_bulk(list(chosen))
    return [
        _result(asked.get(pk), pk, scope_hash, person, decision, comment)
        for pk, scope_hash in chosen.items()
    ]


def _result(
    asked: AccessRequest | None,
    pk: int,
    scope_hash: str,
    person: Person,
    decision: str,
    comment: str,
) -> dict[str, Any]:
    if asked is None:
        return {"pk": None, "title": f"request {pk}", "refused": UNSEEN}
    told = {"pk": pk, "title": queue.title(asked), "refused": ""}
    try:
        workflow.vote(
            pk, by=person, decision=decision, scope_hash=scope_hash, comment=comment, replaces=0
        )
    except DebugflowError as error:
        return {**told, "refused": _why(error)}
    return told


def _why(error: DebugflowError) -> str:
    problems = error.fields.values() if isinstance(error, Invalid) else ()
    return " ".join(problem for field in problems for problem in field) or error.message
