"""Programs that show a token: what it lets them do, what none ever may, and when it is over."""

from __future__ import annotations

import logging
import re
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import IntegrityError, connection, transaction
from django.test import Client
from structlog.stdlib import ProcessorFormatter

from approvals import tokens, workflow
from approvals.errors import Invalid, NotAllowed
from approvals.models import ApiToken, ServiceAccount
from approvals.tokens import TokenWish
from audit.models import Event
from debugflow.logging import redact
from tests.approvals.api.conftest import (
    PASSWORD,
    As,
    Caller,
    Program,
    anonymous,
    asked,
    opened,
    program,
    refused,
)
from tests.conftest import Clock
from tests.world import World

WISH: dict[str, Any] = {"name": "nightly report", "scopes": ["read"], "days": 30}
DAY = 86400


def made(caller: Caller, **changes: Any) -> dict[str, Any]:
    answer = caller.post("tokens/", WISH | changes)
    assert answer.status_code == 201, answer.content
    told: dict[str, Any] = answer.json()
    return told


def test_alice_makes_one_and_is_shown_it_once(world: World, as_: As):
    alice = as_("alice")
    told = made(alice)
    assert re.fullmatch(r"dbf_[0-9A-Za-z]{49}", told["token"])
    assert told["token"].startswith(told["hint"])
    assert (told["kind"], told["scopes"]) == ("personal", ["read"])
    assert told["account"] == told["made_by"] == {"id": world.alice.pk, "username": "alice"}

    me = Program(told["token"]).get("tokens/this/").json()
    assert me["id"] == told["id"]
    (listed,) = alice.get("tokens/").json()["results"]
    assert listed == alice.get(f"tokens/{told['id']}/").json()
    assert listed["last_used_at"] is not None
    assert "token" not in listed
    refused(alice.get("tokens/this/"), 404, "not_found")


def test_only_its_hash_is_kept_and_no_event_repeats_it(world: World, as_: As):
    clear = made(as_("alice"))["token"]
    with connection.cursor() as cursor:
        for table in ("approvals_apitoken", "audit_event", "django_session"):
            cursor.execute(f"SELECT t::text FROM {table} t")
            for (row,) in cursor.fetchall():
                assert clear not in row
                assert clear[8:] not in row
    event = Event.objects.get(action="token.made")
    assert (event.actor_name, event.data["scopes"]) == ("alice", ["read"])
    assert event.subject_label == "personal token nightly report of alice"


def test_two_are_never_alike_and_one_mistyped_is_told_without_asking_the_database(
    world: World, django_assert_num_queries: Any
):
    clear = program(world).clear
    assert clear != program(world).clear
    swapped = clear[:-8] + ("a" if clear[-8] != "a" else "b") + clear[-7:]
    for wrong in (swapped, clear[:-1], clear.lower(), clear + "0", "dbf_", "", "ghp_" + clear[4:]):
        with django_assert_num_queries(0), pytest.raises(NotAllowed) as told:
            tokens.presented(wrong)
        assert told.value.code == "token_unknown"
        assert wrong not in told.value.message or not wrong


@pytest.mark.slow
def test_a_token_reads_and_asks_as_its_account_without_cookie_or_csrf(world: World):
    alice = program(world)
    answer = alice.post("requests/", asked(world))
    assert answer.status_code == 201
    request = answer.json()
    assert request["requester"]["username"] == "alice"
    assert alice.get(f"requests/{request['id']}/").json()["id"] == request["id"]
    refused(program(world, "mallory").get(f"requests/{request['id']}/"), 404, "not_found")
    assert alice.post(f"requests/{request['id']}/cancel/").json()["state"] == "cancelled"


def test_each_change_is_told_together_with_the_token_that_called_for_it(world: World):
    answer = program(world).post("requests/", asked(world))
    assert answer.status_code == 201
    used = Event.objects.get(action="token.used")
    asking = Event.objects.get(action="accessrequest.submitted")
    assert used.request_id == asking.request_id == answer["X-Request-ID"]
    assert (used.data["method"], used.data["path"]) == ("POST", "/api/v1/requests/")
    assert used.subject_label == "personal token nightly of alice"


