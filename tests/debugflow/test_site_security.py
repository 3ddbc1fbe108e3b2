"""What a browser is told and asked for at every address: headers, tokens, redirects, sessions.

Which addresses there are, and what is behind each, is in `routes`; who gets what in `test_routes`.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client
from django.urls import include, path

from audit.models import Event
from debugflow.embedded.state import CHECKOUT
from debugflow.headers import HEADERS
from tests.conftest import Clock
from tests.debugflow.routes import PASSWORD, Place, routes, settle, signed_in, undone
from tests.tables import changed, rows
from tests.world import World

SESSION = django_settings.SESSION_COOKIE_NAME
UNSAFE = ("POST", "PUT", "PATCH", "DELETE")
# Takes JSON alone and no session: a page of another site can send neither there (`test_session`).
NEEDS_NO_TOKEN = {"/api/v1/session/"}
# They are no pages: a proxy's question is answered before anything looks at tokens, and refused; a
# call of Slack's has no session, and is believed for its signature alone (`test_slack_clicks`).
BEFORE_TOKENS = {"/health/live", "/health/ready", "/integrations/slack/"}
# What a look may change, and why.
CHANGES_ON_A_LOOK = {
    "django_session": "who is signed in, and messages that were shown",
}
# Whoever searches the log is in it, and what somebody has opened is not new to them any more.
TOLD_OF_A_LOOK = {
    "alice": {
        "/audit/: audit_event",
        "/api/v1/events/: audit_event",
        "/inbox/<pk>/: approvals_delivery",
    },
    "ada": {
        "/audit/: audit_event",
        "/api/v1/events/: audit_event",
        "/admin/audit/event/: audit_event",
    },
}


def broken(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("a defect")


urlpatterns = [path("broken/", broken), path("", include("debugflow.urls"))]


@pytest.fixture
def place(world: World, clock: Clock) -> Place:
    return settle(world, clock)


@pytest.fixture
def with_a_defect(settings: Any) -> None:
    """`/broken/` has one."""
    settings.ROOT_URLCONF = __name__


class TestALook:
    """GET changes nothing, in no table, whoever looks at whatever."""

    @pytest.mark.slow
    @pytest.mark.parametrize("who", sorted(TOLD_OF_A_LOOK))
    def test_a_look_changes_no_row(self, place: Place, who: str):
        client, seen = signed_in(place, who), []
        for route in routes():
            with undone():
                before = rows(CHANGES_ON_A_LOOK)
                client.get(place.address(route))
                seen += [f"{route}: {table}" for table in changed(before, CHANGES_ON_A_LOOK)]
        assert set(seen) == TOLD_OF_A_LOOK[who]

    @pytest.mark.slow
    def test_a_change_of_a_row_would_be_noticed(self, place: Place):
        before = rows()
        place.world.alice.time_zone = "Europe/Berlin"
        place.world.alice.save()
        assert changed(before) == ["accounts_user"]


class TestTokens:
    """Every change wants the token of the site's own pages."""

    @pytest.mark.slow
    def test_nothing_unsafe_is_done_without_the_token(self, place: Place):
        client, done = Client(enforce_csrf_checks=True, raise_request_exception=False), []
        client.force_login(place.world.ada)
        for route in sorted(set(routes()) - BEFORE_TOKENS):
            for method in UNSAFE:
                answer = place.send(client, method, route)
                page = answer.content.decode()
                if answer.status_code != 403 or not ("csrf_failed" in page or "too old" in page):
                    done.append(f"{method} {route}: {answer.status_code}")
        assert done == []

    @pytest.mark.slow
    def test_nor_for_whoever_has_not_signed_in(self, place: Place):
        client, done = Client(enforce_csrf_checks=True, raise_request_exception=False), []
        for route in sorted(set(routes()) - BEFORE_TOKENS - NEEDS_NO_TOKEN):
            for method in UNSAFE:
                answer = place.send(client, method, route)
                if answer.status_code != 403:
                    done.append(f"{method} {route}: {answer.status_code}")
        assert done == []

    def test_the_token_alone_will_not_do_from_another_site(self, world: World):
        alice = Client(enforce_csrf_checks=True)
        alice.force_login(world.alice)
        alice.get("/password/")
        token = alice.cookies[django_settings.CSRF_COOKIE_NAME].value
        form = {"csrfmiddlewaretoken": token}
        evil = alice.post("/sign-out/", form, headers={"Origin": "https://evil.example.com"})
        assert evil.status_code == 403
        own = alice.post("/sign-out/", form, headers={"Origin": "http://testserver"})
        assert own.status_code == 302


