"""Who gets what from every address: one table, compared with what the site really answers.

A new route without rows here fails; so does a row without a route. To add one, write its rows and
think about each cell that is no refusal: which law lets this person have it? Where a route needs an
object or a body that is not in `routes.Place` yet, say there what stands behind it.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tests.conftest import Clock
from tests.debugflow.routes import Place, routes, settle, signed_in
from tests.world import World

GROUPS = {
    "{record}": (
        "approvals/accessrequest",
        "approvals/requeststage",
        "approvals/vote",
        "approvals/delegation",
        "approvals/grant",
        "approvals/step",
        "approvals/review",
        "approvals/notice",
        "approvals/delivery",
        "audit/event",
    ),
    "{proposal}": ("approvals/proposal",),
    "{set-up}": ("approvals/policy", "approvals/target", "approvals/accesslevel"),
    "{hook}": ("approvals/webhookendpoint",),
    "{slack}": ("approvals/slackworkspace", "approvals/slackaccount"),
    "{held}": ("approvals/target", "approvals/accesslevel"),
    "{people}": ("accounts/user", "auth/group"),
}
ROLES = (
    "nobody",  # has not signed in
    "mallory",  # has an account, and is in no group
    "amir",  # of another team: may ask for the same levels
    "alice",  # asked, and holds two accesses
    "bob",  # is asked about what waits, and approved both accesses
    "olga",  # owns the target
    "auditor",  # staff: reads all records, and audits the target
    "administrator",  # staff: sets up targets, levels and policies
    "ada",  # superuser
)
# in: led to the sign-in page. desk: led to the admin's, which is the same, or 403 when signed in.
# A method without a row is refused to all, mostly with 405. In the admin, what neither GET nor POST
# has a row of its own for is as GET.
TABLE = """
# The site                                         nob  mal  amir alic bob  olga audi admi ada
GET  /                                             in   200  200  200  200  200  200  200  200
GET  /ask/                                         in   200  200  200  200  200  200  200  200
GET  /ask/<pk>/                                    in   404  200  200  404  404  404  404  404
POST /ask/<pk>/                                    in   404  302  409  404  404  404  404  404
POST /ask/<pk>/preview/                            in   404  200  200  404  404  404  404  404
GET  /ask/<pk>/emergency/                          in   404  200  200  404  404  404  404  404
POST /ask/<pk>/emergency/                          in   404  302  403  404  404  404  404  404
GET  /requests/<pk>/                               in   404  404  200  200  200  200  404  200
GET  /requests/<pk>/lower/                         in   404  404  200  200  200  200  404  200
POST /requests/<pk>/vote/                          in   404  404  403  302  403  403  404  403
POST /requests/<pk>/send-back/                     in   404  404  403  302  403  403  404  403
GET  /requests/<pk>/edit/                          in   404  404  200  200  200  200  404  200
POST /requests/<pk>/edit/                          in   404  404  302  403  403  403  404  403
POST /requests/<pk>/comment/                       in   404  404  302  302  302  302  404  302
POST /requests/<pk>/cancel/                        in   404  404  302  403  403  403  404  403
POST /requests/<pk>/redraw/                        in   404  404  403  403  403  403  404  302
GET  /queue/                                       in   200  200  200  200  200  200  200  200
POST /queue/decide/                                in   302  302  302  302  302  302  302  302
GET  /inbox/                                       in   200  200  200  200  200  200  200  200
GET  /inbox/<pk>/                                  in   404  404  302  404  404  404  404  404
GET  /inbox/from/<signed>/                         in   302  302  302  302  302  302  302  302
POST /inbox/read/                                  in   302  302  302  302  302  302  302  302
GET  /audit/                                       in   200  200  200  200  200  200  200  200
GET  /reviews/                                     in   200  200  200  200  200  200  200  200
GET  /reviews/<pk>/                                in   404  404  200  200  200  200  404  200
POST /reviews/<pk>/                                in   404  404  403  302  403  403  404  403
GET  /grants/                                      in   200  200  200  200  200  200  200  200
GET  /grants/<pk>/                                 in   404  404  200  200  200  200  200  200
POST /grants/<pk>/reveal/                          in   404  404  200  403  403  403  403  403
POST /grants/<pk>/extend/                          in   404  404  302  403  403  403  403  403
POST /grants/<pk>/release/                         in   404  404  302  403  403  403  403  403
POST /grants/<pk>/revoke/                          in   404  404  403  302  302  403  403  403
POST /grants/<pk>/try-again/                       in   404  404  302  302  302  403  302  302
POST /grants/<pk>/abandon/                         in   404  404  403  403  302  403  302  302

