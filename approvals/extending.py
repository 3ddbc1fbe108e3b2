"""Extending what was agreed to go on: the target has the later end first, and then the ledger.

The intent is `extended_until`, committed with the decision (`grants.extend`) or as the bridge. Then
a worker moves the target's own expiry, and only after that the end: whatever dies in between, the
access ends at the earlier end or goes on to the later one in both places, and the ledger knows at
each moment how late the target's expiry may be. Fenced as an opening is: the target's transaction
re-reads state, end and lease here as its last act before COMMIT, and a closing ends it.

Tried again until it works or the access ends; an end that has come is never moved.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import structlog
from django.db import transaction
from django.db.models import Exists, F, OuterRef, QuerySet

from approvals import attempts, closing, extensions, grants, installation, leases, tallies
from approvals.batches import Job, Work, carry_out, claimed, never
from approvals.errors import Fenced
from approvals.models import AccessRequest, Grant, StepKind
from approvals.provisioning.base import ExtendOrder, Provisioner
from approvals.states import GrantState
from audit import clock, log
from audit.log import SYSTEM

logger = structlog.get_logger(__name__)

FIRST_RETRY = 0.5  # seconds; doubled with each attempt
LAST_RETRY = 10.0
BRIDGE_LEAD = 30  # seconds before the end: enough for some tries at a target that restarts


@leases.composed_once
def due() -> QuerySet[Grant]:
    """Grants whose target is to have a later end now, those that end first before others."""
    now = clock.DbNow()
    return Grant.objects.filter(
        leases.free(),
        state=GrantState.ACTIVE,
        next_try_at__lte=now,
        expires_at__gt=now,
        extended_until__gt=F("expires_at"),
    ).order_by("expires_at", "id")


@leases.composed_once
def bridges_due() -> QuerySet[Grant]:
    """Grants about to end while it is undecided whether they go on, and not bridged before."""
    now = clock.DbNow()
    waiting = AccessRequest.objects.undecided().filter(
        extends=OuterRef("pk"), policy_version__bridge__gt=0
    )
    return Grant.objects.filter(
        Exists(waiting),
        state=GrantState.ACTIVE,
        expires_at__gt=now,
        expires_at__lte=now + timedelta(seconds=BRIDGE_LEAD),
        bridged_at__isnull=True,
    ).order_by("expires_at", "id")


def bridge_due(most: int = 100) -> int:
    """Commit to the bridge of up to `most` grants that need it; returns how many."""
    with transaction.atomic(), log.batch():
        picked = bridges_due().select_for_update(of=("self",), skip_locked=True).only("pk")[:most]
        locked = leases.whole(list(picked), "request__policy_version")
        # A decision that was made before we had the lock is seen only now.
        begun = [one for one in locked if extensions.undecided(one) and not one.is_extending]
        now = clock.now()
        for grant in begun:
            grants.bridge(grant, now=now)
    return len(begun)


def claim(*, worker: str, only: int | None = None, room: leases.Room | None = None) -> list[Job]:
    """Take the leases of grants to be extended. What has changed since that was agreed to is given
    up, and ends as it was to."""
    rows = due() if only is None else due().filter(pk=only)
    with transaction.atomic(), log.batch():
        room = room or leases.Room(free=1)
        if not (picked := leases.pick(rows, room, first_cuts=False)):
            return []
        if installation.moved():
            return []  # restored: what it should hold is not known for certain
        grounded = leases.on_held_ground(picked)
        now = clock.now()
        begun = [grant for grant in grounded if _is_sound(grant, now)]
        steps = leases.take(begun, StepKind.EXTEND, worker=worker, now=now)
    return claimed(begun, steps, StepKind.EXTEND)


def _is_sound(grant: Grant, now: datetime) -> bool:
    """Whether it is what was approved. Whoever was deactivated is not extended, but cut."""
    if not (grant.beneficiary.is_active and grant.request.requester.is_active):
        return False
    if not (grant.target.enabled and grant.level.enabled):
        _give_up(grant, "switched_off", "The target or level was switched off.", now)
    elif changed := extensions.drift(grant):
        note = f"Changed since it was approved: {', '.join(changed)}."
        _give_up(grant, "scope_changed", note, now)
    else:
        return True
    return False


def _give_up(grant: Grant, code: str, note: str, now: datetime) -> None:
    """Leave the end where it is. `extended_until` stays: an attempt may have told the target."""
    grant.last_error = note[: attempts.ERROR_MAX]
    leases.let_go(grant, next_try_at=None)
    grant.save(update_fields=["last_error", *leases.LET_GO])
    log.record(
        "grant.extension_given_up",
        actor=SYSTEM,
        subject=grant,
        at=now,
        code=code,
        note=note[: grants.NOTE_MAX],
        expires_at=grant.expires_at,
    )


class LeaseFence:
    """`provisioning.base.Fence` for one attempt."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def now(self) -> datetime:
        return clock.now()

    def hold(self, undo: Mapping[str, Any]) -> None:
        """Store what the attempt is about to leave on the target, if it still may leave it."""
        with transaction.atomic():
            if _held(self.job) is None:
                raise Fenced
            leases.leave([(self.job.step, undo)])


