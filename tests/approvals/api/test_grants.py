"""What an approval opened: shown once to its holder, given back, taken away."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from pytest_django import DjangoAssertNumQueries

from approvals import closing
from approvals.errors import ProvisionError
from approvals.models import Grant
from audit import clock
from audit.models import Event
from tests.approvals.api.conftest import As, opened, refused
from tests.conftest import Clock
from tests.world import World


@pytest.fixture
def grant(world: World) -> Grant:
    """Alice's, open."""
    return opened(world.approved())


@pytest.mark.slow
def test_alice_is_shown_the_credential_once(world: World, as_: As, grant: Grant):
    alice, path = as_("alice"), f"grants/{grant.pk}/"
    before = alice.get(path).json()
    assert (before["state"], before["revealed"]) == ("active", False)
    assert before["permitted_actions"] == ["reveal", "release"]
    assert before["account"] == grant.account

    shown = alice.post(f"{path}reveal/")
    assert shown.status_code == 200
    assert shown["Cache-Control"] == "no-store"
    assert shown.json()["connection"] == before["connection"]
    password = shown.json()["password"]
    assert world.server.sign_in(grant.account, password).alive

    again = refused(alice.post(f"{path}reveal/"), 409, "wrong_state")
    assert again["current"]["revealed"] is True
    assert password not in json.dumps(again)
    assert password not in alice.get(path).content.decode()
    told = alice.get(f"requests/{grant.request_id}/events/").content.decode()
    assert "grant.revealed" in told
    assert password not in told


@pytest.mark.slow
def test_nobody_else_is_shown_it_nor_where_to_connect(world: World, as_: As, grant: Grant):
    path = f"grants/{grant.pk}/"
    for name in ("bob", "carol", "olga", "ada"):
        seen = as_(name).get(path).json()
        assert seen["connection"] is None
        assert seen["refused_actions"]["reveal"]["code"] == "not_yours"
        refused(as_(name).post(f"{path}reveal/"), 403, "not_yours")
    assert as_("alice").get(path).json()["connection"]
    refused(as_("mallory").post(f"{path}reveal/"), 404, "not_found")


def test_alice_gives_it_back_and_cannot_twice(world: World, as_: As, grant: Grant):
    path = f"grants/{grant.pk}/release/"
    refused(as_("bob").post(path), 403, "not_yours")
    given_back = as_("alice").post(path).json()
    assert (given_back["state"], given_back["end_reason"]) == ("revoking", "released")
    late = refused(as_("alice").post(path), 409, "wrong_state")
    assert late["current"]["state"] == "revoking"
    assert late["current"]["permitted_actions"] == ["try_again"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["olga", "bob"])
def test_owners_and_approvers_take_it_away(world: World, as_: As, grant: Grant, name: str):
    path = f"grants/{grant.pk}/revoke/"
    problem = refused(as_(name).post(path, {"reason": " "}), 422, "invalid")
    assert list(problem["fields"]) == ["reason"]
    taken = as_(name).post(path, {"reason": "The replica is enough."}).json()
    assert (taken["state"], taken["end_reason"]) == ("revoking", "revoked")
    assert taken["end_note"] == "The replica is enough."


@pytest.mark.slow
def test_strangers_cannot_take_it_away(world: World, as_: As, grant: Grant):
    path, body = f"grants/{grant.pk}/revoke/", {"reason": "Because."}
    for name in ("dan", "alice", "ada"):  # a candidate who did not vote, the holder, a superuser
        refused(as_(name).post(path, body), 403, "not_yours")
    for name in ("mallory", "amir"):
        refused(as_(name).post(path, body), 404, "not_found")
    grant.refresh_from_db()
    assert grant.state == "active"
    refusals = Event.objects.filter(action="revoke.refused")
    assert set(refusals.values_list("actor_name", flat=True)) == {"dan", "alice", "ada"}


@pytest.fixture
def stuck(world: World, as_: As, grant: Grant, clock: Clock) -> Grant:
    """Alice's, revoked by bob; orders has not answered for 31 s."""
    world.server.fail_next("cut", ProvisionError("It did not answer."), times=99)
    as_("bob").post(f"grants/{grant.pk}/revoke/", {"reason": "Enough."})
    for wait in (0, 31):
        clock.forward(wait)
        closing.close_grant(grant.pk, worker="w1")
    return grant


@pytest.mark.slow
def test_what_cannot_be_closed_tells_all_about_it(as_: As, stuck: Grant):
    seen = as_("alice").get(f"grants/{stuck.pk}/").json()
    assert (seen["state"], seen["shown_state"], seen["cut_at"]) == ("revoking", "closing", None)
    assert (seen["last_error"], seen["attempts"]) == ("It did not answer.", 2)
    assert seen["revoking_at"] < seen["stuck_since"] < seen["next_try_at"]
    assert seen["overdue"] is True
    assert 31 < seen["lateness"] < 60
    assert (seen["abandoned_at"], seen["abandonments"]) == (None, [])


