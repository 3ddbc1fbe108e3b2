"""Django's mail backend, with an end to every wait. What is sent to whom is not decided here.

A socket's own limit counts from byte to byte, so that a server which sends one a second would be
waited for without end.
"""

from __future__ import annotations

import io
import smtplib
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from django.core.mail.backends.smtp import EmailBackend

WITHIN: Final = 30.0  # seconds for all answers together, unless told otherwise


class Backend(EmailBackend):
    """Waits `timeout` seconds for an answer, and for none any more `within` its own making."""

    def __init__(self, *args: Any, within: float = WITHIN, **options: Any) -> None:
        super().__init__(*args, **options)
        self._until = time.monotonic() + within

    @property
    def connection_class(self) -> Callable[..., smtplib.SMTP]:  # type: ignore[override]
        return partial(_Tls if self.use_ssl else _Plain, until=self._until)


class _Plain(smtplib.SMTP):
    """`until` is on the monotonic clock."""

    def __init__(self, *args: Any, until: float, **options: Any) -> None:
        self._until = self.answer_until = until
        super().__init__(*args, **options)

    def getreply(self) -> tuple[int, bytes]:
        """One answer, of however many lines and bytes."""
        self.answer_until = min(self._until, time.monotonic() + self.timeout)
        if self.file is None:
            self.file = io.BufferedReader(_Answers(self))
        answer = super().getreply()
        if self.sock is not None:
            self.sock.settimeout(self.timeout)  # for sending, which counts as a whole
        return answer


class _Tls(_Plain, smtplib.SMTP_SSL):
    """The same, over TLS from the start."""


class _Answers(io.RawIOBase):
    """What the server says."""

    def __init__(self, server: _Plain) -> None:
        self._server = server

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left, sock = self._server.answer_until - time.monotonic(), self._server.sock
        if left <= 0 or sock is None:
            raise TimeoutError("timed out")
        sock.settimeout(left)
        return sock.recv_into(buffer)
