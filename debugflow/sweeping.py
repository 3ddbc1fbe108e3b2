"""A sweeper inside every Celery worker, so that each revokes on time without beat or broker."""

from __future__ import annotations

import threading
from typing import Any

from celery import bootsteps, signals
from django.conf import settings
from kombu import Exchange

# Seconds that a stop waits for what the sweeper has begun: a clean-up may take 50, an opening 30.
# Shorter than the `stop_grace_period` of docker-compose.yml, after which the process is killed.
GRACE = 55


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
        from approvals.heartbeats import Heart
        from approvals.sweeper import Sweeper

        heart = Heart(worker=parent.hostname)
        _consume(parent, heart.canaries)
        self.sweeper = Sweeper(
            interval=settings.SWEEP_INTERVAL,
            threads=settings.SWEEP_THREADS,
            name=f"{parent.hostname} sweeper",
            heart=heart,
        )
        self.thread = threading.Thread(target=self.sweeper.run, name="sweeper", daemon=True)
        self.thread.start()
        signals.worker_shutting_down.connect(self._claim_no_more, weak=False)

    def _claim_no_more(self, **_: object) -> None:
        """At the signal itself: the worker's own end waits for its tasks and its broker first."""
        self.sweeper.stop()

    def stop(self, parent: Any) -> None:
        if self.sweeper is not None and self.thread is not None:
            self.sweeper.stop()
            self.thread.join(timeout=GRACE)

    terminate = stop


def _consume(worker: Any, queue: Any) -> None:
    """Let the worker take from `queue` as well, whichever it was told to take from."""
    added = worker.app.amqp.queues.select_add(queue)
    # Celery puts its default exchange in the place of the nameless one, and the broker would keep
    # a binding to it for ever, for each worker that once was.
    added.exchange = Exchange("")
