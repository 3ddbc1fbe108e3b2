"""Celery's way to Redis, for workers that outlive their broker.

With a task under way when the broker goes, a worker exited for good, and its sweeper with it: kombu
gives back and acknowledges messages on channels that no longer lead anywhere, which raises
AttributeError, and Celery takes only errors of the connection for a reason to connect again.
"""

from __future__ import annotations

from kombu.transport import redis


class Channel(redis.Channel):
    """Acknowledges, and gives back, only while it leads to a broker.

    Nothing is lost without: the broker redelivers after `visibility_timeout` what it still has, and
    the sweepers do sooner what the rows say.
    """

    @property
    def leads_nowhere(self) -> bool:
        """Whether it, or the connection it was a part of, was closed."""
        return self.closed or self.connection is None or self.connection.client is None

    @property
    def do_restore(self) -> bool:  # type: ignore[override]  # nobody writes it
        # `closed` is set before closing asks.
        return self.connection is not None and self.connection.client is not None

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:
        if not self.leads_nowhere:
            super().basic_ack(delivery_tag, multiple)

    def basic_reject(self, delivery_tag: str, requeue: bool = False) -> None:
        if not self.leads_nowhere:
            super().basic_reject(delivery_tag, requeue)


class Transport(redis.Transport):
    Channel = Channel
