"""Opening what was approved: write the intent, make the account, say that it is usable.

Fencing: a lease in our database does not fence a target. So the target's transaction re-reads
state and lease here as its last act before COMMIT (`Fence.hold`), and a closing first commits
`revoking`, then ends whatever opener still runs on the target.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import structlog
from django.db import transaction
from django.db.models import Q, QuerySet

from approvals import attempts, grants, installation, leases, queue, scope, tallies
from approvals.batches import Job, Work, carry_out, claimed, never
from approvals.errors import Fenced
from approvals.grants import Ending
from approvals.models import Grant, StepKind
from approvals.models.rows import save_all
from approvals.provisioning.base import Opened, OpenOrder, Provisioner
from approvals.states import EndReason, GrantState
from approvals.transition import move_all
from audit import clock, log
from audit.log import SYSTEM

logger = structlog.get_logger(__name__)

OPEN_BUDGET = 60  # seconds from the intent within which opening is retried
FIRST_RETRY = 0.5  # seconds; doubled with each attempt
LAST_RETRY = 10.0


@leases.composed_once
def due() -> QuerySet[Grant]:
    """Grants whose opening may begin or be tried again now, oldest first."""
    now = clock.DbNow()
    wants_opening = Q(state=GrantState.SCHEDULED, opens_at__lte=now) | Q(
        state=GrantState.PROVISIONING, open_before__gt=now, next_try_at__lte=now
    )
    return Grant.objects.filter(wants_opening, leases.free()).order_by("opens_at", "id")


def claim(
    *,
    worker: str,
    only: int | None = None,
    room: leases.Room | None = None,
) -> list[Job]:
    """Commit the intent for due grants and take their leases.

    The intent holds the hard end before the target is touched. A grant whose ground is gone, or
    whose scope is not what was approved any more, ends here instead.
    """
    rows = due() if only is None else due().filter(pk=only)
    with transaction.atomic(), log.batch():
        if not (picked := leases.pick(rows, room or leases.Room(free=1))):
            return []
        if installation.moved():
            return []  # restored: it may have been opened, used and taken away since the backup
        grounded = leases.on_held_ground(picked)
        now = clock.now()
        begun = _sound(grounded, now)
        _intend([one for one in begun if one.state == GrantState.SCHEDULED], worker, now)
        steps = leases.take(begun, StepKind.OPEN, worker=worker, now=now)
    return claimed(begun, steps, StepKind.OPEN)


def _sound(grants_: Sequence[Grant], now: datetime) -> list[Grant]:
    """Those that may open; the others end."""
    found = [(grant, _obstacle(grant, now)) for grant in grants_]
    grants.finish_all([(grant, why) for grant, why in found if why], by=SYSTEM, now=now)
    return [grant for grant, why in found if why is None]


def _obstacle(grant: Grant, now: datetime) -> Ending | None:
    request = grant.request
    if not (grant.beneficiary.is_active and request.requester.is_active):
        note = "Whoever asked, or for whom, was deactivated."
        return Ending(EndReason.REVOKED, note, "deactivated")
    if not (grant.target.enabled and grant.level.enabled):
        return Ending(EndReason.FAILED, "The target or level was switched off.", "switched_off")
    if grant.state == GrantState.SCHEDULED and grant.activate_before <= now:
        return Ending(EndReason.UNUSED, "It could not be opened in time.", "activation_ttl")
    if request.beneficiary_id == grant.beneficiary_id:
        request.beneficiary = grant.beneficiary  # read already
    grant.level.target = grant.target
    fresh = scope.of(request, level=grant.level, duration=grant.duration)
    if {scope.digest(fresh), scope.digest(grant.scope)} != {grant.scope_hash}:
        changed = ", ".join(scope.differences(grant.scope, fresh)) or "the stored scope"
        note = f"Changed since it was approved: {changed}."
        return Ending(EndReason.FAILED, note[: grants.NOTE_MAX], "scope_changed")
    return None


def _intend(begun: Sequence[Grant], worker: str, now: datetime) -> None:
    """Write down, before the target is touched, when they will end at the latest."""
    for grant in begun:
        grant.open_before = now + timedelta(seconds=OPEN_BUDGET)
        grant.expires_at = grant.open_before + timedelta(seconds=grant.scope["duration"])
        grant.secret = grants.seal(grant, secrets.token_urlsafe(24))
    move_all(
        begun,
        GrantState.PROVISIONING,
        by=SYSTEM,
        at=now,
        changed=("open_before", "expires_at", "secret"),
        told=lambda grant: {"expires_at": grant.expires_at, "worker": worker},
    )


class LeaseFence:
    """`provisioning.base.Fence` for one attempt."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def now(self) -> datetime:
        return clock.now()

    def hold(self, undo: Mapping[str, Any]) -> None:
        """Store what the attempt is about to leave on the target, if it still may leave it."""
        _hold([(self.job, undo)])


