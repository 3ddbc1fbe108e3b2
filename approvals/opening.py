"""Opening what was approved: write the intent, make the account, say that it is usable.

Fencing: a lease in our database does not fence a target. So the target's transaction re-reads
state and lease here as its last act before COMMIT (`Fence.hold`), and a closing first commits
`revoking`, then ends whatever opener still runs on the target.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from django.db import connection, transaction
from django.db.models import Q, QuerySet

from approvals import attempts, grants, leases, queue, scope, targets
from approvals.errors import Fenced
from approvals.models import AccessLevel, AccessRequest, Grant, Step, StepKind
from approvals.provisioning.base import Opened, OpenOrder
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
    jobs = []
    with transaction.atomic(), log.batch():
        picked = leases.pick(rows, room or leases.Room(free=1))
        now = clock.now()
        for grant in picked:
            if _hold_ground(grant) and not _stopped(grant, now):
                jobs.append(_begin(grant, worker=worker, now=now))
    return jobs


def _hold_ground(grant: Grant) -> bool:
    """Lock target and level against change and read all anew; False if one is being changed.

    Without it a target could move between our look at it and its own look for open grants. Its row
    stands for its levels too: whoever changes one locks it first.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT FROM approvals_target WHERE id = %s FOR SHARE SKIP LOCKED", [grant.target_id]
        )
        if not cursor.rowcount:
            return False
    grant.level = AccessLevel.objects.select_related("target").get(pk=grant.level_id)
    grant.target = grant.level.target
    people = AccessRequest.objects.select_related("requester", "beneficiary", "policy_version")
    grant.request = people.get(pk=grant.request_id)
    grant.beneficiary = grant.request.beneficiary
    return True


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
    fresh = scope.of(request)
    if {scope.digest(fresh), scope.digest(grant.scope)} != {grant.scope_hash}:
        changed = ", ".join(scope.differences(grant.scope, fresh)) or "the stored scope"
        note = f"Changed since it was approved: {changed}."
        return EndReason.FAILED, "scope_changed", note[: grants.NOTE_MAX]
    return None


def _begin(grant: Grant, *, worker: str, now: datetime) -> Job:
    if grant.state == GrantState.SCHEDULED:
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
    step = leases.take(grant, StepKind.OPEN, worker=worker, now=now)
    return Job(grant=grant, step=step, lease=grant.lease, target_id=grant.target_id)


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


def run_all(jobs: Sequence[Job]) -> bool:
    """Carry out attempts one after the other; whether all succeeded."""
    outcomes = [run(job) for job in jobs]
    return all(outcomes)


def run(job: Job) -> bool:
    """Make the account and activate the grant; False if that failed, whatever it was."""
    try:
        opened = _open(job)
        _activate(job, opened)
    except Fenced:
        logger.info("an opening was overtaken and rolled back", grant=job.grant.pk)
    except Exception as error:  # noqa: BLE001 - a defect must neither hide nor stop the others
        _failed(job, error)
        return False
    return True


def _open(job: Job) -> Opened:
    grant = job.grant
    order = OpenOrder(
        grant_id=grant.pk,
        account=grant.account,
        rights=grant.scope["level"]["rights"],
        summary=grant.scope["level"]["summary"],
        password=grants.unsealed(grant),
        duration=grant.scope["duration"],
        known=job.step.traces,
    )
    return targets.provisioner(grant.target).open(order, LeaseFence(job))


def _held(job: Job) -> Grant:
    grant = Grant.objects.locked(job.grant.pk)
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


def _failed(job: Job, error: Exception) -> None:
    """Try again within the budget, or undo what may have been done."""
    failed = attempts.failure(error)
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
        run(job)
