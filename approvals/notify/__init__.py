"""People are told: an outbox of notices, and the registry of channels that carry them.

A channel is a file of its own; others add theirs by an entry point. What each must offer is in
`base`, of what people are told in `facts`.
"""

from __future__ import annotations

import functools
import importlib
import logging
from importlib import metadata

from .base import Channel

BUILT_IN = {
    "inbox": "approvals.notify.inbox:Inbox",
    "email": "approvals.notify.email:Email",
    "slack": "approvals.notify.slack.channel:Slack",
    "webhook": "approvals.notify.webhook:Webhook",
}
ENTRY_POINTS = "debugflow.channels"

logger = logging.getLogger(__name__)


@functools.cache
def paths() -> dict[str, str]:
    """Return `module:attribute` by name. A built-in channel cannot be replaced from outside."""
    found = {point.name: point.value for point in metadata.entry_points(group=ENTRY_POINTS)}
    return {**found, **BUILT_IN}


@functools.cache
def get(name: str) -> Channel:
    """Return the channel of that name; raise LookupError for one that nobody registered."""
    if name not in paths():
        raise LookupError(f"there is no channel called {name!r}")
    module, _, attribute = paths()[name].partition(":")
    made: Channel = getattr(importlib.import_module(module), attribute)()
    return made


@functools.cache
def channels() -> tuple[Channel, ...]:
    """Every channel that can be loaded: a missing library breaks that channel alone."""
    return tuple(found for name in sorted(paths()) if (found := _loaded(name)))


def _loaded(name: str) -> Channel | None:
    try:
        return get(name)
    except (ImportError, AttributeError) as error:
        logger.warning("a channel cannot be loaded", extra={"channel": name, "why": str(error)})
        return None
