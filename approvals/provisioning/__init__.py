"""The registry of kinds of target: dotted paths of our own, entry points of others.

A kind is imported when it is first asked for, so that a missing optional library breaks that kind
alone. What a kind must offer is in `base`.
"""

from __future__ import annotations

import functools
import importlib
import logging
from importlib import metadata

from approvals.errors import Invalid

from .base import Provisioner

BUILT_IN = {
    "memory": "approvals.provisioning.memory:MemoryProvisioner",
    "postgresql": "approvals.provisioning.postgresql:PostgreSQL",
}
ENTRY_POINTS = "debugflow.provisioners"

logger = logging.getLogger(__name__)


@functools.cache
def paths() -> dict[str, str]:
    """Return `module:attribute` by kind. A built-in kind cannot be replaced from outside."""
    found = {point.name: point.value for point in metadata.entry_points(group=ENTRY_POINTS)}
    return {**found, **BUILT_IN}


@functools.cache
def get(kind: str) -> type[Provisioner]:
    """Return the provisioner of `kind`; raise `Invalid` for a kind nobody registered."""
    if kind not in paths():
        raise Invalid(f"There is no kind of target called “{kind}”.", code="unknown_kind")
    module, _, attribute = paths()[kind].partition(":")
    found: type[Provisioner] = getattr(importlib.import_module(module), attribute)
    return found


def kinds() -> dict[str, str]:
    """Return the label by kind of every kind that can be offered in a form."""
    loadable = {kind: found for kind in sorted(paths()) if (found := _loaded(kind))}
    return {kind: found.label for kind, found in loadable.items() if not found.rehearsal}


def _loaded(kind: str) -> type[Provisioner] | None:
    try:
        return get(kind)
    except (ImportError, AttributeError) as error:
        logger.warning("a kind of target cannot be loaded", extra={"kind": kind, "why": str(error)})
        return None
