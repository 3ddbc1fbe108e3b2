"""What a holder made is reported in the log, attempt by attempt, and told in the timeline."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from guardian.shortcuts import assign_perm

from approvals import administration, closing, grants, opening
from approvals.errors import ProvisionError
from approvals.models import Grant, StepKind
from approvals.models import Target as TargetRow
from approvals.provisioning.base import Cleaned, Observation, Sample
from approvals.provisioning.memory import MemoryProvisioner
from approvals.sentences import event_sentence
from approvals.states import EndReason, GrantState
from audit import clock as database_clock
from audit.log import timeline
from audit.models import Event
from tests.world import World, save_level

from .conftest import ADMIN_PASSWORD, WRITE, Target, is_cut

REPORT = "grant.quarantined"


@pytest.fixture
def grant(world: World, newest: Target) -> Grant:
    """alice's read-write access to the real target, open."""
    row = TargetRow(name="shop", kind="postgresql", environment="staging", config=newest.config)
    secrets = {"password": ADMIN_PASSWORD}
    saved = administration.save_target(row, by=world.ada, clear_secrets=secrets)
    level = save_level(world, target=saved, name="shop-write", rank=1, rights=WRITE)
    assign_perm("approvals.request_accesslevel", world.groups["developers"], level)
    made: Grant = world.approved(level=level)
    opening.open_grant(made.pk, worker="w1")
    made.refresh_from_db()
    return made


def end(world: World, grant: Grant) -> None:
    grants.release(grant.pk, by=world.alice)
    closing.close_grant(grant.pk, worker="w1")
    grant.refresh_from_db()


def reports(grant: Grant) -> list[Event]:
    return list(timeline(f"request:{grant.request_id}").filter(action=REPORT))


def test_what_she_made_is_in_the_timeline(world: World, grant: Grant, newest: Target) -> None:
    password = grants.reveal(grant.pk, by=world.alice).password
    with newest.sign_in(grant.account, password) as alice:
        alice.execute("CREATE TABLE work.notes (i int)")
        alice.execute(
            "CREATE FUNCTION work.door() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'"
        )
    try:
        end(world, grant)
    finally:
        newest.tell("DROP TABLE IF EXISTS work.notes", "DROP FUNCTION IF EXISTS work.door()")
    assert grant.state == GrantState.ENDED
    (event,) = reports(grant)
    assert event.data["quarantined"]["count"] == 2
    sentence = event_sentence(event)
    assert "took over 2 things that the holder had made" in sentence
    assert "orders: table work.notes" in sentence
    assert "made 1 thing run as their caller" in sentence


def test_nothing_made_is_nothing_told(world: World, grant: Grant) -> None:
    end(world, grant)
    assert grant.state == GrantState.ENDED
    assert reports(grant) == []


def test_one_who_is_let_in_again_after_the_cut_is_cut_again(
    world: World, grant: Grant, newest: Target
) -> None:
    password = grants.reveal(grant.pk, by=world.alice).password
    grants.release(grant.pk, by=world.alice)
    closing.run_all(closing.claim(StepKind.CUT, worker="w1", only=grant.pk))
    newest.tell(f"ALTER ROLE {grant.account} LOGIN")
    with newest.sign_in(grant.account, password) as alice:
        closing.run_all(closing.claim(StepKind.CLEAN, worker="w1", only=grant.pk))
        grant.refresh_from_db()
        assert (grant.state, grant.cut_at) == (GrantState.REVOKING, None)
        assert grant.next_try_at
        wait = grant.next_try_at - database_clock.now()
        assert wait <= timedelta(seconds=closing.FIRST_RETRY), "it was made to wait its turn"
        Grant.objects.filter(pk=grant.pk).update(next_try_at=database_clock.now())
        closing.close_grant(grant.pk, worker="w1")
        assert is_cut(alice)
    grant.refresh_from_db()
    assert (grant.state, grant.cut_at is None) == (GrantState.ENDED, False)
    told = timeline(f"request:{grant.request_id}").values_list("action", flat=True)
    seen = [one for one in told if one in ("grant.cut", "grant.attempt_failed", "grant.ended")]
    assert seen == ["grant.cut", "grant.attempt_failed", "grant.cut", "grant.ended"]


def test_a_read_back_that_shows_a_session_is_no_end_but_another_cut(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = world.approved()
    opening.open_grant(made.pk, worker="w1")
    grants.revoke(made.pk, by=world.olga, reason="Enough.")
    seen = Observation(sessions=1, can_sign_in=False, leftovers=())
    with monkeypatch.context() as haunted:
        haunted.setattr(MemoryProvisioner, "observe", lambda *_: seen)
        closing.close_grant(made.pk, worker="w1")
    made.refresh_from_db()
    assert (made.state, made.cut_at) == (GrantState.REVOKING, None)
    Grant.objects.filter(pk=made.pk).update(next_try_at=database_clock.now())
    closing.close_grant(made.pk, worker="w1")
    made.refresh_from_db()
    assert made.state == GrantState.ENDED


PART = Cleaned(quarantined=Sample(names=("orders: table work.a",), count=700))


def test_each_attempts_share_is_told_and_the_next_one_comes_at_once(world: World) -> None:
    made = world.approved()
    opening.open_grant(made.pk, worker="w1")
    error = ProvisionError("9 things are left.", code="clean_unfinished", cleaned=PART)
    world.server.fail_next("clean", error, times=3)
    grants.revoke(made.pk, by=world.olga, reason="Enough.")
    for attempt in range(1, 4):
        closing.close_grant(made.pk, worker="w1")
        made.refresh_from_db()
        assert len(reports(made)) == attempt
        assert made.state == GrantState.REVOKING
        wait = made.next_try_at - database_clock.now()
        assert wait <= timedelta(seconds=closing.FIRST_RETRY), "it was made to wait its turn"
        Grant.objects.filter(pk=made.pk).update(next_try_at=database_clock.now())
    closing.close_grant(made.pk, worker="w1")
    made.refresh_from_db()
    assert (made.state, made.end_reason) == (GrantState.ENDED, EndReason.REVOKED)
    assert "and 699 more" in event_sentence(reports(made)[0])


def test_a_failure_of_one_part_alone_does_not_stop_those_after_it(world: World) -> None:
    """As when a replica is dead: everyone else's cut on the primary goes on."""
    made: list[Any] = [world.approved(who) for who in ("alice", "amir")]
    for one in made:
        opening.open_grant(one.pk, worker="w1")
        grants.revoke(one.pk, by=world.olga, reason="Enough.")
    world.server.fail_next("cut", ProvisionError("Replica r1 is dead.", alone=True))
    jobs = [job for one in made for job in closing.claim(StepKind.CUT, worker="w1", only=one.pk)]
    assert closing.run_all(jobs)
    for one in made:
        one.refresh_from_db()
    assert [one.cut_at is None for one in made] == [True, False]
    assert "Replica r1" in made[0].last_error
