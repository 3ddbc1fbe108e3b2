"""Searching the audit log: what can be asked for, who finds it, and that searching is told, too."""

from __future__ import annotations

import re
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from guardian.shortcuts import assign_perm

from approvals import opening
from approvals.errors import NotAllowed
from approvals.models import Target
from audit import context, log, reading
from audit.clock import now
from audit.log import Actor, Subject
from audit.looking import SEARCHED
from audit.models import Event
from audit.search import HINTS, PAGE, TEXT_MAX, Term, Unsearchable, parse
from tests.pages import signed_in
from tests.world import World

pytestmark = pytest.mark.django_db


@pytest.fixture
def auditor(world: World, django_user_model: Any) -> Client:
    """tess, who may see every Event and do nothing else."""
    tess = django_user_model.objects.create_user("tess", password="a long password")
    tess.user_permissions.add(Permission.objects.get(codename="view_event"))
    return signed_in(tess)


def page(client: Client, text: str = "", **more: str) -> str:
    response = client.get("/audit/", {"q": text, **more})
    assert response.status_code == 200
    return response.content.decode()


def sentences(client: Client, text: str = "", **more: str) -> list[str]:
    log = re.search(r'<ol class="card rows log">(.*?)</ol>', page(client, text, **more), re.S)
    found = re.findall(r"<summary>(.*?)</span>", log[1] if log else "", re.S)
    return [unescape(re.sub(r"<[^>]+>", "", one)).strip() for one in found]


class TestParsing:
    @pytest.mark.parametrize(
        ("text", "terms"),
        [
            ("", []),
            ("  \t", []),
            ("orders", [Term("", "orders")]),
            ("actor:bob since:2d", [Term("actor", "bob"), Term("since", "2d")]),
            ('target:"orders prod"', [Term("target", "orders prod")]),
            ('"no invoice" ', [Term("", "no invoice")]),
            ("16:40", [Term("", "16:40")]),
            ("actor:a:b", [Term("actor", "a:b")]),
        ],
    )
    def test_filters_and_words(self, text, terms):
        assert parse(text) == terms
        assert parse(" ".join(map(str, terms))) == terms

    @pytest.mark.parametrize("value", ['a "b" c', "it's", "a\\b", "a:b", "é 🔥", "‮x"])
    def test_a_term_is_read_back_as_it_was_written(self, value):
        assert parse(str(Term("actor", value))) == [Term("actor", value)]

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("acter:bob", "There is no filter “acter”"),
            ("actor:", "“actor:” needs a value"),
            ('"open', "A quotation mark is not closed"),
            ("x" * (TEXT_MAX + 1), "at most 500"),
            ("a\x00b", "printable"),
        ],
    )
    def test_what_cannot_be_read_is_refused_with_what_to_do(self, text, told):
        with pytest.raises(Unsearchable, match=re.escape(told)):
            parse(text)


