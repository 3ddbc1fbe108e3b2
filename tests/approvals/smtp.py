"""Mail servers for the tests: real SMTP on a port of this machine, good ones and bad ones."""

from __future__ import annotations

import email
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.policy import default
from typing import Any

from aiosmtpd.controller import Controller

from debugflow.embedded.server import free_port


@dataclass
class Mailbox:
    """Takes every mail, but for addresses in `refused`, which get that answer; keeps them."""

    refused: dict[str, str] = field(default_factory=dict)
    taken: list[tuple[list[str], EmailMessage]] = field(default_factory=list)

    async def handle_RCPT(
        self, server: Any, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        if address in self.refused:
            return self.refused[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        message = email.message_from_bytes(envelope.content, policy=default)
        assert isinstance(message, EmailMessage)
        self.taken.append((list(envelope.rcpt_tos), message))
        return "250 Taken"

    @property
    def recipients(self) -> list[str]:
        return sorted(address for addresses, _ in self.taken for address in addresses)

    def to(self, address: str) -> list[EmailMessage]:
        return [message for addresses, message in self.taken if addresses == [address]]


@contextmanager
def mail_server(settings: Any) -> Iterator[Mailbox]:
    """A mail server that the settings name, as an installation without TLS to it would."""
    mailbox = Mailbox()
    controller = Controller(mailbox, hostname="127.0.0.1", port=free_port())
    controller.start()
    try:
        name(settings, controller.port)
        yield mailbox
    finally:
        controller.stop()


@contextmanager
def deaf_server(settings: Any) -> Iterator[socket.socket]:
    """Accepts connections, as its system does for it, and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        name(settings, listener.getsockname()[1])
        yield listener


@contextmanager
def dripping_server(settings: Any, *, every: float) -> Iterator[None]:
    """Says a byte `every` so many seconds, and never comes to the end of a line."""
    over = threading.Event()

    def drip(listener: socket.socket) -> None:
        with listener.accept()[0] as client, suppress(OSError):
            while not over.wait(every):
                client.sendall(b"2")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        name(settings, listener.getsockname()[1])
        dripping = threading.Thread(target=drip, args=[listener], daemon=True)
        dripping.start()
        yield
        over.set()
        dripping.join()


def name(settings: Any, port: int) -> None:
    settings.EMAIL_BACKEND = "approvals.smtp.Backend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", port
    settings.EMAIL_USE_TLS = False
    settings.EMAIL_TIMEOUT = 1
    settings.SITE_URL = "https://debugflow.example.com"
    settings.DEFAULT_FROM_EMAIL = "debugflow@example.com"


def text_of(message: EmailMessage, kind: str = "plain") -> str:
    part = message.get_body((kind,))
    assert part is not None
    return str(part.get_content())