# One's own settings                               nob  mal  amir alic bob  olga audi admi ada
GET  /settings/                                    in   200  200  200  200  200  200  200  200
POST /settings/time-zone/                          in   302  302  302  302  302  302  302  302
POST /settings/notifications/                      in   302  302  302  302  302  302  302  302
POST /settings/slack/                              in   422  422  422  422  422  422  422  422
POST /settings/slack/code/                         in   422  422  422  422  422  422  422  422
POST /settings/slack/end/                          in   409  409  302  409  409  409  409  409
POST /settings/tokens/                             in   200  200  200  200  200  200  200  200
POST /settings/tokens/<pk>/revoke/                 in   404  404  302  404  404  404  404  302
POST /settings/delegations/                        in   302  302  409  302  302  302  302  302
POST /settings/delegations/<pk>/end/               in   404  404  302  404  404  404  302  302

# Signing in                                       nob  mal  amir alic bob  olga audi admi ada
GET  /sign-in/                                     200  302  302  302  302  302  302  302  302
POST /sign-in/                                     302  302  302  302  302  302  302  302  302
POST /sign-out/                                    in   302  302  302  302  302  302  302  302
GET  /password/                                    in   200  200  200  200  200  200  200  200
POST /password/                                    in   200  200  200  200  200  200  200  200
GET  /.well-known/change-password                  302  302  302  302  302  302  302  302  302

