"""Asking, deciding and looking, as integrations do it; and everybody who may not."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Permission
from pytest_django import DjangoAssertNumQueries

from approvals import administration, workflow
from approvals.api.pagination import NewestFirst
from approvals.models import AccessRequest, Vote
from approvals.policy import AppliesTo
from audit.models import Event
from tests.approvals.api.conftest import As, Caller, asked, refused
from tests.world import World, publish, stage


def submit(caller: Caller, world: World, **changes: Any) -> dict[str, Any]:
    answer = caller.post("requests/", asked(world, **changes))
    assert answer.status_code == 201, answer.content
    told: dict[str, Any] = answer.json()
    assert answer["Location"] == f"/api/v1/requests/{told['id']}/"
    return told


def vote(caller: Caller, request: dict[str, Any], decision: str = "approve", **more: Any) -> Any:
    body = {"decision": decision, "scope_hash": request["scope_hash"], "comment": "Fine.", **more}
    return caller.post(f"requests/{request['id']}/vote/", body)


def test_alice_asks_and_two_approve(world: World, as_: As):
    request = submit(as_("alice"), world, ticket="OPS-1")
    assert request["state"] == "pending"
    assert request["kind"] == "access"
    assert request["requester"] == {"id": world.alice.pk, "username": "alice"}
    assert request["target"] == {
        "id": world.target.pk,
        "name": "orders",
        "environment": "production",
    }
    assert request["level"] == {"id": world.read.pk, "name": "read-only", "risk": "low"}
    assert (request["duration"], request["ticket"], request["grant"]) == (3600, "OPS-1", None)
    assert request["scope"]["level"]["id"] == world.read.pk
    assert request["policy_version"] == "Production v1"
    database, security = request["stages"]
    assert (database["state"], security["state"]) == ("open", "waiting")
    assert database["groups"] == {"dba": 1}
    assert (database["missing"], security["missing"]) == (["1 of dba"], ["1 of security"])
    assert database["candidates"] == ["bob", "dan", "dora"]
    assert request["permitted_actions"] == ["cancel", "edit"]
    assert request["refused_actions"]["approve"]["code"] == "self_approval"

    halfway = vote(as_("bob"), request).json()
    assert [s["state"] for s in halfway["stages"]] == ["passed", "open"]
    assert halfway["stages"][0]["votes"][0]["voter"] == "bob"
    assert halfway["stages"][0]["missing"] == []

    done = vote(as_("carol"), request).json()
    assert done["state"] == "approved"
    assert as_("alice").get(f"grants/{done['grant']}/").json()["state"] == "scheduled"


def test_a_denial_says_why(world: World, as_: As):
    request = submit(as_("alice"), world)
    problem = refused(vote(as_("bob"), request, "deny", comment=" "), 422, "invalid")
    assert list(problem["fields"]) == ["comment"]
    denied = vote(as_("bob"), request, "deny", comment="Use the replica.").json()
    assert denied["state"] == "denied"
    assert denied["stages"][0]["votes"][0]["comment"] == "Use the replica."


def test_the_preview_tells_whom_it_would_ask_and_submits_nothing(world: World, as_: As):
    told = as_("alice").post("requests/preview/", asked(world)).json()
    assert told["policy"] == "Production v1"
    assert told["stages"][0] == {
        "name": "Database",
        "total": 1,
        "groups": {"dba": 1},
        "candidates": ["bob", "dan", "dora"],
        "stand_ins": {},
    }
    assert (told["max_duration"], told["problem"]) == (4 * 3600, None)
    assert told["max_duration_set_by"] == "the level read-only"
    assert not AccessRequest.objects.exists()


def test_the_preview_tells_who_stands_in(world: World, as_: As):
    publish(world, stage(world, "Duty", "nobody", fallback_group=world.groups["dba"]))
    (planned,) = as_("alice").post("requests/preview/", asked(world)).json()["stages"]
    assert planned["stand_ins"] == {"dba": ["nobody"]}
    assert planned["candidates"] == ["bob", "dan", "dora"]


@pytest.mark.slow
def test_the_preview_tells_why_it_would_be_refused(world: World, as_: As):
    alice = as_("alice")
    too_long = alice.post("requests/preview/", asked(world, duration=10**9)).json()["problem"]
    assert (too_long["status"], list(too_long["fields"])) == (422, ["duration"])

    request = submit(alice, world)
    again = alice.post("requests/preview/", asked(world)).json()["problem"]
    assert (again["code"], again["request"]) == ("asked_already", request["id"])

    world.policy.enabled = False
    world.policy.save()
    without = alice.post("requests/preview/", asked(world, level=world.write.pk)).json()
    assert (without["policy"], without["problem"]["code"]) == (None, "no_policy")


def test_no_policy_names_the_near_misses(world: World, as_: As):
    publish(world, applies_to=AppliesTo(environments=["staging"]))
    problem = refused(as_("alice").post("requests/", asked(world)), 422, "no_policy")
    assert problem["near_misses"] == ["Production: it is for staging, and orders is production"]


def test_asking_twice_is_a_conflict_that_shows_the_first(world: World, as_: As):
    first = submit(as_("alice"), world)
    problem = refused(as_("alice").post("requests/", asked(world)), 409, "asked_already")
    assert problem["request"] == first["id"]
    assert problem["current"]["state"] == "pending"


def test_nobody_learns_of_a_level_by_guessing_its_id(world: World, as_: As):
    mallory = as_("mallory")
    for path in ("requests/", "requests/preview/"):
        guessed = mallory.post(path, asked(world))
        missing = mallory.post(path, asked(world, level=999_999))
        refused(guessed, 422, "no_level")
        assert guessed.content == missing.content
    assert Event.objects.filter(action="submit.refused", actor_name="mallory").count() == 2


def test_an_owner_who_may_not_ask_is_told_so(world: World, as_: As):
    refused(as_("olga").post("requests/", asked(world)), 403, "not_requestable")


def test_alice_cannot_approve_her_own(world: World, as_: As):
    request = submit(as_("alice"), world)
    refused(vote(as_("alice"), request), 403, "self_approval")
    refused(vote(as_("alice"), request, "deny"), 403, "self_approval")
    assert not Vote.objects.exists()
    refusals = Event.objects.filter(thread=f"request:{request['id']}", action="vote.refused")
    assert [event.data["code"] for event in refusals] == ["self_approval", "self_approval"]


def test_a_superuser_is_refused_like_anybody(world: World, as_: As):
    request = submit(as_("alice"), world)
    refused(vote(as_("ada"), request), 403, "not_eligible")


@pytest.mark.slow
def test_a_stale_scope_is_a_conflict_with_the_present_state(world: World, as_: As):
    seen = submit(as_("alice"), world)
    world.read.rights = {"level": "read-write"}
    administration.save_level(world.read, by=world.ada)
    problem = refused(vote(as_("bob"), seen), 409, "scope_changed")
    assert problem["current"]["scope_hash"] != seen["scope_hash"]
    assert problem["current"]["id"] == seen["id"]
    assert "approve" in problem["current"]["permitted_actions"]
    assert vote(as_("bob"), problem["current"]).status_code == 200


@pytest.mark.slow
def test_the_wrong_stage_and_a_second_slot_are_refused(world: World, as_: As):
    request = submit(as_("alice"), world)
    refused(vote(as_("carol"), request), 403, "wrong_stage")
    assert vote(as_("dora"), request).status_code == 200
    refused(vote(as_("dora"), request), 403, "already_counted")
    assert vote(as_("carol"), request).json()["state"] == "approved"


@pytest.mark.slow
def test_a_second_vote_replaces_the_first_and_one_after_the_end_is_late(world: World, as_: As):
    publish(world, stage(world, "Pair", "dba", minimum=2))
    request = submit(as_("alice"), world)
    vote(as_("bob"), request)
    told = vote(as_("bob"), request, comment="Again.").json()
    assert [cast["comment"] for cast in told["stages"][0]["votes"]] == ["Again."]
    assert told["stages"][0]["missing"] == ["1 of dba"]

    assert vote(as_("dan"), request).json()["state"] == "approved"
    late = refused(vote(as_("bob"), request), 409, "wrong_state")
    assert late["current"]["state"] == "approved"
    assert late["current"]["permitted_actions"] == []


@pytest.mark.slow
def test_only_alice_takes_it_back_and_only_once(world: World, as_: As):
    request = submit(as_("alice"), world)
    path = f"requests/{request['id']}/cancel/"
    refused(as_("bob").post(path), 403, "not_yours")
    assert as_("alice").post(path).json()["state"] == "cancelled"
    late = refused(as_("alice").post(path), 409, "wrong_state")
    assert late["current"]["state"] == "cancelled"


@pytest.mark.slow
def test_mallory_finds_nothing_where_she_may_not_look(world: World, as_: As):
    request = submit(as_("alice"), world)
    mallory, pk = as_("mallory"), request["id"]
    for path in (f"requests/{pk}/", f"requests/{pk}/events/", f"targets/{world.target.pk}/"):
        refused(mallory.get(path), 404, "not_found")
    refused(mallory.get(f"levels/{world.read.pk}/"), 404, "not_found")
    refused(mallory.post(f"requests/{pk}/cancel/"), 404, "not_found")
    refused(vote(mallory, request), 404, "not_found")
    unknown = mallory.get("requests/999999/")
    assert unknown.content == mallory.get(f"requests/{pk}/").content
    for listing in ("requests/", "targets/", "levels/", "grants/", "events/"):
        assert mallory.get(listing).json()["results"] == []


@pytest.mark.slow
def test_each_sees_the_lists_that_concern_them(world: World, as_: As):
    mine = submit(as_("alice"), world)["id"]
    other = submit(as_("amir"), world)["id"]

    def ids(name: str, **query: str) -> list[int]:
        return [row["id"] for row in as_(name).get("requests/", **query).json()["results"]]

    assert ids("alice") == [mine]
    assert ids("bob") == [other, mine]
    assert ids("bob", awaiting_me="true") == [other, mine]
    assert ids("carol", awaiting_me="true") == []
    assert ids("bob", mine="true") == []
    assert ids("olga", state="pending") == [other, mine]
    assert ids("olga", state="approved") == []
    world.vote(AccessRequest.objects.get(pk=mine), "bob")
    assert ids("bob", awaiting_me="true") == [other]
    assert ids("carol", awaiting_me="true") == [mine]


@pytest.mark.slow
def test_targets_and_levels_show_neither_secrets_nor_configuration(world: World, as_: As):
    (target,) = as_("alice").get("targets/").json()["results"]
    assert target == as_("alice").get(f"targets/{target['id']}/").json()
    assert target["address"]
    assert not {"config", "secrets", "trust_anchor"} & target.keys()

    levels = as_("alice").get("levels/").json()["results"]
    assert [level["name"] for level in levels] == ["read-write", "read-only"]
    assert levels[0] == as_("alice").get(f"levels/{levels[0]['id']}/").json()
    assert levels[0]["summary"] == ["may read", "may write"]
    assert as_("olga").get("levels/").json()["results"] == []
    assert [row["name"] for row in as_("olga").get("targets/").json()["results"]] == ["orders"]


def test_the_timeline_is_told_from_the_beginning(world: World, as_: As):
    request = submit(as_("alice"), world)
    vote(as_("bob"), request)
    events = as_("alice").get(f"requests/{request['id']}/events/").json()["results"]
    assert [event["action"] for event in events] == [
        "accessrequest.submitted",
        "requeststage.open",
        "vote.cast",
        "requeststage.passed",
        "requeststage.open",
    ]
    assert events[2]["actor"] == {"type": "user", "id": str(world.bob.pk), "name": "bob"}
    assert events[2]["data"]["comment"] == "Fine."
    assert "address" not in events[0]


@pytest.mark.slow
def test_events_are_those_of_the_requests_one_may_see(world: World, as_: As):
    mine, other = submit(as_("alice"), world), submit(as_("amir"), world)
    seen = as_("alice").get("events/").json()["results"]
    assert {event["thread"] for event in seen} == {f"request:{mine['id']}"}
    assert seen[0]["id"] > seen[-1]["id"]

    bobs = as_("bob").get("events/", thread=f"request:{other['id']}").json()["results"]
    assert {event["thread"] for event in bobs} == {f"request:{other['id']}"}
    hidden = as_("alice").get("events/", thread=f"request:{other['id']}").json()["results"]
    assert hidden == []
    wanted = as_("bob").get("events/", action="accessrequest.submitted", actor="amir").json()
    assert [event["actor"]["name"] for event in wanted["results"]] == ["amir"]


def test_an_auditor_reads_everything_and_where_it_came_from(world: World, as_: As):
    world.chen.user_permissions.add(Permission.objects.get(codename="view_event"))
    submit(as_("alice"), world)
    seen = as_("chen").get("events/", action="account.signed_in").json()["results"]
    assert {event["subject"]["label"] for event in seen} >= {"alice", "chen"}
    assert seen[0]["address"] == "127.0.0.1"


@pytest.mark.slow
def test_pages_follow_on_each_other(world: World, as_: As, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(NewestFirst, "page_size", 2)
    for _ in range(3):
        workflow.cancel(world.submit().pk, by=world.alice)
    alice = as_("alice")
    first = alice.get("requests/").json()
    second = alice.client.get(first["next"]).json()
    back = alice.client.get(second["previous"]).json()
    ids = [row["id"] for page in (first, second) for row in page["results"]]
    assert len(ids) == 3
    assert ids == sorted(ids, reverse=True)
    assert (back["results"], second["next"]) == (first["results"], None)


@pytest.mark.slow
def test_looking_costs_the_same_for_one_row_as_for_25(
    world: World, as_: As, django_assert_max_num_queries: DjangoAssertNumQueries
):
    alice, bob = as_("alice"), as_("bob")

    def cost(caller: Caller, path: str, limit: int, **query: str) -> int:
        with django_assert_max_num_queries(limit) as counted:
            assert caller.get(path, **query).status_code == 200
        return len(counted)

    def costs() -> list[int]:
        return [
            cost(alice, "requests/", 15),
            cost(bob, "requests/", 15, awaiting_me="true"),
            cost(bob, "events/", 15),
            cost(alice, "targets/", 15),
            cost(alice, "levels/", 15),
        ]

    request = world.submit()
    costs()  # the first search of an hour is written down, too
    few = costs()
    for _ in range(24):
        workflow.cancel(request.pk, by=world.alice)
        request = world.submit()
    assert len(alice.get("requests/").json()["results"]) == 25
    assert costs() == few
    world.vote(request, "bob")
    cost(alice, f"requests/{request.pk}/", 20)
    cost(bob, f"requests/{request.pk}/", 20)


def test_an_admin_asks_todays_members(world: World, as_: As):
    request = submit(as_("alice"), world)
    world.groups["dba"].user_set.set([world.olga])
    path = f"requests/{request['id']}/redraw/"
    problem = refused(as_("bob").post(path), 403, "not_admin")
    assert "change policies" in problem["detail"]
    told = as_("ada").post(path).json()
    assert told["stages"][0]["candidates"] == ["olga"]
    assert "redraw" in told["permitted_actions"]


@pytest.mark.slow
def test_a_stage_that_nobody_can_decide_says_since_when(world: World, as_: As):
    request = submit(as_("alice"), world)
    world.groups["dba"].user_set.clear()
    as_("ada").post(f"requests/{request['id']}/redraw/")
    path = f"requests/{request['id']}/"
    assert as_("alice").get(path).json()["stages"][0]["stalled_since"]
    (row,) = as_("alice").get("requests/").json()["results"]
    assert [bool(one["stalled_since"]) for one in row["stages"]] == [True, False]
