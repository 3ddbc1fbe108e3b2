"""Who works on a grant: a lease taken under the row's lock, and the step it is for.

A lease fences our own retries only. What fences the target is told in `opening` and `closing`.
"""

from __future__ import annotations

import functools
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db import connection, transaction
from django.db.models import F, Q, QuerySet
from psycopg.types.json import Jsonb

from approvals.models import Grant, Step, StepKind
from approvals.models.rows import save_all
from approvals.presence import presence
from approvals.states import GrantState
from audit import clock

# Seconds. Opening, extending and cleaning up: longer than their deadlines on the target (30, 30 and
# 50 s), so that a living worker never loses its lease to the clock alone. A cut may be made by two
# at once and by either reported; there the lease is short, since it is how long a killed worker
# delays it.
LEASE = {StepKind.OPEN: 45, StepKind.EXTEND: 45, StepKind.CUT: 3, StepKind.CLEAN: 60}
PER_TARGET = 2
# Seconds that a worker which fails at a target leaves what is to be tried there to the others, who
# look every 0.5 s: one that has lost its own way there must not take each try away from them.
LEAD = 1.0
WORKER_MAX = 80  # characters kept of a worker's name, which a host's name may make long


FIRST_CUT = Q(state__in=[GrantState.ACTIVE, GrantState.REVOKING], cut_at__isnull=True, attempts=0)
"""In SQL what `_fits` says of one."""


def composed_once(compose: Callable[[], QuerySet[Grant]]) -> Callable[[], QuerySet[Grant]]:
    """Keep the query of a look, which is always the same, and hand out copies of it.

    It took the ORM as long to compose as PostgreSQL to answer.
    """
    kept = functools.cache(compose)

    @functools.wraps(compose)
    def copy() -> QuerySet[Grant]:
        return kept().all()

    return copy


def free() -> Q:
    """Nobody works on it, or whoever did has not been heard of for a lease's length."""
    return Q(lease_until__isnull=True) | Q(lease_until__lte=clock.DbNow())


@dataclass(kw_only=True)
class Room:
    """How much more one worker may take on: in all, and per target.

    At most two pieces of work at once per target, one for a target that is failing, so that a dead
    one cannot hold up the others, and none `not_at` all. The first cut of a grant does not count as
    one more try at a failing target: what made others fail may be their holders' doing.

    A piece is up to `batch` grants of one target, done one after the other over the same
    connections; of a failing target, one grant.
    """

    free: int
    batch: int = 1
    in_flight: Counter[int] = field(default_factory=Counter)
    failing: frozenset[int] = frozenset()
    not_at: frozenset[int] = frozenset()
    begun: Counter[int] = field(default_factory=Counter)

    def full(self) -> list[int]:
        full = {target for target, count in self.in_flight.items() if count >= PER_TARGET}
        return sorted(full | self.not_at)

    def busy_failing(self) -> list[int]:
        """Failing targets with the one piece in flight that they may have, first cuts aside.

        They must not fill the look, however much is due there: others' grants come after theirs.
        """
        return sorted(target for target in self.failing if self.in_flight[target])

    def takes(self, target: int, *, first_cut: bool) -> bool:
        """Whether one more grant of this target fits; if so, it is counted."""
        if not self.begun[target]:
            at_once = 1 if target in self.failing and not first_cut else PER_TARGET
            if self.free <= 0 or self.in_flight[target] >= at_once:
                return False
            self.free -= 1
            self.in_flight[target] += 1
        elif target in self.failing or self.begun[target] >= self.batch:
            return False
        self.begun[target] += 1
        return True


def pick(due: QuerySet[Grant], room: Room, *, first_cuts: bool = True) -> list[Grant]:
    """Lock the due grants that there is room for, oldest first, skipping rows others hold.

    Call it inside a transaction. Only the rows themselves are read, and of them only what tells
    whether they fit: the look is made twice a second and mostly finds nothing, and planning it
    with eight joins took ten times as long as running it. `whole` reads the rest.

    `first_cuts` says whether what is open is due to be cut, and so counts as told at `Room`.

    It locks no more rows than one target takes, however many targets' are due: what is locked and
    not taken would be skipped by the others who look in this moment, and left lying for a look.
    """
    rows = _without_lead(due, room)
    if full := room.full():
        rows = rows.exclude(target__in=full)
    if busy := room.busy_failing():
        rows = rows.exclude(~FIRST_CUT if first_cuts else Q(), target__in=busy)
    rows = rows.select_for_update(of=("self",), skip_locked=True)
    rows = rows.only("target_id", "state", "cut_at", "attempts")
    return [grant for grant in rows[: room.batch] if _fits(grant, room, first_cuts)]


def _without_lead(due: QuerySet[Grant], room: Room) -> QuerySet[Grant]:
    """Leave out what others should have first; what nobody has tried yet is for all."""
    if not room.failing:
        return due
    now = clock.DbNow()
    return due.exclude(
        target__in=sorted(room.failing),
        state__in=[GrantState.PROVISIONING, GrantState.REVOKING],
        next_try_at__range=(now - timedelta(seconds=LEAD), now),
    )