# The API                                          nob  mal  amir alic bob  olga audi admi ada
GET  /api/v1/session/                              403  200  200  200  200  200  200  200  200
DEL  /api/v1/session/                              403  204  204  204  204  204  204  204  204
POST /api/v1/session/                              200  200  200  200  200  200  200  200  200
GET  /api/v1/targets/                              403  200  200  200  200  200  200  200  200
GET  /api/v1/targets/<pk>/                         403  404  200  200  404  200  200  200  200
GET  /api/v1/levels/                               403  200  200  200  200  200  200  200  200
GET  /api/v1/levels/<pk>/                          403  404  200  200  404  404  404  404  404
GET  /api/v1/requests/                             403  200  200  200  200  200  200  200  200
POST /api/v1/requests/                             403  422  201  201  422  403  403  403  403
POST /api/v1/requests/preview/                     403  422  200  200  422  200  200  200  200
POST /api/v1/requests/emergency/                   403  422  201  403  422  403  403  403  403
GET  /api/v1/requests/<pk>/                        403  404  404  200  200  200  200  404  200
POST /api/v1/requests/<pk>/vote/                   403  404  404  403  200  403  403  404  403
POST /api/v1/requests/<pk>/send-back/              403  404  404  403  200  403  403  404  403
POST /api/v1/requests/<pk>/edit/                   403  404  404  200  403  403  403  404  403
POST /api/v1/requests/<pk>/cancel/                 403  404  404  200  403  403  403  404  403
POST /api/v1/requests/<pk>/redraw/                 403  404  404  403  403  403  403  404  200
GET  /api/v1/requests/<pk>/comments/               403  404  404  200  200  200  200  404  200
POST /api/v1/requests/<pk>/comments/               403  404  404  201  201  201  201  404  201
GET  /api/v1/requests/<pk>/events/                 403  404  404  200  200  200  200  404  200
GET  /api/v1/grants/                               403  200  200  200  200  200  200  200  200
GET  /api/v1/grants/<pk>/                          403  404  404  200  200  200  200  200  200
POST /api/v1/grants/<pk>/reveal/                   403  404  404  200  403  403  403  403  403
POST /api/v1/grants/<pk>/extend/                   403  404  404  201  403  403  403  403  403
POST /api/v1/grants/<pk>/release/                  403  404  404  200  403  403  403  403  403
POST /api/v1/grants/<pk>/revoke/                   403  404  404  403  200  200  403  403  403
POST /api/v1/grants/<pk>/try-again/                403  404  404  200  200  200  403  200  200
POST /api/v1/grants/<pk>/abandon/                  403  404  404  403  403  200  403  200  200
GET  /api/v1/reviews/                              403  200  200  200  200  200  200  200  200
GET  /api/v1/reviews/<pk>/                         403  404  404  200  200  200  200  404  200
POST /api/v1/reviews/<pk>/                         403  404  404  403  200  403  403  404  403
GET  /api/v1/delegations/                          403  200  200  200  200  200  200  200  200
POST /api/v1/delegations/                          403  201  201  409  201  201  201  201  201
GET  /api/v1/delegations/<pk>/                     403  404  404  200  404  404  404  200  200
POST /api/v1/delegations/<pk>/end/                 403  404  404  200  404  404  404  200  200
GET  /api/v1/proposals/                            403  200  200  200  200  200  200  200  200
GET  /api/v1/proposals/<pk>/                       403  404  404  404  404  404  200  200  200
GET  /api/v1/events/                               403  200  200  200  200  200  200  200  200
GET  /api/v1/inbox/                                403  200  200  200  200  200  200  200  200
POST /api/v1/inbox/read/                           403  200  200  200  200  200  200  200  200
GET  /api/v1/tokens/                               403  200  200  200  200  200  200  200  200
POST /api/v1/tokens/                               403  201  201  201  201  201  201  201  201
GET  /api/v1/tokens/<pk>/                          403  404  404  200  404  404  404  404  200
DEL  /api/v1/tokens/<pk>/                          403  404  404  204  404  404  404  404  204
GET  /api/v1/tokens/this/                          403  404  404  404  404  404  404  404  404
GET  /api/v1/schema/                               403  200  200  200  200  200  200  200  200
GET  /api/v1/docs/                                 in   200  200  200  200  200  200  200  200
GET  /api/v1/<anything>                            403  404  404  404  404  404  404  404  404
POST /api/v1/<anything>                            403  404  404  404  404  404  404  404  404

