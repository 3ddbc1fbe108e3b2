"""The target campaign: production is away, silent, slow, full, changed by others; and comes back.

Two sweepers run as they do in an installation. Looked at are the holder's own session, which goes
to the server directly whatever happens to our way there, a new sign-in, and what is left.
What dies together with others is in `dying`; a full disk and a full server in `crowded`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import unquote, urlsplit

from django.db import connection
from guardian.shortcuts import assign_perm

from approvals import administration, grants
from approvals.errors import WrongState
from approvals.models import AccessLevel, Alarm, AlarmKind, Grant, Target
from approvals.states import EndReason, GrantState
from audit.models import Event
from debugflow.embedded.production import ADMIN, READ_ONLY
from tests.faults.campaign import Row, Run, campaign, counted, seconds
from tests.faults.histories import breaches
from tests.faults.place import Place, ask_one_person, eventually, has_ended
from tests.faults.proxy import Proxy
from tests.faults.watch import Held, hold

LATE = 5.0  # seconds after its end that an access may live while the target answers
BACK = 10.0  # seconds after the target's return until an access is over that should have been
ENDED = 60.0  # seconds after its cut for a clean-up that failed before
LONG = 600  # seconds, of an access that somebody takes away
HOURS = 6 * 3600.0
TIMES = 20  # of each fault
SLOW, DEAD_SLOW = 0.05, 1.0  # seconds that each packet takes


@dataclass
class Findings:
    """Seconds from a target's return, or from the end itself, until an access was over."""

    back: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    looked: int = 0

    def expect(self, what: str, *, holds: bool) -> None:
        self.looked += 1
        if not holds:
            self.wrong.append(what)


@contextmanager
def sweepers(place: Place, count: int = 2) -> Iterator[None]:
    """They write nothing: nobody would read it, and a full pipe would stop them."""
    with ExitStack() as running:
        for _ in range(count):
            running.enter_context(place.running("manage.py", "sweep", LOG_LEVEL="CRITICAL"))
        yield


def level_at(place: Place, name: str, config: dict[str, Any], **target: Any) -> AccessLevel:
    """Another target of the cast's, with one level on it that developers may ask for."""
    secret = unquote(urlsplit(place.production.admin_url).password or "")
    saved = administration.save_target(
        Target(name=name, kind="postgresql", environment="production", config=config, **target),
        by=place.world.ada,
        clear_secrets={"password": secret},
    )
    level = AccessLevel(
        target=saved,
        name="read-only",
        rights=dict(READ_ONLY),
        risk="low",
        rank=1,
        max_duration=14400,
    )
    administration.save_level(level, by=place.world.ada)
    assign_perm("approvals.request_accesslevel", place.world.groups["developers"], level)
    return level


def approved(place: Place, level: AccessLevel, duration: int = LONG) -> Grant:
    request = place.world.submit("alice", level, duration=duration)
    place.world.vote(request, "bob")
    return Grant.objects.select_related("beneficiary").get(request=request)


def held_at(place: Place, level: AccessLevel, duration: int = LONG) -> Held:
    """alice's session there. She goes to the server itself, not through what we go through."""
    return hold(place, approved(place, level, duration), port=place.production.server.port)


def take_away(place: Place, held: Held) -> float:
    """When that was."""
    at = time.time()
    grants.revoke(held.grant.pk, by=place.world.bob, reason="Not now.")
    return at


def is_failing(held: Held) -> bool:
    """Whether the ledger says that ending it fails, and why."""
    grant = Grant.objects.get(pk=held.grant.pk)
    failing = grant.stuck_since is not None and bool(grant.last_error)
    return failing and grant.state == GrantState.REVOKING


def forward(secs: float) -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE audit_clock SET shift = shift + make_interval(secs => %s)", [secs])


def tell(place: Place, *statements: str) -> None:
    """Said by bob, the target's superuser."""
    with place.production.superuser() as server:
        for statement in statements:
            server.execute(statement.encode())


@campaign("target")
def target(run: Run) -> list[Row]:
    """Twenty of each; a bounded run has one."""
    ask_one_person(run.place)
    found = {name: Findings() for name in SCENARIOS}
    with Proxy(run.place.production.server.port) as proxy, sweepers(run.place):
        config = {**run.place.production.config, "port": proxy.port}
        at = Ground(run.place, proxy, level_at(run.place, "behind", config), run.chances("target"))
        for _ in range(run.times(TIMES)):
            for name, scenario in SCENARIOS.items():
                scenario(at, found[name])
        eventually(lambda: not Grant.objects.not_ended().exists(), within=ENDED)
    return [row for name, seen in found.items() for row in rows_of(name, seen)] + left(run.place)


