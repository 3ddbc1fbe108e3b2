"""Laws 5 and 6 on real parts: one grant, and its workers, broker or target dead or stopped.

What dies in the middle of a step is in `test_instants`.
"""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from typing import Any

import psycopg
import pytest
from guardian.shortcuts import assign_perm

from approvals import administration, closing, grants, opening, workflow
from approvals.models import AccessLevel, ExtensionApproval, Grant
from approvals.narrowing import Less, Lower
from approvals.queue import Ring, bell
from approvals.states import GrantState
from debugflow.embedded.production import READ_ONLY, READ_WRITE
from debugflow.embedded.valkey import EmbeddedValkey
from tests.faults.histories import breaches
from tests.faults.place import Place, eventually, has_ended, state_of
from tests.world import publish

pytestmark = pytest.mark.slow

LONGER: dict[str, Any] = {
    "extensions_most": 1,
    "extension_max": 3600,
    "max_total": 8 * 3600,
    "extension_approval": ExtensionApproval.LAST,
    "extension_window": 3600,
}


def _live_session(
    place: Place, who: str = "alice"
) -> tuple[Grant, str, psycopg.Connection[object]]:
    grant = place.approved(who)
    opening.open_grant(grant.pk, worker="w")
    grant.refresh_from_db()
    shown = grants.reveal(grant.pk, by=place.world.people[who])
    return grant, shown.password, place.sign_in(grant, shown.password)


def _is_cut(session: psycopg.Connection[object]) -> bool:
    try:
        session.execute("SELECT 1")
    except psycopg.OperationalError:
        return True
    return False


def _ends_on_time(place: Place, clock) -> None:
    """A live session is cut at its grant's end and its account goes, by whatever sweeps now."""
    grant, password, session = _live_session(place)
    clock.forward(3600)
    eventually(lambda: _is_cut(session), within=15)
    # Sessions are ended and sign-in is blocked at once, on two connections.
    eventually(lambda: place.is_refused(grant, password), within=5)
    eventually(lambda: state_of(grant) == GrantState.ENDED)
    assert place.accounts() == []


def test_approved_with_less_the_account_is_in_the_lower_role_only_and_ends_sooner(place: Place):
    world = place.world
    write = AccessLevel(target=place.level.target, name="read-write", rights=dict(READ_WRITE))
    write.risk, write.rank, write.max_duration = "low", 2, 14400
    administration.save_level(write, by=world.ada)
    assign_perm("approvals.request_accesslevel", world.groups["developers"], write)
    request = world.submit(level=write)
    less = Less(level=place.level.pk, level_hash=Lower(place.level).hash)
    world.vote(request, "bob", less=less)
    world.vote(request, "carol", less=Less(duration=600))
    grant = Grant.objects.get(request=request)
    opening.open_grant(grant.pk, worker="w")
    grant.refresh_from_db()
    rows = place.production.ask(
        "SELECT r.rolvaliduntil, ARRAY(SELECT roleid::regrole::text FROM pg_auth_members"
        " WHERE member = r.oid) FROM pg_roles r WHERE rolname = %(name)s",
        name=grant.account,
    )
    assert rows == [(grant.expires_at, [READ_ONLY["role"]])]
    assert grant.expires_at is not None
    assert grant.activated_at is not None
    assert (grant.expires_at - grant.activated_at).total_seconds() <= 601


def test_a_sweeper_alone_ends_access_on_time(place: Place, clock):
    with place.running("manage.py", "sweep"):
        _ends_on_time(place, clock)


def test_a_worker_whose_broker_is_gone_ends_access_on_time(place: Place, clock):
    """The sweeper lives in the worker, and not in the part that waits for the broker."""
    worker = ("-m", "celery", "-A", "debugflow", "worker", "--pool", "threads", "-c", "2")
    with place.running(*worker) as process:
        _ends_on_time(place, clock)
        assert process.poll() is None


def test_longer_access_leaves_no_gap_and_ends_at_its_new_end(place: Place, clock):
    """The session from before goes on past the old end, and is cut at the new one."""
    publish(place.world, **LONGER)
    with place.running("manage.py", "sweep"):
        grant, password, session = _live_session(place)
        clock.forward(3590)
        wish = place.world.wish(duration=600)
        asked = workflow.ask_longer(grant.pk, by=place.world.alice, wish=wish)
        place.world.vote(asked, "carol")
        eventually(partial(_is_moved, grant), within=9)
        clock.forward(60)
        time.sleep(2)  # some looks of the sweeper
        assert session.execute("SELECT 1").fetchone() == (1,)
        place.sign_in(grant, password).close()
        clock.forward(600)
        eventually(lambda: _is_cut(session), within=15)
        eventually(lambda: place.is_refused(grant, password), within=5)
        eventually(lambda: state_of(grant) == GrantState.ENDED)
    grant.refresh_from_db()
    assert breaches(grant) == []


