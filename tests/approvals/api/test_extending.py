"""Longer access by the API: what a grant says of it, asking, and being refused."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from approvals import extending
from approvals.models import AccessRequest, ExtensionApproval, Grant
from tests.approvals.api.conftest import As, opened, refused
from tests.conftest import Clock
from tests.world import HOUR, World, publish

WINDOW = 1800
WISH: dict[str, Any] = {"duration": HOUR, "reason": "The index is still being built."}


@pytest.fixture
def grant(world: World) -> Grant:
    """Alice's, open for an hour."""
    publish(
        world,
        extensions_most=2,
        extension_max=2 * HOUR,
        max_duration=2 * HOUR,
        max_total=4 * HOUR,
        extension_approval=ExtensionApproval.LAST,
        extension_window=WINDOW,
        bridge=600,
    )
    return opened(world.approved())


@pytest.mark.slow
def test_a_grant_says_how_much_longer_it_may_last(as_: As, grant: Grant):
    told = as_("alice").get(f"grants/{grant.pk}/").json()
    assert (told["extended_count"], told["extensions_most"], told["extended_until"]) == (0, 2, None)
    assert 3 * HOUR <= told["total_left"] <= 3 * HOUR + 5
    from_, end = (datetime.fromisoformat(told[name]) for name in ("may_extend_from", "expires_at"))
    assert (end - from_).total_seconds() == WINDOW
    [row] = as_("alice").get("grants/").json()["results"]
    assert row["may_extend_from"] == told["may_extend_from"]


@pytest.mark.slow
def test_alice_asks_and_goes_on(world: World, as_: As, grant: Grant, clock: Clock):
    path = f"grants/{grant.pk}/extend/"
    early = refused(as_("alice").post(path, WISH), 409, "too_early")
    assert early["current"]["refused_actions"]["extend"]["code"] == "too_early"
    clock.forward(HOUR - WINDOW + 1)
    answer = as_("alice").post(path, WISH)
    asked = answer.json()
    assert answer.status_code == 201
    assert answer["Location"] == f"/api/v1/requests/{asked['id']}/"
    assert (asked["kind"], asked["extends"], asked["duration"]) == ("extension", grant.pk, HOUR)
    assert [stage["state"] for stage in asked["stages"]] == ["skipped", "open"]
    assert asked["starts_at"] == as_("alice").get(f"grants/{grant.pk}/").json()["expires_at"]
    refused(as_("alice").post(path, WISH), 409, "asked_already")
    vote = {"decision": "approve", "scope_hash": asked["scope_hash"]}
    assert as_("carol").post(f"requests/{asked['id']}/vote/", vote).json()["state"] == "approved"
    on_its_way = as_("alice").get(f"grants/{grant.pk}/").json()
    assert on_its_way["extended_until"] > on_its_way["expires_at"]
    extending.extend_grant(grant.pk, worker="w1")
    told = as_("alice").get(f"grants/{grant.pk}/").json()
    assert (told["extended_count"], told["expires_at"]) == (1, on_its_way["extended_until"])
    assert told["state"] == "active"


def test_others_do_not_ask_for_her(world: World, as_: As, grant: Grant, clock: Clock):
    clock.forward(HOUR - 60)
    path = f"grants/{grant.pk}/extend/"
    for name in ("bob", "olga", "ada"):
        refused(as_(name).post(path, WISH), 403, "not_yours")
    for name in ("mallory", "amir"):
        refused(as_(name).post(path, WISH), 404, "not_found")
    assert not AccessRequest.objects.filter(extends=grant).exists()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"duration": 3 * HOUR}, "duration"),
        ({"duration": 600}, "duration"),
        ({"duration": "1 h"}, "duration"),
        ({"reason": ""}, "reason"),
        ({"level": 1}, "level"),
    ],
)
def test_what_cannot_be_used(as_: As, grant: Grant, clock: Clock, changes, field):
    clock.forward(HOUR - 60)
    problem = refused(
        as_("alice").post(f"grants/{grant.pk}/extend/", {**WISH, **changes}), 422, "invalid"
    )
    assert list(problem["fields"]) == [field]


def test_what_is_over_says_that_nothing_is_left(as_: As, grant: Grant, clock: Clock):
    clock.forward(HOUR)
    told = as_("alice").get(f"grants/{grant.pk}/").json()
    assert (told["may_extend_from"], told["total_left"]) == (None, 0)
    refused(as_("alice").post(f"grants/{grant.pk}/extend/", WISH), 409, "wrong_state")


def test_the_same_call_twice_asks_once(as_: As, grant: Grant, clock: Clock):
    clock.forward(HOUR - 60)
    path, key = f"grants/{grant.pk}/extend/", {"Idempotency-Key": "one-and-the-same"}
    first, again = (as_("alice").post(path, WISH, **key) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json()["id"] == again.json()["id"]
    assert again["Idempotent-Replayed"] == "true"
