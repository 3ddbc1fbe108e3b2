"""Closing: cut at once, clean up, read the target back, and only then say that it has ended.

Never gives up and never lies: what fails stays `revoking`, keeps its error in sight and is tried
again, cuts within 5 s and clean-ups within 60 s, for as long as it takes; hourly once two people
have abandoned it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Q, QuerySet

from approvals import attempts, grants, leases, reviews, tallies
from approvals.batches import Job, Work, carry_out, claimed, never
from approvals.errors import ProvisionError
from approvals.grants import Ending
from approvals.models import Grant, Step, StepKind
from approvals.provisioning.base import Account, Cleaned, Provisioner
from approvals.states import EndReason, GrantState
from approvals.transition import move_all
from audit import clock, log
from audit.log import SYSTEM

FIRST_RETRY = 0.5  # seconds; doubled with each attempt
# With `leases.LEAD` on top: within 5 and 60 s, as law 6 has it.
LAST_RETRY = {StepKind.CUT: 4.0, StepKind.CLEAN: 59.0}
NOT_CUT = "not_cut"  # a clean-up found somebody in or let in: the cut is due again
ABANDONED_RETRY = 3600.0  # seconds, whatever is left to be done: law 6


def overdue() -> Q:
    """Access that should have ended: past its end, never opened in its budget, holder gone."""
    now = clock.DbNow()
    return Q(state__in=[GrantState.PROVISIONING, GrantState.ACTIVE]) & (
        Q(expires_at__lte=now)
        | Q(state=GrantState.PROVISIONING, open_before__lte=now)
        | Q(beneficiary__is_active=False)
        | Q(request__requester__is_active=False)
    )


@leases.composed_once
def cuts_due() -> QuerySet[Grant]:
    """Grants to be cut now: those not tried yet first, then the longest overdue.

    A cut that keeps failing may be its holder's doing, and must not go before somebody else's.
    """
    again = (
        Q(state=GrantState.REVOKING, cut_at__isnull=True, next_try_at__lte=clock.DbNow())
        & leases.free()
    )
    return Grant.objects.filter(overdue() | again).order_by("attempts", "expires_at", "id")


@leases.composed_once
def cleanups_due() -> QuerySet[Grant]:
    """Grants that are cut and still have something to be cleaned up."""
    return Grant.objects.filter(
        leases.free(),
        state=GrantState.REVOKING,
        cut_at__isnull=False,
        next_try_at__lte=clock.DbNow(),
    ).order_by("next_try_at", "id")


def claim(
    kind: StepKind,
    *,
    worker: str,
    only: int | None = None,
    room: leases.Room | None = None,
) -> list[Job]:
    """Commit the intent to end what is due, and take the leases of the attempts."""
    rows = cuts_due() if kind == StepKind.CUT else cleanups_due()
    rows = rows if only is None else rows.filter(pk=only)
    with transaction.atomic(), log.batch():
        if not (picked := leases.pick(rows, room or leases.Room(free=1))):
            return []
        now = clock.now()
        begun = leases.whole(picked)
        late = [grant for grant in begun if grant.state != GrantState.REVOKING]
        grants.finish_all([(grant, _why(grant)) for grant in late], by=SYSTEM, now=now)
        steps = leases.take(begun, kind, worker=worker, now=now)
    return claimed(begun, steps, kind)


def _why(grant: Grant) -> Ending:
    """The reason why one ends that is `overdue`."""
    if not (grant.beneficiary.is_active and grant.request.requester.is_active):
        note = "Whoever asked, or for whom, was deactivated."
        return Ending(EndReason.REVOKED, note, "deactivated")
    if grant.state == GrantState.PROVISIONING:
        return Ending(EndReason.FAILED, "It could not be opened in time.", "open_budget")
    return Ending(EndReason.EXPIRED)


def run_all(jobs: Sequence[Job], *, stopping: Callable[[], bool] = never) -> bool:
    """Carry out attempts at one target, as `batches.carry_out` tells; whether all succeeded."""
    return carry_out(jobs, Work(together=_together, single=run, failed=_failed), stopping=stopping)


def _together(jobs: Sequence[Job], provisioner: Provisioner) -> Collection[int]:
    """Do many at once, as far as that goes; return the grants that are done."""
    cutting = jobs[0].kind == StepKind.CUT
    at_once, say = (provisioner.cut_many, _cut) if cutting else (provisioner.clean_many, _ended)
    done = at_once(accounts_of([job.grant for job in jobs]))
    if done:
        say([job for job in jobs if job.grant.pk in done])
    return done


def run(job: Job, provisioner: Provisioner) -> bool:
    """Carry out one attempt; False if it failed, whatever it was, and others may fare the same.

    It will be tried again.
    """
    try:
        account = account_of(job.grant)
        if job.kind == StepKind.CUT:
            provisioner.cut(account)
            _cut([job])
        else:
            _clean(job, provisioner, account)
    except Exception as error:  # noqa: BLE001 - a defect must neither hide nor stop the others
        _failed(job, error)
        return isinstance(error, ProvisionError) and bool(error.details.get("alone"))
    return True


def account_of(grant: Grant) -> Account:
    """The grant's account with what every attempt at opening it may have left."""
    return accounts_of([grant])[0]


def accounts_of(grants_: Sequence[Grant]) -> list[Account]:
    """The grants' accounts, in that order."""
    opened = Step.objects.filter(grant__in=[one.pk for one in grants_], kind=StepKind.OPEN)
    traces = dict(opened.values_list("grant", "traces"))
    return [
        Account(grant_id=one.pk, account=one.account, traces=traces.get(one.pk, []))
        for one in grants_
    ]


