"""The pages: what they show to whom, what they refuse, and that nothing is done twice."""

from __future__ import annotations

import re
import shlex
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from django.conf import settings as django_settings
from django.template.loader import get_template
from django.test import Client
from django.urls import URLPattern, get_resolver
from guardian.shortcuts import assign_perm
from psycopg.conninfo import conninfo_to_dict

from approvals import administration, closing, grants, opening
from approvals.errors import ProvisionError
from approvals.models import AccessRequest, Decision, StepKind, Target, Vote
from approvals.states import LOOKS, GrantState, RequestState
from approvals.templatetags.look import dsn, jdbc, psql
from audit.models import Event
from tests.pages import signed_in, text
from tests.world import HOUR, World, publish, save_level, stage

# The last two mark as read, and lead on.
NO_VERBS = ("ask-level", "request-edit", "request-lower", "inbox-entry", "inbox-message")
HTMX = {"HX-Request": "true"}
HOSTILE = "<script>alert(1)</script> \u202egpj.exe \U0001f525 " + "x" * 1900


@pytest.fixture
def sign_in(world: World):
    return lambda name: signed_in(world.people[name])


def field(response: Any, name: str) -> str:
    found = re.search(rf'name="{name}" value="([^"]*)"', response.content.decode())
    assert found, f"no field {name}"
    return found[1]


def opened(world: World, who: str = "alice") -> Any:
    grant = world.approved(who)
    opening.open_grant(grant.pk, worker="w1")
    grant.refresh_from_db()
    return grant


def vote(client: Client, request: AccessRequest, decision: str = "approve", **more: Any) -> Any:
    page = client.get(f"/requests/{request.pk}/")
    sent = {name: field(page, name) for name in ("scope_hash", "replaces")}
    return client.post(f"/requests/{request.pk}/vote/", {"decision": decision, **sent, **more})


@pytest.mark.parametrize(
    "address", ["/", "/ask/", "/ask/1/", "/queue/", "/grants/", "/requests/1/", "/grants/1/"]
)
def test_whoever_is_not_signed_in_is_sent_to_sign_in(world, address):
    response = Client().get(address)
    assert response.status_code == 302
    assert response["Location"].startswith("/sign-in/?next=/")


@pytest.mark.slow
def test_mallory_is_taught_by_empty_pages(sign_in):
    mallory = sign_in("mallory")
    assert "No access is open to you now." in text(mallory.get("/"))
    assert "There is nothing you may ask for yet." in text(mallory.get("/ask/"))
    assert "No one waits for you." in text(mallory.get("/queue/"))
    assert "Nothing is undecided." in text(mallory.get("/queue/?show=all"))
    assert "Nothing is open." in text(mallory.get("/grants/"))


@pytest.mark.slow
def test_what_mallory_may_not_see_does_not_exist_for_her(world, sign_in):
    request, grant = world.submit("amir"), opened(world)
    mallory = sign_in("mallory")
    for address in (f"/requests/{request.pk}/", f"/grants/{grant.pk}/", f"/ask/{world.read.pk}/"):
        assert mallory.get(address).status_code == 404
    for address in (
        f"/requests/{request.pk}/vote/",
        f"/requests/{request.pk}/cancel/",
        f"/grants/{grant.pk}/reveal/",
        f"/grants/{grant.pk}/extend/",
        f"/grants/{grant.pk}/release/",
        f"/grants/{grant.pk}/revoke/",
        f"/grants/{grant.pk}/try-again/",
        f"/grants/{grant.pk}/abandon/",
        f"/ask/{world.read.pk}/preview/",
    ):
        assert mallory.post(address, {"reason": "Because."}).status_code == 404
    grant.refresh_from_db()
    assert grant.state == GrantState.ACTIVE


@pytest.mark.parametrize("pk", ["0", "999999", "9" * 25])
def test_an_id_that_nothing_has_is_404(sign_in, pk):
    alice = sign_in("alice")
    assert alice.get(f"/requests/{pk}/").status_code == 404
    assert alice.get(f"/grants/{pk}/").status_code == 404
    assert alice.get(f"/ask/{pk}/").status_code == 404


