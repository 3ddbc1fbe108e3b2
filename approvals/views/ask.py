"""Asking: choose a level, say how long and why, and see beforehand what asking would do."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from django.contrib import messages
from django.db.models import F, OuterRef, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from approvals import access, emergency, history, wishes, workflow
from approvals.asking import AskedStage, asked_stages
from approvals.errors import DebugflowError, Invalid, NotAllowed, WrongState
from approvals.forms import AskForm
from approvals.models import AccessLevel, AccessRequest
from approvals.views.finding import having, wanted
from approvals.views.viewer import viewer
from audit import clock
from audit.zones import zone_of

if TYPE_CHECKING:
    from approvals.people import Person

LISTED = 60  # levels on a page; whoever may ask for more finds them by typing
SEARCHED = ("name", "target__name", "target__description", "target__environment")
NAMED = 5  # people of a stage that are shown by name; the others are counted


@never_cache
@require_safe
def choose(request: HttpRequest) -> HttpResponse:
    """The levels that this person may ask for, by target, those asked for lately first.

    `q` finds: each of its words has to occur in the level's name or its target's.
    """
    person = viewer(request)
    typed = wanted(request)
    levels = list(_lately_first(having(access.requestable_levels(person), typed, SEARCHED), person))
    off = having(access.switched_off_levels(person), typed, SEARCHED)
    mine = AccessRequest.objects.undecided().filter(beneficiary=person)
    context = {
        "now": clock.now(),
        "wanted": typed,
        "levels": levels[:LISTED],
        "more": len(levels) > LISTED,
        "off": off.order_by("target__name", "rank")[:LISTED],
        "asked": dict(mine.values_list("level_id", "pk")),
    }
    return render(request, "approvals/ask.html", context)


def _lately_first(levels: QuerySet[AccessLevel], person: Person) -> QuerySet[AccessLevel]:
    """One more than are listed; levels of one target stay together."""
    asked = AccessRequest.objects.filter(requester=person, target=OuterRef("target"))
    newest = asked.order_by("-pk").values("pk")[:1]
    lately = F("lately").desc(nulls_last=True)
    found = levels.annotate(lately=Subquery(newest)).order_by(lately, "target__name", "rank")
    return found[: LISTED + 1]


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def ask(request: HttpRequest, pk: int) -> HttpResponse:
    """The form for one level; POST submits it."""
    person = viewer(request)
    level = requestable(person, pk)
    form = _form(request, level, person)
    if request.method != "POST":
        return _page(request, level, form)
    if not form.is_valid():
        return _page(request, level, form, status=422)
    try:
        asked = workflow.submit(level.pk, by=person, wish=form.wish())
    except Invalid as error:
        form.take_errors(error.fields, error.message)
        return _page(request, level, form, status=422)
    except (NotAllowed, WrongState) as error:
        return _page(request, level, form, refused=error, status=error.status)
    messages.success(request, "Asked. You are told when it is decided, and it shows here.")
    return redirect("request", asked.pk)


@never_cache
@require_POST
def preview(request: HttpRequest, pk: int) -> HttpResponse:
    """What asking would do: the part for htmx, the whole page with the form kept for others."""
    person = viewer(request)
    level = requestable(person, pk)
    form = _form(request, level, person)
    form.is_valid()
    if request.headers.get("HX-Request") != "true":
        return _page(request, level, form)
    context = {"level": level, "forecast": _forecast(level, form, person), "part": True}
    return render(request, "approvals/_preview.html", context)


def requestable(person: Person, pk: int) -> AccessLevel:
    return get_object_or_404(access.requestable_levels(person), pk=pk)


def _form(request: HttpRequest, level: AccessLevel, person: Person) -> AskForm:
    data = request.POST if request.method == "POST" else None
    return AskForm(data, limit=_limit(level, person), zone=zone_of(person), auto_id="ask-%s")


def _limit(level: AccessLevel, person: Person) -> int:
    any_wish = wishes.Wish(duration=1, reason="…", ticket="…")
    return workflow.preview(level, by=person, wish=any_wish).max_duration


def _page(
    request: HttpRequest,
    level: AccessLevel,
    form: AskForm,
    *,
    refused: DebugflowError | None = None,
    status: int = 200,
) -> HttpResponse:
    person = viewer(request)
    context = {
        "now": clock.now(),
        "level": level,
        "form": form,
        "forecast": _forecast(level, form, person),
        "refused": refused,
        "emergency": emergency.offer(level, person),
        "zone": zone_of(person).key,
    }
    return render(request, "approvals/ask_level.html", context, status=status)


@dataclass(frozen=True)
class Forecast:
    """A preview in words. `groups` is whom the button says it asks, who `usually` take so long."""

    preview: workflow.Preview
    stages: list[AskedStage]
    groups: str
    usually: timedelta | None


def _forecast(level: AccessLevel, form: AskForm, person: Person) -> Forecast:
    preview = workflow.preview(level, by=person, wish=form.wish_so_far())
    planned = preview.plan.stages
    asked = dict.fromkeys(
        name
        for stage in planned
        for key, name in sorted(stage.group_names.items())
        if stage.minima.get(key, 1) or sum(stage.minima.values()) == 0
    )
    stages = asked_stages(planned, most=NAMED)
    version = preview.version
    usually = history.usual_wait(version.policy) if version and stages else None
    return Forecast(preview, stages, " and ".join(asked), usually)