def _cut(jobs: Sequence[Job]) -> None:
    """Write down that nobody is in. True whoever has the lease by now: `revoking` lets none in."""
    keys = [job.grant.pk for job in jobs]
    to_cut = Grant.objects.filter(pk__in=keys, state=GrantState.REVOKING, cut_at__isnull=True)
    with transaction.atomic(), log.batch():
        ours = set(to_cut.select_for_update().order_by("pk").values_list("pk", flat=True))
        now = clock.now()
        done = [job.grant for job in jobs if job.grant.pk in ours]
        Grant.objects.filter(pk__in=ours).update(
            cut_at=now, last_error="", attempts=0, stuck_since=None, **leases.free_at(now)
        )
        steps = Step.objects.filter(grant__in=ours, kind=StepKind.CUT)
        steps.update(finished_at=now, last_error="")
        for grant in done:
            late = lateness_ms(grant, now)
            log.record("grant.cut", actor=SYSTEM, subject=grant, at=now, late_ms=late)
    _count(done, now, of=len(jobs))


def _count(done: Sequence[Grant], now: datetime, *, of: int) -> None:
    for grant in done:
        tallies.step(StepKind.CUT, "ok")
        tallies.took(tallies.LATENESS, lateness_ms(grant, now) / 1000)
    for _ in range(of - len(done)):  # another was faster
        tallies.step(StepKind.CUT, "fenced")


def lateness_ms(grant: Grant, now: datetime) -> int:
    """Milliseconds from the moment the access was to end (its end, or a revoke) to `now`."""
    return round((grant.late_by(now) or timedelta()).total_seconds() * 1000)


def _clean(job: Job, provisioner: Provisioner, account: Account) -> None:
    try:
        _report(job.grant, provisioner.clean(account))
    except ProvisionError as error:
        _report(job.grant, error.details.get("cleaned"))
        raise
    seen = provisioner.observe(account)
    if not seen.gone:
        left = ", ".join(seen.leftovers) or "a session or sign-in"
        code = NOT_CUT if seen.sessions or seen.can_sign_in else "left"
        raise ProvisionError(f"Read back after cleaning up: still there: {left}.", code=code)
    _ended([job])


def _report(grant: Grant, cleaned: Cleaned | None) -> None:
    """Write down what has become of what the holder had made: at once, since it is done."""
    if not cleaned:
        return
    with transaction.atomic(), log.batch():
        log.record("grant.quarantined", actor=SYSTEM, subject=grant, **asdict(cleaned))


def _ended(jobs: Sequence[Job]) -> None:
    """Write down that nothing is left, of those still held under the lease of their job."""
    with transaction.atomic(), log.batch():
        leased = {job.grant.pk: job.lease for job in jobs}
        held = leases.held(leased, GrantState.REVOKING)
        now = clock.now()
        done = [job.grant for job in jobs if job.grant.pk in held]
        steps = Step.objects.filter(grant__in=held, kind=StepKind.CLEAN)
        steps.update(finished_at=now, last_error="")
        for grant in done:
            grant.ended_at, grant.last_error, grant.stuck_since = now, "", None
            leases.let_go(grant, next_try_at=None)
        move_all(
            done,
            GrantState.ENDED,
            by=SYSTEM,
            at=now,
            changed=("ended_at", "last_error", "stuck_since", *leases.LET_GO),
            told=lambda grant: {"reason": grant.end_reason, "account": grant.account},
        )
        reviews.open_for_ended(done, now=now)
    for number in range(len(jobs)):
        tallies.step(StepKind.CLEAN, "ok" if number < len(done) else "fenced")


def _failed(job: Job, error: Exception) -> None:
    """Write down a failure. That of a cut counts whoever has the lease by now, as its success does:
    a target that fails slowly would otherwise never be seen to fail."""
    failed = attempts.failure(error)
    tallies.step(job.kind, "failed")
    with transaction.atomic(), log.batch():
        grant = Grant.objects.locked(job.grant.pk)
        ours = grant.lease == job.lease
        still_to_cut = job.kind == StepKind.CUT and grant.cut_at is None
        if grant.state != GrantState.REVOKING or not (ours or still_to_cut):
            return
        now = clock.now()
        attempts.record(grant, job.step, failed, now=now)
        grant.attempts += 1
        grant.stuck_since = grant.stuck_since or now
        if failed.code == NOT_CUT:
            grant.cut_at = None
        grant.save(update_fields=["last_error", "attempts", "stuck_since", "cut_at"])
        if ours:
            leases.drop(grant, next_try_at=now + _backoff(job, grant, failed.code))


def _backoff(job: Job, grant: Grant, code: str) -> timedelta:
    if code in ("clean_unfinished", NOT_CUT):  # it only needs more time, or cannot wait
        return timedelta(seconds=FIRST_RETRY)
    if grant.is_abandoned:
        return timedelta(seconds=ABANDONED_RETRY)
    exponent = min(job.step.attempts - 1, 10)
    return timedelta(seconds=min(LAST_RETRY[job.kind], FIRST_RETRY * 2**exponent))


def close_grant(grant_id: int, *, worker: str) -> None:
    """Cut one grant and clean it up, as far as it is due and nobody else is at it."""
    for kind in (StepKind.CUT, StepKind.CLEAN):
        for job in claim(kind, worker=worker, only=grant_id):
            run_all([job])
