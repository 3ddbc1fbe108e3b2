"""Many attempts at one target: made together, and whatever goes wrong is told of the one it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from approvals import batches, closing, grants, leases, opening
from approvals.errors import ProvisionError
from approvals.models import Grant, Step, StepKind
from approvals.provisioning.base import Account
from approvals.provisioning.memory import MemoryProvisioner
from approvals.states import GrantState
from audit.log import timeline
from tests.world import World, publish, stage

OPEN, CUT, CLEAN = StepKind.OPEN, StepKind.CUT, StepKind.CLEAN


@pytest.fixture(autouse=True)
def one_vote(world: World) -> None:
    """Shorten the chain: making grants is not what is tried here."""
    publish(world, stage(world, "Database", "dba"))


def approved(world: World, count: int) -> list[Grant]:
    made = []
    for _ in range(count):
        request = world.submit()
        world.vote(request, "bob")
        made.append(Grant.objects.get(request=request))
    return made


def room(**more: Any) -> leases.Room:
    return leases.Room(free=1, batch=50, **more)


def claimed(worker: str = "w") -> list[batches.Job]:
    return opening.claim(worker=worker, room=room())


def closing_jobs(kind: StepKind) -> list[batches.Job]:
    return closing.claim(kind, worker="w", room=room())


def state(grant: Grant) -> str:
    grant.refresh_from_db()
    return str(grant.state)


def states(made: list[Grant]) -> list[str]:
    return [state(grant) for grant in made]


def told(grant: Grant) -> list[str]:
    return [event.action for event in timeline(f"request:{grant.request_id}")][-3:]


def meanwhile(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Have something happen after the accounts were made, right before the look at the ledger."""
    original = opening.LeasesFence.hold_many

    def hold_many(self: opening.LeasesFence, undos: Mapping[int, Mapping[str, Any]]) -> None:
        act()
        original(self, undos)

    monkeypatch.setattr(opening.LeasesFence, "hold_many", hold_many)


@pytest.mark.slow
def test_all_open_in_one_go_each_with_its_own_account(world: World):
    made = approved(world, 4)
    assert opening.run_all(claimed())
    assert world.server.calls.count("open") == 0
    assert world.server.calls.count("open_many") == 1
    for grant in made:
        assert state(grant) == GrantState.ACTIVE
        account = world.server.accounts[grant.account]
        assert grant.expires_at == account.valid_until
        assert grant.connection["user"] == grant.account
        assert (grant.lease, grant.lease_until, grant.next_try_at) == ("", None, None)
        step = Step.objects.get(grant=grant, kind=OPEN)
        assert step.finished_at == grant.activated_at
        assert [trace["id"] for trace in step.traces] == [account.id]
        assert told(grant) == ["grant.scheduled", "grant.provisioning", "grant.active"]
        shown = grants.reveal(grant.pk, by=world.alice)
        assert world.server.sign_in(grant.account, shown.password).alive


@pytest.mark.slow
def test_the_ledger_is_asked_no_more_for_twelve_than_for_two(world: World, clock, monkeypatch):
    """The target, kept in memory, is cut and cleaned up together by one call for each."""
    for many, one in (("cut_many", MemoryProvisioner.cut), ("clean_many", MemoryProvisioner.clean)):
        monkeypatch.setattr(MemoryProvisioner, many, each(one))

    def statements(count: int) -> list[int]:
        asked = []

        def counted(act: Callable[[], Any]) -> Any:
            with CaptureQueriesContext(connection) as seen:
                done = act()
            asked.append(len(seen))
            return done

        made = approved(world, count)
        jobs = counted(claimed)
        assert counted(lambda: opening.run_all(jobs))
        assert states(made) == [GrantState.ACTIVE] * count
        clock.forward(3700)
        for kind in (CUT, CLEAN):
            jobs = counted(partial(closing_jobs, kind))
            assert counted(partial(closing.run_all, jobs))
        assert states(made) == [GrantState.ENDED] * count
        return asked

    statements(1)  # what is asked once and kept is known from then on
    assert statements(2) == statements(12)


def each(one: Callable[..., object]) -> Callable[..., frozenset[int]]:
    def many(self: MemoryProvisioner, accounts: Sequence[Account]) -> frozenset[int]:
        for account in accounts:
            one(self, account)
        return frozenset(account.grant_id for account in accounts)

    return many


def test_one_that_was_revoked_meanwhile_is_not_opened_and_the_others_are(world: World, monkeypatch):
    made = approved(world, 3)
    jobs, revoked = claimed(), made[1]
    meanwhile(monkeypatch, lambda: grants.revoke(revoked.pk, by=world.bob, reason="No."))
    assert opening.run_all(jobs)
    assert states(made) == [GrantState.ACTIVE, GrantState.REVOKING, GrantState.ACTIVE]
    assert world.server.accounts.keys() == {made[0].account, made[2].account}
    assert Step.objects.get(grant=revoked, kind=OPEN).traces == []


