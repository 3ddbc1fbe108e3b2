"""Hostile text in people's words and in what a target says: kept to the letter, shown as text.

Names on the target itself are tried out in `provisioning/test_injection`.
"""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any

import pytest
from django.test import Client

from approvals import administration, grants, opening
from approvals.models import AccessRequest, Grant, Target
from audit.models import Event
from tests.approvals.admin_browser import admin_form, browser, errors, url
from tests.approvals.corpus import ALL, TEXTS, TOO_MUCH
from tests.world import World

ALL_AT_ONCE = " | ".join(TEXTS.values())
SEEN_AS_IS = [text for text in TEXTS.values() if text.isprintable() and text == text.strip()]
NEVER = {what: text for what, text in TOO_MUCH.items() if what in ("NUL", "half a surrogate")}
"""What no text can be: the database could not keep it, or nobody could send it on."""


@pytest.fixture(autouse=True)
def _static_files_are_not_collected(settings):
    settings.WHITENOISE_AUTOREFRESH = True


TURNS = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that show what follows them in another order than it is written (UAX #9)."""


class Page(HTMLParser):
    """A page as a browser reads it: its text, and whatever in it could act."""

    def __init__(self, response: Any) -> None:
        super().__init__()
        self.words: list[str] = []
        self.acts: list[str] = []
        self._script = False
        assert response.status_code == 200, response.status_code
        self.feed(response.content.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self._script = tag in ("script", "style")
        self.words += given.values()
        self.acts += [f"{tag} {name}" for name in given if name.startswith("on")]
        self.acts += [
            f"{tag} {name}={given[name]}"
            for name in ("href", "src", "action", "formaction")
            if given.get(name, "").strip().lower().startswith(("javascript:", "data:"))
        ]

    def handle_endtag(self, tag: str) -> None:
        self._script = False

    def handle_data(self, data: str) -> None:
        if self._script and "alert(1)" in data:
            self.acts.append(f"script {data}")
        self.words.append(data)

    @property
    def text(self) -> str:
        return "\n".join(self.words)


def assert_harmless(response: Any) -> Page:
    page = Page(response)
    assert page.acts == []
    assert [word for word in page.words if not TURNS.isdisjoint(word)] == []
    return page


def signed_in(world: World, who: str) -> Client:
    client = Client()
    client.force_login(world.people[who])
    return client


def told_everywhere(world: World) -> Grant:
    """A whole story in which everybody says, and the target is, the worst there is."""
    world.server.levels["read-only"] = tuple(TEXTS.values())
    administration.save_level(world.read, by=world.ada)
    request = world.submit(reason=ALL_AT_ONCE, ticket=" ".join(SEEN_AS_IS)[:100])
    world.vote(request, "bob", comment=ALL_AT_ONCE)
    world.vote(request, "carol", comment=ALL_AT_ONCE)
    grant = Grant.objects.get(request=request)
    opening.open_grant(grant.pk, worker="w1")
    return grant


PAGES = ["/", "/queue/?show=all", "/grants/?show=all", "/requests/{0}/", "/grants/{1}/"]


@pytest.mark.slow
def test_pages_show_all_of_it_and_nothing_acts(world: World):
    waiting = world.submit("amir", reason=ALL_AT_ONCE)
    grant = told_everywhere(world)
    grants.revoke(grant.pk, by=world.olga, reason=ALL_AT_ONCE[: grants.NOTE_MAX])
    for who in ("alice", "bob", "olga", "ada"):
        client = signed_in(world, who)
        for page in (*PAGES, f"/requests/{waiting.pk}/", f"/ask/{world.read.pk}/"):
            response = client.get(page.format(grant.request_id, grant.pk))
            if response.status_code != 404:
                assert_harmless(response)
    shown = assert_harmless(signed_in(world, "bob").get(f"/requests/{grant.request_id}/")).text
    assert [text for text in SEEN_AS_IS if text not in shown] == []


@pytest.mark.slow
def test_the_admin_shows_all_of_it_and_nothing_acts(world: World):
    grant = told_everywhere(world)
    ada = browser(world.ada)
    event = Event.objects.filter(action="accessrequest.submitted").latest("pk")
    for page in (
        url("accessrequest", "change", grant.request_id),
        url("grant", "change", grant.pk),
        url("accesslevel", "change", world.read.pk),
        url("event", "change", event.pk),
        url("event", "changelist"),
    ):
        assert Page(ada.get(page, follow=True)).acts == [], page


def test_words_are_kept_to_the_letter(world: World):
    grant = told_everywhere(world)
    request = AccessRequest.objects.get(pk=grant.request_id)
    assert request.reason == request.scope["reason"] == ALL_AT_ONCE
    kept = Event.objects.filter(action="vote.cast").latest("pk")
    assert json.loads(bytes(kept.canonical))["data"]["comment"] == ALL_AT_ONCE


@pytest.mark.slow
def test_every_text_is_taken_or_refused_in_words(world: World, subtests: pytest.Subtests):
    alice = signed_in(world, "alice")
    for what, text in ALL.items():
        with subtests.test(what):
            wish = {"level": world.read.pk, "duration": 3600, "reason": text, "ticket": text}
            answer = alice.post(
                "/api/v1/requests/preview/", json.dumps(wish), content_type="application/json"
            )
            assert answer.status_code in (200, 422), answer.content
            refused = answer.json().get("problem") or answer.json()
            if what in NEVER:
                assert list(refused["fields"]) == ["reason", "ticket"]


def test_a_form_with_a_nul_is_shown_again_with_why(world: World):
    alice = signed_in(world, "alice")
    sent = {"duration": "3600", "reason": "a\0b"}
    answer = alice.post(f"/ask/{world.read.pk}/", sent)
    assert answer.status_code == 422
    assert "Null characters are not allowed." in answer.content.decode()
    assert not AccessRequest.objects.exists()


TARGET = {
    "name": "billing",
    "environment": "production",
    "labels": "",
    "enabled": "on",
    "config_host": "db1.example.com",
    "config_port": "5432",
    "config_database": "billing",
    "config_user": "debugflow",
    "config_sslmode": "verify-full",
    "config_admin_database": "postgres",
    "config_quarantine": "dbgf_quarantine",
}


NAMES = ("config_database", "config_user", "config_admin_database", "config_quarantine")
TRIED = ("escaped quote", "ends an identifier", "python format", "markup", "django template")


@pytest.mark.parametrize("what", TRIED)
def test_a_targets_names_are_taken_to_the_letter(world: World, what: str):
    ada, text = browser(world.ada), TEXTS[what]
    answer = ada.post(url("target", "add"), {**TARGET, **dict.fromkeys(NAMES, text)}, follow=True)
    assert Page(answer).acts == []
    target = Target.objects.get(name="billing")
    assert {target.config[name.removeprefix("config_")] for name in NAMES} == {text}
    assert Page(ada.get(url("target", "change", target.pk))).acts == []
    assert Page(ada.get(url("target", "changelist"))).acts == []


@pytest.mark.parametrize("what", ["newline", "terminal escape", "right to left", "NUL", "64 bytes"])
def test_a_targets_names_that_cannot_be_read_are_refused_in_words(world: World, what: str):
    typed = dict.fromkeys(("name", "config_host", *NAMES), ALL[what])
    answer = browser(world.ada).post(url("target", "add"), {**TARGET, **typed})
    found = errors(admin_form(answer))
    assert set(found) >= {"name", *NAMES}
    assert Page(answer).acts == []
    assert not Target.objects.filter(kind="postgresql").exists()