@pytest.mark.slow
@pytest.mark.parametrize("cursor", ["abc", "-1", "9" * 40, "٣", "1e9", "%00"])
def test_a_made_up_cursor_breaks_nothing(world, sign_in, cursor):
    world.submit()
    for address in ("/queue/", "/queue/?show=all", "/grants/"):
        joint = "&" if "?" in address else "?"
        assert sign_in("bob").get(f"{address}{joint}from={cursor}").status_code == 200


@pytest.mark.slow
def test_no_verb_answers_to_get_and_none_acts_without_a_csrf_token(world, sign_in):
    request, grant = world.submit("amir"), opened(world)
    careful = Client(enforce_csrf_checks=True)
    careful.force_login(world.alice)
    patterns = get_resolver("approvals.urls").url_patterns
    names = [str(one.name) for one in patterns if isinstance(one, URLPattern)]
    verbs = [name for name in names if "-" in name and name not in NO_VERBS]
    assert len(verbs) == 14
    for address in (
        f"/requests/{request.pk}/vote/",
        f"/requests/{request.pk}/cancel/",
        f"/requests/{request.pk}/send-back/",
        "/queue/decide/",
        "/inbox/read/",
        f"/grants/{grant.pk}/reveal/",
        f"/grants/{grant.pk}/release/",
        f"/grants/{grant.pk}/revoke/",
        f"/grants/{grant.pk}/try-again/",
        f"/grants/{grant.pk}/abandon/",
        f"/ask/{world.read.pk}/preview/",
    ):
        assert sign_in("alice").get(address).status_code == 405
        assert careful.post(address).status_code == 403
    for address in (f"/ask/{world.read.pk}/", f"/requests/{request.pk}/edit/"):
        assert careful.post(address).status_code == 403


def test_pages_carry_the_strict_policy_and_are_not_kept(world, sign_in):
    response = sign_in("alice").get("/")
    assert "default-src 'none'" in response["Content-Security-Policy"]
    assert "no-store" in response["Cache-Control"]


@pytest.mark.slow
@pytest.mark.parametrize("who", ["alice", "bob", "olga"])
def test_no_page_has_an_inline_script_or_style(world, sign_in, who):
    request, grant = world.submit("amir"), opened(world)
    client = sign_in(who)
    for address in (
        "/",
        "/ask/",
        "/queue/",
        "/grants/",
        f"/requests/{request.pk}/",
        f"/grants/{grant.pk}/",
        f"/ask/{world.write.pk}/",
    ):
        body = client.get(address).content.decode()
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)", body), address


def ask(client: Client, world: World, **typed: str) -> Any:
    data = {"duration": "3600", "reason": "Orders hang since 10:40.", **typed}
    return client.post(f"/ask/{world.read.pk}/", data)


@pytest.mark.slow
def test_alice_asks_and_lands_on_her_request(world, sign_in):
    alice = sign_in("alice")
    chosen = text(alice.get("/ask/"))
    assert "read-only" in chosen
    assert "may read" in chosen
    assert "Ask dba and security" in text(alice.get(f"/ask/{world.read.pk}/"))

    response = ask(alice, world, duration="other", minutes="90", ticket="OPS-1")
    request = AccessRequest.objects.get()
    assert response["Location"] == f"/requests/{request.pk}/"
    assert (request.requester, request.duration, request.ticket) == (world.alice, 5400, "OPS-1")
    page = text(alice.get(response["Location"]))
    assert "alice asks for read-only on orders for 90 min" in page
    assert "waits for 1 of dba" in page


def test_a_mistake_keeps_what_was_typed(world, sign_in):
    response = ask(sign_in("alice"), world, duration="other", minutes="600", ticket="OPS-7")
    assert response.status_code == 422
    body = response.content.decode()
    for kept in ('value="600"', 'value="OPS-7"', "Orders hang since 10:40."):
        assert kept in body
    assert "the limit is that of the level read-only" in text(response)
    assert not AccessRequest.objects.exists()


