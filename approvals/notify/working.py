"""All that is due, done once: by whoever is rung for, and by every sweeper's chores."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from approvals import notify
from approvals.notify import expanding, sending


def tell_due() -> None:
    """Make the deliveries that are due, and send over every channel."""
    expanding.expand_due()
    for send in senders():
        send()


def senders() -> list[Callable[[], int]]:
    """One for each channel that sends, so that none has to wait for another."""
    names = [channel.name for channel in notify.channels() if not channel.instant]
    return [partial(sending.send_due, name) for name in names]
