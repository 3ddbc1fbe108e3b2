"""Who works on a grant: a lease taken under the row's lock, and the step it is for.

A lease fences our own retries only. What fences the target is told in `opening` and `closing`.
"""

from __future__ import annotations

import secrets
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.db.models import F, Q, QuerySet

from approvals.models import Grant, Step, StepKind
from approvals.states import GrantState
from audit import clock

# Seconds. Opening and cleaning up: longer than their deadlines on the target (30 and 50 s), so that
# a living worker never loses its lease to the clock alone. A cut may be made by two at once and by
# either reported; there the lease is short, since it is how long a killed worker delays it.
LEASE = {StepKind.OPEN: 45, StepKind.CUT: 3, StepKind.CLEAN: 60}
PER_TARGET = 2
WORKER_MAX = 80  # characters kept of a worker's name, which a host's name may make long


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


def pick(due: QuerySet[Grant], room: Room) -> list[Grant]:
    """Lock the due grants that there is room for, oldest first, skipping rows others hold.

    Call it inside a transaction.
    """
    rows = (
        due.exclude(target__in=room.full())
        .select_for_update(of=("self",), skip_locked=True)
        .select_related("beneficiary", "level", "target", "request__requester")
        .select_related("request__beneficiary", "request__policy_version__policy")
    )
    return [grant for grant in rows[: room.free * room.batch] if _fits(grant, room)]


def _fits(grant: Grant, room: Room) -> bool:
    begun = grant.state in (GrantState.ACTIVE, GrantState.REVOKING)
    first_cut = begun and grant.cut_at is None and grant.attempts == 0
    return room.takes(grant.target_id, first_cut=first_cut)


def take(grant: Grant, kind: StepKind, *, worker: str, now: datetime) -> Step:
    """Give the (locked) grant to `worker` for one attempt at a step. Saves both."""
    worker = worker[:WORKER_MAX]
    grant.lease = secrets.token_hex(16)
    grant.lease_until = now + timedelta(seconds=LEASE[kind])
    grant.save(update_fields=["lease", "lease_until"])
    again = Step.objects.filter(grant=grant, kind=kind)
    if again.update(attempts=F("attempts") + 1, worker=worker):
        return again.get()
    return Step.objects.create(grant=grant, kind=kind, worker=worker, started_at=now, attempts=1)


def drop(grant: Grant, *changed: str, next_try_at: datetime | None) -> None:
    """Let go of the (locked) grant, saving the fields named in `changed` with it."""
    grant.lease, grant.lease_until, grant.next_try_at = "", None, next_try_at
    grant.save(update_fields=["lease", "lease_until", "next_try_at", *changed])