def test_an_empty_reason_is_refused_at_its_field(world, sign_in):
    response = ask(sign_in("alice"), world, reason="  ")
    assert response.status_code == 422
    assert "Say what is broken" in text(response)
    assert 'id="ask-reason-error"' in response.content.decode()


@pytest.mark.slow
def test_asking_twice_shows_the_request_that_there_is(world, sign_in):
    alice = sign_in("alice")
    ask(alice, world)
    request = AccessRequest.objects.get()
    again = ask(alice, world)
    assert again.status_code == 409
    assert f'href="/requests/{request.pk}/"' in again.content.decode()
    assert AccessRequest.objects.count() == 1


def test_what_may_not_be_asked_for_is_a_403_and_not_a_conflict(world, sign_in):
    world.read.summarised_at = None
    world.read.save()
    response = ask(sign_in("alice"), world)
    assert response.status_code == 403
    assert "has not been checked on its target yet" in text(response)
    assert "Orders hang since 10:40." in response.content.decode()
    assert not AccessRequest.objects.exists()


def test_nobody_who_could_decide_means_refused_with_the_reason(world, sign_in):
    world.groups["security"].user_set.clear()
    alice = sign_in("alice")
    page = text(alice.get(f"/ask/{world.read.pk}/"))
    assert "This would be refused." in page
    assert "“Security”" in page
    assert ask(alice, world).status_code == 422


def test_the_preview_follows_what_is_typed(world, sign_in):
    publish(world, stage(world, "Both", "dba", "security"), stage(world, "Owner", "owners"))
    part = sign_in("alice").post(
        f"/ask/{world.read.pk}/preview/", {"duration": "900"}, headers=HTMX
    )
    words = text(part)
    assert "1 of dba and 1 of security" in words
    assert "olga can" in words
    assert "Ask dba and security and owners" in words
    assert "<html" not in part.content.decode()
    assert not AccessRequest.objects.exists()


def test_without_script_a_preview_is_the_whole_page_with_the_form_kept(world, sign_in):
    whole = sign_in("alice").post(
        f"/ask/{world.read.pk}/preview/", {"duration": "900", "reason": "Half a sent"}
    )
    assert "<html" in whole.content.decode()
    assert "Half a sent" in whole.content.decode()


def test_the_preview_says_that_it_is_asked_already(world, sign_in):
    request = world.submit()
    part = sign_in("alice").post(
        f"/ask/{world.read.pk}/preview/", {"duration": "900"}, headers=HTMX
    )
    assert f'href="/requests/{request.pk}/"' in part.content.decode()


@pytest.mark.slow
def test_bob_then_carol_approve_on_their_pages(world, sign_in):
    request = world.submit()
    bob, carol, alice = sign_in("bob"), sign_in("carol"), sign_in("alice")
    assert "alice: read-only on orders" in text(bob.get("/queue/"))
    assert "alice: read-only on orders" not in text(carol.get("/queue/"))

    assert vote(bob, request, comment="Fine by me.").status_code == 302
    page = text(alice.get(f"/requests/{request.pk}/"))
    assert "bob approved" in page
    assert "Fine by me." in page
    assert "waits for 1 of security" in page

    assert vote(carol, request).status_code == 302
    request.refresh_from_db()
    assert request.state == RequestState.APPROVED
    assert "Scheduled" in text(alice.get(f"/requests/{request.pk}/"))


def test_alice_finds_no_buttons_on_her_own_request_and_is_refused(world, sign_in):
    request = world.submit()
    alice = sign_in("alice")
    page = alice.get(f"/requests/{request.pk}/")
    assert 'value="approve"' not in page.content.decode()
    assert "Nobody decides about their own access" in text(page)

    sent = {"decision": "approve", "scope_hash": request.scope_hash}
    refused = alice.post(f"/requests/{request.pk}/vote/", sent)
    assert refused.status_code == 403
    assert "Others who are named in the chain can decide" in text(refused)
    assert "self_approval" in text(refused)
    assert not Vote.objects.exists()


def test_carol_may_not_decide_in_bobs_stage(world, sign_in):
    request = world.submit()
    carol = sign_in("carol")
    assert "You are asked in “Security”" in text(carol.get(f"/requests/{request.pk}/"))
    sent = {"decision": "approve", "scope_hash": request.scope_hash}
    assert carol.post(f"/requests/{request.pk}/vote/", sent).status_code == 403