def test_a_late_decision_is_bridged_by_a_sweeper(place: Place, clock):
    publish(place.world, **LONGER, bridge=300)
    with place.running("manage.py", "sweep"):
        grant, _, session = _live_session(place)
        wish = place.world.wish(duration=600)
        asked = workflow.ask_longer(grant.pk, by=place.world.alice, wish=wish)
        clock.forward(3585)
        eventually(partial(_is_moved, grant), within=9)
        clock.forward(60)
        time.sleep(2)
        assert session.execute("SELECT 1").fetchone() == (1,)
        place.world.vote(asked, "carol", "deny")
        eventually(lambda: _is_cut(session), within=15)
        eventually(lambda: state_of(grant) == GrantState.ENDED)


def _is_moved(grant: Grant) -> bool:
    before = grant.expires_at
    grant.refresh_from_db()
    return before is not None and grant.expires_at is not None and grant.expires_at > before


def test_of_two_sweepers_one_is_killed_and_nothing_is_late(place: Place, clock):
    """Killed at the moment of the end, whatever it has claimed by then."""
    with (
        place.running("manage.py", "sweep") as doomed,
        place.running("manage.py", "sweep") as other,
    ):
        held = [_live_session(place, who) for who in ("alice", "amir")]
        for sweeper in (doomed, other):
            assert sweeper.stdout
            assert "Sweeping" in sweeper.stdout.readline()
        clock.forward(3600)
        doomed.kill()
        for _, _, session in held:
            # A killed sweeper's cut is taken over when its lease of 3 s has run out.
            eventually(partial(_is_cut, session), within=5)
        for grant, _, _ in held:
            eventually(partial(has_ended, grant), within=75)
    assert place.accounts() == []


def test_a_broker_that_accepts_and_never_answers_delays_no_verb(
    place: Place, clock, server_directory, monkeypatch
):
    from celery import current_app

    with EmbeddedValkey(server_directory / "stopped") as valkey:
        monkeypatch.setattr(current_app.conf, "broker_url", valkey.url)
        monkeypatch.setattr(current_app.conf, "broker_write_url", valkey.url)
        os.kill(valkey.pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            grant = place.approved()
            assert time.monotonic() - began < 5
            with place.running("manage.py", "sweep", REDIS_URL=valkey.url):
                eventually(lambda: state_of(grant) == GrantState.ACTIVE)
                grants.release(grant.pk, by=place.world.alice)
                eventually(lambda: state_of(grant) == GrantState.ENDED)
        finally:
            os.kill(valkey.pid, signal.SIGCONT)


def test_a_full_doorbell_drops_and_does_not_wait():
    ringer = bell()
    ringer.waiting.queue.extend([Ring("nobody", 0)] * ringer.waiting.maxsize)
    try:
        assert ringer.put("approvals.tasks.open_grant", 1) is False
    finally:
        ringer.waiting.queue.clear()


def _closed(grant: Grant) -> bool:
    closing.close_grant(grant.pk, worker="w")
    return has_ended(grant)


def test_a_target_that_is_down_at_the_end_and_comes_back(place: Place, clock):
    grant, _, _ = _live_session(place)
    place.production.server.kill()
    clock.forward(3600)
    try:
        for _ in range(3):
            closing.close_grant(grant.pk, worker="w")
            grant.refresh_from_db()
            assert grant.state == GrantState.REVOKING
            assert grant.stuck_since is not None
            assert grant.last_error
            clock.forward(5)
    finally:
        place.production.server.start()
    eventually(lambda: _closed(grant))
    assert place.accounts() == []
    grant.refresh_from_db()
    assert breaches(grant) == []


def test_the_targets_own_expiry_refuses_a_sign_in_with_no_sweeper_at_all(place: Place):
    """Real time: nothing of ours runs between the opening and the refused sign-in."""
    grant = place.approved(duration=2)
    opening.open_grant(grant.pk, worker="w")
    grant.refresh_from_db()
    shown = grants.reveal(grant.pk, by=place.world.alice)
    place.sign_in(grant, shown.password).close()
    eventually(lambda: place.is_refused(grant, shown.password), within=10)
    assert state_of(grant) == GrantState.ACTIVE
