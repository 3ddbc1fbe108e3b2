"""Where the current work comes from: request id, client address, agent.

Web requests and tasks bind it once; `audit.log` reads it. Who acts is never taken from here: an
actor is always named by the caller.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Text as it goes into an Event; empty where there is none."""

    request_id: str = ""
    address: str = ""
    agent: str = ""


_NOWHERE = Origin()
_origin: ContextVar[Origin] = ContextVar("audit_origin", default=_NOWHERE)


def current() -> Origin:
    """The origin that the innermost `bind` gave, or an empty one."""
    return _origin.get()


@contextmanager
def bind(*, request_id: str, address: str = "", agent: str = "") -> Iterator[Origin]:
    """Give all Events recorded inside this origin, wholly in place of the outer one."""
    origin = Origin(request_id=request_id, address=address, agent=agent)
    token = _origin.set(origin)
    try:
        yield origin
    finally:
        _origin.reset(token)