@pytest.mark.slow
def test_a_denial_wants_a_reason_and_keeps_the_page(world, sign_in):
    request = world.submit()
    response = vote(sign_in("bob"), request, "deny", comment=" ")
    assert response.status_code == 422
    assert "Say why, so that they know what to do instead." in text(response)
    assert not Vote.objects.exists()

    assert vote(sign_in("bob"), request, "deny", comment="Use the replica.").status_code == 302
    page = text(sign_in("alice").get(f"/requests/{request.pk}/"))
    assert "Denied" in page
    assert "Use the replica." in page


@pytest.mark.slow
def test_the_same_vote_sent_twice_is_counted_once(world, sign_in):
    publish(world, stage(world, "Two", "dba", minimum=2))
    request = world.submit()
    bob = sign_in("bob")
    page = bob.get(f"/requests/{request.pk}/")
    sent = {"decision": "approve", **{n: field(page, n) for n in ("scope_hash", "replaces")}}
    assert bob.post(f"/requests/{request.pk}/vote/", sent).status_code == 302
    again = bob.post(f"/requests/{request.pk}/vote/", sent)
    assert again.status_code == 409
    assert "It has moved on" in text(again)
    assert "Pending" in text(again)
    assert Vote.objects.count() == 1


@pytest.mark.slow
def test_bob_changes_his_mind_on_purpose(world, sign_in):
    publish(world, stage(world, "Two", "dba", minimum=2))
    request = world.submit()
    bob = sign_in("bob")
    vote(bob, request)
    assert "you may change that while the stage is open" in text(
        bob.get(f"/requests/{request.pk}/")
    )
    assert vote(bob, request, "deny", comment="I looked again.").status_code == 302
    assert Vote.objects.counting().get().decision == Decision.DENY


def test_a_vote_on_another_scope_than_the_one_read_is_refused(world, sign_in):
    request = world.submit()
    bob = sign_in("bob")
    page = bob.get(f"/requests/{request.pk}/")
    world.server.levels["read-only"] = ("may read", "may read secrets")
    save = world.read
    save.description = "Now with more."
    administration.save_level(save, by=world.ada)
    sent = {"decision": "approve", "scope_hash": field(page, "scope_hash")}
    refused = bob.post(f"/requests/{request.pk}/vote/", sent)
    assert refused.status_code == 409
    assert "What is asked for has changed since you looked at it." in text(refused)
    assert not Vote.objects.exists()


def test_a_request_past_its_time_offers_no_vote_before_any_sweeper_came(world, sign_in, clock):
    request = world.submit()
    clock.forward(86400 + 1)
    page = sign_in("bob").get(f"/requests/{request.pk}/")
    assert "Its time has run out" in text(page)
    assert 'value="approve"' not in page.content.decode()


def test_alice_cancels_once(world, sign_in):
    request = world.submit()
    alice = sign_in("alice")
    assert alice.post(f"/requests/{request.pk}/cancel/").status_code == 302
    again = alice.post(f"/requests/{request.pk}/cancel/")
    assert again.status_code == 409
    assert "Cancelled" in text(again)
    assert sign_in("bob").post(f"/requests/{request.pk}/cancel/").status_code == 403


def test_a_poll_answers_nothing_until_something_happened(world, sign_in):
    request = world.submit()
    bob = sign_in("bob")
    page = bob.get(f"/requests/{request.pk}/").content.decode()
    poll = unescape(re.search(r'id="live"[^>]*hx-get="([^"]+)"', page)[1])  # type: ignore[index]
    assert bob.get(poll, headers=HTMX).status_code == 204

    world.vote(request, "dan")
    moved = bob.get(poll, headers=HTMX)
    assert "dan approved" in text(moved)
    assert "hx-swap-oob" in moved.content.decode()
    assert "<html" not in moved.content.decode()
    assert 'value="approve"' not in moved.content.decode()