def _held(job: Job) -> Grant | None:
    """Lock the grant if it goes on, not past its end, under the lease of this job."""
    found = leases.held({job.grant.pk: job.lease}, GrantState.ACTIVE).get(job.grant.pk)
    return found if found is not None and found.goes_on(clock.now()) else None


def run_all(jobs: Sequence[Job], *, stopping: Callable[[], bool] = never) -> bool:
    """Carry out attempts at one target, as `batches.carry_out` tells; whether all succeeded."""
    return carry_out(jobs, Work(together=_apart, single=run, failed=_failed), stopping=stopping)


def _apart(jobs: Sequence[Job], provisioner: Provisioner) -> Collection[int]:
    """Extensions are few: each is made singly."""
    return ()


def run(job: Job, provisioner: Provisioner) -> bool:
    """Give the target the later end, then the ledger; False if that failed, whatever it was."""
    try:
        provisioner.extend(_order(job.grant), LeaseFence(job))
        _extended(job)
    except Fenced:
        _overtaken(job)
    except Exception as error:  # noqa: BLE001 - a defect must neither hide nor stop the others
        _failed(job, error)
        return False
    return True


def _order(grant: Grant) -> ExtendOrder:
    return ExtendOrder(
        account=closing.account_of(grant),
        rights=grant.scope["level"]["rights"],
        summary=grant.scope["level"]["summary"],
        valid_until=_agreed_end(grant),
    )


def _agreed_end(grant: Grant) -> datetime:
    """As the grant was claimed: what this attempt tells the target, and then the ledger."""
    if grant.extended_until is None:
        raise ValueError(f"{grant} was claimed without a later end")
    return grant.extended_until


def _overtaken(job: Job) -> None:
    tallies.step(StepKind.EXTEND, "fenced")
    logger.info("an extension was overtaken", grant=job.grant.pk)


def _extended(job: Job) -> None:
    """Move the end to what the target was given. A decision that came meanwhile is due at once."""
    with transaction.atomic(), log.batch():
        held, grant = _held(job), job.grant
        if held is not None:
            now, end, before = clock.now(), _agreed_end(grant), held.expires_at
            later_still = held.extended_until is not None and held.extended_until > end
            grant.expires_at, grant.last_error = end, ""
            leases.let_go(grant, next_try_at=now if later_still else None)
            grant.save(update_fields=["expires_at", "last_error", *leases.LET_GO])
            tries = job.step.attempts
            job.step.finished_at, job.step.last_error, job.step.attempts = now, "", 0
            job.step.save(update_fields=["finished_at", "last_error", "attempts"])
            log.record(
                "grant.extended",
                actor=SYSTEM,
                subject=grant,
                at=now,
                before=before,
                expires_at=end,
                account=grant.account,
                attempts=tries,
            )
    if held is None:
        _overtaken(job)
    else:
        tallies.step(StepKind.EXTEND, "ok")


def _failed(job: Job, error: Exception) -> None:
    """Try again as long as it goes on; what no try can mend is given up."""
    failed = attempts.failure(error)
    tallies.step(StepKind.EXTEND, "failed")
    with transaction.atomic(), log.batch():
        if _held(job) is None:
            return
        grant, now = job.grant, clock.now()
        attempts.record(grant, job.step, failed, now=now)
        grant.save(update_fields=["last_error"])
        if failed.permanent:
            _give_up(grant, failed.code, failed.message, now)
        else:
            wait = min(LAST_RETRY, FIRST_RETRY * 2 ** (job.step.attempts - 1))
            leases.drop(grant, next_try_at=now + timedelta(seconds=wait))


def extend_grant(grant_id: int, *, worker: str) -> None:
    """Extend one grant if it is due and nobody else is at it."""
    for job in claim(worker=worker, only=grant_id):
        run_all([job])
