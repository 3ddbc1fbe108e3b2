"""Opening what was approved: write the intent, make the account, say that it is usable.

Fencing: a lease in our database does not fence a target. So the target's transaction re-reads
state and lease here as its last act before COMMIT (`Fence.hold`), and a closing first commits
`revoking`, then ends whatever opener still runs on the target.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from django.db import connection, transaction
from django.db.models import Q, QuerySet

from approvals import attempts, grants, installation, leases, queue, scope, tallies, targets
from approvals.errors import Fenced
from approvals.models import Grant, Step, StepKind
from approvals.provisioning.base import Opened, OpenOrder, Provisioner
from approvals.states import EndReason, GrantState
from approvals.transition import move
from audit import clock, log
from audit.log import SYSTEM

logger = structlog.get_logger(__name__)

OPEN_BUDGET = 60  # seconds from the intent within which opening is retried
FIRST_RETRY = 0.5  # seconds; doubled with each attempt
LAST_RETRY = 10.0


@dataclass(frozen=True, kw_only=True)
class Job:
    """One claimed attempt at opening."""

    grant: Grant
    step: Step
    lease: str
    target_id: int
    until: float  # on the monotonic clock: when the lease runs out


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
        grounded = _on_held_ground(picked)
        now = clock.now()
        begun = [grant for grant in grounded if not _stopped(grant, now)]
        for grant in begun:
            _intend(grant, worker=worker, now=now)
        steps = leases.take(begun, StepKind.OPEN, worker=worker, now=now)
    until = time.monotonic() + leases.LEASE[StepKind.OPEN]
    return [
        Job(grant=grant, step=step, lease=grant.lease, target_id=grant.target_id, until=until)
        for grant, step in zip(begun, steps, strict=True)
    ]


def _on_held_ground(picked: list[Grant]) -> list[Grant]:
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
    return leases.whole(grant for grant in picked if grant.target_id in held)


def _stopped(grant: Grant, now: datetime) -> bool:
    """End the grant if it must not open (any more), and say whether it was so."""
    if (why := _obstacle(grant, now)) is None:
        return False
    reason, code, note = why
    grants.finish(grant, reason, by=SYSTEM, now=now, code=code, note=note)
    return True


def _obstacle(grant: Grant, now: datetime) -> tuple[EndReason, str, str] | None:
    request = grant.request
    if not (grant.beneficiary.is_active and request.requester.is_active):
        return EndReason.REVOKED, "deactivated", "Whoever asked, or for whom, was deactivated."
    if not (grant.target.enabled and grant.level.enabled):
        return EndReason.FAILED, "switched_off", "The target or level was switched off."
    if grant.state == GrantState.SCHEDULED and grant.activate_before <= now:
        return EndReason.UNUSED, "activation_ttl", "It could not be opened in time."
    request.level, request.target = grant.level, grant.target
    request.level.target = grant.target
    fresh = scope.of(request)
    if {scope.digest(fresh), scope.digest(grant.scope)} != {grant.scope_hash}:
        changed = ", ".join(scope.differences(grant.scope, fresh)) or "the stored scope"
        note = f"Changed since it was approved: {changed}."
        return EndReason.FAILED, "scope_changed", note[: grants.NOTE_MAX]
    return None


def _intend(grant: Grant, *, worker: str, now: datetime) -> None:
    """Write down, before the target is touched, when it will end at the latest."""
    if grant.state != GrantState.SCHEDULED:
        return
    grant.open_before = now + timedelta(seconds=OPEN_BUDGET)
    grant.expires_at = grant.open_before + timedelta(seconds=grant.scope["duration"])
    grant.secret = grants.seal(grant, secrets.token_urlsafe(24))
    move(
        grant,
        GrantState.PROVISIONING,
        by=SYSTEM,
        at=now,
        changed=("open_before", "expires_at", "secret"),
        expires_at=grant.expires_at,
        worker=worker,
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
            grant = _held(self.job)
            if grant.open_before is None or grant.open_before <= clock.now():
                raise Fenced
            step = Step.objects.get(pk=self.job.step.pk)
            step.traces = [*step.traces, dict(undo)]
            step.save(update_fields=["traces"])


def _never() -> bool:
    return False


def run_all(jobs: Sequence[Job], *, stopping: Callable[[], bool] = _never) -> bool:
    """Carry out attempts at one target over the same connections; whether all succeeded.

    After one that failed or took long the rest are handed back, to be claimed again one by one; so
    are those not begun when `stopping` says that this process is to end.
    """
    try:
        provisioner = targets.provisioner(jobs[0].grant.target)
    except Exception as error:  # noqa: BLE001 - as in `run`
        for job in jobs:
            _failed(job, error)
        return False
    with provisioner.kept_open():
        for number, job in enumerate(jobs):
            if stopping():
                _hand_back(jobs[number:])
                return True
            if time.monotonic() >= job.until or not run(job, provisioner):
                _hand_back(jobs[number + 1 :])
                return False
    return True


def _hand_back(jobs: Sequence[Job]) -> None:
    leases.hand_back({job.grant.pk: job.lease for job in jobs}, StepKind.OPEN)


def run(job: Job, provisioner: Provisioner) -> bool:
    """Make the account and activate the grant; False if that failed, whatever it was."""
    try:
        opened = _open(job, provisioner)
        _activate(job, opened)
    except Fenced:
        tallies.step(StepKind.OPEN, "fenced")
        logger.info("an opening was overtaken and rolled back", grant=job.grant.pk)
    except Exception as error:  # noqa: BLE001 - a defect must neither hide nor stop the others
        _failed(job, error)
        return False
    return True


def _open(job: Job, provisioner: Provisioner) -> Opened:
    grant = job.grant
    order = OpenOrder(
        grant_id=grant.pk,
        account=grant.account,
        rights=grant.scope["level"]["rights"],
        summary=grant.scope["level"]["summary"],
        password=grants.unsealed(grant),
        duration=grant.scope["duration"],
        known=job.step.traces,
        stamp=installation.stamp(),
    )
    return provisioner.open(order, LeaseFence(job))


def _held(job: Job) -> Grant:
    grant = Grant.objects.locked_like(job.grant)
    if grant.state != GrantState.PROVISIONING or grant.lease != job.lease:
        raise Fenced
    return grant


def _activate(job: Job, opened: Opened) -> None:
    """Say that it is usable. Its end becomes what the target was given, never later."""
    with transaction.atomic(), log.batch():
        grant = _held(job)
        now = clock.now()
        grant.expires_at = min(grant.expires_at or opened.valid_until, opened.valid_until)
        grant.activated_at, grant.last_error = now, ""
        grant.connection = dict(opened.connection)
        job.step.finished_at, job.step.last_error = now, ""
        job.step.save(update_fields=["finished_at", "last_error"])
        leases.drop(grant, next_try_at=None)
        move(
            grant,
            GrantState.ACTIVE,
            by=SYSTEM,
            at=now,
            changed=("expires_at", "activated_at", "connection", "last_error"),
            expires_at=grant.expires_at,
            account=grant.account,
            attempts=job.step.attempts,
        )
    tallies.step(StepKind.OPEN, "ok")
    tallies.took(tallies.OPENING, (now - grant.opens_at).total_seconds())


def _failed(job: Job, error: Exception) -> None:
    """Try again within the budget, or undo what may have been done."""
    failed = attempts.failure(error)
    tallies.step(StepKind.OPEN, "failed")
    with transaction.atomic(), log.batch():
        try:
            grant = _held(job)
        except Fenced:
            return
        now = clock.now()
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