def test_a_poll_never_slips_another_scope_under_an_open_form(world, sign_in):
    request = world.submit()
    bob = sign_in("bob")
    moved = bob.get(f"/requests/{request.pk}/?seen=old&scope=another&box=old", headers=HTMX)
    assert "has changed since you opened this page" in text(moved)
    assert 'name="scope_hash"' not in moved.content.decode()


@pytest.mark.slow
def test_polling_stops_when_all_is_over(world, sign_in):
    grant = opened(world)
    alice = sign_in("alice")
    assert "hx-trigger" in alice.get(f"/requests/{grant.request_id}/").content.decode()
    grants.release(grant.pk, by=world.alice)
    closing.close_grant(grant.pk, worker="w1")
    for address in (f"/requests/{grant.request_id}/", f"/grants/{grant.pk}/"):
        assert "hx-trigger" not in alice.get(address).content.decode()


@pytest.mark.slow
def test_alice_is_shown_the_credential_once_and_nobody_else_is(world, sign_in):
    grant = opened(world)
    for who in ("bob", "olga"):
        assert sign_in(who).post(f"/grants/{grant.pk}/reveal/").status_code == 403

    alice = sign_in("alice")
    shown = alice.post(f"/grants/{grant.pk}/reveal/")
    assert shown.status_code == 200
    assert "no-store" in shown["Cache-Control"]
    found = re.search(r'id="password">([^<]+)<', shown.content.decode())
    assert found
    password = unescape(found[1])
    assert world.server.sign_in(grant.account, password).alive

    again = alice.post(f"/grants/{grant.pk}/reveal/")
    assert again.status_code == 409
    assert "shown already" in text(again)
    for page in (
        again,
        alice.get(f"/grants/{grant.pk}/"),
        alice.get(f"/requests/{grant.request_id}/"),
    ):
        assert password not in page.content.decode()
    assert not [event for event in Event.objects.all() if password in str(event.told())]


def test_a_grant_past_its_end_is_not_shown_as_active(world, sign_in, clock):
    grant = opened(world)
    alice = sign_in("alice")
    assert "Show the credential" in text(alice.get(f"/grants/{grant.pk}/"))
    clock.forward(HOUR)
    page = text(alice.get(f"/grants/{grant.pk}/"))
    assert "Closing" in page
    assert "Active" not in page
    assert "Show the credential" not in page


def test_a_direct_level_says_what_is_not_recorded(world, sign_in):
    page = text(sign_in("alice").get(f"/grants/{opened(world).pk}/"))
    assert "debugflow does not see what you do here; the target's own log does." in page
    assert "new sign-ins end with the clock by the target itself" in page


def test_alice_releases_once(world, sign_in):
    grant = opened(world)
    alice = sign_in("alice")
    assert alice.post(f"/grants/{grant.pk}/release/").status_code == 302
    again = alice.post(f"/grants/{grant.pk}/release/")
    assert again.status_code == 409
    assert "Closing" in text(again)


@pytest.mark.slow
def test_olga_revokes_with_a_reason_that_alice_reads(world, sign_in):
    grant = opened(world)
    olga = sign_in("olga")
    assert "Revoke now" in text(olga.get(f"/grants/{grant.pk}/"))
    empty = olga.post(f"/grants/{grant.pk}/revoke/", {"reason": " "})
    assert empty.status_code == 422
    assert "Say why" in text(empty)

    assert olga.post(f"/grants/{grant.pk}/revoke/", {"reason": "It is over."}).status_code == 302
    assert "It is over." in text(sign_in("alice").get(f"/grants/{grant.pk}/"))
    assert (
        sign_in("olga").post(f"/grants/{grant.pk}/revoke/", {"reason": "Me too."}).status_code
        == 409
    )


@pytest.fixture
def stuck(world, clock):
    """Alice gave it back; orders has not answered for 70 s."""
    grant = opened(world)
    world.server.fail_next("cut", ProvisionError("It did not answer."), times=99)
    grants.release(grant.pk, by=world.alice)
    for wait in (0, 70):
        clock.forward(wait)
        closing.close_grant(grant.pk, worker="w1")
    return grant


