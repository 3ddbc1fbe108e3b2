"""What alice was told, read and marked as read by a program."""

from __future__ import annotations

from typing import Any

import pytest

from approvals.api.pagination import NewestFirst
from approvals.notify import inbox
from tests.approvals.api.conftest import As, program, refused
from tests.approvals.notify.telling import tell
from tests.world import World


def listed(caller: Any, query: str = "") -> list[int]:
    return [entry["id"] for entry in caller.get(f"inbox/{query}").json()["results"]]


def read(caller: Any, **body: Any) -> tuple[int, int]:
    told = caller.post("inbox/read/", body).json()
    return told["read"], told["unread"]


def test_bob_reads_what_the_page_says(world: World, as_: As):
    request = world.submit()
    tell()
    told = as_("bob").get("inbox/").json()
    [entry] = told["results"]
    assert told["unread"] == 1
    assert (entry["fact"], entry["urgent"], entry["read_at"]) == ("asked", True, None)
    assert entry["text"] == "alice asks for read-only on orders for 1 h"
    assert entry["quote"] == request.reason
    assert entry["next_step"].startswith("Approve or deny it in “Database”, by ")
    assert (entry["link"], entry["thread"]) == (
        f"/requests/{request.pk}/",
        f"request:{request.pk}",
    )
    assert as_("bob").get("inbox/").json() == told, "looking marks nothing as read"
    assert as_("mallory").get("inbox/").json() == {
        "next": None,
        "previous": None,
        "results": [],
        "unread": 0,
    }


def test_some_are_marked_or_all_up_to_one(world: World, as_: As):
    for who in ("alice", "amir"):
        world.submit(who)
        world.submit(who, world.write)
    tell()
    bob = as_("bob")
    newest, third, second, oldest = listed(bob)
    assert read(bob, ids=[third]) == (1, 3)
    assert read(bob, ids=[third, newest]) == (1, 2)
    assert listed(bob, "?unread=true") == [second, oldest]
    assert read(bob, until=oldest) == (1, 1)
    assert read(bob, until=2**63 - 1) == (1, 0)
    assert read(bob, until=newest) == (0, 0)
    assert listed(bob) == [newest, third, second, oldest]
    assert inbox.unread(world.dan).count() == 4


def test_what_another_was_told_is_passed_over(world: World, as_: As):
    world.submit()
    tell()
    [bobs] = listed(as_("bob"))
    everybody = [bobs - 1, bobs, bobs + 1, 2**63 - 1]
    assert read(as_("mallory"), ids=everybody) == (0, 0)
    assert read(as_("mallory"), until=2**63 - 1) == (0, 0)
    assert inbox.unread(world.bob).count() == inbox.unread(world.dan).count() == 1


def test_a_long_one_is_walked_page_by_page_though_more_comes(
    world: World, as_: As, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(NewestFirst, "page_size", 2)
    for who in ("alice", "amir"):
        world.submit(who)
        world.submit(who, world.write)
    tell()
    bob = as_("bob")
    first = bob.get("inbox/").json()
    world.vote(world.alice.access_requests.first(), "dora")
    tell()
    second = bob.client.get(first["next"]).json()
    ids = [entry["id"] for page in (first, second) for entry in page["results"]]
    assert ids == sorted(set(ids), reverse=True)
    assert len(ids) == 4


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"ids": []},
        {"ids": [1], "until": 1},
        {"ids": ["1"]},
        {"ids": [0]},
        {"ids": 1},
        {"ids": list(range(1, 102))},
        {"until": True},
        {"until": 2**63},
        {"all": True},
    ],
)
def test_what_makes_no_sense_marks_nothing(world: World, as_: As, body: dict[str, Any]):
    world.submit()
    tell()
    refused(as_("bob").post("inbox/read/", body), 422, "invalid")
    assert inbox.unread(world.bob).count() == 1


def test_a_bad_filter_is_named(world: World, as_: As):
    for query in ("unread=yes", "until=1", "cursor=made-up"):
        problem = refused(as_("bob").get(f"inbox/?{query}"), 422, "invalid")
        assert list(problem["fields"]) == [query.partition("=")[0]]


def test_a_token_reads_with_one_scope_and_marks_with_another(world: World):
    world.submit()
    tell()
    reader = program(world, "bob", "read")
    [entry] = listed(reader)
    refused(reader.post("inbox/read/", {"ids": [entry]}), 403, "token_scope")
    marker = program(world, "bob", "request")
    refused(marker.get("inbox/"), 403, "token_scope")
    assert read(marker, ids=[entry]) == (1, 0)


def test_the_same_call_twice_is_answered_as_the_first_time(world: World, as_: As):
    world.submit()
    tell()
    bob, key = as_("bob"), {"Idempotency-Key": "once"}
    [entry] = listed(bob)
    first = bob.post("inbox/read/", {"ids": [entry]}, **key)
    again = bob.post("inbox/read/", {"ids": [entry]}, **key)
    assert first.json() == again.json() == {"read": 1, "unread": 0}
    assert again["Idempotent-Replayed"] == "true"
    refused(bob.post("inbox/read/", {"until": entry}, **key), 422, "key_reused")