def rows_of(name: str, seen: Findings) -> list[Row]:
    rows = [counted(f"{name}: told, and true", seen.looked, seen.wrong)] if seen.looked else []
    if seen.back:
        rows.append(seconds(f"{name}: over after its return", seen.back, BACK))
    if seen.late:
        rows.append(seconds(f"{name}: over after its end", seen.late, LATE))
    return rows


def left(place: Place) -> list[Row]:
    made = list(Grant.objects.all())
    wrong = [wrong for grant in made for wrong in breaches(grant)]
    return [
        counted("grants with nothing left on the target", len(made), place.leftovers()),
        counted("grants whose history is not a legal one", len(made), wrong),
    ]


@dataclass(frozen=True)
class Ground:
    place: Place
    proxy: Proxy
    behind: AccessLevel
    chances: random.Random


Scenario = Callable[[Ground, Findings], None]


def _away(
    at: Ground, found: Findings, strike: Callable[[Proxy], None], *, cut: bool = False
) -> None:
    """Taken away while we cannot get there: it lives on, the ledger says so, and it ends later."""
    held = held_at(at.place, at.behind)
    strike(at.proxy)
    take_away(at.place, held)
    eventually(partial(is_failing, held), within=ENDED)
    found.expect("a session that is not over is not said to be", holds=held.is_live() or cut)
    at.proxy.flow()
    at.proxy.listen()
    healed = time.time()
    found.back.append(max(0.0, held.over() - healed))
    eventually(lambda: has_ended(held.grant), within=ENDED)


def _in_mid_query(proxy: Proxy) -> None:
    proxy.swallow_from(b"NOLOGIN")


def _dead_slow(proxy: Proxy) -> None:
    proxy.latency = DEAD_SLOW


def slow(at: Ground, found: Findings) -> None:
    held = held_at(at.place, at.behind)
    at.proxy.latency = SLOW
    since = take_away(at.place, held)
    found.late.append(held.over() - since)
    eventually(lambda: has_ended(held.grant), within=ENDED)
    at.proxy.flow()


def down_for_hours(at: Ground, found: Findings) -> None:
    """It was to end meanwhile; the hours are the database's, which decides about ends."""
    held = held_at(at.place, at.place.level)
    at.place.production.server.kill()
    try:
        forward(LONG + 1)
        eventually(partial(is_failing, held))
        for _ in range(3):
            forward(HOURS / 3)
            eventually(lambda: _is_alarmed(held))
        found.expect("it is revoking after hours", holds=is_failing(held))
    finally:
        at.place.production.server.start()
    healed = time.time()
    found.back.append(max(0.0, held.over() - healed))
    eventually(lambda: has_ended(held.grant), within=3 * BACK)
    eventually(lambda: not _is_alarmed(held))
    found.expect("it expired", holds=_reason(held) == EndReason.EXPIRED)


def _is_alarmed(held: Held) -> bool:
    alarms = Alarm.objects.filter(grant=held.grant, ended_at__isnull=True)
    return alarms.filter(kind=AlarmKind.STUCK).exists()


def _reason(held: Held) -> str:
    return str(Grant.objects.values_list("end_reason", flat=True).get(pk=held.grant.pk))


def password_changed(at: Ground, found: Findings) -> None:
    """By bob, on the target, who tells nobody; until ada enters the new one here."""
    held, before = held_at(at.place, at.place.level), _password(at.place)
    tell(at.place, f"ALTER ROLE {ADMIN} PASSWORD 'another'")
    try:
        take_away(at.place, held)
        eventually(partial(is_failing, held))
        forward(31)
        eventually(lambda: _is_alarmed(held))
        found.expect("the session is not said to be over", holds=held.is_live())
        _enter(at.place, "another")
        healed = time.time()
        found.back.append(max(0.0, held.over() - healed))
        eventually(lambda: has_ended(held.grant), within=ENDED)
    finally:
        tell(at.place, f"ALTER ROLE {ADMIN} PASSWORD '{before}'")
        _enter(at.place, before)


def _password(place: Place) -> str:
    return unquote(urlsplit(place.production.admin_url).password or "")


