"""The doorbell: tell a Celery worker, soon, that a row wants looking at.

The row is the truth. A ring that is lost costs the sweeper's interval, so a ring may never cost
its caller anything: it waits for the commit, goes into a bounded queue, and a thread of its own
publishes it. (Publishing straight from a web request was still blocked after 40 s against a
broker that accepted the connection and never answered.)
"""

from __future__ import annotations

import os
import queue
import threading
from dataclasses import dataclass, field
from typing import Any

import structlog
from celery import current_app
from django.db import transaction
from kombu.exceptions import KombuError, OperationalError
from redis.exceptions import RedisError

logger = structlog.get_logger(__name__)

CAPACITY = 1000
TIMEOUT = 1  # seconds for connecting to the broker, and for each answer of it


@dataclass(frozen=True)
class Ring:
    """One task to be sent: what it is told, and Celery's options for sending it."""

    task: str
    told: int | str
    options: dict[str, Any] = field(default_factory=dict)


class Doorbell:
    """A bounded queue and the daemon thread that empties it. One per process (forks make anew)."""

    def __init__(self) -> None:
        self.waiting: queue.Queue[Ring] = queue.Queue(CAPACITY)
        self.pid = os.getpid()
        threading.Thread(target=self._publish, name="doorbell", daemon=True).start()

    def put(self, task: str, told: int | str, **options: Any) -> bool:
        """Queue a ring; False if the queue is full and it was dropped."""
        try:
            self.waiting.put_nowait(Ring(task, told, options))
        except queue.Full:
            return False
        return True

    def _publish(self) -> None:
        while True:
            ring = self.waiting.get()
            try:
                self._send(ring)
            except (KombuError, OperationalError, RedisError, OSError) as error:
                logger.info("The broker did not take a ring; the sweeper will.", error=str(error))
            except Exception:
                logger.exception("a ring was lost to a defect", task=ring.task)

    @staticmethod
    def _send(ring: Ring) -> None:
        with hurried() as connection:
            current_app.send_task(
                ring.task, args=[ring.told], connection=connection, retry=False, **ring.options
            )


def hurried() -> Any:
    """A connection to the broker, made when it is used. Each wait of it ends after TIMEOUT."""
    options = current_app.conf.broker_transport_options | {
        "socket_timeout": TIMEOUT,
        "socket_connect_timeout": TIMEOUT,
        "max_retries": 0,
    }
    return current_app.connection_for_write(connect_timeout=TIMEOUT, transport_options=options)


_bell: Doorbell | None = None
_making = threading.Lock()


def bell() -> Doorbell:
    global _bell
    with _making:
        if _bell is None or _bell.pid != os.getpid():
            _bell = Doorbell()
        return _bell


def ring(task: str, pk: int) -> None:
    """Ask for `task(pk)` once the present transaction has committed. Never blocks, never raises."""
    transaction.on_commit(lambda: bell().put(task, pk), robust=True)