def test_a_stuck_grant_is_on_top_with_its_error(world, sign_in, stuck):
    page = text(sign_in("olga").get("/grants/?show=all"))
    assert "Not closed yet" in page
    assert "It should have ended 1 min ago and may still be open." in page
    assert "Taking it away has failed for 1 min : It did not answer." in page
    assert "Tried 2 times, again in a moment , and so on until it works." in page


@pytest.mark.slow
def test_alice_has_it_tried_now_but_does_not_give_it_up(world, sign_in, stuck):
    alice, path = sign_in("alice"), f"/grants/{stuck.pk}/"
    page = text(alice.get(path))
    assert "Try now" in page
    assert "Abandon…" not in page
    assert alice.post(f"{path}try-again/").status_code == 302
    assert "alice asked for the next try at closing it to be made now." in text(alice.get(path))
    refused = alice.post(f"{path}abandon/", {"reason": "Mine."})
    assert refused.status_code == 403
    assert "Nobody abandons access that they hold" in text(refused)
    assert "Abandon…" not in text(sign_in("bob").get(path))  # who only approved it
    [job] = closing.claim(StepKind.CUT, worker="w1", only=stuck.pk)
    assert "Being tried…" in text(alice.get(path))
    world.server._faults.clear()
    closing.run_all([job])
    page = text(alice.get(path))
    assert "Try now" not in page
    assert "Being tried…" not in page


@pytest.mark.slow
def test_two_give_it_up_and_every_page_says_that_it_is_unsafe(world, sign_in, stuck):
    path = f"/grants/{stuck.pk}/"
    olga, ada, alice = sign_in("olga"), sign_in("ada"), sign_in("alice")
    page = text(olga.get(path))
    assert "This does not end the access. It may still be open on the target" in page
    assert "Two people have to agree" in page
    empty = olga.post(f"{path}abandon/", {"reason": " "})
    assert empty.status_code == 422
    assert "Say why" in text(empty)

    olga.post(f"{path}abandon/", {"reason": "The host <b>was</b> wiped."})
    page = text(olga.get(path))
    assert "olga asked to abandon it; it takes one more" in page
    assert "The host <b>was</b> wiped." in page
    assert "Abandon…" not in page
    again = olga.post(f"{path}abandon/", {"reason": "Again."})
    assert again.status_code == 409
    assert "It takes one more" in text(again)
    assert "named in the chain" not in text(again)

    ada.post(f"{path}abandon/", {"reason": "Indeed."})
    for address in (path, "/grants/", "/", f"/requests/{stuck.request_id}/"):
        page = alice.get(address)
        assert 'class="state tone-red"' in page.content.decode()
        assert "Abandoned, unsafe" in text(page)
        assert "Closing" not in text(page)
    page = text(alice.get(path))
    assert "olga gave it up" in page
    assert "ada gave it up" in page
    assert "ada and olga abandoned it: unsafe, tried every hour from now on" in page


def test_what_is_late_with_nobody_trying_says_so(world, sign_in, clock):
    grant = opened(world)
    clock.forward(HOUR + 60)
    page = text(sign_in("olga").get(f"/grants/{grant.pk}/"))
    assert "It should have ended 1 min ago and may still be open." in page
    assert "An administrator can see whether workers run" in page


def test_trouble_reaches_the_open_page_and_keeps_what_is_being_typed(world, sign_in, stuck):
    olga, path = sign_in("olga"), f"/grants/{stuck.pk}/"
    seen = re.search(r"seen=([0-9a-f]+)", olga.get(path).content.decode())
    assert seen
    assert olga.get(path, {"seen": seen[1]}, headers=HTMX).status_code == 204
    sign_in("ada").post(f"{path}abandon/", {"reason": "Gone."})
    part = olga.get(path, {"seen": seen[1]}, headers=HTMX)
    assert "ada asked to abandon it" in text(part)
    assert re.search(r'id="abandon-card" hx-preserve', part.content.decode())
    assert re.search(r'id="acts"[^>]* hx-swap-oob="true"', part.content.decode())