@pytest.mark.parametrize(
    ("scope", "reads", "asks"), [("read", 200, 403), ("request", 403, 201), ("vote", 403, 403)]
)
def test_a_scope_is_that_and_no_more(world: World, scope: str, reads: int, asks: int):
    alice = program(world, "alice", scope)
    for answer, wanted in (
        (alice.get("requests/"), reads),
        (alice.post("requests/", asked(world)), asks),
    ):
        assert answer.status_code == wanted
        if wanted == 403:
            refused(answer, 403, "token_scope")
    told = Event.objects.filter(action="token.refused").values_list("data__code", flat=True)
    assert set(told) == {"token_scope"}


def vote(by: Program, request: Any) -> Any:
    request.refresh_from_db()
    body = {"decision": "approve", "scope_hash": request.scope_hash}
    return by.post(f"requests/{request.pk}/vote/", body)


def test_a_vote_needs_that_scope_and_is_ones_own(world: World):
    request = world.submit()
    refused(vote(program(world, "bob", "read", "request"), request), 403, "token_scope")
    refused(vote(program(world, "alice", "vote"), request), 403, "self_approval")
    assert vote(program(world, "bob", "vote"), request).status_code == 200


def test_nothing_of_high_risk_is_voted_on_with_a_token(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    """No level of high risk can be saved before there is a gateway, so the bound is lowered."""
    monkeypatch.setattr(tokens, "VOTE_RISKS", ("low",))
    request = world.submit(level=world.write)
    bob = program(world, "bob", "vote")
    refused(vote(bob, request), 403, "token_risk")
    event = Event.objects.get(action="vote.refused")
    assert event.data["code"] == "token_risk"
    assert vote(bob, world.submit()).status_code == 200


@pytest.mark.slow
def test_no_token_is_shown_a_credential_nor_makes_or_sees_tokens(world: World):
    grant = opened(world.approved())
    alice = program(world)
    refused(alice.post(f"grants/{grant.pk}/reveal/"), 403, "needs_session")
    refused(alice.post("tokens/", WISH), 403, "needs_session")
    refused(alice.get("tokens/"), 403, "needs_session")
    refused(alice.call("delete", f"tokens/{ApiToken.objects.get().pk}/"), 403, "needs_session")
    refused(alice.get("session/"), 403, "needs_session")
    body = {"username": "alice", "password": PASSWORD}
    refused(alice.post("session/", body), 403, "needs_session")
    grant.refresh_from_db()
    assert grant.revealed_at is None
    assert alice.post(f"grants/{grant.pk}/release/").json()["state"] == "revoking"


def test_a_token_opens_no_page(world: World):
    clear = program(world).clear
    page = Client().get("/requests/", headers={"Authorization": f"Bearer {clear}"})
    assert page.status_code in (302, 404)
    home = Client().get("/", headers={"Authorization": f"Bearer {clear}"})
    assert (home.status_code, home["Location"].split("?")[0]) == (302, "/sign-in/")


def dead(by: Program, code: str) -> None:
    answer = by.get("requests/")
    refused(answer, 401, code)
    assert answer["WWW-Authenticate"] == 'Bearer error="invalid_token"'
    assert by.clear not in answer.content.decode()


def test_a_revoked_one_is_dead_at_once_and_revoking_it_again_changes_nothing(world: World, as_: As):
    alice = as_("alice")
    told = made(alice)
    by = Program(told["token"])
    assert by.get("requests/").status_code == 200
    for _ in range(2):
        assert alice.delete(f"tokens/{told['id']}/").status_code == 204
    dead(by, "token_revoked")
    assert Event.objects.filter(action="token.revoked").count() == 1
    assert alice.get(f"tokens/{told['id']}/").json()["revoked_at"]


def test_an_expired_one_is_dead(world: World, clock: Clock):
    by = program(world)
    clock.forward(30 * DAY - 5)
    assert by.get("requests/").status_code == 200
    clock.forward(5)
    dead(by, "token_expired")


def test_those_of_a_deactivated_account_are_dead_at_once(world: World):
    by = program(world)
    get_user_model().objects.filter(pk=world.alice.pk).update(is_active=False)
    dead(by, "token_inactive")
    with pytest.raises(NotAllowed):
        tokens.make(world.alice.pk, by=world.alice, wish=TokenWish(**WISH))


def test_a_dead_one_fills_no_log(world: World, clock: Clock):
    """A forgotten program goes on asking, for months."""
    by = program(world)
    clock.forward(31 * DAY)
    for _ in range(5):
        dead(by, "token_expired")
    assert Event.objects.filter(action="token.refused").count() == 1
    clock.forward(60)
    dead(by, "token_expired")
    assert Event.objects.filter(action="token.refused").count() == 2


def test_when_it_was_used_is_noted_once_a_minute(world: World, clock: Clock):
    by = program(world)
    seen = set()
    for _ in range(3):
        assert by.get("requests/").status_code == 200
        seen.add(ApiToken.objects.get().last_used_at)
    assert len(seen) == 1
    clock.forward(61)
    by.get("requests/")
    assert ApiToken.objects.get().last_used_at not in seen


@pytest.mark.parametrize("header", ["Basic YTpi", "Bearer", "Bearer a b", "bearer ü", "dbf_x"])
def test_another_kind_of_header_is_refused_even_beside_a_session(
    world: World, as_: As, header: str
):
    client = as_("alice").client
    answer = client.get("/api/v1/requests/", headers={"Authorization": header})
    refused(answer, 401, "token_unknown")


def test_a_token_beside_a_session_is_what_counts(world: World, as_: As):
    clear = program(world, "amir", "read").clear
    told = as_("alice").client.get(
        "/api/v1/tokens/this/", headers={"Authorization": f"Bearer {clear}"}
    )
    assert told.json()["account"]["username"] == "amir"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", " "),
        ("name", "x" * 81),
        ("name", "a\nb"),
        ("scopes", []),
        ("scopes", ["everything"]),
        ("scopes", "read"),
        ("days", 0),
        ("days", 366),
        ("days", True),
        ("service", "No Name"),
        ("expires_at", "2999-01-01T00:00:00Z"),
    ],
)
def test_a_token_that_makes_no_sense_is_refused(world: World, as_: As, field: str, value: Any):
    problem = refused(as_("ada").post("tokens/", WISH | {field: value}), 422, "invalid")
    assert list(problem["fields"]) == [field]
    assert not ApiToken.objects.exists()


