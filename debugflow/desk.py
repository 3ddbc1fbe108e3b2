"""The admin's frame: django-unfold in the site's colours, with a menu by what an admin does.

What its pages do is in each app's `admin`; nothing is saved here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from csp.decorators import csp
from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import URLPattern, URLResolver, reverse
from unfold.sites import UnfoldAdminSite

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
        user: Any = request.user
        if any(user.has_perm(f"{app}.{verb}_{model}") for verb in ("view", "change")):
            link = reverse(f"admin:{app}_{model}_{page or 'changelist'}")
            yield {"title": title, "icon": icon, "link": link, "active": _is_at(request, link)}


def _is_at(request: HttpRequest, link: str) -> bool:
    """Whether this is the page or one below it that has no entry of its own."""
    below = request.path.removeprefix(link)
    return request.path.startswith(link) and not below.startswith("simulate/")
