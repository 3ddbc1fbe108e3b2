"""One comparison of a target with the ledger: what is known before it, what is noted after it.

`reconciler` says when, and does what follows; what that is, `judgement` decides.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from django.db import transaction
from django.db.models import Q

from approvals import installation, judgement, targets
from approvals.errors import Fenced
from approvals.judgement import Entry, Judged, Plan, key_of
from approvals.models import Reach, Reconciliation, Step, StepKind, Target
from approvals.provisioning.base import Account, Known, Provisioner, Survey
from approvals.states import NOT_ENDED, GrantState
from audit import clock, log
from audit.log import SYSTEM

EVENT_MOST = 50  # accounts or findings that one Event names
NO_GRANT = 0
"""Instead of a grant's id: removing an unknown dbgf_7 must not end the opener of grant 7."""
MOVED = (
    "this installation's own database was restored in another cluster: nothing is removed until "
    "`manage.py reconcile --restored` confirms that it is the ledger"
)
OUR_NAME = re.compile(r"dbgf_([1-9][0-9]{0,17})")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One claimed run. `lease_until` tells it from any other."""

    target_id: int
    lease_until: datetime
    until: float  # on the monotonic clock: when the lease runs out


@dataclass
class Run:
    """One run under way: what was known before the survey, what has been tried, what failed."""

    job: Job
    target: Target
    provisioner: Provisioner
    began: datetime
    known: Mapping[int, Known]
    gateway: Sequence[Account]
    tried: set[str] = field(default_factory=set)
    errors: list[Exception] = field(default_factory=list)


def begin(job: Job, tried: set[str]) -> Run:
    """What is known before the survey begins."""
    target = Target.objects.get(pk=job.target_id)
    began = clock.now()
    steps = Step.objects.filter(
        kind=StepKind.OPEN, grant__target=target, grant__state=GrantState.ACTIVE
    ).select_related("grant")
    return Run(
        job=job,
        target=target,
        provisioner=targets.provisioner(target),
        began=began,
        known=_known(steps),
        gateway=[
            Account(grant_id=NO_GRANT, account=step.grant.account, traces=step.traces)
            for step in steps
            if step.grant.scope["reach"] == Reach.GATEWAY
        ],
        tried=tried,
    )


def _known(steps: Iterable[Step]) -> dict[int, Known]:
    return {
        step.grant_id: Known(
            grant_id=step.grant_id,
            account=step.grant.account,
            traces=step.traces,
            rights=step.grant.scope["level"]["rights"],
            valid_until=end,
        )
        for step in steps
        if (end := step.grant.latest_end)
    }


def _entries(run: Run, survey: Survey, now: datetime) -> list[Entry]:
    """The ledger after the survey: the target's grants that have not ended, and any whose name was
    seen, those of other targets too: two targets may be databases of one server."""
    named = (OUR_NAME.fullmatch(found.account) for found in survey.accounts)
    ids = [int(match[1]) for match in named if match]
    here = Q(grant__target=run.target, grant__state__in=NOT_ENDED)
    steps = Step.objects.filter(here | Q(grant__in=ids), kind=StepKind.OPEN)
    return [
        Entry(
            grant_id=step.grant_id,
            account=step.grant.account,
            state=step.grant.state,
            ended_at=step.grant.ended_at,
            traces=step.traces,
            before=unchanged(run.known.get(step.grant_id), step, now),
        )
        for step in steps.select_related("grant")
    ]


def unchanged(known: Known | None, step: Step, now: datetime) -> Known | None:
    """`known`, if the grant is as it was before the survey and not past its end."""
    grant = step.grant
    if known is None or step.traces != known.traces:
        return None
    ends_as_before = grant.latest_end == known.valid_until
    return known if ends_as_before and grant.goes_on(now) else None


def note(run: Run, survey: Survey, stamp: str) -> Plan:
    """Judge the survey by the ledger as it is now; write down what was found and what waits."""
    if moved := installation.moved():
        survey = replace(survey, findings=(*survey.findings, MOVED))
    with transaction.atomic(), log.batch():
        row = held(run.job)
        now = clock.now()
        judged = judgement.judge(
            survey,
            _entries(run, survey, now),
            began=run.began,
            now=now,
            stamp=stamp,
            unknown=row.unknown,
        )
        plan = judgement.plan(judged, allowed=row.allowed, moved=moved)
        _tell(row, run.target, judged, plan, now)
        _store(row, judged, plan, now)
    return plan


def held(job: Job) -> Reconciliation:
    """The row, locked. Raises Fenced if this run's lease has gone to another."""
    row = Reconciliation.objects.select_for_update().filter(pk=job.target_id).first()
    if row is None or row.lease_until != job.lease_until:
        raise Fenced
    return row


def _tell(row: Reconciliation, target: Target, judged: Judged, plan: Plan, now: datetime) -> None:
    """Record what differs from the last time: a stranger's change is one line, not one a minute."""
    new = [line for line in judged.findings if line not in row.findings]
    over = [line for line in row.findings if line not in judged.findings]
    if new or over:
        log.record(
            "target.drifted",
            actor=SYSTEM,
            subject=target,
            at=now,
            new=new[:EVENT_MOST],
            over=over[:EVENT_MOST],
        )
    if plan.held and list(plan.held) != row.held_back:
        log.record(
            "reconciliation.held_back",
            actor=SYSTEM,
            subject=target,
            at=now,
            accounts=list(plan.held[:EVENT_MOST]),
            count=len(plan.held),
        )


def _store(row: Reconciliation, judged: Judged, plan: Plan, now: datetime) -> None:
    row.findings, row.unknown = list(judged.findings), dict(judged.unknown)
    row.held_back = list(plan.held)
    row.held_back_since = (row.held_back_since or now) if plan.held else None
    planned = {*map(key_of, plan.strays), *(lost.key for lost in plan.lost)}
    row.allowed = [key for key in row.allowed if key in planned]
    fields = ["findings", "unknown", "held_back", "held_back_since", "allowed"]
    row.save(update_fields=fields)
