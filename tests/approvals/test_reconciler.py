"""The reconciler on a rehearsed target: what it mends, what it asks first, what it never does."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import connection, connections

from approvals import closing, grants, installation, opening, reconciler, scope
from approvals.errors import NotAllowed, ProvisionError, WrongState
from approvals.models import Grant, Installation, Reconciliation, Step, StepKind, Target
from approvals.provisioning.memory import MemoryProvisioner, MemorySession
from approvals.sentences import event_sentence
from approvals.states import GrantState
from audit.models import Event
from tests.approvals.admin_browser import browser, staff, url
from tests.conftest import Control
from tests.world import World

GRACE = 120


@pytest.fixture
def unknown(world: World) -> str:
    """An account under our name that no grant has."""
    return stranger(world, 900)


def stranger(world: World, number: int, **more: Any) -> str:
    name = f"dbgf_{number}"
    until = datetime.now(UTC) + timedelta(days=1)
    world.server.add_stranger(name, "x", until=until, **more)
    return f"{name}:{world.server.accounts[name].id}"


def active(world: World, who: str = "alice", **more: Any) -> Grant:
    grant: Grant = world.approved(who, **more)
    opening.open_grant(grant.pk, worker="w")
    return now_is(grant)


def now_is(grant: Grant) -> Grant:
    return Grant.objects.get(pk=grant.pk)


def compare(world: World) -> Reconciliation:
    """One run, which must succeed."""
    assert reconciler.run_all(reconciler.claim_now(world.target.pk, worker="w"))
    return row(world)


def row(world: World) -> Reconciliation:
    return Reconciliation.objects.get(target=world.target)


def events(action: str) -> list[Any]:
    return list(Event.objects.filter(action=action).order_by("id"))


def test_a_target_as_it_should_be_has_no_findings(world: World):
    grant = active(world)
    seen = compare(world)
    assert (seen.findings, seen.unknown, seen.held_back, seen.last_error) == ([], {}, [], "")
    assert seen.ran_at is not None
    assert (seen.lease_until, seen.worker) == (None, "w")
    assert grant.state == GrantState.ACTIVE
    assert world.server.accounts[grant.account].stamp == installation.stamp()
    assert not events("target.drifted")


def test_an_unknown_account_is_removed_after_its_grace_and_told_once(world, unknown, clock):
    session = world.server.sign_in("dbgf_900", "x")
    for _ in range(3):
        seen = compare(world)
    assert list(seen.unknown) == [unknown]
    assert session.alive
    (drifted,) = events("target.drifted")
    assert "dbgf_900" in event_sentence(drifted)
    clock.forward(GRACE)
    compare(world)
    assert not session.alive
    assert not world.server.accounts
    (removed,) = events("reconciliation.removed")
    assert removed.data["accounts"] == [unknown]
    seen = compare(world)
    assert (seen.unknown, seen.findings) == ({}, [])
    assert events("target.drifted")[-1].data["over"]


def test_anothers_account_is_left_alone(world: World, clock):
    stranger(world, 900, stamp="debugflow another")
    compare(world)
    clock.forward(9 * GRACE)
    seen = compare(world)
    assert "left alone" in seen.findings[0]
    assert "dbgf_900" in world.server.accounts
    assert len(events("target.drifted")) == 1


def test_the_account_of_an_ended_grant_does_not_come_back(world: World):
    grant = active(world)
    before = world.server.accounts[grant.account]
    grants.release(grant.pk, by=world.alice)
    closing.close_grant(grant.pk, worker="w")
    assert now_is(grant).state == GrantState.ENDED
    world.server.accounts[grant.account] = before  # the target is restored from a backup
    compare(world)
    assert not world.server.accounts
    assert len(events("reconciliation.removed")) == 1


def test_what_is_due_is_left_to_the_sweeper(world: World, clock):
    expired, revoking = active(world), active(world, "amir")
    clock.forward(3600)
    grants.release(revoking.pk, by=world.amir)
    seen = compare(world)
    assert seen.findings == []
    assert len(world.server.accounts) == 2
    assert now_is(expired).state == GrantState.ACTIVE
    assert expired in closing.cuts_due()


def test_a_lost_account_past_its_end_is_the_sweepers(world: World, clock):
    grant = active(world)
    world.server.accounts[grant.account].level = "read-write"
    clock.forward(3600)
    assert compare(world).findings == []
    del world.server.accounts[grant.account]
    assert compare(world).findings == []
    assert now_is(grant).state == GrantState.ACTIVE


def test_a_grant_whose_account_a_stranger_dropped_is_ended(world: World):
    grant = active(world)
    del world.server.accounts[grant.account]
    seen = compare(world)
    ended = now_is(grant)
    assert (ended.state, ended.end_code) == (GrantState.REVOKING, "account_gone")
    assert "not on the target any more" in ended.end_note
    assert grant.account in seen.findings[0]
    closing.close_grant(grant.pk, worker="w")
    assert now_is(grant).state == GrantState.ENDED


def test_a_grant_whose_account_a_stranger_closed_is_ended(world: World):
    grant = active(world)
    session = world.server.sign_in(grant.account, grants.unsealed(grant))
    world.server.accounts[grant.account].can_sign_in = False
    compare(world)
    assert now_is(grant).end_code == "account_gone"
    closing.close_grant(grant.pk, worker="w")
    assert not session.alive


def test_a_stranger_under_a_grants_name_is_not_taken_for_it(world: World, clock):
    grant = active(world)
    stranger(world, grant.pk)
    compare(world)
    assert now_is(grant).end_code == "account_gone"
    closing.close_grant(grant.pk, worker="w")
    assert grant.account in world.server.accounts
    clock.forward(GRACE)
    compare(world)
    assert not world.server.accounts


def test_powers_given_by_a_stranger_are_told_once_and_take_nothing_away(world: World):
    grant = active(world)
    world.server.accounts[grant.account].level = "read-write"
    for _ in range(3):
        seen = compare(world)
    assert seen.findings == [f"{grant.account} has the level read-write, not read-only"]
    assert now_is(grant).state == GrantState.ACTIVE
    assert len(events("target.drifted")) == 1
    world.server.accounts[grant.account].level = "read-only"
    assert compare(world).findings == []
    assert events("target.drifted")[-1].data["over"] == seen.findings


def test_a_level_that_is_gone_is_told(world: World):
    del world.server.levels["read-write"]
    assert compare(world).findings == ["there is no level read-write"]


def test_removing_an_unknown_account_ends_no_opener_of_that_name(world: World, clock):
    """The grant whose name a stranger took is being opened again at this moment."""
    grant = world.approved()
    unknown = stranger(world, grant.pk)
    compare(world)
    clock.forward(GRACE)
    ended: list[bool] = []

    def meanwhile(*_: Any) -> None:
        compare(world)
        ended.extend(one.ended for one in world.server.openers)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MemoryProvisioner, "_check_name", lambda *_: None)
        patch.setattr(opening.LeaseFence, "hold", meanwhile)
        opening.open_grant(grant.pk, worker="w")
    assert [event.data["accounts"] for event in events("reconciliation.removed")] == [[unknown]]
    assert ended == [False]


def surveyed(monkeypatch: pytest.MonkeyPatch, *, before: Any = None, after: Any = None) -> None:
    """Have something happen right before or right after the target is looked at."""
    original = MemoryProvisioner.survey

    def survey(self: MemoryProvisioner, *args: Any, **kwargs: Any) -> Any:
        if before:
            before()
        seen = original(self, *args, **kwargs)
        if after:
            after()
        return seen

    monkeypatch.setattr(MemoryProvisioner, "survey", survey)


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_opening_beside_a_survey_is_not_misjudged(world: World, monkeypatch, when: str):
    grant = world.approved()
    surveyed(monkeypatch, **{when: lambda: opening.open_grant(grant.pk, worker="w")})
    seen = compare(world)
    assert (seen.findings, seen.unknown) == ([], {})
    assert now_is(grant).state == GrantState.ACTIVE


def test_an_account_made_and_not_yet_said_to_be_active_is_known(world: World, monkeypatch):
    grant = world.approved()
    monkeypatch.setattr(opening, "_activate", lambda *_: compare(world))
    opening.open_grant(grant.pk, worker="w")
    assert now_is(grant).state == GrantState.PROVISIONING
    assert (row(world).findings, row(world).unknown) == ([], {})


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_closing_beside_a_survey_is_not_misjudged(world: World, monkeypatch, when: str):
    grant = active(world)

    def close() -> None:
        grants.release(grant.pk, by=world.alice)
        closing.close_grant(grant.pk, worker="w")

    surveyed(monkeypatch, **{when: close})
    seen = compare(world)
    assert (seen.findings, seen.unknown) == ([], {})
    assert now_is(grant).end_code == ""


def test_a_grant_is_not_judged_by_other_traces_than_were_surveyed(world: World, monkeypatch):
    grant = active(world)
    del world.server.accounts[grant.account]
    opened = Step.objects.filter(grant=grant, kind=StepKind.OPEN)
    surveyed(monkeypatch, after=lambda: opened.update(traces=[{"id": 99}]))
    assert compare(world).findings == []
    assert now_is(grant).state == GrantState.ACTIVE


def test_a_grant_that_moved_on_after_the_judgement_is_not_ended_again(world: World, monkeypatch):
    grant = active(world)
    del world.server.accounts[grant.account]
    original = reconciler._end_lost

    def late(*args: Any) -> None:
        grants.release(grant.pk, by=world.alice)
        original(*args)

    monkeypatch.setattr(reconciler, "_end_lost", late)
    compare(world)
    assert now_is(grant).end_reason == "released"


@pytest.mark.slow
@pytest.mark.usefixtures("committed")
def test_comparisons_all_the_while_never_misjudge_openings_and_closings(world: World):
    stop, outcomes = threading.Event(), []

    def keep_comparing() -> None:
        while not stop.is_set():
            jobs = reconciler.claim_now(world.target.pk, worker="w")
            outcomes.append(reconciler.run_all(jobs))
        connections.close_all()

    thread = threading.Thread(target=keep_comparing)
    thread.start()
    for who in ("alice", "amir") * 4:
        grant = active(world, who)
        assert grant.state == GrantState.ACTIVE
        grants.release(grant.pk, by=world.people[who])
        closing.close_grant(grant.pk, worker="w")
    stop.set()
    thread.join(timeout=20)
    assert len(outcomes) > 3
    assert all(outcomes)
    assert not events("target.drifted")
    assert {one.end_reason for one in Grant.objects.all()} == {"released"}


def second_target(world: World) -> Target:
    """Another database of the same server, as a target of its own."""
    target = Target(name="billing", kind="memory", environment="staging", config={"name": "orders"})
    target.created_at = world.target.created_at
    target.save()
    return target


def test_two_targets_on_one_server_know_each_others_accounts(world: World, clock):
    grant = active(world)
    second = second_target(world)
    for _ in range(2):
        assert reconciler.run_all(reconciler.claim_now(second.pk, worker="w"))
        clock.forward(GRACE)
    seen = Reconciliation.objects.get(target=second)
    assert (seen.findings, seen.unknown) == ([], {})
    assert grant.account in world.server.accounts


def test_every_target_is_claimed_when_due_and_by_one_at_a_time(world: World, clock):
    second = second_target(world)
    Target.objects.filter(pk=second.pk).update(enabled=False)
    first = reconciler.claim(worker="one", most=9)
    assert {job.target_id for job in first} == {world.target.pk, second.pk}
    assert reconciler.claim(worker="two", most=9) == []
    assert reconciler.claim_now(second.pk, worker="two") == []
    reconciler.run_all(first)
    assert reconciler.claim(worker="two", most=9) == [], "not before it is due again"
    clock.forward(60)
    assert len(reconciler.claim(worker="two", most=1)) == 1


@pytest.mark.usefixtures("committed")
def test_a_row_that_another_is_claiming_is_skipped(world: World, control: Control):
    reconciler.claim(worker="w", most=9)
    Reconciliation.objects.update(lease_until=None, next_at=world.target.created_at)
    with psycopg.connect(control.url()) as other:
        other.execute("SELECT FROM approvals_reconciliation FOR UPDATE")
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = '1s'")
        assert reconciler.claim(worker="w", most=9) == []
    assert len(reconciler.claim(worker="w", most=9)) == 1


def test_a_run_that_was_overtaken_changes_nothing(world: World, clock, unknown):
    compare(world)
    (late,) = reconciler.claim_now(world.target.pk, worker="late")
    clock.forward(reconciler.LEASE)
    compare(world)
    stranger(world, 901)
    before = row(world)
    assert not reconciler.run(late)
    assert row(world).findings == before.findings
    assert row(world).ran_at == before.ran_at


def test_a_failing_target_is_told_once_and_tried_less_and_less_often(world: World):
    waits = []
    world.server.fail_next("survey", ProvisionError("No route to it."), times=5)
    for _ in range(5):
        assert not reconciler.run_all(reconciler.claim_now(world.target.pk, worker="w"))
        seen = row(world)
        (failed,) = events("reconciliation.failed")
        waits.append(round((seen.next_at - failed.at).total_seconds()))
    assert seen.last_error == failed.data["error"] == "No route to it."
    assert (seen.failures, seen.ran_at, seen.lease_until) == (5, None, None)
    assert waits == [60, 120, 240, 300, 300]
    assert compare(world).last_error == ""


def test_a_failed_survey_ends_no_grant(world: World):
    grant = active(world)
    world.server.fail_next("survey", ProvisionError("No route to it."))
    assert not reconciler.run_all(reconciler.claim_now(world.target.pk, worker="w"))
    assert now_is(grant).state == GrantState.ACTIVE


def test_one_removal_that_fails_keeps_no_other_from_being_done(world: World, clock):
    stranger(world, 900)
    stranger(world, 901)
    compare(world)
    clock.forward(GRACE)
    world.server.fail_next("clean", ProvisionError("It is locked."))
    assert not reconciler.run_all(reconciler.claim_now(world.target.pk, worker="w"))
    assert list(world.server.accounts) == ["dbgf_900"]
    assert row(world).last_error == "It is locked."
    compare(world)
    assert not world.server.accounts


def test_what_is_still_there_after_its_removal_is_not_said_to_be_gone(world, clock, monkeypatch):
    stranger(world, 900)
    compare(world)
    clock.forward(GRACE)
    monkeypatch.setattr(MemoryProvisioner, "clean", lambda *_: None)
    assert not reconciler.run_all(reconciler.claim_now(world.target.pk, worker="w"))
    assert "still there" in row(world).last_error
    assert not events("reconciliation.removed")


def test_no_removal_is_begun_that_could_outlast_the_lease(world: World, clock, monkeypatch):
    stranger(world, 900)
    compare(world)
    clock.forward(GRACE)
    monkeypatch.setattr(reconciler, "REMOVAL", reconciler.LEASE)
    compare(world)
    assert "dbgf_900" in world.server.accounts


@pytest.fixture
def held(world: World, clock) -> list[str]:
    """Five unknown accounts past their grace: more than one run removes by itself."""
    names = [stranger(world, number) for number in range(900, 905)]
    compare(world)
    clock.forward(GRACE)
    seen = compare(world)
    assert seen.held_back == sorted(names)
    assert seen.held_back_since is not None
    return seen.held_back


def test_too_much_at_once_waits_and_is_told_once(world: World, held: list[str], clock):
    since = row(world).held_back_since
    clock.forward(60)
    seen = compare(world)
    assert seen.held_back_since == since
    assert len(world.server.accounts) == len(held)
    (event,) = events("reconciliation.held_back")
    assert event.data == {"accounts": held, "count": 5}


@pytest.mark.parametrize("who", ["olga", "ada"])
def test_its_owner_or_an_administrator_allows_exactly_these(world, held, clock, who):
    stranger(world, 910)
    reconciler.allow(world.target.pk, by=world.people[who], accounts=held)
    assert row(world).held_back == []
    assert reconciler.claim(worker="w", most=1), "the next run is due at once"
    clock.forward(reconciler.LEASE + GRACE)
    compare(world)
    assert list(world.server.accounts) == ["dbgf_910"]
    assert row(world).allowed == []
    (event,) = events("reconciliation.allowed")
    assert (event.actor_name, event.data["accounts"]) == (who, held)


@pytest.mark.parametrize("who", ["mallory", "alice", "bob"])
def test_nobody_else_allows_it_and_the_attempt_is_recorded(world, held, who):
    with pytest.raises(NotAllowed):
        reconciler.allow(world.target.pk, by=world.people[who], accounts=held)
    (event,) = events("reconciliation.refused")
    assert (event.actor_name, event.data["code"]) == (who, "not_yours")
    compare(world)
    assert len(world.server.accounts) == len(held)


def test_a_list_that_is_not_what_is_held_back_is_refused(world: World, held: list[str]):
    for stale in (held[:-1], [*held, "dbgf_1:1"], [], ["dbgf_900"]):
        with pytest.raises(WrongState):
            reconciler.allow(world.target.pk, by=world.ada, accounts=stale)
    second = second_target(world)
    with pytest.raises(WrongState):
        reconciler.allow(second.pk, by=world.ada, accounts=held)
    assert len(events("reconciliation.refused")) == 5


def test_consent_is_for_that_account_and_not_for_its_name(world: World, held: list[str]):
    reconciler.allow(world.target.pk, by=world.ada, accounts=held)
    anew = stranger(world, 900)  # somebody drops it and makes another
    compare(world)
    assert list(world.server.accounts) == ["dbgf_900"]
    assert anew in row(world).unknown


def test_consent_is_used_up_by_a_try(world: World, held: list[str]):
    reconciler.allow(world.target.pk, by=world.ada, accounts=held)
    world.server.fail_next("clean", ProvisionError("It is locked."), times=5)
    assert not reconciler.run_all(reconciler.claim_now(world.target.pk, worker="w"))
    assert row(world).allowed == []
    assert compare(world).held_back == held


@pytest.mark.slow
def test_grants_that_lost_their_accounts_together_wait(world: World):
    """The target was restored, or the address leads elsewhere."""
    made = [active(world, who, level=lv) for who in ("alice", "amir") for lv in both(world)]
    world.server.accounts.clear()
    seen = compare(world)
    assert {now_is(grant).state for grant in made} == {GrantState.ACTIVE}
    assert seen.held_back == sorted(f"{grant.account}:gone" for grant in made)
    reconciler.allow(world.target.pk, by=world.olga, accounts=seen.held_back)
    compare(world)
    assert {now_is(grant).end_code for grant in made} == {"account_gone"}


def both(world: World) -> list[Any]:
    return [world.read, world.write]


def test_this_installation_has_one_name_and_knows_its_cluster(world: World):
    assert installation.key() == installation.key()
    assert Installation.objects.count() == 1
    assert not installation.moved()
    with pytest.raises(WrongState):
        installation.restored(installation.ONLY, by=world.ada)


@pytest.mark.slow
def test_after_a_restore_nothing_is_removed_until_somebody_confirms_it(world, clock, unknown):
    lost = active(world)
    compare(world)
    clock.forward(GRACE)
    Installation.objects.update(cluster="7000000000000000001")
    del world.server.accounts[lost.account]
    seen = compare(world)
    assert seen.held_back == sorted([unknown, f"{lost.account}:gone"])
    assert any("restored" in line for line in seen.findings)
    assert now_is(lost).state == GrantState.ACTIVE
    with pytest.raises(WrongState, match="reconcile --restored"):
        reconciler.allow(world.target.pk, by=world.ada, accounts=seen.held_back)
    compare(world)
    assert "dbgf_900" in world.server.accounts, "consent for one target is not that confirmation"
    with pytest.raises(NotAllowed):
        installation.restored(installation.ONLY, by=world.olga)
    installation.restored(installation.ONLY, by=world.ada)
    compare(world)
    assert not world.server.accounts
    assert now_is(lost).end_code == "account_gone"
    assert [event.actor_name for event in events("installation.restored")] == ["ada"]
    assert len(events("reconciliation.refused")) == 2


def test_cuts_go_on_after_a_restore(world: World):
    grant = active(world)
    Installation.objects.update(cluster="7000000000000000001")
    grants.release(grant.pk, by=world.alice)
    closing.close_grant(grant.pk, worker="w")
    assert now_is(grant).state == GrantState.ENDED


def test_nothing_opens_after_a_restore_until_somebody_confirms_it(world: World):
    grant = world.approved()
    here = installation.key() and Installation.objects.get().cluster
    Installation.objects.update(cluster="7000000000000000001")
    opening.open_grant(grant.pk, worker="w")
    assert now_is(grant).state == GrantState.SCHEDULED
    installation.restored(installation.ONLY, by=world.ada)
    assert Installation.objects.get().cluster == here
    opening.open_grant(grant.pk, worker="w")
    assert now_is(grant).state == GrantState.ACTIVE


@pytest.fixture
def gateway(world: World, monkeypatch: pytest.MonkeyPatch) -> Grant:
    """A grant whose scope says gateway, as no level that can be saved yet does."""
    original = scope.freeze
    monkeypatch.setattr(scope, "freeze", lambda **of: {**original(**of), "reach": "gateway"})
    return active(world)


def sign_in(world: World, grant: Grant, address: str) -> MemorySession:
    return world.server.sign_in(grant.account, grants.unsealed(grant), address=address)


def test_a_session_around_the_gateway_is_ended(world: World, gateway: Grant, settings):
    settings.GATEWAY_ADDRESSES = ["10.1.0.0/24", "fd00::/8"]
    through = [sign_in(world, gateway, address) for address in ("10.1.0.7", "fd00::7")]
    around = sign_in(world, gateway, "10.1.1.7")
    compare(world)
    assert [one.alive for one in (*through, around)] == [True, True, False]
    (event,) = events("session.ended_elsewhere")
    assert (event.data["account"], event.data["address"]) == (gateway.account, "10.1.1.7")
    assert now_is(gateway).state == GrantState.ACTIVE


def test_without_a_gateway_nobody_comes_from_it(world: World, gateway: Grant, settings):
    settings.GATEWAY_ADDRESSES = []
    session = sign_in(world, gateway, "10.1.0.7")
    compare(world)
    assert not session.alive


def test_a_direct_level_is_reached_from_anywhere(world: World):
    session = sign_in(world, active(world), "203.0.113.9")
    compare(world)
    assert session.alive


def test_what_cannot_be_seen_of_sessions_keeps_nothing_else_from_being_done(
    world: World, gateway: Grant, clock, unknown
):
    compare(world)
    clock.forward(GRACE)
    world.server.fail_next("end_elsewhere", ProvisionError("It may not see them."))
    assert not reconciler.run_all(reconciler.claim_now(world.target.pk, worker="w"))
    assert "dbgf_900" not in world.server.accounts
    assert row(world).last_error == "It may not see them."


def command(*arguments: str) -> str:
    out = StringIO()
    call_command("reconcile", *arguments, stdout=out)
    return out.getvalue()


def test_the_command_compares_now_and_says_what_it_found_and_did(world, clock, unknown):
    assert unknown in command()
    clock.forward(GRACE)
    said = command("orders")
    assert f"removed {unknown} from orders" in said
    assert "orders: agrees with the ledger" in command("orders")


def test_the_command_fails_where_something_failed_or_is_held_back(world: World, held: list[str]):
    with pytest.raises(CommandError, match="orders"):
        command("orders")
    with pytest.raises(CommandError, match="--by"):
        command("orders", "--allow", *held)
    with pytest.raises(CommandError, match="Owners"):
        command("orders", "--by", "mallory", "--allow", *held)
    second_target(world)
    with pytest.raises(CommandError, match="one target"):
        command("--by", "olga", "--allow", *held)
    assert "removed" in command("orders", "--by", "olga", "--allow", *held)
    world.server.fail_next("survey", ProvisionError("No route to it."))
    with pytest.raises(CommandError):
        command("orders")


def test_the_command_confirms_a_restore(world: World):
    installation.key()
    Installation.objects.update(cluster="7000000000000000001")
    with pytest.raises(CommandError, match="Only those"):
        command("--restored", "--by", "olga")
    with pytest.raises(CommandError, match="no active user"):
        command("--restored", "--by", "nobody")
    assert "orders: agrees" in command("--restored", "--by", "ada")
    assert not installation.moved()


def test_the_command_does_not_run_beside_another_run(world: World):
    reconciler.claim(worker="w", most=1)
    with pytest.raises(CommandError):
        command("orders")
    with pytest.raises(CommandError, match="no target"):
        command("nowhere")


@pytest.mark.slow
def test_the_targets_page_shows_what_was_found_and_lets_ada_allow_it(world, held):
    ada, page = browser(world.ada), url("target", "change", world.target.pk)
    shown = ada.get(page).content.decode()
    assert all(account in shown for account in held)
    assert "Allow removal" in shown
    allow = url("target", "allow", world.target.pk)
    stale = ada.post(allow, {"account": held[1:]}, follow=True)
    assert "Look again" in stale.content.decode()
    assert ada.get(allow).status_code == 302, "only a POST allows"
    assert row(world).allowed == []
    allowed = ada.post(allow, {"account": held}, follow=True).content.decode()
    assert "Allow removal" not in allowed
    assert row(world).allowed == held
    for _ in range(2):
        compare(world)
    assert "nothing else" in ada.get(page).content.decode()


@pytest.mark.slow
def test_who_may_only_look_at_a_target_sees_no_button(world: World, held: list[str]):
    bob = browser(staff(world.bob, "view_target"))
    page, allow = (url("target", name, world.target.pk) for name in ("change", "allow"))
    shown = bob.get(page).content.decode()
    assert held[0] in shown
    assert "Allow removal" not in shown
    assert (
        "may change it allow this"
        in bob.post(allow, {"account": held}, follow=True).content.decode()
    )
    assert row(world).allowed == []
    mallory = browser(staff(world.mallory, "view_policy"))
    assert mallory.post(allow, {"account": held}).status_code == 403


def test_an_owner_on_the_staff_may_allow_without_changing_the_target(world, held):
    olga = browser(staff(world.olga, "view_target"))
    page = olga.get(url("target", "change", world.target.pk)).content.decode()
    assert "Allow removal" in page
    olga.post(url("target", "allow", world.target.pk), {"account": held})
    assert row(world).allowed == held


def test_what_a_target_says_is_shown_as_text(world: World):
    grant = active(world)
    world.server.accounts[grant.account].level = "<script>alert(1)</script>"
    compare(world)
    shown = browser(world.ada).get(url("target", "change", world.target.pk)).content.decode()
    assert "<script>alert" not in shown
    assert "&lt;script&gt;alert" in shown
