"""Law 10: killed or stopped at every boundary of open, extend, cut and clean, all ends the same.

Each case has a grant of its own on a target and a database that the whole file shares.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from approvals import closing, extending, grants, opening, workflow
from approvals.models import ExtensionApproval, Grant, Step, StepKind
from approvals.states import GrantState
from audit.log import timeline
from debugflow.embedded.production import leftovers
from tests.faults.children import Child, child
from tests.faults.histories import breaches
from tests.faults.place import OTHER_DATABASE, ROOT, Place, eventually, state_of
from tests.faults.work import INSTANTS, LOCKED, attempt
from tests.world import HOUR, publish

pytestmark = pytest.mark.slow

LEASES = 61  # seconds: longer than any lease
# What a process has done on the target before it was stopped it tells whenever it goes on.
TOLD_LATE = {"grant.quarantined"}
LATER = 1800  # seconds that an extension adds
DATABASES = ("orders", OTHER_DATABASE)
OPENING = [("open", instant) for instant in INSTANTS["open"]]
OPENING_MANY = [("open many", instant) for instant in INSTANTS["open many"]]
EXTENDING = [("extend", instant) for instant in INSTANTS["extend"]]
CLOSING = [(verb, instant) for verb in ("cut", "clean") for instant in INSTANTS[verb]]
CLOSING_MANY = [(verb, one) for verb in ("cut many", "clean many") for one in INSTANTS[verb]]


def unlocked(boundaries: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [one for one in boundaries if one not in LOCKED]


def named(what: Grant | list[Grant]) -> int | list[int]:
    return [one.pk for one in what] if isinstance(what, list) else what.pk


@contextmanager
def stopped(verb: str, what: Grant | list[Grant], instant: str) -> Iterator[Child]:
    with child(attempt, verb, named(what), int(signal.SIGSTOP), instant) as made:
        assert made.reaches() == instant
        yield made


def killed(verb: str, what: Grant | list[Grant], instant: str) -> None:
    with child(attempt, verb, named(what), int(signal.SIGKILL), instant) as doomed:
        assert doomed.reaches() == instant
        assert doomed.ends() == -signal.SIGKILL


@dataclass(frozen=True)
class Seen:
    """All that ledger, log and target say of one grant."""

    row: Any
    steps: list[Any]
    told: list[str]
    target: list[str]


def seen(place: Place, grant: Grant) -> Seen:
    told = timeline(f"request:{grant.request_id}")
    return Seen(
        row=Grant.objects.values().get(pk=grant.pk),
        steps=list(Step.objects.filter(grant=grant).order_by("id").values()),
        told=[event.action for event in told if event.action not in TOLD_LATE],
        target=left(place, grant),
    )


def oids(grant: Grant) -> list[int]:
    return [int(trace["oid"]) for trace in closing.account_of(grant).traces]


def left(place: Place, grant: Grant) -> list[str]:
    return leftovers(place.production, [grant.account], oids(grant))


def close(grant: Grant) -> bool:
    closing.close_grant(grant.pk, worker="other")
    return state_of(grant) == GrantState.ENDED


def ends(place: Place, grant: Grant) -> None:
    """Somebody else brings it to its end; then nothing of it is left and its history is one."""
    eventually(lambda: close(grant))
    assert left(place, grant) == []
    grant.refresh_from_db()
    assert breaches(grant) == []


def agree(place: Place, grant: Grant) -> None:
    """The target holds exactly what the ledger says: one login of ours with this one end."""
    grant.refresh_from_db()
    rows = place.production.ask(
        "SELECT oid, rolcanlogin, rolvaliduntil, ARRAY(SELECT roleid::regrole::text"
        " FROM pg_auth_members WHERE member = r.oid) FROM pg_roles r WHERE rolname = %(account)s",
        account=grant.account,
    )
    assert len(rows) == 1
    assert rows[0][0] in oids(grant)
    assert rows[0][1:] == (True, grant.expires_at, ["orders_readonly"])


def opened(place: Place) -> Grant:
    grant = place.approved()
    opening.open_grant(grant.pk, worker="w")
    grant.refresh_from_db()
    assert grant.state == GrantState.ACTIVE, grant.last_error
    return grant


def works(place: Place, grant: Grant) -> None:
    shown = grants.reveal(grant.pk, by=place.world.alice)
    with place.sign_in(grant, shown.password) as session:
        assert session.execute("SELECT count(*) > 0 FROM orders").fetchone() == (True,)


@pytest.mark.parametrize(("verb", "instant"), unlocked(OPENING))
def test_an_opener_stopped_in_mid_step_opens_nothing_after_the_end(shared: Place, verb, instant):
    grant = shared.approved()
    with stopped(verb, grant, instant) as opener:
        grants.revoke(grant.pk, by=shared.world.bob, reason="Stop.")
        ends(shared, grant)
        before = seen(shared, grant)
        assert opener.resume() == 0
    assert seen(shared, grant) == before


@pytest.mark.parametrize(("verb", "instant"), OPENING)
def test_an_opener_killed_in_mid_step_is_taken_over(shared: Place, verb, instant, clock):
    grant = shared.approved()
    killed(verb, grant, instant)
    if state_of(grant) == GrantState.PROVISIONING:
        opening.open_grant(grant.pk, worker="other")
        assert state_of(grant) == GrantState.PROVISIONING  # the dead one's lease still runs
        clock.forward(45)
    eventually(lambda: _taken_over([grant]))
    agree(shared, grant)
    works(shared, grant)
    clock.forward(3600)
    ends(shared, grant)


@pytest.mark.parametrize(("verb", "instant"), unlocked(OPENING_MANY))
def test_openers_of_many_stopped_in_mid_step_open_nothing_after_the_end_of_one(
    shared: Place, verb, instant
):
    """The one that was taken away meanwhile stays away; the others open all the same."""
    made = [shared.approved() for _ in range(3)]
    gone, *others = made
    with stopped(verb, made, instant) as opener:
        grants.revoke(gone.pk, by=shared.world.bob, reason="Stop.")
        ends(shared, gone)
        before = seen(shared, gone)
        assert opener.resume() == 0
    assert seen(shared, gone) == before
    for grant in others:
        agree(shared, grant)
        works(shared, grant)
        grants.release(grant.pk, by=shared.world.alice)
        ends(shared, grant)


@pytest.mark.parametrize(("verb", "instant"), OPENING_MANY)
def test_openers_of_many_killed_in_mid_step_are_taken_over(shared: Place, verb, instant, clock):
    made = [shared.approved() for _ in range(3)]
    killed(verb, made, instant)
    clock.forward(45)
    eventually(lambda: _taken_over(made))
    for grant in made:
        agree(shared, grant)
        works(shared, grant)
        grants.release(grant.pk, by=shared.world.alice)
        ends(shared, grant)


@pytest.mark.parametrize(("verb", "instant"), EXTENDING)
def test_an_extension_killed_in_mid_step_is_taken_over(shared: Place, verb, instant, clock):
    """Whoever is in stays in, and the later end is the end: here, on the target, and in fact."""
    grant = _to_be_extended(shared)
    password = grants.reveal(grant.pk, by=shared.world.alice).password
    session = shared.sign_in(grant, password)
    killed(verb, grant, instant)
    clock.forward(LEASES)
    eventually(lambda: _extended(grant))  # its server may hold what the dead one had locked
    agree(shared, grant)
    assert session.execute("SELECT 1").fetchone() == (1,)
    shared.sign_in(grant, password).close()
    clock.forward(HOUR + LATER)
    ends(shared, grant)


@pytest.mark.parametrize(("verb", "instant"), EXTENDING)
def test_an_extension_killed_in_mid_step_and_left_ends_at_the_old_end(
    shared: Place, verb, instant, clock
):
    """Unless the ledger had moved it: then it goes on. Never is one side's end without the other's
    known."""
    grant = _to_be_extended(shared)
    killed(verb, grant, instant)
    [(until,)] = shared.production.ask(
        "SELECT rolvaliduntil FROM pg_roles WHERE rolname = %(account)s", account=grant.account
    )
    grant.refresh_from_db()
    assert grant.expires_at <= until <= grant.extended_until
    assert (grant.expires_at == grant.extended_until) == (instant == "moved")
    clock.forward(HOUR)
    if instant == "moved":
        agree(shared, grant)
        clock.forward(LATER)
    ends(shared, grant)


@pytest.mark.parametrize(("verb", "instant"), unlocked(EXTENDING))
def test_an_extension_stopped_in_mid_step_revives_nothing(shared: Place, verb, instant):
    grant = _to_be_extended(shared)
    with stopped(verb, grant, instant) as extender:
        grants.revoke(grant.pk, by=shared.world.bob, reason="Stop.")
        ends(shared, grant)
        before = seen(shared, grant)
        assert extender.resume() == 0
    assert seen(shared, grant) == before


@pytest.mark.parametrize(("verb", "instant"), unlocked(EXTENDING))
def test_an_extension_stopped_past_the_end_moves_nothing(shared: Place, verb, instant, clock):
    grant = _to_be_extended(shared)
    with stopped(verb, grant, instant) as extender:
        clock.forward(HOUR if instant != "moved" else HOUR + LATER)
        ends(shared, grant)
        before = seen(shared, grant)
        assert extender.resume() == 0
    assert seen(shared, grant) == before


def _taken_over(made: list[Grant]) -> bool:
    """Open them; whether they are. What is locked is passed over, and the dead one's server may
    hold what that had locked until it notices."""
    if jobs := [job for one in made for job in opening.claim(worker="other", only=one.pk)]:
        opening.run_all(jobs)
    return {state_of(one) for one in made} == {GrantState.ACTIVE}


def _extended(grant: Any) -> bool:
    extending.extend_grant(grant.pk, worker="other")
    grant.refresh_from_db()
    return bool(grant.expires_at == grant.extended_until)


def _to_be_extended(place: Place) -> Any:
    """An open access whose holder may have it for longer: agreed to, and not carried out."""
    publish(
        place.world,
        extensions_most=1,
        extension_max=LATER,
        max_total=8 * HOUR,
        extension_approval=ExtensionApproval.LAST,
        extension_window=HOUR,
    )
    grant = opened(place)
    wish = place.world.wish(duration=LATER)
    place.world.vote(workflow.ask_longer(grant.pk, by=place.world.alice, wish=wish), "carol")
    grant.refresh_from_db()
    assert grant.is_extending, grant.last_error
    return grant


@pytest.mark.parametrize(("verb", "instant"), CLOSING)
def test_a_closer_killed_in_mid_step_is_taken_over(shared: Place, verb, instant, clock):
    grant = _to_be_closed(shared, verb)
    killed(verb, grant, instant)
    clock.forward(LEASES)
    ends(shared, grant)
    assert _in_quarantine(shared, grant)


@pytest.mark.parametrize(("verb", "instant"), unlocked(CLOSING))
def test_a_closer_stopped_in_mid_step_changes_nothing_later(shared: Place, verb, instant, clock):
    grant = _to_be_closed(shared, verb)
    with stopped(verb, grant, instant) as closer:
        clock.forward(LEASES)
        ends(shared, grant)
        before = seen(shared, grant)
        assert closer.resume() == 0
    assert seen(shared, grant) == before
    assert _in_quarantine(shared, grant)


@pytest.mark.parametrize(("verb", "instant"), CLOSING_MANY)
def test_a_closer_of_many_killed_in_mid_step_is_taken_over(shared: Place, verb, instant, clock):
    made = _many_to_be_closed(shared, verb)
    killed(verb, made, instant)
    clock.forward(LEASES)
    for grant in made:
        ends(shared, grant)


@pytest.mark.parametrize(("verb", "instant"), unlocked(CLOSING_MANY))
def test_a_closer_of_many_stopped_in_mid_step_changes_nothing_later(
    shared: Place, verb, instant, clock
):
    made = _many_to_be_closed(shared, verb)
    with stopped(verb, made, instant) as closer:
        clock.forward(LEASES)
        for grant in made:
            ends(shared, grant)
        before = [seen(shared, grant) for grant in made]
        assert closer.resume() == 0
    assert [seen(shared, grant) for grant in made] == before


def _many_to_be_closed(place: Place, verb: str) -> list[Grant]:
    """Two released accesses with live sessions, whose holders own nothing."""
    made = [opened(place) for _ in range(2)]
    for grant in made:
        place.sign_in(grant, grants.reveal(grant.pk, by=place.world.alice).password)
        grants.release(grant.pk, by=place.world.alice)
    if verb == "clean many":
        for grant in made:
            closing.run_all(closing.claim(StepKind.CUT, worker="w", only=grant.pk))
    return made


def _to_be_closed(place: Place, verb: str) -> Grant:
    """A released access with a live session, its holder owning a table in each of two databases."""
    grant = opened(place)
    shown = grants.reveal(grant.pk, by=place.world.alice)
    place.sign_in(grant, shown.password)
    for database in DATABASES:
        with place.production.superuser(database) as server:
            server.execute(f"CREATE TABLE kept_{grant.pk} ()".encode())
            server.execute(f"ALTER TABLE kept_{grant.pk} OWNER TO {grant.account}".encode())
    grants.release(grant.pk, by=place.world.alice)
    if verb == "clean":
        closing.run_all(closing.claim(StepKind.CUT, worker="w", only=grant.pk))
    return grant


def _in_quarantine(place: Place, grant: Grant) -> bool:
    owners = []
    for database in DATABASES:
        with place.production.superuser(database) as server:
            query = "SELECT tableowner FROM pg_tables WHERE tablename = %s"
            owners += server.execute(query, [f"kept_{grant.pk}"]).fetchall()
    return owners == [("dbgf_quarantine",)] * len(DATABASES)


def test_whoever_is_stopped_holding_rows_of_ours_loses_them(shared: Place, clock):
    """In mid-transaction in our own database: without a limit no other could end the access."""
    with ExitStack() as processes:
        cases = [_stopped_holding(shared, processes, *one) for one in sorted(LOCKED)]
        clock.forward(LEASES)
        for grant, _ in cases:
            _taken_away(shared, grant)
            ends(shared, grant)
        before = [seen(shared, grant) for grant, _ in cases]
        for _, process in cases:
            process.resume()
    assert [seen(shared, grant) for grant, _ in cases] == before


def _taken_away(place: Place, grant: Grant) -> None:
    if state_of(grant) in (GrantState.SCHEDULED, GrantState.PROVISIONING, GrantState.ACTIVE):
        grants.revoke(grant.pk, by=place.world.bob, reason="Stop.")


def _stopped_holding(
    place: Place, processes: ExitStack, verb: str, instant: str
) -> tuple[Grant, Child]:
    what: Any
    match verb:
        case "open many":
            what = [place.approved(), place.approved()]
        case "cut many" | "clean many":
            what = _many_to_be_closed(place, verb)
        case "open":
            what = place.approved()
        case "extend":
            what = _to_be_extended(place)
        case _:
            what = _to_be_closed(place, verb)
    process = processes.enter_context(stopped(verb, what, instant))
    return what[0] if isinstance(what, list) else what, process


def test_the_page_names_every_instant():
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    for verb, instants in INSTANTS.items():
        assert f"| {verb} | {' · '.join(instants)} |" in page
