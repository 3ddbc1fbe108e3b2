"""What the doorbell rings for. Ids in, one call, nothing out: the row says what is to be done."""

from __future__ import annotations

from celery import Task, shared_task

from approvals import closing, opening
from audit import context


def _worker(task: Task) -> str:  # type: ignore[type-arg]
    return str(task.request.hostname or "worker")


@shared_task(bind=True, name="approvals.tasks.open_grant")
def open_grant(self: Task, grant_id: int) -> None:  # type: ignore[type-arg]
    with context.bind(request_id=f"task-{self.request.id}"):
        opening.open_grant(grant_id, worker=_worker(self))


@shared_task(bind=True, name="approvals.tasks.close_grant")
def close_grant(self: Task, grant_id: int) -> None:  # type: ignore[type-arg]
    with context.bind(request_id=f"task-{self.request.id}"):
        closing.close_grant(grant_id, worker=_worker(self))
