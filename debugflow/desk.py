"""The admin's frame: django-unfold in the site's colours, with a menu by what an admin does.

What its pages do is in each app's `admin`; nothing is saved here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from csp.decorators import csp
from django.apps import apps
from django.conf import settings
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import URLPattern, URLResolver, reverse
from unfold.sites import UnfoldAdminSite

from approvals import proposals
from audit import clock
from debugflow.wording import ONE_SUPERUSER

View = Callable[..., HttpResponseBase]

MENU: Final = (
    (
        "People",
        (
            ("People", "person", "accounts.user"),
            ("Groups", "group", "auth.group"),
        ),
    ),
    (
        "Targets",
        (
            ("Targets", "dns", "approvals.target"),
            ("Levels", "key", "approvals.accesslevel"),
        ),
    ),
    (
        "Policies",
        (
            ("Policies", "rule", "approvals.policy"),
            ("Simulate", "play_arrow", "approvals.policy:simulate"),
        ),
    ),
    (
        "Second person",
        (("Proposals", "how_to_reg", "approvals.proposal"),),
    ),
    (
        "Requests and grants",
        (
            ("Requests", "inbox", "approvals.accessrequest"),
            ("Stages", "linear_scale", "approvals.requeststage"),
            ("Votes", "how_to_vote", "approvals.vote"),
            ("Delegations", "swap_horiz", "approvals.delegation"),
            ("Grants", "lock_open", "approvals.grant"),
            ("Steps", "footprint", "approvals.step"),
            ("Reviews", "rate_review", "approvals.review"),
        ),
    ),
    (
        "Notifications",
        (
            ("Notices", "notifications", "approvals.notice"),
            ("Deliveries", "outgoing_mail", "approvals.delivery"),
            ("Webhooks", "webhook", "approvals.webhookendpoint"),
            ("Slack", "forum", "approvals.slackworkspace"),
            ("Slack accounts", "link", "approvals.slackaccount"),
        ),
    ),
    (
        "Audit",
        (("Events", "history", "audit.event"),),
    ),
)
"""Headings, and below each its pages: title, icon, and the model with the page's name if it is not
the list."""


PROPOSALS: Final = "approvals.proposal"


class Desk(UnfoldAdminSite):  # type: ignore[misc]
    """The one admin site. Signing in and changing a password are the site's own pages."""

    site_header = site_title = "debugflow"
    index_title = "Set-up and records"

    def get_urls(self) -> list[URLPattern | URLResolver]:
        """Unfold's without its search, which keeps what one person may see in a shared cache."""
        urls: list[URLPattern | URLResolver] = super().get_urls()
        return [entry for entry in urls if getattr(entry, "name", "") != "search"]

    def admin_view(self, view: View, cacheable: bool = False) -> View:
        """Django's own, under the admin's policy for browsers instead of the site's."""
        wrapped: View = super().admin_view(view, cacheable)
        loosened: View = csp(settings.ADMIN_CONTENT_SECURITY_POLICY["DIRECTIVES"])(wrapped)
        return loosened

    def index(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Unfold's, with what is wrong with four eyes, if anything is."""
        warning = ONE_SUPERUSER.get(proposals.standing(), "")
        shown: HttpResponse = super().index(
            request, {"one_person": warning, **(extra_context or {})}
        )
        return shown

    def each_context(self, request: HttpRequest) -> dict[str, Any]:
        """Unfold's without the colours it would write into each page: `desk.css` has ours."""
        return {**super().each_context(request), "colors": {}}


def menu(request: HttpRequest) -> list[dict[str, Any]]:
    """What the person may look at, for unfold's side bar."""
    site = [
        {"title": "Overview", "icon": "home", "link": reverse("admin:index")},
        {
            "title": "Back to the site",
            "icon": "arrow_back",
            "link": reverse("home"),
            "active": False,
        },
    ]
    groups = [(title, list(_links(request, pages))) for title, pages in MENU]
    log = {"title": "Audit log", "icon": "search", "link": reverse("audit"), "active": False}
    groups[-1][1].append(log)
    return [{"items": site}, *({"title": t, "items": found} for t, found in groups if found)]


def _links(request: HttpRequest, pages: Iterable[tuple[str, str, str]]) -> Iterable[dict[str, Any]]:
    for title, icon, place in pages:
        label, _, page = place.partition(":")
        app, model = label.split(".")
        of: Any = admin.site.get_model_admin(apps.get_model(app, model))
        if of.has_view_or_change_permission(request):
            link = reverse(f"admin:{app}_{model}_{page or 'changelist'}")
            more = _badge(request) if label == PROPOSALS else {}
            at = _is_at(request, link)
            yield {"title": title, "icon": icon, "link": link, "active": at, **more}


def _badge(request: HttpRequest) -> dict[str, str]:
    """How many proposals wait for whoever looks, if any do."""
    person: Any = request.user
    count = len(proposals.waiting_for(person, clock.now()))
    return {"badge": str(count)} if count else {}


def _is_at(request: HttpRequest, link: str) -> bool:
    """Whether this is the page or one below it that has no entry of its own."""
    below = request.path.removeprefix(link)
    return request.path.startswith(link) and not below.startswith("simulate/")
