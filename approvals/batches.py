"""Claimed attempts at grants of one target: together as far as that goes, then one by one.

What an attempt does is told by `opening` and `closing`; which grants are claimed, and how many at
once, by `leases` and `sweeper`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from approvals import leases, targets
from approvals.models import Grant, Step, StepKind
from approvals.provisioning.base import Provisioner


@dataclass(frozen=True, kw_only=True)
class Job:
    """One claimed attempt at opening, cutting or cleaning up."""

    grant: Grant
    step: Step
    kind: StepKind
    lease: str
    until: float  # on the monotonic clock: when the lease runs out

    @property
    def target_id(self) -> int:
        return self.grant.target_id


@dataclass(frozen=True, kw_only=True)
class Work:
    """How attempts of one kind are made."""

    together: Callable[[Sequence[Job], Provisioner], Collection[int]]
    """Do many at once; return the grants that are done. The others are left to `single`."""
    single: Callable[[Job, Provisioner], bool]
    """Do one; False if it failed and others may fare the same."""
    failed: Callable[[Job, Exception], None]
    """Write down that one failed."""


def claimed(grants: Sequence[Grant], steps: Sequence[Step], kind: StepKind) -> list[Job]:
    """The jobs of grants whose leases have just been taken."""
    until = time.monotonic() + leases.LEASE[kind]
    return [
        Job(grant=grant, step=step, kind=kind, lease=grant.lease, until=until)
        for grant, step in zip(grants, steps, strict=True)
    ]


def never() -> bool:
    """For `stopping` where nothing does."""
    return False


def carry_out(jobs: Sequence[Job], work: Work, *, stopping: Callable[[], bool]) -> bool:
    """Make all the attempts over the same connections; whether all succeeded.

    After one that failed or took long the rest are handed back, to be claimed again one by one:
    they must not wait for what may be its holder's doing. So are those not begun when `stopping`
    says that this process is to end: another takes them at once, and not after their lease.
    """
    try:
        provisioner = targets.provisioner(jobs[0].grant.target)
    except Exception as error:  # noqa: BLE001 - a defect must neither hide nor stop the others
        for job in jobs:
            work.failed(job, error)
        return False
    with provisioner.kept_open():
        try:
            done = work.together(jobs, provisioner) if len(jobs) > 1 else ()
        except Exception as error:  # noqa: BLE001 - as above
            work.failed(jobs[0], error)
            _hand_back(jobs[1:])
            return False
        left = [job for job in jobs if job.grant.pk not in done]
        return _one_by_one(left, work, provisioner, stopping)


def _one_by_one(
    jobs: Sequence[Job], work: Work, provisioner: Provisioner, stopping: Callable[[], bool]
) -> bool:
    for number, job in enumerate(jobs):
        if stopping():
            _hand_back(jobs[number:])
            return True
        if time.monotonic() >= job.until or not work.single(job, provisioner):
            _hand_back(jobs[number + 1 :])
            return False
    return True


def _hand_back(jobs: Sequence[Job]) -> None:
    if jobs:
        leases.hand_back({job.grant.pk: job.lease for job in jobs}, jobs[0].kind)
