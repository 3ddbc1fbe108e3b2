"""One request: what is asked, whose move it is, what was said; and deciding or cancelling it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.contrib import messages
from django.contrib.auth import get_user_model
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from approvals import access, chain, discussion, policy, workflow
from approvals.errors import Invalid
from approvals.forms import CommentForm, VoteForm
from approvals.models import AccessRequest, Grant, RequestStage, Vote
from approvals.states import UNDECIDED, GrantState, StageState
from approvals.views.viewer import viewer
from audit import clock, log

if TYPE_CHECKING:
    from approvals.people import Person
    from audit.models import Event

TIMELINE = 200  # the newest Events that a page shows; refused attempts could make it endless


@never_cache
@require_safe
def show(request: HttpRequest, pk: int) -> HttpResponse:
    """The page; for htmx the parts that change, or 204 while nothing has."""
    asked = _asked(request, pk)
    context = _context(asked, viewer(request))
    if request.headers.get("HX-Request") != "true":
        return render(request, "approvals/request.html", context)
    if request.GET.get("seen") == context["seen"]:
        return HttpResponse(status=204)
    context["scope_moved"] = request.GET.get("scope") != asked.scope_hash
    context["box_moved"] = request.GET.get("box") != context["box"]
    return render(request, "approvals/_request_live.html", {**context, "part": True})


@never_cache
@require_POST
def vote(request: HttpRequest, pk: int) -> HttpResponse:
    asked = _asked(request, pk)
    form = VoteForm(request.POST)
    if not form.is_valid():
        raise Invalid("This form is damaged. Open the request again and decide there.")
    values = {key: form.cleaned_data[key] for key in ("decision", "scope_hash", "comment")}
    replaces = form.cleaned_data["replaces"] or 0
    try:
        workflow.vote(asked.pk, by=viewer(request), replaces=replaces, **values)
    except Invalid as error:
        context = _context(_asked(request, pk), viewer(request))
        context |= {"comment": values["comment"], "problems": error.fields.get("comment")}
        return render(request, "approvals/request.html", context, status=422)
    messages.success(request, "Your vote counts. It is written in the timeline.")
    return redirect("request", asked.pk)


@never_cache
@require_POST
def comment(request: HttpRequest, pk: int) -> HttpResponse:
    asked = _asked(request, pk)
    form = CommentForm(request.POST)
    if not form.is_valid():
        raise Invalid("This form is damaged. Open the request again and write there.")
    text, after = form.cleaned_data["comment"], form.cleaned_data["after"] or 0
    try:
        said = discussion.comment(asked.pk, by=viewer(request), text=text, after=after)
    except Invalid as error:
        context = _context(_asked(request, pk), viewer(request))
        context |= {"saying": text, "unsaid": error.fields.get("comment")}
        return render(request, "approvals/request.html", context, status=422)
    if unseen := said.data["unseen"]:
        names = " and ".join(unseen)
        messages.warning(request, f"Said. But {names} cannot see this request, and is not told.")
    else:
        messages.success(request, "Said. It is in the timeline, and cannot be changed.")
    return redirect("request", asked.pk)


@never_cache
@require_POST
def cancel(request: HttpRequest, pk: int) -> HttpResponse:
    asked = _asked(request, pk)
    workflow.cancel(asked.pk, by=viewer(request))
    messages.success(request, "Cancelled. Nobody is asked any more.")
    return redirect("request", asked.pk)


def _asked(request: HttpRequest, pk: int) -> AccessRequest:
    related = ("requester", "beneficiary", "level", "target", "policy_version__policy")
    visible = access.visible_requests(viewer(request)).select_related(*related)
    return get_object_or_404(visible, pk=pk)


@dataclass(frozen=True)
class ShownStage:
    """A stage with its votes, what it still lacks, and who could give it."""

    stage: RequestStage
    votes: list[Vote]
    missing: list[str]
    able: list[str]


def _context(asked: AccessRequest, person: Person) -> dict[str, Any]:
    now = clock.now()
    loaded = policy.shown_chain(asked)
    stages = _stages(loaded)
    grant = Grant.objects.filter(request=asked).select_related("beneficiary").first()
    events = _timeline(asked)
    overdue = asked.state in UNDECIDED and workflow.over().filter(pk=asked.pk).exists()
    actions = policy.permitted_actions(asked, loaded, person)
    index = loaded.index
    mine = loaded.counting_vote(loaded.stages[index], person.pk) if index is not None else None
    context = {
        "now": now,
        "asked": asked,
        "stages": stages,
        "open": stages[index] if index is not None else None,
        "grant": grant,
        "events": events,
        "left_out": len(events) == TIMELINE,
        "overdue": overdue,
        "actions": actions,
        "mine": mine,
        "over": _over(asked, grant),
    }
    return context | _fingerprints(context)


def _over(asked: AccessRequest, grant: Grant | None) -> bool:
    """Whether nothing about this can change any more, so that looking again is of no use."""
    return asked.state not in UNDECIDED and (grant is None or grant.state == GrantState.ENDED)


def _fingerprints(context: dict[str, Any]) -> dict[str, str]:
    """What a page showed, to tell later whether it still holds: all of it, and the decision box."""
    asked, grant, events, mine = (context[key] for key in ("asked", "grant", "events", "mine"))
    codes = {name: no and no.message for name, no in context["actions"].items()}
    opened = context["open"].stage.pk if context["open"] else 0
    box = (asked.state, asked.scope_hash, opened, mine and mine.pk, context["overdue"], codes)
    live = grant and (
        grant.state,
        grant.expires_at,
        grant.expires_at > context["now"] if grant.expires_at else None,
    )
    seen = (events[-1].pk if events else 0, live, box)
    return {"seen": _short_hash(seen), "box": _short_hash(box)}


def _short_hash(values: object) -> str:
    return hashlib.sha256(repr(values).encode()).hexdigest()[:16]


def _timeline(asked: AccessRequest) -> list[Event]:
    newest = log.timeline(f"request:{asked.pk}").order_by("-id")[:TIMELINE]
    return list(reversed(newest))


def _stages(loaded: policy.Chain) -> list[ShownStage]:
    ids = {person for state in loaded.states for person in state.candidates}
    users = get_user_model()._default_manager.filter(pk__in=ids)
    names = {user.pk: user.get_username() for user in users}
    return [_stage(loaded, number, names) for number in range(len(loaded.stages))]


def _stage(loaded: policy.Chain, number: int, names: dict[int, str]) -> ShownStage:
    stage, state = loaded.stages[number], loaded.states[number]
    missing = []
    if stage.state == StageState.OPEN:
        outcome = chain.outcome(loaded.states, number)
        missing = [policy.words(lack, stage.group_names) for lack in outcome.missing]
    votes = [vote for vote in loaded.votes if vote.stage_id == stage.pk]
    heard = {vote.voter_id for vote in loaded.votes}
    able = sorted(names[pk] for pk in state.candidates if pk in names and pk not in heard)
    return ShownStage(stage, votes, missing, able)
