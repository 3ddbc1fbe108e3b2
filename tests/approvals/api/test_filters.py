"""Lists narrowed down, page by page, while others go on working."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from guardian.shortcuts import assign_perm

from approvals import workflow
from approvals.api.pagination import NewestFirst
from approvals.models import AccessRequest, Grant
from tests.approvals.api.conftest import As, refused
from tests.conftest import Clock
from tests.world import World

DAY = 86400


def ids(answer: Any) -> list[int]:
    assert answer.status_code == 200, answer.content
    return [row["id"] for row in answer.json()["results"]]


@pytest.mark.slow
def test_requests_by_what_and_by_whom(world: World, as_: As):
    first = world.submit()
    second = world.submit("amir", level=world.write)
    bob = as_("bob")
    assert ids(bob.get("requests/", person="amir")) == [second.pk]
    assert ids(bob.get("requests/", person="nobody")) == []
    assert ids(bob.get("requests/", level=world.read.pk)) == [first.pk]
    assert ids(bob.get("requests/", target=world.target.pk)) == [second.pk, first.pk]
    assert ids(bob.get("requests/", target=world.target.pk + 1)) == []
    narrow = {"state": "pending", "person": "alice", "level": world.read.pk, "awaiting_me": "true"}
    assert ids(bob.get("requests/", **narrow)) == [first.pk]
    assert ids(as_("mallory").get("requests/", person="alice")) == []


@pytest.mark.slow
def test_requests_and_grants_by_when(world: World, as_: As, clock: Clock):
    old = world.approved()
    clock.forward(DAY)
    new = world.approved("amir")
    bob = as_("bob")
    for path, name, rows in (
        ("requests/", "submitted", (old.request, new.request)),
        ("grants/", "approved", (old, new)),
    ):
        at = getattr(rows[1], f"{name}_at")
        assert ids(bob.get(path, **{f"{name}_after": at.isoformat()})) == [rows[1].pk]
        assert ids(bob.get(path, **{f"{name}_before": at.isoformat()})) == [rows[0].pk]
        hour = (at - timedelta(hours=1)).isoformat()
        assert ids(bob.get(path, **{f"{name}_after": hour})) == [rows[1].pk]


def test_events_by_when(world: World, as_: As, clock: Clock):
    old = world.submit()
    clock.forward(DAY)
    new = world.submit("amir")
    ada = as_("ada")
    at = new.submitted_at.isoformat()
    asked = {"action": "accessrequest.submitted"}

    def found(**when: str) -> list[str]:
        rows = ada.get("events/", **asked, **when).json()["results"]
        return [row["subject"]["id"] for row in rows]

    assert found(happened_after=at) == [str(new.pk)]
    assert found(happened_before=at) == [str(old.pk)]
    assert found(happened_after=old.submitted_at.isoformat(), happened_before=at) == [str(old.pk)]
    refused(ada.get("events/", happened_after="2030-01-31"), 422, "invalid")


@pytest.mark.slow
def test_grants_and_levels_by_what_and_by_whom(world: World, as_: As):
    mine, other = world.approved(), world.approved("amir")
    bob = as_("bob")
    assert ids(bob.get("grants/", person="alice")) == [mine.pk]
    assert ids(bob.get("grants/", level=world.read.pk)) == [other.pk, mine.pk]
    assert ids(bob.get("grants/", level=world.write.pk)) == []
    alice = as_("alice")
    assert len(ids(alice.get("levels/", target=world.target.pk))) == 2
    assert ids(alice.get("levels/", target=world.target.pk + 1)) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("target", "orders"),
        ("target", "0"),
        ("target", "9" * 30),
        ("level", "-1"),
        ("level", "1.5"),
        ("state", "open"),
        ("person", "a\x00b"),
        ("mine", "yes"),
        ("submitted_after", "yesterday"),
        ("submitted_after", "2030-01-01"),
        ("submitted_after", "2030-01-01T00:00:00"),
        ("submitted_before", ""),
        ("order_by", "id"),
        ("page_size", "1000"),
    ],
)
def test_a_bad_filter_is_named(world: World, as_: As, name: str, value: str):
    problem = refused(as_("alice").get("requests/", **{name: value}), 422, "invalid")
    assert list(problem["fields"]) == [name]


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"])
def test_the_ends_of_time_are_times(world: World, as_: As, moment: str):
    answer = as_("alice").get("requests/", submitted_after=moment)
    assert answer.status_code in (200, 422)


@pytest.mark.slow
def test_what_arrives_meanwhile_shifts_no_page(
    world: World, as_: As, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(NewestFirst, "page_size", 2)
    assign_perm("approvals.request_accesslevel", world.alice, world.read)

    def cancelled() -> int:
        request = world.submit()
        workflow.cancel(request.pk, by=world.alice)
        return int(request.pk)

    before = [cancelled() for _ in range(5)]
    alice = as_("alice")
    page = alice.get("requests/", state="cancelled")
    seen = ids(page)
    while (following := page.json()["next"]) is not None:
        cancelled()
        assert "state=cancelled" in following
        page = alice.client.get(following)
        seen += ids(page)
    assert seen == sorted(before, reverse=True)


@pytest.mark.slow
def test_narrowing_costs_the_same_for_one_row_as_for_twenty(
    world: World, as_: As, django_assert_max_num_queries: Any
):
    bob = as_("bob")
    narrow = {"person": "alice", "target": world.target.pk, "level": world.read.pk}

    def cost(path: str) -> int:
        with django_assert_max_num_queries(15) as counted:
            assert ids(bob.get(path, **narrow))
        return len(counted)

    world.approved()
    few = [cost("requests/"), cost("grants/")]
    for _ in range(19):
        world.approved()
    assert (AccessRequest.objects.count(), Grant.objects.count()) == (20, 20)
    assert [cost("requests/"), cost("grants/")] == few