def _enter(place: Place, password: str) -> None:
    target = Target.objects.get(pk=place.level.target_id)
    administration.save_target(target, by=place.world.ada, clear_secrets={"password": password})


def level_drifted(at: Ground, found: Findings) -> None:
    """Between approval and opening the level's role got a right that nobody has approved."""
    at.proxy.refuse()
    grant = approved(at.place, at.behind)
    tell(at.place, "GRANT INSERT ON customers TO orders_readonly")
    at.proxy.listen()
    try:
        eventually(lambda: has_ended(grant), within=ENDED)
    finally:
        tell(at.place, "REVOKE INSERT ON customers FROM orders_readonly")
    grant.refresh_from_db()
    found.expect("it failed: scope_changed", holds=grant.end_code == "scope_changed")
    opened = Event.objects.filter(action="grant.active", subject_id=str(grant.pk))
    found.expect("nothing was opened", holds=not opened.exists() and not at.place.leftovers())


@dataclass(frozen=True)
class Meddling:
    """What bob does to the account, and what only he can undo: for the cut, or for the rest."""

    does: tuple[str, ...]
    mends: str = ""
    tidies: str = ""


MEDDLING = {
    "dropped": Meddling(("DROP ROLE {0}",)),
    "closed": Meddling(("ALTER ROLE {0} NOLOGIN",)),
    "renamed": Meddling(("ALTER ROLE {0} RENAME TO {0}_of_bob",)),
    "made a member": Meddling(("GRANT pg_read_all_data TO {0}",)),
    "given a right": Meddling(
        ("GRANT UPDATE ON orders TO {0}",), tidies="REVOKE UPDATE ON orders FROM {0}"
    ),
    "owning more": Meddling(("CREATE TABLE hers ()", "ALTER TABLE hers OWNER TO {0}")),
    "made superuser": Meddling(("ALTER ROLE {0} SUPERUSER",), mends="ALTER ROLE {0} NOSUPERUSER"),
}


def meddled_with(at: Ground, found: Findings) -> None:
    """Its account is changed by bob while it is in use, or while it is being closed."""
    for name, meddling in MEDDLING.items():
        _meddled(at, found, name, meddling, closing=at.chances.random() < 0.5)
    tell(at.place, "DROP TABLE IF EXISTS hers")


def _meddled(at: Ground, found: Findings, name: str, does: Meddling, *, closing: bool) -> None:
    held = held_at(at.place, at.behind)
    if closing:
        at.proxy.refuse()
        take_away(at.place, held)
        eventually(partial(is_failing, held))
    tell(at.place, "DROP TABLE IF EXISTS hers")
    tell(at.place, *(one.format(held.grant.account) for one in does.does))
    since = time.time() if closing else take_away(at.place, held)
    at.proxy.listen()
    if does.mends:
        eventually(partial(is_failing, held))
        found.expect(f"{name}: said to be over", holds=held.is_live())
        tell(at.place, does.mends.format(held.grant.account))
        since = time.time()
    found.back.append(max(0.0, held.over() - since))
    if does.tidies:
        eventually(partial(is_failing, held))
        tell(at.place, does.tidies.format(held.grant.account))
    eventually(lambda: _ends_if_tried(at.place, held.grant), within=ENDED)
    found.expect(f"{name}: something is left", holds=not _is_there(at.place, held.grant))


def _ends_if_tried(place: Place, grant: Grant) -> bool:
    """bob does not wait for the next attempt, which may be a minute away."""
    with suppress(WrongState):  # it has ended, or is being tried
        grants.try_again(grant.pk, by=place.world.bob)
    return has_ended(grant)


def _is_there(place: Place, grant: Grant) -> bool:
    names = [grant.account, f"{grant.account}_of_bob"]
    query = "SELECT FROM pg_roles WHERE rolname = ANY(%(names)s)"
    return bool(place.production.ask(query, names=names) or place.leftovers())


SCENARIOS: dict[str, Scenario] = {
    "refusing": partial(_away, strike=Proxy.refuse),
    "accepting and silent": partial(_away, strike=Proxy.stall),
    "silent in mid-query": partial(_away, strike=_in_mid_query, cut=True),
    "dead slow": partial(_away, strike=_dead_slow),
    "slow": slow,
    "level drifted": level_drifted,
    "account meddled with": meddled_with,
    "admin password changed": password_changed,
    "down for hours": down_for_hours,
}
