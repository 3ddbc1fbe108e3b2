"""A sweeper inside every Celery worker, so that each revokes on time without beat or broker."""

from __future__ import annotations

import threading
from typing import Any

from celery import bootsteps
from django.conf import settings


class SweeperStep(bootsteps.StartStopStep):
    """Runs a sweeper from the worker's start to its stop.

    A step of the Worker's blueprint: the Consumer's is torn down and restarted whenever the
    broker is lost, which is just when a sweeper is needed.
    """

    requires = ("celery.worker.components:Pool",)

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        self.sweeper: Any = None
        self.thread: threading.Thread | None = None
        super().__init__(parent, **kwargs)

    def start(self, parent: Any) -> None:
        # Models cannot be imported while Celery is set up.
        from approvals.sweeper import Sweeper

        self.sweeper = Sweeper(
            interval=settings.SWEEP_INTERVAL,
            threads=settings.SWEEP_THREADS,
            name=f"{parent.hostname} sweeper",
        )
        self.thread = threading.Thread(target=self.sweeper.run, name="sweeper", daemon=True)
        self.thread.start()

    def stop(self, parent: Any) -> None:
        if self.sweeper is not None and self.thread is not None:
            self.sweeper.stop()
            self.thread.join(timeout=10)

    terminate = stop