ELSEWHERE = (
    "https://evil.example.com/",
    "//evil.example.com/",
    "///evil.example.com/",
    "////evil.example.com/",
    "/\\evil.example.com/",
    "\\\\evil.example.com",
    "/\t/evil.example.com/",
    "/%09/evil.example.com/",
    "http:evil.example.com",
    "https:///evil.example.com",
    "javascript:alert(1)",
    "data:text/html,hi",
    "\x08//evil.example.com",
    "http://testserver@evil.example.com/",
    "http://testserver.evil.example.com/",
    "//testserver\\@evil.example.com/",
    "https://[::1]@evil.example.com",
)
NONE_OF_OURS = (
    "//evil.example.com",
    "//evil.example.com/admin",
    "///evil.example.com/%2e%2e",
    "/%5cevil.example.com",
    "/admin//evil.example.com",
    "/admin/approvals//evil.example.com",
    "/%0d%0aLocation:%20https://evil.example.com",
)
TAKES_NEXT = ("/sign-in/", "/sign-out/", "/admin/login/", "/admin/logout/", "/password/")


@pytest.mark.slow
@pytest.mark.parametrize("who", ["nobody", "ada"])
def test_whatever_route_leads_nowhere_else_and_has_its_headers(place: Place, who: str):
    """One walk for `TestRedirects` and `TestHeaders`."""
    led, lacking, looser = [], [], []
    for route in routes():
        for elsewhere in ELSEWHERE if route in TAKES_NEXT else ELSEWHERE[:1]:
            for how, answer in answers(place, signed_in(place, who), route, elsewhere):
                led += [f"{how} {route} {elsewhere}"] * leads_elsewhere(answer)
                lacking += [f"{how} {route}: {name}" for name in lacks(answer)]
                looser += [route] * ("unsafe" in answer["Content-Security-Policy"])
    assert led == []
    assert lacking == []
    assert [route for route in looser if not route.startswith("/admin/")] == []
    assert looser or who == "nobody"


def answers(place: Place, client: Client, route: str, elsewhere: str) -> Iterator[tuple[str, Any]]:
    """To whoever brings a way to go on from there; what they do is undone."""
    more: dict[str, Any] = {"query_params": {"next": elsewhere}}
    yield "GET", place.send(client, "GET", route, **more)
    with undone():
        yield "POST", client.post(place.address(route), {**place.body(route), "next": elsewhere})
    if route in TAKES_NEXT:  # the form's may win over the address's
        yield "POST, in the address", place.send(client, "POST", route, **more)
    else:
        yield "POST as it is meant", place.send(client, "POST", route)


class TestRedirects:
    """Nobody is sent to another site."""

    @pytest.mark.parametrize("where", [*ELSEWHERE, "/\n/evil.example.com", "evil.example.com"])
    def test_being_led_elsewhere_would_be_noticed(self, where: str):
        answer = HttpResponse()
        answer.headers["Location"] = where.replace("\n", "\t").replace("\x08", "")
        assert leads_elsewhere(answer) is (where != "/%09/evil.example.com/")

    @pytest.mark.slow
    def test_one_is_led_to_where_one_wanted_to_go_here(self, place: Place):
        wanted = {"query_params": {"next": "/grants/"}}
        answer = place.send(signed_in(place, "nobody"), "POST", "/sign-in/", **wanted)
        assert answer["Location"] == "/grants/"
        assert not leads_elsewhere(answer)

    @pytest.mark.slow
    @pytest.mark.parametrize("who", ["nobody", "ada"])
    def test_nor_does_an_address_that_is_none_of_ours(self, place: Place, who: str):
        client, led = signed_in(place, who), []
        for address in NONE_OF_OURS:
            answer = client.generic("GET", "/", PATH_INFO=address.replace("%5c", "\\"))
            led += [address] * leads_elsewhere(answer)
        assert led == []

    def test_a_host_that_is_not_ours_is_refused(self, world: World):
        answer = Client().get("/grants/", headers={"Host": "evil.example.com"})
        assert answer.status_code == 400
        forwarded = Client().get("/grants/", headers={"X-Forwarded-Host": "evil.example.com"})
        assert forwarded["Location"] == "/sign-in/?next=/grants/"


def leads_elsewhere(answer: Any) -> bool:
    """Strictly: anything but one slash and then no other, or this very host."""
    where = answer.headers.get("Location", "/").removeprefix("http://testserver")
    return re.match(r"/(?![/\\\x00-\x20])|\?|\Z", where) is None


