"""Each breach of a law that one change can be is noticed, and what is lawful is not."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.clients import Act, Done
from tests.faults.course import Course
from tests.faults.hindsight import _surely
from tests.faults.lawful import breaches
from tests.faults.witness import Change

ALICE, BOB, DAN, CAROL = 1, 2, 3, 4
DBA, SECURITY = 10, 11
NOON, LATER = "2030-01-01T12:00:00+00:00", "2030-01-01T13:00:00+00:00"
MINUTE = "2030-01-01T12:01:00+00:00"  # after noon


def stage(pk: int, group: int, state: str, total: int = 1) -> dict[str, Any]:
    return {
        "id": pk, "request_id": 7, "round": 1, "order": pk, "name": f"stage {pk}", "state": state,
        "minima": {str(group): total}, "stand_ins": {}, "total": total, "deny_quorum": 1,
    }  # fmt: skip


def vote(pk: int, stage: int, voter: int, decision: str = "approve", **more: Any) -> dict[str, Any]:
    return {
        "id": pk, "stage_id": stage, "voter_id": voter, "decision": decision, "scope_hash": "h",
        "replaced_at": None, "voided_at": None, "void_reason": "", "reduced_duration": None,
        "reduced_level_id": None, **more,
    }  # fmt: skip


@pytest.fixture
def course() -> Course:
    """alice asked; the first of two stages, which two of dba fill, is open; bob has approved."""
    row = {
        "id": 7, "state": "pending", "requester_id": ALICE, "beneficiary_id": ALICE,
        "last_edited_by_id": ALICE, "round": 1, "scope_hash": "h", "level_id": 5, "target_id": 6,
        "duration": 60, "policy_version_id": 1, "kind": "access", "extends_id": None,
        "starts_at": None,
    }  # fmt: skip
    made = Course(row)
    made.stages = {1: stage(1, DBA, "open", total=2), 2: stage(2, SECURITY, "waiting")}
    made.candidates = {1: [(BOB, DBA), (DAN, DBA)], 2: [(CAROL, SECURITY), (BOB, SECURITY)]}
    made.votes = {1: vote(1, 1, BOB)}
    return made


def grant(**more: Any) -> dict[str, Any]:
    return {
        "id": 9, "request_id": 7, "beneficiary_id": ALICE, "level_id": 5, "target_id": 6,
        "duration": 60, "scope_hash": "h", "state": "scheduled", "expires_at": None,
        "extended_until": None, "extended_count": 0, "bridged_at": None, **more,
    }  # fmt: skip


def found(course: Course, table: str, old: Any, new: Any) -> list[str]:
    change = Change(id=1, xid=1, table=table, old=old, new=new)
    return [wrong.split(": ", 1)[1] for wrong in breaches(change, course, [course])]


def born(course: Course, table: str, row: dict[str, Any]) -> list[str]:
    return found(course, table, None, row)


def became(course: Course, table: str, row: dict[str, Any], **more: Any) -> list[str]:
    return found(course, table, row, {**row, **more})


def passed(course: Course) -> Course:
    """As it is when the chain has been completed."""
    for one in course.stages.values():
        one["state"] = "passed"
    course.row["state"] = "approved"
    return course


def test_what_is_lawful(course: Course):
    assert born(course, "vote", vote(2, 1, DAN)) == []
    course.votes[2] = vote(2, 1, DAN)
    assert became(course, "requeststage", course.stages[1], state="passed") == []
    assert born(passed(course), "grant", grant()) == []
    assert became(course, "grant", grant(state="active", expires_at=LATER), expires_at=NOON) == []


@pytest.mark.parametrize(
    ("more", "wrong"),
    [
        ({"voter": ALICE}, "a vote about oneself"),
        ({"voter": CAROL}, "a vote of somebody who was not asked"),
        ({"voter": BOB}, "a second vote that counts"),
        ({"voter": CAROL, "stage": 2}, "a vote in a stage that is not open"),
        ({"voter": DAN, "scope_hash": "g"}, "a vote on another scope than that of the request"),
    ],
)
def test_votes_that_may_not_be(course: Course, more: dict[str, Any], wrong: str):
    assert wrong in born(course, "vote", vote(2, **{"stage": 1, **more}))


def test_nobody_fills_two_places_of_one_chain(course: Course):
    course.stages[1]["state"], course.stages[2]["state"] = "passed", "open"
    assert born(course, "vote", vote(2, 2, BOB)) == ["a vote of somebody who counted in stage 1"]


def test_a_vote_on_what_is_decided(course: Course):
    course.row["state"] = "cancelled"
    assert "a vote on a request that is cancelled" in born(course, "vote", vote(2, 1, DAN))


def test_a_stage_passes_only_when_it_is_filled(course: Course):
    one = became(course, "requeststage", course.stages[1], state="passed")
    assert one == ["a stage passed with places that nobody fills"]
    early = became(course, "requeststage", course.stages[2], state="open")
    assert early == ["a stage opened before those before it had passed"]
    denied = became(course, "requeststage", course.stages[1], state="denied")
    assert denied == ["a stage was denied without its quorum"]


def test_a_request_is_approved_by_its_chain_and_then_left_alone(course: Course):
    early = became(course, "accessrequest", course.row, state="approved")
    assert early == ["approved without a completed chain"]
    row = passed(course).row
    assert "a decided request was changed" in became(course, "accessrequest", row, scope_hash="g")
    assert "approved was followed by cancelled" in became(
        course, "accessrequest", row, state="cancelled"
    )
    assert "policy_version_id became another" in became(
        course, "accessrequest", row, policy_version_id=2
    )


def test_no_two_undecided_requests_for_the_same(course: Course):
    twin = Course({**course.row, "id": 8})
    change = Change(id=1, xid=1, table="accessrequest", old=None, new=twin.row)
    assert any("the same was asked" in wrong for wrong in breaches(change, twin, [course, twin]))


def test_grants_that_may_not_be(course: Course):
    early = born(course, "grant", grant())
    assert "a grant without a completed chain" in early
    assert "a grant for a request that is pending" in early
    passed(course)
    assert born(course, "grant", grant(duration=61)) == ["its duration is not what was approved"]
    assert born(course, "grant", grant(state="active")) == ["it began as active"]
    course.votes[1] |= {"reduced_duration": 30, "reduced_level_id": 4}
    assert born(course, "grant", grant(duration=30, level_id=4, scope_hash="g")) == []
    assert born(course, "grant", grant()) == [
        "its level_id is not what was approved",
        "its duration is not what was approved",
        "its scope_hash is not what was approved",
    ]
    course.votes[1]["replaced_at"] = NOON
    course.grant = grant()
    assert born(course, "grant", grant()) == ["a second grant for one request"]


def test_a_chain_begins_anew_for_another_scope_or_for_a_vote_that_is_void(course: Course):
    for changes in ({"round": 2}, {"scope_hash": "g"}):
        [wrong] = became(course, "accessrequest", course.row, **changes)
        assert wrong.startswith("a scope changed without a new round")
    assert became(course, "accessrequest", course.row, round=2, scope_hash="g") == []
    course.votes[1] |= {"voided_at": NOON, "void_reason": "reduced_level_changed"}
    assert became(course, "accessrequest", course.row, round=2) == []


@pytest.mark.parametrize(
    ("before", "after", "wrong"),
    [
        ({"expires_at": NOON}, {"expires_at": LATER}, "expires_at moved from"),
        ({"expires_at": NOON}, {"expires_at": None}, "expires_at moved from"),
        ({"state": "ended"}, {"state": "active"}, "ended was followed by active"),
        ({"state": "ended"}, {"connection": {}}, "a grant that had ended was changed"),
        ({"state": "active"}, {"cut_at": NOON}, "it was cut while active"),
        ({"state": "revoking", "cut_at": NOON}, {"cut_at": LATER}, "cut_at was set twice"),
        ({"state": "revoking"}, {"state": "ended"}, "it ended without having been cut"),
        ({"state": "active", "revealed_at": NOON}, {"revealed_at": LATER}, "revealed_at was set"),
        ({"state": "provisioning"}, {"revealed_at": NOON}, "shown while it was provisioning"),
        ({"state": "revoking"}, {"secret": "x"}, "its secret is kept while it is revoking"),
        ({"state": "revoking"}, {"abandoned_at": NOON}, "fewer than two others abandoned it"),
        ({"state": "active"}, {"scope_hash": "g"}, "scope_hash became another"),
    ],
)
def test_what_may_not_become_of_a_grant(
    course: Course, before: dict[str, Any], after: dict[str, Any], wrong: str
):
    course.abandoners = {ALICE: NOON, BOB: NOON}  # whoever holds it does not count
    told = became(passed(course), "grant", grant(**before), **after)
    assert any(wrong in one for one in told)


def extension(course: Course, **more: Any) -> Course:
    """alice asked for one more minute of her access, grant 9, which ends at noon."""
    asked = {"id": 8, "kind": "extension", "extends_id": 9, "starts_at": NOON, **more}
    return Course({**course.row, **asked})


def intended(course: Course, asked: Course, **more: Any) -> list[str]:
    """What is wrong with a later end of grant 9 that is to be."""
    before = grant(state="active", expires_at=NOON, extended_until=None)
    after = {**before, "extended_until": MINUTE, "extended_count": 1, **more}
    change = Change(id=1, xid=1, table="grant", old=before, new=after)
    return [wrong.split(": ", 1)[1] for wrong in breaches(change, course, [course, asked])]


def test_an_end_moves_as_far_as_was_intended(course: Course):
    going_on = grant(state="active", expires_at=NOON, extended_until=LATER)
    assert became(course, "grant", going_on, expires_at=LATER) == []
    ending = grant(state="revoking", expires_at=NOON, extended_until=LATER)
    assert became(course, "grant", ending, expires_at=LATER)[0].startswith("expires_at moved")
    at_once = grant(state="active", expires_at=NOON)
    told = became(course, "grant", at_once, expires_at=LATER, extended_until=LATER)
    assert told[0].startswith("expires_at moved")


def test_an_end_is_to_move_only_by_a_decision(course: Course):
    agreed = extension(course, state="approved")
    assert intended(course, agreed) == []
    assert "more often than that" in intended(course, extension(course))[0]
    assert "to another end" in intended(course, agreed, extended_until=LATER)[0]
    assert "miscounted" in intended(course, agreed, extended_count=2)[0]
    assert "bridged twice" in intended(course, agreed, extended_count=0)[0]
    bridged = {"extended_count": 0, "bridged_at": NOON}
    assert intended(course, extension(course), **bridged) == []
    assert "no decision out" in intended(course, agreed, **bridged)[0]


def test_nothing_is_deleted(course: Course):
    assert found(course, "vote", vote(1, 1, BOB), None) == ["it was deleted"]
    assert born(course, "abandonment", {"id": 1, "grant_id": 9, "person_id": ALICE}) == [
        "somebody abandons their own access"
    ]


def test_only_what_had_ended_before_came_first():
    off, on = Act("deactivate", to=BOB), Act("activate", to=BOB)
    during = Done(Act("approve", "bob", 7), began=5, ended=6)
    assert _surely([Done(off, 1, 2)], off, on, during)
    assert not _surely([Done(off, 1, 5.5)], off, on, during)
    assert not _surely([Done(off, 1, 2, code="!")], off, on, during)
    assert not _surely([Done(off, 1, 2), Done(on, 3, 4)], off, on, during)
    assert not _surely([Done(off, 1, 3), Done(on, 2, 4)], off, on, during)
    assert not _surely([Done(off, 1, 4), Done(on, 2, 3)], off, on, during)
    assert _surely([Done(on, 0, 1), Done(off, 2, 3)], off, on, during)