@pytest.mark.slow
def test_one_that_another_took_over_meanwhile_is_not_opened(world: World, monkeypatch):
    made = approved(world, 3)
    jobs, taken = claimed(), made[0]
    others = "f" * 32
    meanwhile(monkeypatch, lambda: Grant.objects.filter(pk=taken.pk).update(lease=others))
    assert opening.run_all(jobs)
    assert states(made) == [GrantState.PROVISIONING, GrantState.ACTIVE, GrantState.ACTIVE]
    assert taken.account not in world.server.accounts
    assert taken.lease == others


@pytest.mark.slow
def test_a_whole_batch_that_comes_too_late_opens_nothing(world: World, clock):
    made = approved(world, 3)
    jobs = claimed()
    clock.forward(opening.OPEN_BUDGET)
    opening.run_all(jobs)
    assert not world.server.accounts
    assert states(made) == [GrantState.PROVISIONING] * 3


@pytest.mark.slow
def test_one_revoked_after_the_commit_is_not_said_to_be_active(world: World, monkeypatch):
    made = approved(world, 3)
    jobs, activate = claimed(), opening._activate

    def late(*args: Any) -> None:
        monkeypatch.undo()
        grants.revoke(made[2].pk, by=world.bob, reason="No.")
        activate(*args)

    monkeypatch.setattr(opening, "_activate", late)
    opening.run_all(jobs)
    assert states(made) == [GrantState.ACTIVE, GrantState.ACTIVE, GrantState.REVOKING]
    closing.close_grant(made[2].pk, worker="w")
    assert state(made[2]) == GrantState.ENDED
    assert made[2].account not in world.server.accounts


def test_a_name_that_is_taken_fails_alone(world: World, clock):
    made = approved(world, 3)
    world.server.add_stranger(made[1].account, "theirs", until=made[1].activate_before)
    opening.run_all(claimed())
    made[1].refresh_from_db()
    assert (made[1].state, made[1].end_code) == (GrantState.REVOKING, "name_taken")
    assert state(made[0]) == GrantState.ACTIVE
    opening.run_all(claimed())  # the rest was handed back
    assert state(made[2]) == GrantState.ACTIVE


def test_a_commit_that_fails_is_made_up_for_one_by_one(world: World):
    made = approved(world, 3)
    world.server.fail_next("commit", ProvisionError("It is full."))
    assert opening.run_all(claimed())
    assert states(made) == [GrantState.ACTIVE] * 3
    for grant in made:
        assert grant.last_error == ""
        assert len(Step.objects.get(grant=grant, kind=OPEN).traces) == 2  # both attempts' marks


@pytest.mark.slow
def test_a_lost_answer_of_many_is_taken_up_by_the_next_attempt(world: World, clock, monkeypatch):
    """The accounts were made, and the worker died before it could say so."""
    made = approved(world, 3)
    jobs = claimed()

    def dies(*_: Any) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(opening, "_activate", dies)
        with pytest.raises(SystemExit):
            opening.run_all(jobs)
    assert states(made) == [GrantState.PROVISIONING] * 3
    before = {name: account.id for name, account in world.server.accounts.items()}
    clock.forward(leases.LEASE[OPEN])
    assert opening.run_all(claimed("other"))
    assert states(made) == [GrantState.ACTIVE] * 3
    assert {name: one.id for name, one in world.server.accounts.items()} == before


def test_a_secret_that_cannot_be_read_fails_alone(world: World):
    made = approved(world, 3)
    jobs = claimed()
    jobs[0].grant.secret = "not ours"
    opening.run_all(jobs)
    made[0].refresh_from_db()
    assert made[0].last_error
    opening.run_all(claimed())
    assert [state(grant) for grant in made[1:]] == [GrantState.ACTIVE] * 2


def test_a_level_that_changed_fails_alone(world: World):
    """Its summary in the ledger is as before: the target shows that it is not."""
    [reads] = approved(world, 1)
    request = world.submit("amir", world.write)
    world.vote(request, "bob")
    writes = Grant.objects.get(request=request)
    world.server.levels["read-only"] = ("may read", "may delete")
    opening.run_all(claimed())
    reads.refresh_from_db()
    assert reads.end_code == "scope_changed"
    opening.run_all(claimed())
    assert state(writes) == GrantState.ACTIVE


def test_each_of_many_ends_for_its_own_reason(world: World, clock):
    made = approved(world, 3)
    opening.run_all(claimed())
    other = world.submit("amir")
    world.vote(other, "bob")
    unopened = Grant.objects.get(request=other)
    claimed()
    world.amir.is_active = False
    world.amir.save()
    clock.forward(3700)
    jobs = closing_jobs(CUT)
    assert {job.grant.pk: job.grant.end_code for job in jobs} == {
        **{grant.pk: "" for grant in made},
        unopened.pk: "deactivated",
    }
    assert closing.run_all(jobs)
    assert all(grant.end_reason == "expired" for grant in made if state(grant))
    assert state(unopened) == GrantState.REVOKING