def test_postgresql_shows_a_command_line_that_a_shell_and_libpq_read_back():
    connection = {
        "host": "db.example.com",
        "port": 5432,
        "database": "or'd ers\\$(id)",
        "user": "dbgf_1",
        "sslmode": "verify-full",
    }
    command, conninfo = shlex.split(psql(connection))
    assert command == "psql"
    assert conninfo_to_dict(conninfo)["dbname"] == connection["database"]
    assert "secret" not in psql(connection)

    parts = urlsplit(dsn(connection, "s/e:c@r?t%"))
    assert unquote(parts.password or "") == "s/e:c@r?t%"
    assert conninfo_to_dict(dsn(connection, "s/e"))["dbname"] == connection["database"]

    url = urlsplit(jdbc(connection).removeprefix("jdbc:"))
    assert (url.hostname, url.port) == ("db.example.com", 5432)
    assert unquote(url.path.removeprefix("/")) == connection["database"]
    assert parse_qs(url.query) == {"user": ["dbgf_1"], "sslmode": ["verify-full"]}
    assert jdbc({**connection, "host": "2001:db8::1"}).startswith("jdbc:postgresql://[2001:db8::1]")


def ask_for_many(world: World, count: int) -> None:
    """So many requests of alice's, each for a level of its own."""
    for number in range(count):
        level = save_level(
            world, name=f"read-{number}", rank=10 + number, rights={"level": "read-only"}
        )
        assign_perm("approvals.request_accesslevel", world.groups["developers"], level)
        world.submit("alice", level=level)


def ids(response: Any) -> list[int]:
    found = re.findall(r'id="row-(\d+)"', response.content.decode())
    return [int(pk) for pk in found]


@pytest.mark.slow
def test_a_long_queue_is_walked_page_by_page_and_costs_the_same(
    world, sign_in, django_assert_max_num_queries
):
    ask_for_many(world, 60)
    bob = sign_in("bob")
    with django_assert_max_num_queries(22):
        first = bob.get("/queue/")
    assert "60 need you" in text(first)
    with django_assert_max_num_queries(22):
        everything = bob.get("/queue/?show=all")
    after = re.search(r'rel="next" href="([^"]+)"', first.content.decode())
    assert after
    rest = bob.get(unescape(after[1]))
    every = [*ids(first), *ids(rest)]
    assert every == sorted(AccessRequest.objects.values_list("pk", flat=True))
    assert ids(everything) == sorted(every, reverse=True)[:50]
    assert 'rel="next"' not in rest.content.decode()


@pytest.mark.slow
def test_no_page_asks_the_database_too_much(world, sign_in, django_assert_max_num_queries):
    for who in ("alice", "amir"):
        opened(world, who)
    request = world.submit("alice")
    world.vote(request, "bob")
    waiting = world.submit("amir")
    for who in ("alice", "bob", "olga"):
        client = sign_in(who)
        with django_assert_max_num_queries(20):
            assert client.get("/").status_code == 200
        with django_assert_max_num_queries(20):
            assert client.get(f"/requests/{request.pk}/").status_code == 200
        with django_assert_max_num_queries(16):
            assert client.get("/grants/?show=all").status_code == 200
    bob = sign_in("bob")
    with django_assert_max_num_queries(20):
        assert bob.get(f"/requests/{waiting.pk}/").status_code == 200


@pytest.mark.slow
def test_hostile_text_is_shown_and_does_nothing(world, sign_in):
    world.alice.username = "<b>alice</b>\u202e"
    world.alice.save()
    request = world.submit(reason=HOSTILE[:2000], ticket="<i>T</i>")
    world.vote(request, "bob", comment=HOSTILE[:2000])
    for who, address in (("carol", "/queue/"), ("carol", "/"), ("bob", f"/requests/{request.pk}/")):
        response = sign_in(who).get(address)
        body = response.content.decode()
        assert "<script>alert" not in body
        assert "<b>alice" not in body
        assert "\u202egpj" not in body
    assert "<script>alert(1)</script> ␦gpj.exe" in text(response)


