"""One's own settings: time zone, how one is told, Slack, who votes while one is away, tokens."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from django.contrib import messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_variables
from django.views.decorators.http import require_POST, require_safe

from approvals import delegating, tokens
from approvals.errors import Invalid, WrongState
from approvals.models import ApiToken, TokenKind
from approvals.notify import preferences
from approvals.notify.slack import accounts as slack_accounts
from approvals.notify.slack import workspace
from approvals.views.viewer import viewer
from audit import clock
from audit.zones import zone_of
from debugflow.accounts import changing, zones
from debugflow.accounts.forms import (
    LendingForm,
    NotificationsForm,
    SlackCodeForm,
    SlackForm,
    TokenForm,
)

if TYPE_CHECKING:
    from approvals.people import Person

OVER_MOST: Final = 20  # tokens that are over and still shown


@never_cache
@require_safe
def show(request: HttpRequest) -> HttpResponse:
    return _page(request)


@never_cache
@require_POST
def set_time_zone(request: HttpRequest) -> HttpResponse:
    person, typed = viewer(request), request.POST.get("time_zone", "")
    try:
        person = changing.set_time_zone(person.pk, by=person, name=typed)
    except Invalid as error:
        problems = error.fields["time_zone"]
        return _page(request, status=error.status, typed_zone=typed, zone_problems=problems)
    messages.success(request, f"Times are shown in {person.time_zone} from now on.")
    return redirect("settings")


@never_cache
@require_POST
def set_notifications(request: HttpRequest) -> HttpResponse:
    person, form = viewer(request), NotificationsForm(request.POST)
    if not form.is_valid():
        return _page(request, status=Invalid.status, wishes=form)
    try:
        preferences.save(person.pk, by=person, wishes=form.wishes())
    except Invalid as error:
        form.take_errors(error.fields, error.message)
        return _page(request, status=error.status, wishes=form)
    messages.success(request, "Saved. You are told in this way from now on.")
    return redirect("settings")


@never_cache
@require_POST
def send_slack_code(request: HttpRequest) -> HttpResponse:
    person, form = viewer(request), SlackForm(request.POST)
    if not form.is_valid():
        return _page(request, status=Invalid.status, slack_form=form)
    member = form.cleaned_data["member_id"]
    try:
        slack_accounts.send_code(person.pk, by=person, member_id=member)
    except (Invalid, WrongState) as error:
        form.take_errors(getattr(error, "fields", {}), error.message)
        return _page(request, status=error.status, slack_form=form)
    messages.success(request, f"A code was sent to {member} in Slack. It ends in 10 minutes.")
    return redirect(f"{reverse('settings')}#slack")


@never_cache
@require_POST
@sensitive_variables()
def prove_slack(request: HttpRequest) -> HttpResponse:
    person, form = viewer(request), SlackCodeForm(request.POST)
    if not form.is_valid():
        return _page(request, status=Invalid.status, slack_code=form)
    try:
        slack_accounts.prove(person.pk, by=person, code=form.cleaned_data["code"])
    except (Invalid, WrongState) as error:
        form.take_errors(getattr(error, "fields", {}), error.message)
        return _page(request, status=error.status, slack_code=form)
    messages.success(request, "Connected. You are told in Slack from now on.")
    return redirect("settings")


@never_cache
@require_POST
def end_slack(request: HttpRequest) -> HttpResponse:
    person = viewer(request)
    slack_accounts.end(person.pk, by=person)
    messages.success(request, "Disconnected. Nothing is sent to you in Slack any more.")
    return redirect("settings")


@never_cache
@require_POST
@sensitive_variables()
def make_token(request: HttpRequest) -> HttpResponse:
    """The token, once and in this answer only: its text is kept nowhere and never redirected."""
    person, form = viewer(request), TokenForm(request.POST)
    if not form.is_valid():
        return _page(request, status=Invalid.status, form=form)
    after = form.cleaned_data["after"] or 0
    try:
        issued = tokens.make(person.pk, by=person, wish=form.wish(), after=after)
    except (Invalid, WrongState) as error:
        form.take_errors(getattr(error, "fields", {}), error.message)
        return _page(request, status=error.status, form=form)
    context = {"now": clock.now(), "token": issued.row, "clear": issued.clear, **_site(request)}
    return render(request, "token_made.html", context)


@never_cache
@require_POST
def revoke_token(request: HttpRequest, pk: int) -> HttpResponse:
    person = viewer(request)
    token = get_object_or_404(tokens.visible(person), pk=pk)
    tokens.revoke(token.pk, by=person)
    messages.success(request, f"Revoked. The token {token.name} does not work any more.")
    return redirect("settings")


@never_cache
@require_POST
def lend(request: HttpRequest) -> HttpResponse:
    person = viewer(request)
    form = LendingForm(request.POST, zone=zone_of(person))
    if not form.is_valid():
        return _page(request, status=Invalid.status, lending=form)
    try:
        row = delegating.delegate(person.pk, by=person, lending=form.lending())
    except (Invalid, WrongState) as error:
        form.take_errors(getattr(error, "fields", {}), error.message)
        return _page(request, status=error.status, lending=form)
    messages.success(request, f"Arranged. {row.delegate} can vote for you in that time.")
    return redirect("settings")


@never_cache
@require_POST
def end_lending(request: HttpRequest, pk: int) -> HttpResponse:
    person = viewer(request)
    row = get_object_or_404(delegating.visible(person), pk=pk)
    delegating.end_delegation(row.pk, by=person)
    messages.success(request, f"Ended. {row.delegate} gives no vote of {row.person} any more.")
    return redirect("settings")


def _page(request: HttpRequest, *, status: int = 200, **typed: Any) -> HttpResponse:
    """The page, with what was typed and why it will not do."""
    person, now = viewer(request), clock.now()
    seen = tokens.visible(person)
    newest = seen.first()
    context = {
        "now": now,
        "zones": zones.offered(),
        "wishes": NotificationsForm.of(preferences.of([person])[person.pk]),
        "form": TokenForm(initial={"after": newest.pk if newest else 0}),
        "own": _listed(seen.filter(account=person), now),
        "services": _listed(seen.filter(kind=TokenKind.SERVICE), now),
        "most": tokens.LIVE_MOST,
        "away": delegating.visible(person).of(person).not_over().order_by("starts_at"),
        "lending": LendingForm(zone=zone_of(person)),
        **_slack(person),
        **_site(request),
        **typed,
    }
    return render(request, "settings.html", context, status=status)


def _slack(person: Person) -> dict[str, Any]:
    """The workspace, if there is one, and how far this person is with it."""
    if (row := workspace.current()) is None:
        return {}
    proof = slack_accounts.waiting(person, row)
    return {
        "slack": row,
        "slack_account": slack_accounts.of(person, row),
        "slack_proof": proof,
        "slack_form": SlackForm(initial={"member_id": proof.member_id if proof else ""}),
        "slack_code": SlackCodeForm(),
    }


def _listed(rows: QuerySet[ApiToken], now: datetime) -> dict[str, list[ApiToken]]:
    """Those that are not over, and the newest of the others."""
    live = rows.filter(revoked_at__isnull=True, expires_at__gt=now)
    return {"live": list(live), "over": list(rows.exclude(pk__in=live.values("pk"))[:OVER_MOST])}


def _site(request: HttpRequest) -> dict[str, str]:
    return {"site": request.build_absolute_uri("/").rstrip("/")}
