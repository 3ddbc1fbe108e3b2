"""The reconciler: every so often compare what a target holds of ours with the ledger, and mend it.

The last layer under the sweeper, for what the ledger does not know: it removes what nobody should
have, ends grants that lost their account, and tells what strangers changed. What is due by the
ledger is the sweeper's work. What follows from a survey is decided in `judgement`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, TypeVarTuple

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import Q, QuerySet

from approvals import access, attempts, comparison, grants, installation, queue
from approvals.attempts import Failure
from approvals.comparison import EVENT_MOST, NO_GRANT, Job, Run
from approvals.errors import Fenced, NotAllowed, ProvisionError, WrongState
from approvals.judgement import Lost, key_of
from approvals.models import Grant, Reconciliation, Step, StepKind, Target
from approvals.provisioning.base import Account, Cleaned, Found
from approvals.states import EndReason
from approvals.transition import actor, verb
from audit import clock, log
from audit.log import SYSTEM, Subject

if TYPE_CHECKING:
    from approvals.people import Person

logger = structlog.get_logger(__name__)

About = TypeVarTuple("About")

LEASE = 120  # seconds; a survey takes 20 at most, and no removal is begun that could outlast it
REMOVAL = 65  # seconds that one removal may take: cut, clean-up and read-back by their deadlines
LAST_RETRY = 300  # seconds; the wait doubles with each run that fails


def claim(*, worker: str, most: int) -> list[Job]:
    """Take the leases of up to `most` comparisons that are due, longest overdue first."""
    with transaction.atomic():
        _make_missing()
        due = Reconciliation.objects.filter(_free(), next_at__lte=clock.DbNow())
        return _take(due.order_by("next_at"), most, worker)


def claim_now(target_id: int, *, worker: str) -> list[Job]:
    """Take the lease of one target's comparison, due or not; nothing while another has it."""
    with transaction.atomic():
        _make_missing()
        return _take(Reconciliation.objects.filter(_free(), pk=target_id), 1, worker)


def _make_missing() -> None:
    """Every target is compared, one that is switched off as well: it may hold something of ours."""
    new = Target.objects.filter(reconciliation=None).values_list("pk", flat=True)
    if new:
        now = clock.now()
        rows = [Reconciliation(target_id=pk, next_at=now) for pk in new]
        Reconciliation.objects.bulk_create(rows, ignore_conflicts=True)


def _free() -> Q:
    return Q(lease_until=None) | Q(lease_until__lte=clock.DbNow())


def _take(rows: QuerySet[Reconciliation], most: int, worker: str) -> list[Job]:
    picked = list(rows.select_for_update(skip_locked=True)[:most])
    now = clock.now()
    for row in picked:
        row.lease_until = now + timedelta(seconds=LEASE)
        row.next_at = now + timedelta(seconds=settings.RECONCILE_INTERVAL)
        row.worker = worker[:80]
        row.save(update_fields=["lease_until", "next_at", "worker"])
    until = time.monotonic() + LEASE
    return [
        Job(target_id=row.pk, lease_until=row.lease_until, until=until)
        for row in picked
        if row.lease_until
    ]


def _never() -> bool:
    return False


def run_all(jobs: Sequence[Job], *, stopping: Callable[[], bool] = _never) -> bool:
    """Make claimed comparisons one after the other; whether all succeeded."""
    outcomes = [run(job, stopping=stopping) for job in jobs]
    return all(outcomes)


def run(job: Job, *, stopping: Callable[[], bool] = _never) -> bool:
    """Compare one target with the ledger; False if anything failed, which is tried again later.

    Once `stopping` says that this process is to end no further act is begun.
    """
    tried: set[str] = set()
    try:
        _reconcile(job, tried, stopping)
    except Fenced:
        logger.info("a comparison was overtaken", target=job.target_id)
        return False
    except Exception as error:  # noqa: BLE001 - a defect must neither hide nor stop the others
        _finish(job, tried, error)
        return False
    _finish(job, tried, None)
    return True


def _reconcile(job: Job, tried: set[str], stopping: Callable[[], bool]) -> None:
    """Survey first, with no transaction open; then read the ledger, note, and act.

    What was found is committed before anything is done about it, so that a crash leaves a trail.
    Each act stands by itself: one that fails keeps no other from being done.
    """
    run = comparison.begin(job, tried)
    with run.provisioner.kept_open():
        levels = list(run.target.levels.values_list("rights", flat=True))
        stamp = installation.stamp()
        survey = run.provisioner.survey([*run.known.values()], levels=levels, stamp=stamp)
        plan = comparison.note(run, survey, stamp)
        _attempt(_end_elsewhere, run)
        _attempt(_hurry_abandoned, run)
        for lost in plan.lost:
            _attempt(_end_lost, run, lost)
        for stray in plan.strays:
            if time.monotonic() + REMOVAL < job.until and not stopping():
                _attempt(_remove, run, stray)
    if run.errors:
        raise run.errors[0]


def _attempt(act: Callable[[Run, *About], None], run: Run, *about: *About) -> None:
    try:
        act(run, *about)
    except Exception as error:  # noqa: BLE001 - raised again once the others have been done
        run.errors.append(error)


def _hurry_abandoned(run: Run) -> None:
    """The target answers, so that what two people gave up there may come off now."""
    given_up = Grant.objects.abandoned().filter(target=run.target, lease="")
    given_up.update(next_try_at=clock.DbNow())