@pytest.mark.slow
def test_whoever_may_has_it_tried_again(world: World, as_: As, stuck: Grant):
    path = f"grants/{stuck.pk}/try-again/"
    refused(as_("dan").post(path), 403, "not_yours")
    refused(as_("mallory").post(path), 404, "not_found")
    refused(as_("alice").post(path, {"now": True}), 422, "invalid")
    # Its own back-off is over in a second or two, which a busy machine may take to come here.
    Grant.objects.filter(pk=stuck.pk).update(next_try_at=clock.now() + timedelta(hours=1))
    before = as_("alice").get(f"grants/{stuck.pk}/").json()
    assert before["permitted_actions"] == ["try_again"]
    assert as_("alice").post(path).json()["next_try_at"] < before["next_try_at"]
    world.server._faults.clear()
    closing.close_grant(stuck.pk, worker="w1")
    late = refused(as_("alice").post(path), 409, "wrong_state")
    assert late["current"]["state"] == "ended"


@pytest.mark.slow
def test_two_give_it_up_and_it_is_told_everywhere(as_: As, stuck: Grant):
    path, body = f"grants/{stuck.pk}/abandon/", {"reason": "The host was wiped."}
    refused(as_("alice").post(path, body), 403, "self_abandon")
    refused(as_("bob").post(path, body), 403, "not_yours")
    refused(as_("mallory").post(path, body), 404, "not_found")
    for reason in ("", " ", "x" * 301, "a\x00b"):
        problem = refused(as_("olga").post(path, {"reason": reason}), 422, "invalid")
        assert list(problem["fields"]) == ["reason"]
    refused(as_("olga").post(path), 422, "invalid")

    first = as_("olga").post(path, body).json()
    assert (first["state"], first["shown_state"]) == ("revoking", "closing")
    assert [asked["person"] for asked in first["abandonments"]] == ["olga"]
    assert first["abandonments"][0]["reason"] == body["reason"]
    again = refused(as_("olga").post(path, body), 409, "already_counted")
    assert again["current"]["refused_actions"]["abandon"]["code"] == "already_counted"

    second = as_("ada").post(path, {"reason": "Indeed."}).json()
    assert (second["state"], second["shown_state"]) == ("revoking", "abandoned, unsafe")
    assert second["abandoned_at"]
    [listed] = as_("alice").get("grants/", state="revoking").json()["results"]
    assert listed["shown_state"] == "abandoned, unsafe"
    refused(as_("ada").post(path, body), 409, "wrong_state")


@pytest.mark.slow
def test_what_is_not_stuck_is_not_given_up(as_: As, grant: Grant):
    path, body = f"grants/{grant.pk}/abandon/", {"reason": "I can."}
    refused(as_("olga").post(path, body), 409, "wrong_state")
    as_("alice").post(f"grants/{grant.pk}/release/")
    refused(as_("olga").post(path, body), 409, "not_stuck")


@pytest.mark.slow
def test_time_that_is_over_shows_before_any_sweeper_came(
    world: World, as_: As, grant: Grant, clock
):
    alice = as_("alice")

    def ids(state: str) -> list[int]:
        return [row["id"] for row in alice.get("grants/", state=state).json()["results"]]

    assert (ids("active"), ids("revoking")) == ([grant.pk], [])
    clock.forward(3700)
    assert (ids("active"), ids("revoking")) == ([], [grant.pk])
    assert alice.get(f"grants/{grant.pk}/").json()["state"] == "revoking"
    refused(alice.post(f"grants/{grant.pk}/reveal/"), 409, "wrong_state")
    grant.refresh_from_db()
    assert grant.state == "active"


@pytest.mark.slow
def test_lists_are_those_one_may_see(world: World, as_: As, grant: Grant):
    other = world.approved("amir")

    def ids(name: str, **query: str) -> list[int]:
        return [row["id"] for row in as_(name).get("grants/", **query).json()["results"]]

    assert ids("alice") == ids("alice", mine="true") == [grant.pk]
    assert ids("olga") == [other.pk, grant.pk]
    assert ids("olga", mine="true") == []
    assert ids("olga", state="scheduled") == [other.pk]
    assert ids("mallory") == []
    refused(as_("amir").get(f"grants/{grant.pk}/"), 404, "not_found")


@pytest.mark.slow
def test_looking_costs_the_same_for_one_row_as_for_25(
    world: World, as_: As, django_assert_max_num_queries: DjangoAssertNumQueries
):
    olga, grant = as_("olga"), world.approved()
    with django_assert_max_num_queries(15) as one:
        olga.get("grants/")
    for _ in range(24):
        world.approved()
    with django_assert_max_num_queries(15) as many:
        assert len(olga.get("grants/").json()["results"]) == 25
    assert len(many) == len(one)
    with django_assert_max_num_queries(20):
        assert olga.get(f"grants/{grant.pk}/").status_code == 200
