"""A mail server of this process, that notes when it took what, and nothing else."""

from __future__ import annotations

import time
from typing import Any

from aiosmtpd.controller import Controller

from debugflow.embedded.server import free_port


class MailServer:
    """`taken` are the moments, on this process's monotonic clock, with the subject of each mail."""

    def __init__(self) -> None:
        self.taken: list[tuple[float, bytes]] = []
        self.port = free_port()
        self._controller = Controller(self, hostname="127.0.0.1", port=self.port)
        self._controller.start()

    @property
    def environment(self) -> dict[str, str]:
        return {
            "EMAIL_HOST": "127.0.0.1",
            "EMAIL_PORT": str(self.port),
            "EMAIL_USE_TLS": "False",
        }

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        head, _, _ = envelope.content.partition(b"\r\n\r\n")
        subject = next((line for line in head.splitlines() if line.startswith(b"Subject:")), b"")
        self.taken.append((time.monotonic(), subject))
        return "250 Taken"

    def stop(self) -> None:
        self._controller.stop()