def _end_elsewhere(run: Run) -> None:
    """End what goes around the gateway, and record each session that did."""
    if not run.gateway:
        return
    ended = run.provisioner.end_elsewhere(run.gateway, settings.GATEWAY_ADDRESSES)
    with transaction.atomic(), log.batch():
        for one in ended:
            log.record(
                "session.ended_elsewhere",
                actor=SYSTEM,
                subject=run.target,
                account=one.account,
                address=one.address,
                number=one.number,
                began_at=one.began_at,
            )


def _end_lost(run: Run, lost: Lost) -> None:
    """End a grant without an account, if it is what it was before the survey to this moment."""
    run.tried.add(lost.key)
    with transaction.atomic(), log.batch():
        grant = Grant.objects.locked(lost.grant_id)
        now = clock.now()
        step = Step.objects.select_related("grant").get(grant=grant, kind=StepKind.OPEN)
        if comparison.unchanged(run.known[lost.grant_id], step, now) is None:
            return
        note = lost.why[:1].upper() + lost.why[1:]
        grants.finish(grant, EndReason.FAILED, by=SYSTEM, now=now, code="account_gone", note=note)
        queue.ring(grants.CLOSE_TASK, grant.pk)


def _remove(run: Run, found: Found) -> None:
    """Take an account away as a grant's own is: cut, clean up, read back, and only then say so."""
    run.tried.add(key_of(found))
    account = Account(grant_id=NO_GRANT, account=found.account, traces=[found.trace])
    run.provisioner.cut(account)
    _clean(run, account, key_of(found))
    seen = run.provisioner.observe(account)
    if not seen.gone:
        left = ", ".join(seen.leftovers) or "a session or sign-in"
        raise ProvisionError(
            f"{key_of(found)} was removed, yet is still there: {left}.", code="left"
        )
    with transaction.atomic(), log.batch():
        log.record(
            "reconciliation.removed",
            actor=SYSTEM,
            subject=run.target,
            accounts=[key_of(found)],
            sessions=found.sessions,
        )


def _clean(run: Run, account: Account, key: str) -> None:
    """Clean up, and record what became of what its holder had made, of a part of it too."""
    try:
        cleaned = run.provisioner.clean(account)
    except ProvisionError as error:
        _report(run, key, error.details.get("cleaned"))
        raise
    _report(run, key, cleaned)


def _report(run: Run, key: str, cleaned: Cleaned | None) -> None:
    if cleaned:
        with transaction.atomic(), log.batch():
            log.record(
                "reconciliation.quarantined",
                actor=SYSTEM,
                subject=run.target,
                accounts=[key],
                **asdict(cleaned),
            )


def _finish(job: Job, tried: set[str], error: Exception | None) -> None:
    """Let go of the target. What was allowed and has been tried is not allowed any more."""
    failed = attempts.failure(error) if error else None
    with transaction.atomic(), log.batch():
        try:
            row = comparison.held(job)
        except Fenced:
            return
        now = clock.now()
        row.lease_until = None
        row.allowed = [key for key in row.allowed if key not in tried]
        if failed is None:
            row.ran_at, row.failures, row.last_error = now, 0, ""
        else:
            _note_failure(row, failed, now)
        row.save()


def _note_failure(row: Reconciliation, failed: Failure, now: datetime) -> None:
    """Recorded once for each reason, not each time."""
    if failed.message != row.last_error:
        log.record(
            "reconciliation.failed",
            actor=SYSTEM,
            subject=row.target,
            at=now,
            code=failed.code,
            error=failed.message,
        )
    row.failures, row.last_error = row.failures + 1, failed.message
    row.next_at = now + _backoff(row.failures, failed.code)


def _backoff(failures: int, code: str) -> timedelta:
    if code == "clean_unfinished":  # it got somewhere, and only needs more time
        return timedelta()
    wait = settings.RECONCILE_INTERVAL * 2 ** min(failures - 1, 10)
    return timedelta(seconds=min(max(LAST_RETRY, settings.RECONCILE_INTERVAL), wait))


def _target_subject(target_id: int) -> Subject:
    target = Target.objects.filter(pk=target_id).first()
    return target.audit_subject() if target else Subject("target", str(target_id), "a target")


def may_allow(target: Target, person: Person) -> bool:
    """Those who may change targets, and those who own this one."""
    owns = access.owned_targets(person).filter(pk=target.pk).exists()
    return owns or person.has_perm("approvals.change_target")


@verb("reconciliation.refused", _target_subject)
def allow(target_id: int, *, by: Person, accounts: Sequence[str]) -> Reconciliation:
    """Let the next run end exactly `accounts`, which are all that is held back.

    Raises NotAllowed; WrongState if something else is held back by now, or nothing.
    """
    row = Reconciliation.objects.select_for_update().filter(pk=target_id).first()
    if row is None:
        raise WrongState("Nothing is held back there.", code="gone")
    _refuse_consent(row, by, accounts)
    now = clock.now()
    row.allowed, row.held_back, row.held_back_since = row.held_back, [], None
    row.next_at = now
    row.save(update_fields=["allowed", "held_back", "held_back_since", "next_at"])
    log.record(
        "reconciliation.allowed",
        actor=actor(by),
        subject=row.target,
        at=now,
        accounts=row.allowed[:EVENT_MOST],
        count=len(row.allowed),
    )
    return row


def _refuse_consent(row: Reconciliation, person: Person, accounts: Sequence[str]) -> None:
    if not may_allow(row.target, person):
        raise NotAllowed(
            "Owners of the target and those who may change it allow this.", code="not_yours"
        )
    if installation.moved():
        raise WrongState(
            "This database was restored from a backup. Confirm that it is the ledger from here on:"
            " `manage.py reconcile --restored`. What is held back then is worked out anew."
        )
    if not accounts or sorted(accounts) != row.held_back:
        raise WrongState("What is held back is not what you looked at. Look again.")