class TestHeaders:
    """Every answer says what browsers must not do with it, errors and files included."""

    @pytest.mark.slow
    @pytest.mark.parametrize("who", ["nobody", "alice"])
    def test_every_error_has_them(self, place: Place, with_a_defect: None, who: str):
        client = signed_in(place, who)
        found = {}
        for status, answer in {
            200: client.get("/sign-in/"),
            302: client.get("/grants"),
            400: client.get("/", headers={"Host": "evil.example.com"}),
            403: Client(enforce_csrf_checks=True).post("/sign-in/"),
            404: client.get("/no/such/page/"),
            405: client.delete("/health/live"),
            500: client.get("/broken/"),
        }.items():
            assert lacks(answer) == [], status
            found[status] = answer.status_code
        if who == "alice":
            assert found == {200: 302, 302: 301, **{s: s for s in (400, 403, 404, 405, 500)}}

    @pytest.mark.django_db
    def test_so_has_what_the_asynchronous_server_answers(self):
        async def asked() -> list[Any]:
            browser = AsyncClient()
            wrong_host = await browser.get("/", headers={"Host": "evil.example.com"})
            return [await browser.get("/sign-in/"), await browser.get("/health/live"), wrong_host]

        answers = asyncio.run(asked())
        assert [answer.status_code for answer in answers] == [200, 200, 400]
        assert [lacks(answer) for answer in answers] == [[], [], []]

    @pytest.mark.slow
    def test_a_refusal_of_a_verb_has_them(self, place: Place):
        mallory, alice = signed_in(place, "mallory"), signed_in(place, "alice")
        refused = {
            403: alice.post(place.address("/requests/<pk>/vote/"), place.body("/vote/")),
            404: mallory.post(place.address("/grants/<pk>/reveal/")),
            409: alice.post(f"/ask/{place.world.read.pk}/", place.body("/ask/<pk>/")),
            422: alice.post(f"/ask/{place.world.read.pk}/", {}),
        }
        for status, answer in refused.items():
            assert (answer.status_code, lacks(answer)) == (status, [])

    @pytest.mark.slow
    def test_a_page_with_a_secret_is_kept_nowhere(self, place: Place):
        answer = signed_in(place, "alice").post(place.address("/grants/<pk>/reveal/"))
        assert answer.status_code == 200
        assert "no-store" in answer["Cache-Control"]
        assert answer["Referrer-Policy"] == "same-origin"

    @pytest.mark.slow
    def test_pages_run_scripts_of_their_own_only(self, place: Place):
        for client, address in (
            (signed_in(place, "alice"), "/"),
            (signed_in(place, "ada"), "/audit/"),
            (signed_in(place, "ada"), "/admin/no/such/page/"),
            (Client(), "/sign-in/"),
        ):
            assert directives(client.get(address)) == SITE

    @pytest.mark.slow
    def test_the_admin_evaluates_its_own_attributes_and_no_more(self, place: Place):
        """unfold's scripts do; what a page itself holds is run nowhere, style included."""
        client = signed_in(place, "ada")
        for address in ("/admin/", "/admin/approvals/policy/", "/admin/audit/event/"):
            assert directives(client.get(address)) == {
                **SITE,
                "script-src": ["'self'", "'unsafe-eval'"],
            }


SITE = {
    "default-src": ["'none'"],
    "script-src": ["'self'"],
    "style-src": ["'self'"],
    "img-src": ["'self'", "data:"],
    "font-src": ["'self'"],
    "connect-src": ["'self'"],
    "form-action": ["'self'"],
    "frame-ancestors": ["'none'"],
    "base-uri": ["'none'"],
}


def directives(answer: Any) -> dict[str, list[str]]:
    """The policy of an answer, part by part."""
    parts = [part.split() for part in answer["Content-Security-Policy"].split(";")]
    return {name: sources for name, *sources in parts}


def lacks(answer: Any) -> list[str]:
    """The headers that an answer has not, or that say less than they should."""
    found = [name for name in HEADERS if name not in answer.headers]
    policy = answer.headers.get("Content-Security-Policy", "")
    if "frame-ancestors 'none'" not in policy or "default-src 'none'" not in policy:
        found.append("a strict policy")
    if "no-store" not in answer.headers.get("Cache-Control", ""):
        found.append("no-store")
    return found