# The admin                                        nob  mal  amir alic bob  olga audi admi ada
GET  /admin/login/                                 in   403  403  403  403  403  302  302  302
POST /admin/login/                                 in   403  403  403  403  403  302  302  302
GET  /admin/password_change/                       302  302  302  302  302  302  302  302  302
GET  /admin/                                       desk desk desk desk desk desk 200  200  200
POST /admin/                                       desk desk desk desk desk desk 200  200  200
GET  /admin/logout/                                desk 302  302  302  302  302  405  405  405
POST /admin/logout/                                desk 302  302  302  302  302  302  302  302
GET  /admin/password_change/done/                  desk desk desk desk desk desk 200  200  200
POST /admin/password_change/done/                  desk desk desk desk desk desk 405  405  405
GET  /admin/autocomplete/                          desk desk desk desk desk desk 403  403  403
POST /admin/autocomplete/                          desk desk desk desk desk desk 405  405  405
GET  /admin/jsi18n/                                desk desk desk desk desk desk 200  200  200
POST /admin/jsi18n/                                desk desk desk desk desk desk 405  405  405
GET  /admin/r/<content_type_id>/<object_id>/       desk desk desk desk desk desk 404  404  404
POST /admin/r/<content_type_id>/<object_id>/       desk desk desk desk desk desk 404  404  404
GET  /admin/approvals/policy/<object_id>/publish/  in   desk desk desk desk desk 403  200  200
POST /admin/approvals/policy/<object_id>/publish/  in   desk desk desk desk desk 403  200  200
GET  /admin/approvals/policy/simulate/             in   desk desk desk desk desk 403  200  200
POST /admin/approvals/policy/simulate/             in   desk desk desk desk desk 403  405  405
GET  /admin/{set-up}/                              in   desk desk desk desk desk 403  200  200
POST /admin/{set-up}/                              in   desk desk desk desk desk 403  200  200
GET  /admin/{set-up}/add/                          in   desk desk desk desk desk 403  200  200
POST /admin/{set-up}/add/                          in   desk desk desk desk desk 403  200  200
GET  /admin/{set-up}/<object_id>/history/          in   desk desk desk desk desk 403  200  200
POST /admin/{set-up}/<object_id>/history/          in   desk desk desk desk desk 403  200  200
GET  /admin/{set-up}/<object_id>/delete/           in   desk desk desk desk desk 403  302  302
POST /admin/{set-up}/<object_id>/delete/           in   desk desk desk desk desk 403  302  302
GET  /admin/{set-up}/<object_id>/change/           in   desk desk desk desk desk 403  200  200
POST /admin/{set-up}/<object_id>/change/           in   desk desk desk desk desk 403  200  200
GET  /admin/{record}/<object_id>/                  in   desk desk desk desk desk 302  302  302
GET  /admin/{set-up}/<object_id>/                  in   desk desk desk desk desk 302  302  302
GET  /admin/{people}/<object_id>/                  in   desk desk desk desk desk 302  302  302
POST /admin/{record}/<object_id>/                  in   desk desk desk desk desk 302  302  302
POST /admin/{set-up}/<object_id>/                  in   desk desk desk desk desk 302  302  302
POST /admin/{people}/<object_id>/                  in   desk desk desk desk desk 302  302  302
GET  /admin/{record}/                              in   desk desk desk desk desk 200  403  200
POST /admin/{record}/                              in   desk desk desk desk desk 403  403  403
GET  /admin/{record}/add/                          in   desk desk desk desk desk 403  403  403
POST /admin/{record}/add/                          in   desk desk desk desk desk 403  403  403
GET  /admin/{record}/<object_id>/history/          in   desk desk desk desk desk 200  403  200
POST /admin/{record}/<object_id>/history/          in   desk desk desk desk desk 200  403  200
GET  /admin/{record}/<object_id>/delete/           in   desk desk desk desk desk 403  403  403
GET  /admin/accounts/user/<object_id>/delete/      in   desk desk desk desk desk 403  403  403
POST /admin/{record}/<object_id>/delete/           in   desk desk desk desk desk 403  403  403
POST /admin/accounts/user/<object_id>/delete/      in   desk desk desk desk desk 403  403  403
GET  /admin/{record}/<object_id>/change/           in   desk desk desk desk desk 200  403  200
POST /admin/{record}/<object_id>/change/           in   desk desk desk desk desk 403  403  403
GET  /admin/approvals/target/<object_id>/test/     in   desk desk desk desk desk 403  302  302
POST /admin/approvals/target/<object_id>/test/     in   desk desk desk desk desk 403  200  200
GET  /admin/approvals/target/<object_id>/allow/    in   desk desk desk desk desk 403  302  302
POST /admin/approvals/target/<object_id>/allow/    in   desk desk desk desk desk 403  302  302
GET  /admin/approvals/delivery/<object_id>/resend/ in   desk desk desk desk desk 302  403  302
POST /admin/approvals/delivery/<object_id>/resend/ in   desk desk desk desk desk 302  403  302
GET  /admin/{hook}/                                in   desk desk desk desk desk 403  200  200
GET  /admin/{hook}/add/                            in   desk desk desk desk desk 403  200  200
GET  /admin/{hook}/<object_id>/history/            in   desk desk desk desk desk 403  200  200
GET  /admin/{hook}/<object_id>/delete/             in   desk desk desk desk desk 403  200  200
GET  /admin/{hook}/<object_id>/change/             in   desk desk desk desk desk 403  200  200
GET  /admin/{hook}/<object_id>/                    in   desk desk desk desk desk 302  302  302
POST /admin/{hook}/                                in   desk desk desk desk desk 403  200  200
POST /admin/{hook}/add/                            in   desk desk desk desk desk 403  200  200
POST /admin/{hook}/<object_id>/history/            in   desk desk desk desk desk 403  200  200
POST /admin/{hook}/<object_id>/delete/             in   desk desk desk desk desk 403  302  302
POST /admin/{hook}/<object_id>/change/             in   desk desk desk desk desk 403  200  200
POST /admin/{hook}/<object_id>/                    in   desk desk desk desk desk 302  302  302
GET  /admin/{hook}/<object_id>/secret/             in   desk desk desk desk desk 403  302  302
POST /admin/{hook}/<object_id>/secret/             in   desk desk desk desk desk 403  200  200
GET  /admin/{proposal}/                            in   desk desk desk desk desk 200  200  200
POST /admin/{proposal}/                            in   desk desk desk desk desk 403  403  403
GET  /admin/{proposal}/add/                        in   desk desk desk desk desk 403  403  403
POST /admin/{proposal}/add/                        in   desk desk desk desk desk 403  403  403
GET  /admin/{proposal}/<object_id>/                in   desk desk desk desk desk 302  302  302
POST /admin/{proposal}/<object_id>/                in   desk desk desk desk desk 302  302  302
GET  /admin/{proposal}/<object_id>/history/        in   desk desk desk desk desk 200  200  200
POST /admin/{proposal}/<object_id>/history/        in   desk desk desk desk desk 200  200  200
GET  /admin/{proposal}/<object_id>/delete/         in   desk desk desk desk desk 403  403  403
POST /admin/{proposal}/<object_id>/delete/         in   desk desk desk desk desk 403  403  403
GET  /admin/{proposal}/<object_id>/change/         in   desk desk desk desk desk 200  200  200
POST /admin/{proposal}/<object_id>/change/         in   desk desk desk desk desk 403  403  403
GET  /admin/{proposal}/<object_id>/agree/          in   desk desk desk desk desk 302  302  302
POST /admin/{proposal}/<object_id>/agree/          in   desk desk desk desk desk 403  302  403
GET  /admin/{proposal}/<object_id>/deny/           in   desk desk desk desk desk 302  302  302
POST /admin/{proposal}/<object_id>/deny/           in   desk desk desk desk desk 403  302  403
GET  /admin/{proposal}/<object_id>/withdraw/       in   desk desk desk desk desk 302  302  302
POST /admin/{proposal}/<object_id>/withdraw/       in   desk desk desk desk desk 403  403  302
GET  /admin/{held}/<object_id>/holders/           in   desk desk desk desk desk 403  200  200
POST /admin/{held}/<object_id>/holders/           in   desk desk desk desk desk 403  302  302
GET  /admin/accounts/user/<id>/password/           in   desk desk desk desk desk 403  403  200
POST /admin/accounts/user/<id>/password/           in   desk desk desk desk desk 403  403  200
GET  /admin/{people}/                              in   desk desk desk desk desk 403  403  200
POST /admin/{people}/                              in   desk desk desk desk desk 403  403  200
GET  /admin/{people}/add/                          in   desk desk desk desk desk 403  403  200
POST /admin/{people}/add/                          in   desk desk desk desk desk 403  403  200
GET  /admin/{people}/<object_id>/history/          in   desk desk desk desk desk 403  403  200
POST /admin/{people}/<object_id>/history/          in   desk desk desk desk desk 403  403  200
GET  /admin/{people}/<object_id>/change/           in   desk desk desk desk desk 403  403  200
POST /admin/{people}/<object_id>/change/           in   desk desk desk desk desk 403  403  200
GET  /admin/auth/group/<object_id>/delete/         in   desk desk desk desk desk 403  403  200
POST /admin/auth/group/<object_id>/delete/         in   desk desk desk desk desk 403  403  200
GET  /admin/<app>/                                 desk desk desk desk desk desk 200  200  200
POST /admin/<app>/                                 desk desk desk desk desk desk 200  200  200
GET  /admin/<anything>                             desk desk desk desk desk desk 404  404  404
POST /admin/<anything>                             desk desk desk desk desk desk 404  404  404