@pytest.mark.slow
def test_nobody_has_more_than_twenty(world: World, as_: As):
    alice = as_("alice")
    first = made(alice)
    for _ in range(tokens.LIVE_MOST - 1):
        made(alice)
    refused(alice.post("tokens/", WISH), 422, "invalid")
    assert Event.objects.get(action="token.make_refused").actor_name == "alice"
    alice.delete(f"tokens/{first['id']}/")
    made(alice)


def test_what_others_have_is_nobodys_business(world: World, as_: As):
    told = made(as_("alice"))
    mallory = as_("mallory")
    assert mallory.get("tokens/").json()["results"] == []
    refused(mallory.get(f"tokens/{told['id']}/"), 404, "not_found")
    refused(mallory.delete(f"tokens/{told['id']}/"), 404, "not_found")
    with pytest.raises(NotAllowed) as refusal:
        tokens.revoke(told["id"], by=world.mallory)
    assert refusal.value.code == "not_yours"


def test_a_superuser_finds_one_that_leaked_and_ends_it(world: World, as_: As):
    told, ada = made(as_("alice")), as_("ada")
    made(ada)
    made(ada, service="incident-bot")

    def found(**query: str) -> list[str]:
        return [row["account"]["username"] for row in ada.get("tokens/", **query).json()["results"]]

    assert found() == ["incident-bot", "ada", "alice"]
    assert found(mine="true") == ["ada"]
    assert found(kind="service") == ["incident-bot"]
    assert found(person="alice") == ["alice"]
    assert ada.delete(f"tokens/{told['id']}/").status_code == 204
    dead(Program(told["token"]), "token_revoked")
    assert Event.objects.get(action="token.revoked").actor_name == "ada"


def test_a_service_gets_an_account_of_its_own_from_a_superuser(world: World, as_: As):
    told = made(as_("ada"), service="incident-bot", scopes=["read", "request"])
    assert (told["kind"], told["account"]["username"]) == ("service", "incident-bot")
    account = get_user_model().objects.get(username="incident-bot")
    assert not account.has_usable_password()
    again = made(as_("ada"), service="incident-bot")
    assert again["account"] == told["account"]
    assert ServiceAccount.objects.get().made_by == world.ada
    assert len(as_("ada").get("tokens/").json()["results"]) == 2
    assert Program(told["token"]).get("requests/").json()["results"] == []
    refused(as_("alice").post("tokens/", WISH | {"service": "another-bot"}), 403, "not_admin")