class LeasesFence:
    """`provisioning.base.JointFence` for attempts that are made together."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs = {job.grant.pk: job for job in jobs}

    def now(self) -> datetime:
        return clock.now()

    def hold_many(self, undos: Mapping[int, Mapping[str, Any]]) -> None:
        """Do what `LeaseFence.hold` does for these: if one was overtaken, for none."""
        _hold([(self.jobs[pk], undo) for pk, undo in undos.items()])


def _hold(left: Sequence[tuple[Job, Mapping[str, Any]]]) -> None:
    with transaction.atomic():
        held = _held([job for job, _ in left])
        now = clock.now()
        if any(not _may_commit(held.get(job.grant.pk), now) for job, _ in left):
            raise Fenced
        leases.leave([(job.step, undo) for job, undo in left])


def _held(jobs: Sequence[Job]) -> dict[int, Grant]:
    """Lock those that still are opening under the lease of their job; what may have changed since
    then is read anew."""
    return leases.held({job.grant.pk: job.lease for job in jobs}, GrantState.PROVISIONING)


def _may_commit(grant: Grant | None, now: datetime) -> bool:
    return grant is not None and grant.open_before is not None and grant.open_before > now


def run_all(jobs: Sequence[Job], *, stopping: Callable[[], bool] = never) -> bool:
    """Carry out attempts at one target, as `batches.carry_out` tells; whether all succeeded."""
    return carry_out(jobs, Work(together=_together, single=run, failed=_failed), stopping=stopping)


def _together(jobs: Sequence[Job], provisioner: Provisioner) -> Collection[int]:
    """Open many at once. Whatever goes wrong with that, the single ones tell with which it does."""
    try:
        opened = provisioner.open_many(_orders(jobs), LeasesFence(jobs))
    except Fenced:
        return ()
    except Exception as error:  # noqa: BLE001 - as above
        logger.info("opening together failed", code=attempts.failure(error).code)
        return ()
    _activate([job for job in jobs if job.grant.pk in opened], opened)
    return opened.keys()


def run(job: Job, provisioner: Provisioner) -> bool:
    """Make the account and activate the grant; False if that failed, whatever it was."""
    try:
        opened = _open(job, provisioner)
        _activate([job], {job.grant.pk: opened})
    except Fenced:
        _overtaken(job)
    except Exception as error:  # noqa: BLE001 - a defect must neither hide nor stop the others
        _failed(job, error)
        return False
    return True


def _overtaken(job: Job) -> None:
    tallies.step(StepKind.OPEN, "fenced")
    logger.info("an opening was overtaken and rolled back", grant=job.grant.pk)


def _open(job: Job, provisioner: Provisioner) -> Opened:
    [order] = _orders([job])
    return provisioner.open(order, LeaseFence(job))


def _orders(jobs: Sequence[Job]) -> list[OpenOrder]:
    stamp = installation.stamp()
    return [_order(job.grant, job.step.traces, stamp) for job in jobs]


def _order(grant: Grant, known: Sequence[Mapping[str, Any]], stamp: str) -> OpenOrder:
    return OpenOrder(
        grant_id=grant.pk,
        account=grant.account,
        rights=grant.scope["level"]["rights"],
        summary=grant.scope["level"]["summary"],
        password=grants.unsealed(grant),
        duration=grant.scope["duration"],
        known=known,
        stamp=stamp,
    )


def _activate(jobs: Sequence[Job], opened: Mapping[int, Opened]) -> None:
    """Say of those still held that they are usable. The end of one becomes what the target was
    given, never later."""
    with transaction.atomic(), log.batch():
        held = _held(jobs)
        now = clock.now()
        ours = [job for job in jobs if job.grant.pk in held]
        for job in ours:
            job.grant.expires_at = held[job.grant.pk].expires_at
            _make_usable(job, opened[job.grant.pk], now)
        save_all([job.step for job in ours], ["finished_at", "last_error"])
        move_all(
            [job.grant for job in ours],
            GrantState.ACTIVE,
            by=SYSTEM,
            at=now,
            changed=("expires_at", "activated_at", "connection", "last_error", *leases.LET_GO),
            told=_told(ours),
        )
    for job in jobs:
        _count(job) if job.grant.pk in held else _overtaken(job)


def _make_usable(job: Job, opened: Opened, now: datetime) -> None:
    grant = job.grant
    grant.expires_at = min(grant.expires_at or opened.valid_until, opened.valid_until)
    grant.activated_at, grant.last_error = now, ""
    grant.connection = dict(opened.connection)
    job.step.finished_at, job.step.last_error = now, ""
    leases.let_go(grant, next_try_at=None)


def _told(jobs: Sequence[Job]) -> Callable[[Grant], Mapping[str, Any]]:
    tries = {job.grant.pk: job.step.attempts for job in jobs}
    return lambda grant: {
        "expires_at": grant.expires_at,
        "account": grant.account,
        "attempts": tries[grant.pk],
    }


def _count(job: Job) -> None:
    tallies.step(StepKind.OPEN, "ok")
    if (at := job.grant.activated_at) is not None:
        tallies.took(tallies.OPENING, (at - job.grant.opens_at).total_seconds())


def _failed(job: Job, error: Exception) -> None:
    """Try again within the budget, or undo what may have been done."""
    failed = attempts.failure(error)
    tallies.step(StepKind.OPEN, "failed")
    with transaction.atomic(), log.batch():
        if not _held([job]):
            return
        grant, now = job.grant, clock.now()
        attempts.record(grant, job.step, failed, now=now)
        grant.save(update_fields=["last_error"])
        if failed.permanent:
            note = failed.message[: grants.NOTE_MAX]
            grants.finish(grant, EndReason.FAILED, by=SYSTEM, now=now, code=failed.code, note=note)
            queue.ring(grants.CLOSE_TASK, grant.pk)
        else:
            wait = min(LAST_RETRY, FIRST_RETRY * 2 ** (job.step.attempts - 1))
            leases.drop(grant, next_try_at=now + timedelta(seconds=wait))


def open_grant(grant_id: int, *, worker: str) -> None:
    """Open one grant if it is due and nobody else is at it."""
    for job in claim(worker=worker, only=grant_id):
        run_all([job])