GET  /admin/{slack}/                               in   desk desk desk desk desk 403  200  200
POST /admin/{slack}/                               in   desk desk desk desk desk 403  200  200
GET  /admin/{slack}/add/                           in   desk desk desk desk desk 403  403  403
POST /admin/{slack}/add/                           in   desk desk desk desk desk 403  403  403
GET  /admin/{slack}/<object_id>/history/           in   desk desk desk desk desk 403  200  200
POST /admin/{slack}/<object_id>/history/           in   desk desk desk desk desk 403  200  200
GET  /admin/{slack}/<object_id>/delete/            in   desk desk desk desk desk 403  200  200
POST /admin/{slack}/<object_id>/delete/            in   desk desk desk desk desk 403  302  302
GET  /admin/{slack}/<object_id>/change/            in   desk desk desk desk desk 403  200  200
POST /admin/approvals/slackworkspace/<object_id>/change/ in desk desk desk desk desk 403 302 302
POST /admin/approvals/slackaccount/<object_id>/change/ in desk desk desk desk desk 403 403 403
GET  /admin/{slack}/<object_id>/                   in   desk desk desk desk desk 302  302  302
POST /admin/{slack}/<object_id>/                   in   desk desk desk desk desk 302  302  302
GET  /admin/approvals/slackworkspace/<object_id>/test/ in desk desk desk desk desk 403 302 302
POST /admin/approvals/slackworkspace/<object_id>/test/ in desk desk desk desk desk 403 302 302