def test_no_token_acts_as_another_person(world: World, as_: As):
    problem = refused(as_("ada").post("tokens/", WISH | {"service": "bob"}), 422, "invalid")
    assert list(problem["fields"]) == ["service"]
    made(as_("ada"), service="incident-bot")
    account = get_user_model().objects.get(username="incident-bot")
    account.set_password(PASSWORD)
    account.save()
    refused(as_("ada").post("tokens/", WISH | {"service": "incident-bot"}), 422, "invalid")


def test_a_service_takes_access_away_but_asks_for_none_and_never_votes(world: World):
    bot = program(world, "ada", service="incident-bot")
    account = get_user_model().objects.get(username="incident-bot")
    account.groups.set([world.groups["developers"], world.groups["owners"]])
    refused(bot.post("requests/", asked(world)), 403, "service_cannot_ask")
    grant = opened(world.approved())
    revoked = bot.post(f"grants/{grant.pk}/revoke/", {"reason": "Alarm 12."}).json()
    assert (revoked["state"], revoked["end_reason"]) == ("revoking", "revoked")
    with pytest.raises(Invalid) as told:
        program(world, "ada", "vote", service="incident-bot")
    assert list(told.value.fields) == ["scopes"]


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "service", "scopes": ["read", "vote"]},
        {"kind": "personal", "made_by_id": 0},
        {"scopes": ["root"]},
        {"scopes": []},
    ],
    ids=["a service votes", "another's personal one", "an unknown scope", "no scope"],
)
def test_the_database_holds_no_other(world: World, changes: dict[str, Any]):
    program(world)
    changes = {
        name: value or world.ada.pk if name == "made_by_id" else value
        for name, value in changes.items()
    }
    with pytest.raises(IntegrityError), transaction.atomic():
        ApiToken.objects.update(**changes)


def test_log_lines_hide_tokens_wherever_they_stand(world: World):
    clear = program(world).clear
    line = redact(
        None,
        "info",
        {
            "event": f"GET /api/v1/requests/?key={clear} 422",
            "token": clear,
            "nested": [{"header": f"Bearer {clear}"}],
            "error": ValueError(clear),
        },
    )
    assert clear[8:] not in repr(line)
    assert "dbf_[hidden]" in line["event"]


@pytest.mark.parametrize("debug", [False, True], ids=["as in production", "with DEBUG"])
def test_an_error_page_and_its_log_hide_the_token(
    world: World,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    debug: bool,
):
    def broken(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("a defect")

    by = program(world)
    settings.DEBUG = debug
    monkeypatch.setattr(workflow, "submit", broken)
    client = anonymous()
    client.raise_request_exception = False
    answer = client.post(
        "/api/v1/requests/",
        asked(world),
        format="json",
        headers={"Authorization": f"Bearer {by.clear}"},
    )
    assert answer.status_code == 500
    formatters = [handler.formatter for handler in logging.getLogger().handlers]
    (ours,) = (one for one in formatters if isinstance(one, ProcessorFormatter))
    lines = [ours.format(record) for record in caplog.records]
    assert any("a defect" in line for line in lines)
    for text in (answer.content.decode(), *lines):
        assert by.clear[8:] not in text


def test_a_method_that_an_address_has_not_is_no_use_of_a_token(world: World):
    by = program(world)
    refused(by.post("targets/"), 405, "method_not_allowed")
    refused(by.post("no/such/thing/"), 404, "not_found")
    assert not Event.objects.filter(action="token.used").exists()


def test_a_token_in_the_address_is_refused(world: World, caplog: pytest.LogCaptureFixture):
    clear = program(world).clear
    with caplog.at_level(logging.DEBUG):
        answer = anonymous().get(f"/api/v1/requests/?access_token={clear}")
    refused(answer, 403, "not_authenticated")
    assert clear not in answer.content.decode()


def test_a_conflict_tells_nothing_to_a_token_that_reads_nothing(world: World):
    request = world.submit()
    told = {"decision": "approve", "scope_hash": "0" * 64}
    for scopes, shown in ((("vote",), False), (("vote", "read"), True)):
        answer = program(world, "bob", *scopes).post(f"requests/{request.pk}/vote/", told)
        assert answer.status_code == 409
        assert ("current" in answer.json()) == shown
