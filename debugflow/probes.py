"""Questions to servers that may never answer: asked beside the caller, who waits for so long only.

What is asked, and what an answer means, is in `health` and `metrics`.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

import psycopg
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

T = TypeVar("T")

KEPT: Final = 1.0  # seconds that an answer serves everybody, so that a flood costs one question
HURRIED: Final = "hurried"  # the alias of a connection with limits
CONNECTING: Final = 2  # seconds; libpq knows no shorter limit
STATEMENT_MS: Final = 1500
LASTS: Final = 8.0  # seconds for all that one such connection is asked


@dataclass(frozen=True)
class Asked(Generic[T]):
    """A question that was asked, `at` and until when on the monotonic clock."""

    at: float
    until: float
    future: Future[T] = field(default_factory=Future)

    def answer(self) -> T:
        """Wait for it. Raises TimeoutError, or what the asking raised."""
        return self.future.result(timeout=max(0.0, self.until - time.monotonic()))

    def still_serves(self) -> bool:
        return not self.future.done() or time.monotonic() - self.at <= KEPT


class Probe(Generic[T]):
    """One question: asked by one thread at a time, with one answer for all who come meanwhile."""

    def __init__(self, question: Callable[[], T], *, within: float) -> None:
        """`within` is the seconds that anybody waits at most, from when it was asked."""
        self._question = question
        self._within = within
        self._lock = threading.Lock()
        self._asked: Asked[T] | None = None

    def __call__(self) -> T:
        """The answer. Raises TimeoutError, or what the asking raised."""
        return self.ask().answer()

    def ask(self) -> Asked[T]:
        """Ask without waiting, for whoever has several questions."""
        with self._lock:
            if self._asked is None or not self._asked.still_serves():
                now = time.monotonic()
                self._asked = Asked(now, now + self._within)
                # A daemon: one that never gets its answer must not keep the process from ending.
                asking = threading.Thread(target=self._run, args=[self._asked.future], daemon=True)
                asking.start()
            return self._asked

    def _run(self, future: Future[T]) -> None:
        try:
            future.set_result(self._question())
        except Exception as error:  # noqa: BLE001 - it is the answer
            future.set_exception(error)


@contextmanager
def hurried() -> Iterator[BaseDatabaseWrapper]:
    """A connection of this thread's own to our database, for `.using(HURRIED)`.

    It waits for CONNECTING and STATEMENT_MS at most, and is hung up on after LASTS: the server
    keeps no limit while it is stopped. Not the pool's, which lets its callers wait ten seconds when
    the database is away, and may be empty just when somebody asks what is wrong.
    """
    wrapper = _unpooled()
    connections[HURRIED] = wrapper
    closing = threading.Lock()
    limit = threading.Timer(LASTS, _hang_up, [wrapper, closing])
    limit.daemon = True
    limit.start()
    try:
        with wrapper.cursor() as cursor:
            cursor.execute(f"SET statement_timeout = {STATEMENT_MS}")
        yield wrapper
    finally:
        limit.cancel()
        with closing:
            wrapper.close()
        del connections[HURRIED]


def _unpooled() -> BaseDatabaseWrapper:
    settings = dict(connections["default"].settings_dict)
    options = {name: value for name, value in settings["OPTIONS"].items() if name != "pool"}
    settings["OPTIONS"] = options | {
        "connect_timeout": CONNECTING,
        "tcp_user_timeout": CONNECTING * 1000,
    }
    made: Any = type(connections["default"])
    wrapper: BaseDatabaseWrapper = made(settings, HURRIED)
    return wrapper


def _hang_up(wrapper: BaseDatabaseWrapper, closing: threading.Lock) -> None:
    """Have whoever waits for this connection find it closed. Its owner still closes it."""
    with closing, suppress(OSError, psycopg.Error):
        session: Any = wrapper.connection
        if session is not None and not session.closed:
            with socket.socket(fileno=os.dup(session.pgconn.socket)) as handle:
                handle.shutdown(socket.SHUT_RDWR)