def whole(picked: Iterable[Grant], *more: str) -> list[Grant]:
    """The picked grants with what belongs to them, and with `more` of it, in that order."""
    related = ("beneficiary", "level", "target", "request__requester", *more)
    keys = [grant.pk for grant in picked]
    found = Grant.objects.select_related(*related).in_bulk(keys)
    return [found[pk] for pk in keys]


def on_held_ground(picked: list[Grant], *more: str) -> list[Grant]:
    """Lock the grants' targets against change and read all anew; without those being changed.

    Else a target could move between our look at it and its own look for open grants. Its row stands
    for its levels too: whoever changes one locks it first.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id FROM approvals_target WHERE id = ANY(%s) ORDER BY id FOR SHARE SKIP LOCKED",
            [sorted({grant.target_id for grant in picked})],
        )
        held = {pk for (pk,) in cursor.fetchall()}
    grounded = (grant for grant in picked if grant.target_id in held)
    return whole(grounded, "request__policy_version", *more)


def _fits(grant: Grant, room: Room, first_cuts: bool) -> bool:
    begun = first_cuts and grant.state in (GrantState.ACTIVE, GrantState.REVOKING)
    first_cut = begun and grant.cut_at is None and grant.attempts == 0
    return room.takes(grant.target_id, first_cut=first_cut)


def take(grants: Sequence[Grant], kind: StepKind, *, worker: str, now: datetime) -> list[Step]:
    """Give the (locked) grants to `worker` for one attempt at a step each; returns the steps.

    Saves grants and steps, in one statement each however many there are.
    """
    for grant in grants:
        grant.lease = presence.mark + secrets.token_hex(12)
        grant.lease_until = now + timedelta(seconds=LEASE[kind])
    save_all(grants, ["lease", "lease_until"])
    keys = [grant.pk for grant in grants]
    made = Step.objects.raw(_ATTEMPT, [str(kind), worker[:WORKER_MAX], now, keys])
    steps = {step.grant_id: step for step in made}
    return [steps[pk] for pk in keys]


# The ORM's bulk_create cannot count up what is there.
_ATTEMPT = """
    INSERT INTO approvals_step AS step
        (grant_id, kind, worker, started_at, attempts, traces, last_error)
    SELECT pk, %s, %s, %s, 1, '[]', '' FROM unnest(%s::bigint[]) pk
    ON CONFLICT (grant_id, kind) DO UPDATE
        SET attempts = step.attempts + 1, worker = excluded.worker
    RETURNING *
"""


def leave(traces: Sequence[tuple[Step, Mapping[str, Any]]]) -> None:
    """Add to each step what its attempt is about to leave on the target, in one statement."""
    with connection.cursor() as cursor:
        values = [Jsonb([dict(trace)]) for _, trace in traces]
        cursor.execute(_LEAVE, [[step.pk for step, _ in traces], values])
    for step, trace in traces:
        step.traces = [*step.traces, dict(trace)]


_LEAVE = """
    UPDATE approvals_step AS step SET traces = step.traces || v.traces
    FROM unnest(%s::bigint[], %s::jsonb[]) AS v(id, traces) WHERE step.id = v.id
"""


def held(leased: Mapping[int, str], state: GrantState) -> dict[int, Grant]:
    """Lock those of the grants that are in this state under the lease named, the others not.

    Call it inside a transaction. What may have changed since they were claimed is read anew: with
    `only`, the rest is not.
    """
    rows = Grant.objects.filter(pk__in=leased, state=state).select_for_update().order_by("pk")
    found = rows.only("lease", "expires_at", "open_before", "extended_until")
    return {grant.pk: grant for grant in found if grant.lease == leased[grant.pk]}


def hand_back(held: Mapping[int, str], kind: StepKind) -> None:
    """Let go of grants claimed and not begun, each under the lease that is still its own.

    They are due at once, and it was no attempt. Where that fails the leases run out.
    """
    rows = Grant.objects.filter(pk__in=held).select_for_update().order_by("pk")
    with transaction.atomic():
        ours = [pk for pk, lease in rows.values_list("pk", "lease") if lease == held[pk]]
        Grant.objects.filter(pk__in=ours).update(**free_at(clock.DbNow()))
        Step.objects.filter(grant__in=ours, kind=kind).update(attempts=F("attempts") - 1)


def free_at(next_try_at: Any) -> dict[str, Any]:
    """What to write into a grant that nobody works on any more, until it is tried again."""
    return {"lease": "", "lease_until": None, "next_try_at": next_try_at}


LET_GO = ("lease", "lease_until", "next_try_at")
"""The fields that `let_go` sets."""


def let_go(grant: Grant, *, next_try_at: datetime | None) -> None:
    """Have nobody work on it any more, until it is tried again. The caller saves it."""
    grant.lease, grant.lease_until, grant.next_try_at = "", None, next_try_at


def drop(grant: Grant, *, next_try_at: datetime | None) -> None:
    """Let go of the (locked) grant, and save that."""
    let_go(grant, next_try_at=next_try_at)
    grant.save(update_fields=LET_GO)