# Machines                                         nob  mal  amir alic bob  olga audi admi ada
POST /integrations/slack/                          401  401  401  401  401  401  401  401  401
GET  /metrics                                      403  403  403  403  403  403  403  403  403
GET  /health/live                                  200  200  200  200  200  200  200  200  200
GET  /health/ready                                 200  200  200  200  200  200  200  200  200
"""


def _rows() -> dict[tuple[str, str], tuple[str, ...]]:
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    for line in filter(None, TABLE.splitlines()):
        if line.startswith("#"):
            continue
        method, route, *cells = line.split()
        assert len(cells) == len(ROLES), line
        for one in _meant(route):
            row = ("DELETE" if method == "DEL" else method, one)
            assert row not in found, f"{line}: is there twice"
            found[row] = tuple(cells)
    return found


def _meant(route: str) -> list[str]:
    for name, members in GROUPS.items():
        if name in route:
            return [route.replace(name, member) for member in members]
    return [route]


WENT_WELL = ("200", "201", "204", "302")
ENDS_SESSIONS = ("/sign-in/", "/sign-out/", "/admin/logout/", "/api/v1/session/")
ROWS = _rows()
KNOWN = {route for _, route in ROWS}


@pytest.fixture
def place(world: World, clock: Clock) -> Place:
    return settle(world, clock)


def seen(answer: Any) -> str:
    """An answer as the table writes it."""
    if answer.status_code != 302:
        return str(answer.status_code)
    where = answer["Location"]
    return {"/sign-in/?": "in", "/admin/login/?": "desk"}.get(where[: where.find("?") + 1], "302")


def test_the_table_knows_every_route_and_no_other() -> None:
    assert sorted(set(routes()) - KNOWN) == [], "write rows for these"
    assert sorted(KNOWN - set(routes())) == [], "these are gone"


@pytest.mark.slow
@pytest.mark.parametrize("role", ROLES)
def test_everybody_gets_what_the_table_says(place: Place, role: str) -> None:
    """At each address as `settle` left it: what one call did is undone before the next."""
    column, wrong = ROLES.index(role), []
    client = signed_in(place, role)
    for (method, route), cells in ROWS.items():
        got = seen(place.send(client, method, route))
        if got != cells[column]:
            wrong.append(f"{method} {route}: {got} and not {cells[column]}")
        client = signed_in(place, role) if route in ENDS_SESSIONS else client
    assert wrong == []


WRITES = re.compile(r'(?:INSERT INTO|DELETE FROM|(?<!FOR )(?<!KEY )UPDATE) "?(\w+)')
# One's own marks, of no weight for anybody else.
WRITES_NO_EVENT = {
    ("POST", "/inbox/read/"): {"approvals_delivery"},
    ("POST", "/api/v1/inbox/read/"): {"approvals_delivery"},
}


@pytest.mark.slow
def test_whatever_changes_something_writes_an_event(place: Place) -> None:
    """Every address of the site and the API that changes something, called by one who may."""
    silent, told = {}, 0
    for (method, route), cells in ROWS.items():
        may = [role for role, cell in zip(ROLES, cells, strict=True) if cell in WENT_WELL]
        if method == "GET" or route.startswith("/admin/") or not may:
            continue
        client = signed_in(place, may[0])
        with CaptureQueriesContext(connection) as asked:
            place.send(client, method, route)
        written = {table for one in asked for table in WRITES.findall(one["sql"])}
        told += "audit_event" in written
        if "audit_event" not in written and (quietly := written - {"django_session"}):
            silent[method, route] = quietly
    assert silent == WRITES_NO_EVENT
    assert told >= 40


@pytest.mark.slow
@pytest.mark.parametrize("role", ["nobody", "ada"])
def test_any_other_method_is_refused_or_a_mere_look(place: Place, role: str) -> None:
    column, wrong = ROLES.index(role), []
    client = signed_in(place, role)
    for route in sorted(KNOWN):
        look = ROWS.get(("GET", route), ("405",) * len(ROLES))[column]
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
            if (method, route) in ROWS:
                continue
            got = seen(place.send(client, method, route))
            refused = {"405", "403"} | ({"in", "desk"} if role == "nobody" else set())
            if got not in refused | ({look} if method not in ("GET", "POST") else set()):
                wrong.append(f"{method} {route}: {got}")
    assert wrong == []


@pytest.mark.slow
@pytest.mark.parametrize("role", ["mallory", "amir"])
def test_what_one_may_not_see_is_in_no_list_either(place: Place, role: str) -> None:
    """A list answers everybody; that alice asked, and why, is not in theirs, whatever they seek."""
    client = signed_in(place, role)
    sought = [
        "/queue/?show=all",
        "/grants/?show=all",
        "/api/v1/requests/?state=pending",
        "/api/v1/grants/?state=active",
        f"/api/v1/events/?thread=request:{place.waiting.pk}",
        "/api/v1/events/?actor=alice",
    ]
    looks = [place.address(route) for method, route in ROWS if method == "GET"]
    looks.remove("/api/v1/schema/")  # its examples are of the same cast
    shown = {address: client.get(address) for address in (*looks, *sought)}
    assert {shown[address].status_code for address in sought} == {200}
    for address, answer in shown.items():
        page = answer.content.decode() if answer.status_code == 200 else ""
        assert "alice" not in page, address
        assert place.waiting.reason not in page, address