def test_times_are_told_in_the_viewers_zone(world, sign_in):
    request = world.submit()
    for zone in ("Europe/Berlin", "Asia/Kolkata", "Not/AZone", "../etc/passwd"):
        world.bob.time_zone = zone
        world.bob.save()
        body = sign_in("bob").get(f"/requests/{request.pk}/").content.decode()
        assert (zone if "/" in zone and zone[0] in "EA" else " UTC") in body


def test_every_state_of_the_cast_has_its_icon_in_the_sprite():
    static = Path(django_settings.STATICFILES_DIRS[0])
    sprite = set(re.findall(r'<symbol id="([^"]+)"', (static / "icons.svg").read_text()))
    assert {look.icon for looks in LOOKS.values() for look in looks.values()} <= sprite
    templates = Path(django_settings.BASE_DIR).glob("*/templates/**/*.html")
    named = {name for page in templates for name in re.findall(r'icon "([^"]+)"', page.read_text())}
    assert named
    assert named <= sprite


@pytest.mark.parametrize("page", ["403.html", "403_csrf.html", "404.html", "500.html"])
def test_pages_for_errors_need_nothing_to_be_shown(page):
    body = get_template(page).render()
    assert "<h1>" in body
    assert "Sign out" not in body


def test_sign_in_page_says_the_same_for_a_wrong_password_and_an_unknown_name(world):
    pages = [
        Client().post("/sign-in/", {"username": name, "password": "wrong wrong wrong"})
        for name in ("alice", "nobody-at-all")
    ]
    words = {text(page).replace("nobody-at-all", "").replace("alice", "") for page in pages}
    assert len(words) == 1
    assert "do not sign in" in words.pop()
    right = Client().post("/sign-in/", {"username": "alice", "password": "a long password"})
    assert right["Location"] == "/"


def test_alice_finds_a_target_by_typing_a_part_of_its_name(world, sign_in):
    alice = sign_in("alice")
    assert "Ask for read-only" in text(alice.get("/ask/?q=ORD+only"))
    assert "Ask for read-write" not in text(alice.get("/ask/?q=ORD+only"))
    nothing = text(alice.get("/ask/?q=payroll"))
    assert "Nothing that you may ask for is called that." in nothing
    assert text(alice.get("/ask/", {"q": HOSTILE + "\0"})).count("alert(1)") <= 1


def test_what_was_asked_for_lately_comes_first(world, sign_in):
    config = {"name": "orders"}
    archive = Target(name="archive", kind="memory", environment="production", config=config)
    administration.save_target(archive, by=world.ada, clear_secrets={"password": "admin"})
    level = save_level(world, name="read-only", target=archive, rank=1)
    assign_perm("approvals.request_accesslevel", world.groups["developers"], level)
    world.submit()
    assert text(sign_in("amir").get("/ask/")).index("archive") < text(
        sign_in("amir").get("/ask/")
    ).index("orders")
    page = text(sign_in("alice").get("/ask/"))
    assert page.index("orders") < page.index("archive")


def test_a_level_that_is_switched_off_says_so_where_one_would_look_for_it(world, sign_in):
    alice = sign_in("alice")
    assert "Not to be had now" not in text(alice.get("/ask/"))
    world.write.enabled = False
    administration.save_level(world.write, by=world.ada)
    page = text(alice.get("/ask/"))
    assert "read-write on orders this level is switched off" in page
    world.target.enabled = False
    administration.save_target(world.target, by=world.ada, clear_secrets={})
    assert "read-only on orders this target is switched off" in text(alice.get("/ask/"))
    assert "Not to be had now" not in text(sign_in("mallory").get("/ask/"))


@pytest.mark.slow
def test_olga_finds_a_grant_by_words_of_its_target_its_level_and_its_holder(world, sign_in):
    opened(world)
    opened(world, "amir")
    olga = sign_in("olga")
    found = text(olga.get("/grants/?show=all&q=ORDERS+amir"))
    assert "amir · " in found
    assert "alice · " not in found
    nothing = text(olga.get("/grants/?show=all&q=payroll"))
    assert "Nothing that is open has all of these words." in nothing
    assert text(olga.get("/grants/", {"q": HOSTILE + "\0"})).count("alert(1)") <= 1