class TestFinding:
    def test_by_whom_what_and_on_what(self, world: World, auditor: Client):
        first, second = world.submit("alice"), world.submit("amir", world.write)
        world.vote(first, "bob")
        assert sentences(auditor, "actor:bob action:vote") == ["bob approved in “Database”."]
        assert len(sentences(auditor, "action:vote.cast")) == 1
        assert all("amir" in one for one in sentences(auditor, f"actor:amir request:{second.pk}"))
        assert len(sentences(auditor, "target:orders action:accessrequest.submitted")) == 2
        assert sentences(auditor, "target:elsewhere") == []
        assert sentences(auditor, f"request:{first.pk} actor:amir") == []

    def test_words_are_looked_for_in_names_reasons_and_comments(self, world, auditor: Client):
        request = world.submit()
        world.vote(request, "bob", comment="Seen with Öztürk 100% of _it_.")
        for word in ("öztürk", '"100% of _it_"'):
            assert sentences(auditor, f"{word} action:vote") == ["bob approved in “Database”."]
        for word in ("_tt_", "100_"):
            assert sentences(auditor, f"{word} action:vote") == []

    def test_by_time_in_ones_own_zone(self, world: World, auditor: Client, clock):
        request = world.submit()
        event = Event.objects.get(action="accessrequest.submitted")
        day = event.at.date()
        told = f"action:accessrequest.submitted request:{request.pk}"
        assert len(sentences(auditor, f"{told} since:{day} until:{day}")) == 1
        assert sentences(auditor, f"{told} until:{day - timedelta(days=1)}") == []
        clock.forward(7200)
        assert sentences(auditor, f"{told} since:1h") == []
        assert len(sentences(auditor, f"{told} since:3h until:1h")) == 1
        exactly = event.at.isoformat()
        assert len(sentences(auditor, f"{told} since:{exactly}")) == 1
        assert sentences(auditor, f"{told} until:{exactly}") == []

    def test_refusals_alone_or_not_at_all(self, world: World, auditor: Client):
        request = world.submit()
        with pytest.raises(NotAllowed):
            world.vote(request, "mallory")
        assert len(sentences(auditor, f"request:{request.pk} refused:yes")) == 1
        assert "mallory" not in page(auditor, f"request:{request.pk} refused:no")

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("since:yesterday", "is no time"),
            ("since:2026-13-40", "is no time"),
            ("until:9999-12-31", "is no time"),
            ("request:twelve", "A request has a number"),
            ("request:²", "A request has a number"),
            ("refused:perhaps", "Say yes or no"),
            ("acter:bob", "There is no filter"),
        ],
    )
    def test_what_cannot_be_searched_for_is_said_beside_what_was_typed(
        self, auditor: Client, text, told
    ):
        response = auditor.get("/audit/", {"q": text})
        body = response.content.decode()
        assert response.status_code == 422
        assert told in body
        assert f'value="{text}"' in body
        assert not Event.objects.filter(action=SEARCHED).exists()

    def test_every_filter_has_a_hint_and_all_are_shown(self, auditor: Client):
        body = unescape(page(auditor))
        assert all(hint in body for hint in HINTS.values())

    def test_hostile_text_is_text(self, world: World, auditor: Client):
        hostile = "<img src=x onerror=alert(1)>"
        world.submit(reason=f"{hostile} ‮")
        request = world.submit("amir", ticket="")
        world.vote(request, "bob", comment=hostile)
        body = page(auditor, f'"{hostile}"')
        assert hostile not in body
        assert "&lt;img" in body

    @pytest.mark.slow
    def test_one_page_after_the_other_without_gaps(self, world: World, auditor: Client):
        actor, subject = Actor("user", "0", "zoe"), Subject("target", "0", "there")
        with log.batch():
            for _ in range(PAGE + 7):
                log.record("target.changed", actor=actor, subject=subject)
        body = page(auditor, "actor:zoe")
        [before] = re.findall(r"before=(\d+)", body)
        assert len(sentences(auditor, "actor:zoe")) == PAGE
        assert len(sentences(auditor, "actor:zoe", before=before)) == 7
        assert "before=" not in page(auditor, "actor:zoe", before=before)
        assert sentences(auditor, "actor:zoe", before="x;--") == sentences(auditor, "actor:zoe")

    def test_the_queries_are_few_however_much_is_found(self, world: World, auditor: Client):
        counts = []
        for who, since in (("alice", "7d"), ("amir", "8d")):
            world.submit(who)
            with CaptureQueriesContext(connection) as seen:
                page(auditor, f"target:orders since:{since}")
            counts.append(len(seen))
        assert counts[0] == counts[1] <= 20

    def test_an_event_that_was_tampered_with_is_shown_as_such(
        self, world: World, auditor: Client, monkeypatch
    ):
        world.submit()
        assert "No longer what was hashed" not in page(auditor)
        monkeypatch.setattr(Event, "mismatches", lambda event: ["actor_name"])
        assert "No longer what was hashed: actor_name" in page(auditor)

    def test_a_search_that_takes_too_long_is_given_up(self, world, auditor: Client, monkeypatch):
        class Slow(reading._Nobody):
            def visible_to(self, person: Any) -> Any:
                return Event.objects.extra(where=["pg_sleep(1) IS NOT NULL"])

        monkeypatch.setattr("audit.search.PATIENCE_MS", 50)
        monkeypatch.setattr(reading, "_reader", Slow())
        world.submit()
        response = auditor.get("/audit/")
        assert response.status_code == 422
        assert "That takes too long to find" in response.content.decode()


