"""The mail backend against real servers: with and without TLS, slow in every way, all bounded."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from smtplib import SMTPServerDisconnected
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP
from django.core.mail import EmailMessage

from approvals.smtp import Backend
from debugflow.embedded.server import free_port
from tests.approvals.provisioning.tls import self_signed
from tests.approvals.smtp import Mailbox, dripping_server, mail_server, name


def letter() -> EmailMessage:
    return EmailMessage("Alarm", "All of it.", "debugflow@example.com", ["olga@example.com"])


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A mail server's, which this machine trusts."""
    path = tmp_path / "mail.pem"
    path.write_text("".join(self_signed("127.0.0.1")))
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    return path


class Upgrading(Controller):
    """Takes mails after STARTTLS only."""

    tls: ssl.SSLContext

    def factory(self) -> SMTP:
        return SMTP(self.handler, tls_context=self.tls, require_starttls=True)


@contextmanager
def speaking_tls(settings: Any, certificate: Path, *, from_the_start: bool) -> Iterator[Mailbox]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    mailbox = Mailbox()
    place: dict[str, Any] = {"hostname": "127.0.0.1", "port": free_port()}
    controller = (
        Controller(mailbox, ssl_context=context, **place)
        if from_the_start
        else Upgrading(mailbox, **place)
    )
    if isinstance(controller, Upgrading):
        controller.tls = context
    controller.start()
    name(settings, controller.port)
    settings.EMAIL_USE_SSL, settings.EMAIL_USE_TLS = from_the_start, not from_the_start
    settings.EMAIL_TIMEOUT = 5
    try:
        yield mailbox
    finally:
        controller.stop()


def test_several_letters_go_over_one_connection(settings: Any):
    with mail_server(settings) as mailbox, Backend() as connection:
        assert connection.send_messages([letter(), letter()]) == 2
        assert connection.send_messages([letter()]) == 1
    assert len(mailbox.taken) == 3


@pytest.mark.parametrize("from_the_start", [True, False])
def test_tls_of_either_kind_is_spoken(settings: Any, certificate: Path, from_the_start: bool):
    with speaking_tls(settings, certificate, from_the_start=from_the_start) as mailbox:
        assert Backend().send_messages([letter()]) == 1
    assert mailbox.recipients == ["olga@example.com"]


def test_a_certificate_that_nobody_vouches_for_is_refused(
    settings: Any, certificate: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("SSL_CERT_FILE")
    with (
        speaking_tls(settings, certificate, from_the_start=True) as mailbox,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        Backend().send_messages([letter()])
    assert mailbox.taken == []


@pytest.mark.slow
def test_an_answer_that_drips_is_waited_for_as_one(settings: Any):
    with dripping_server(settings, every=0.1):
        begun = time.monotonic()
        with pytest.raises(SMTPServerDisconnected, match="timed out"):
            Backend(timeout=0.5).open()
        assert 0.4 < time.monotonic() - begun < 2


class Slow(Mailbox):
    """Answers each recipient in time, and takes its time."""

    async def handle_RCPT(self, *args: Any) -> str:
        await asyncio.sleep(0.4)
        return await super().handle_RCPT(*args)


@pytest.mark.slow
def test_a_server_that_is_slow_with_each_answer_is_left_when_the_whole_takes_too_long(
    settings: Any,
):
    controller = Controller(Slow(), hostname="127.0.0.1", port=free_port())
    controller.start()
    try:
        name(settings, controller.port)
        connection, begun = Backend(within=1), time.monotonic()
        message = letter()
        message.to *= 9
        with pytest.raises(SMTPServerDisconnected, match="timed out"):
            connection.send_messages([message])
        assert 0.9 < time.monotonic() - begun < 2
    finally:
        controller.stop()
