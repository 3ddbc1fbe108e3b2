"""What the doorbell rings for. Ids in, one call, nothing out: the row says what is to be done.

In a worker with a sweeper inside, which is every worker of ours, a ring only wakes it: it takes all
that is due at a target together, over the same connections, and no more at once than is good there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from celery import Task, shared_task

from approvals import closing, extending, heartbeats, opening, sweeper
from approvals.notify import working
from audit import context


def _worker(task: Task) -> str:  # type: ignore[type-arg]
    return str(task.request.hostname or "worker")


@contextmanager
def _told(task: Task) -> Iterator[str]:  # type: ignore[type-arg]
    """The task as the request id of what it causes."""
    told = f"task-{task.request.id}"
    with context.bind(request_id=told):
        yield told


@shared_task(bind=True, name="approvals.tasks.open_grant")
def open_grant(self: Task, grant_id: int) -> None:  # type: ignore[type-arg]
    with _told(self) as told:
        if not sweeper.wake(told):
            opening.open_grant(grant_id, worker=_worker(self))


@shared_task(bind=True, name="approvals.tasks.extend_grant")
def extend_grant(self: Task, grant_id: int) -> None:  # type: ignore[type-arg]
    with _told(self) as told:
        if not sweeper.wake(told):
            extending.extend_grant(grant_id, worker=_worker(self))


@shared_task(bind=True, name="approvals.tasks.close_grant")
def close_grant(self: Task, grant_id: int) -> None:  # type: ignore[type-arg]
    with _told(self) as told:
        if not sweeper.wake(told):
            closing.close_grant(grant_id, worker=_worker(self))


@shared_task(bind=True, name="approvals.tasks.tell")
def tell(self: Task, notice_id: int) -> None:  # type: ignore[type-arg]
    """All that is due, of which this notice is one."""
    with _told(self):
        working.tell_due()


@shared_task(name=heartbeats.CANARY_TASK)
def canary(process: str) -> None:
    heartbeats.served(process)