class TestWhoSeesWhat:
    @pytest.mark.slow
    def test_strangers_see_what_is_theirs_and_nothing_else(self, world: World):
        world.submit("alice")
        own = world.submit("amir")
        client = signed_in(world.amir)
        assert sentences(client)
        assert "alice" not in page(client, "request:" + str(own.pk))
        assert all("alice" not in one for one in sentences(client))
        assert sentences(signed_in(world.mallory)) == []
        assert sentences(signed_in(world.mallory), "target:orders") == []

    @pytest.mark.slow
    def test_owners_and_auditors_of_a_target_see_all_that_was_asked_there(self, world: World):
        request = world.submit("alice")
        assign_perm("audit_target", world.mallory, world.target)
        for person in (world.olga, world.mallory):
            client = signed_in(person)
            assert sentences(client, f"request:{request.pk}")
            assert sentences(client, "action:target")
            assert sentences(client, "action:policy") == []

    @pytest.mark.slow
    def test_where_somebody_sits_only_auditors_see(self, world: World, auditor: Client):
        with context.bind(request_id="r1", address="192.0.2.7", agent="Netscape/4"):
            request = world.submit("alice")
        text = f"request:{request.pk}"
        assert {"192.0.2.7", "Netscape/4"} <= set(re.findall(r"[\w./]+", page(auditor, text)))
        for person in (world.alice, world.olga, world.bob):
            told = page(signed_in(person), text)
            assert "read-only on orders for alice" in told
            assert "192.0.2.7" not in told
            assert "Netscape" not in told

    def test_a_superuser_sees_everything(self, world: World):
        world.submit("alice")
        assert sentences(signed_in(world.ada), "action:policy.published")

    def test_without_anybody_to_ask_nobody_sees_anything(self, world, auditor, monkeypatch):
        world.submit()
        monkeypatch.setattr(reading, "_reader", reading._Nobody())
        assert sentences(auditor) == sentences(auditor, "target:orders") == []

    def test_nobody_is_let_in_without_signing_in(self, world: World):
        response = Client().get("/audit/")
        assert (response.status_code, response["Location"]) == (302, "/sign-in/?next=/audit/")

    def test_no_credential_is_to_be_found(self, world: World, auditor: Client):
        grant = world.approved()
        opening.open_grant(grant.pk, worker="w")
        grant.refresh_from_db()
        assert grant.secret
        assert grant.secret not in page(auditor, f"request:{grant.request_id}")


class TestSearchesAreTold:
    def test_each_once_with_what_was_looked_for(self, world: World, auditor: Client):
        page(auditor, 'actor:bob  "no  invoice"')
        page(auditor, 'actor:bob "no  invoice"', before="7")
        [event] = Event.objects.filter(action=SEARCHED)
        assert event.actor_name == "tess"
        assert event.data == {"searched": 'actor:bob "no  invoice"', "where": ""}
        assert 'tess searched the audit log for actor:bob "no  invoice".' in sentences(auditor)

    def test_whatever_page_is_asked_for_first(self, world: World, auditor: Client):
        page(auditor, "actor:bob", before="999999999999999999")
        assert Event.objects.get(action=SEARCHED).data["searched"] == "actor:bob"

    def test_the_same_again_within_an_hour_is_one_search(
        self, world: World, auditor: Client, clock
    ):
        for hours in (0, 0.5, 0.6):
            clock.forward(3600 * hours)
            page(auditor, "actor:bob")
        assert Event.objects.filter(action=SEARCHED).count() == 2

    def test_over_the_api_too_where_a_poll_is_one(self, world: World, auditor: Client):
        for since in ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"):
            told = {"actor": "bob", "happened_after": since}
            assert auditor.get("/api/v1/events/", told).status_code == 200
        assert Event.objects.get(action=SEARCHED).data["searched"] == "actor:bob"
        assert "tess searched the audit log for actor:bob, by the API." in sentences(auditor)

    def test_in_the_admin_too(self, world: World):
        ada = signed_in(world.ada)
        ada.get("/admin/audit/event/", {"q": "bob", "p": "0"})
        ada.get("/admin/audit/event/")
        assert sentences(ada)[:2] == [
            "ada looked at the audit log, in the admin.",
            "ada searched the audit log for q:bob, in the admin.",
        ]

    @pytest.mark.parametrize(
        "headers",
        [{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Sec-Purpose": "x"}],
    )
    def test_but_not_what_another_site_has_somebody_look_for(self, world: World, headers):
        ada = signed_in(world.ada)
        answer = ada.get("/audit/", {"q": 'actor:carol "salary list"'}, headers=headers)
        assert "Another page sent you here." in answer.content.decode()
        assert "salary list" in answer.content.decode()
        assert ada.get("/api/v1/events/", {"actor": "x"}, headers=headers).status_code == 403
        assert ada.get("/admin/audit/event/", {"q": "x"}, headers=headers).status_code == 302
        assert not Event.objects.filter(action=SEARCHED).exists()

    def test_those_who_look_at_their_own_do_not_see_that_others_searched(self, world, auditor):
        page(auditor, "actor:alice")
        assert sentences(signed_in(world.olga), f"action:{SEARCHED}") == []


def test_a_target_is_told_apart_from_another_by_its_name(world: World, auditor: Client):
    Target.objects.create(
        name="orders two", kind="memory", environment="production", created_at=now()
    )
    body = page(auditor, 'target:"orders two"')
    assert 'target:"orders two"' in unescape(body)
    assert "Nothing is found" in body
