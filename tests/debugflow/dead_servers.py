"""Servers that are not there, and such as take a connection and never answer."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connections

from debugflow.probes import Probe


@contextmanager
def black_hole() -> Iterator[int]:
    """A port on which the kernel takes connections and nobody ever says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
        yield listening.getsockname()[1]


@contextmanager
def database_at(port: int) -> Iterator[None]:
    """Django believes that its database is there."""
    connections.close_all()
    told = connections["default"].settings_dict
    before = told["PORT"]
    told["PORT"] = str(port)
    try:
        yield
    finally:
        told["PORT"] = before


def forget(probe: Probe[Any]) -> None:
    """Let it ask anew, as after a while."""
    probe._asked = None