class TestSessions:
    """What begins, rotates and ends a sign-in."""

    @pytest.mark.slow
    def test_a_new_password_ends_all_other_sessions_and_keeps_ones_own(self, world: World):
        here, there = Client(), Client()
        for browser in (here, there):
            browser.force_login(world.alice)
        before = here.cookies[SESSION].value
        fresh = "orders-hang-at-noon"
        form = {"old_password": PASSWORD, "new_password1": fresh, "new_password2": fresh}
        answer = here.post("/password/", form)
        assert (answer.status_code, answer["Location"]) == (302, "/")
        assert here.cookies[SESSION].value != before
        assert here.get("/").status_code == 200
        assert there.get("/").status_code == 302
        event = Event.objects.get(action="account.password_changed")
        assert (event.actor_name, event.subject_label) == ("alice", "alice")
        assert fresh not in str(event.canonical)

    @pytest.mark.parametrize(
        ("old", "new", "said"),
        [
            ("wrong", "orders-hang-at-noon", "entered incorrectly"),
            (PASSWORD, "k7!", "too short"),
            (PASSWORD, "1q2w3e4r5t6y", "too common"),
            (PASSWORD, "alice@example.com", "too similar"),
        ],
    )
    def test_a_bad_new_password_is_refused_in_words(
        self, world: World, old: str, new: str, said: str
    ):
        alice = Client()
        alice.force_login(world.alice)
        form = {"old_password": old, "new_password1": new, "new_password2": new}
        page = alice.post("/password/", form)
        assert page.status_code == 200
        assert said in page.content.decode()
        assert new not in page.content.decode().replace(world.alice.email, "")
        assert not Event.objects.filter(action="account.password_changed").exists()

    def test_password_managers_find_the_page(self, world: World):
        answer = Client().get("/.well-known/change-password")
        assert (answer.status_code, answer["Location"]) == (302, "/password/")

    @pytest.mark.slow
    def test_a_password_that_an_admin_sets_ends_all_sessions(self, world: World):
        alice = Client()
        alice.force_login(world.alice)
        ada = Client()
        ada.force_login(world.ada)
        fresh = {"password1": "orders-hang-at-noon", "password2": "orders-hang-at-noon"}
        form = {**fresh, "usable_password": "true"}
        assert ada.post(f"/admin/accounts/user/{world.alice.pk}/password/", form).status_code == 302
        assert alice.get("/").status_code == 302
        assert ada.get("/").status_code == 200

    def test_an_account_that_is_switched_off_is_signed_out(self, world: World):
        alice = Client()
        alice.force_login(world.alice)
        world.alice.is_active = False
        world.alice.save()
        assert alice.get("/").status_code == 302

    def test_signing_out_ends_the_session_for_whoever_kept_the_cookie(self, world: World):
        alice, thief = Client(), Client()
        alice.force_login(world.alice)
        thief.cookies[SESSION] = alice.cookies[SESSION].value
        assert thief.get("/").status_code == 200
        alice.post("/sign-out/")
        assert thief.get("/").status_code == 302

    def test_a_session_ends_at_its_age_however_busy_it_is(self, world: World):
        alice = Client()
        alice.force_login(world.alice)
        ends = alice.session.get_expiry_date()
        session = alice.session
        session["busy"] = True
        session.save()
        assert alice.session.get_expiry_date() == ends
        assert session.get_expiry_age() <= django_settings.SESSION_COOKIE_AGE

    def test_staff_are_led_to_the_one_sign_in_page_and_others_are_told(self, world: World):
        assert Client().get("/admin/", follow=True).redirect_chain[-1] == (
            "/sign-in/?next=%2Fadmin%2F",
            302,
        )
        alice = Client()
        alice.force_login(world.alice)
        told = alice.get("/admin/", follow=True)
        assert told.status_code == 403
        assert "You may not see this" in told.content.decode()


class TestBehindTls:
    """An installation that is no demonstration."""

    @pytest.fixture
    def production(self, settings: Any) -> dict[str, Any]:
        """The settings of one, as the file makes them without DEBUGFLOW_SECURE."""
        environment = {
            **os.environ,
            "SECRET_KEY": "k" * 50,
            "DATABASE_URL": "postgresql://app@127.0.0.1:1/debugflow",
        }
        environment.pop("DEBUGFLOW_SECURE", None)
        program = (
            "import json; from debugflow import settings;"
            "print(json.dumps({k: v for k, v in vars(settings).items()"
            " if k.startswith(('SECURE', 'SESSION_', 'CSRF_COOKIE', 'KNOWN_'))}, default=str))"
        )
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=CHECKOUT,
            env=environment,
            capture_output=True,
            check=True,
        )
        made: dict[str, Any] = json.loads(done.stdout)
        for name, value in made.items():
            if name != "SECURE_PROXY_SSL_HEADER":
                setattr(settings, name, value)
        return made

    @pytest.mark.slow
    def test_cookies_are_for_this_host_over_tls_only(
        self, production: dict[str, Any], world: World
    ):
        alice = Client()
        alice.get("/sign-in/", secure=True)
        alice.post("/sign-in/", {"username": "alice", "password": PASSWORD}, secure=True)
        assert set(alice.cookies) == {"__Host-session", "__Host-csrf", "__Host-known"}
        for cookie in alice.cookies.values():
            assert cookie["secure"]
            assert cookie["httponly"]
            assert (cookie["path"], cookie["domain"]) == ("/", "")
            assert cookie["samesite"] == "Lax"

    @pytest.mark.slow
    def test_browsers_are_told_to_come_back_over_tls_only(self, production: dict[str, Any]):
        clear = Client().get("/sign-in/")
        assert (clear.status_code, clear["Location"]) == (301, "https://testserver/sign-in/")
        told = Client().get("/no/such/page/", secure=True)["Strict-Transport-Security"]
        assert told == "max-age=31536000; includeSubDomains; preload"
