"""Letters to people: rendering them, and handing them to the mail server within bounds of time.

To whom, when and about what is not decided here, and nothing is tried twice.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from smtplib import SMTPException, SMTPRecipientsRefused, SMTPResponseException
from typing import Any, Final

from django.conf import settings
from django.core.mail import EmailMultiAlternatives, get_connection
from django.core.mail.backends.base import BaseEmailBackend
from django.template.loader import render_to_string

NOT_CONFIGURED: Final = "No mail server is configured: set EMAIL_HOST."
TOO_SLOW: Final = "The mail server was too slow to be given this one."
SUBJECT_MAX: Final = 200  # characters
LETTER: Final = 10.0  # seconds that the last letter may take
REASON_MAX: Final = 200  # characters kept of what a mail server says


@dataclass(frozen=True, kw_only=True)
class Letter:
    """A mail to one address. `template` is below templates/approvals/mail, without its suffix."""

    to: str
    subject: str
    template: str
    context: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)


def post(letters: Sequence[Letter], *, within: float) -> list[str]:
    """Hand each letter to the mail server; for each "", or why the server did not take it.

    After `within` seconds, and once there is no connection to be had, none is begun any more;
    LETTER seconds later the server is not waited for, whatever it is at. Raises nothing that a mail
    server or an address may cause.
    """
    return list(posting(letters, within=within))


def posting(letters: Sequence[Letter], *, within: float) -> Iterator[str]:
    """The same, each answer as soon as it is known: what is written down at once is sent once."""
    if not settings.EMAIL_HOST:
        yield from [NOT_CONFIGURED] * len(letters)
        return
    deadline = time.monotonic() + within
    connection = get_connection(within=within + LETTER)
    why = ""
    try:
        for letter in letters:
            why = why or _unreachable(connection, deadline)
            yield why or _posted(letter, connection)
    finally:
        _hang_up(connection)


def one_line(text: str) -> str:
    """Other people's text as one printable line: for headers, and for lines of a list.

    Line breaks forge headers and lines, direction overrides hide what is written.
    """
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(printable.split())


def _unreachable(connection: BaseEmailBackend, deadline: float) -> str:
    if time.monotonic() >= deadline:
        return TOO_SLOW
    try:
        connection.open()
    except (SMTPException, OSError) as error:
        return _reason(error)
    return ""


def _posted(letter: Letter, connection: BaseEmailBackend) -> str:
    try:
        connection.send_messages([_message(letter, connection)])
    except (SMTPException, OSError, ValueError) as error:
        # Whatever state the connection is in, the next letter begins on a new one.
        _hang_up(connection)
        return _reason(error)
    return ""


def _message(letter: Letter, connection: BaseEmailBackend) -> EmailMultiAlternatives:
    place = f"approvals/mail/{letter.template}"
    message = EmailMultiAlternatives(
        subject=one_line(letter.subject)[:SUBJECT_MAX],
        body=render_to_string(f"{place}.txt", dict(letter.context)),
        to=[letter.to],
        # RFC 3834: keeps vacation notices from answering.
        headers={"Auto-Submitted": "auto-generated", **letter.headers},
        connection=connection,
    )
    message.attach_alternative(render_to_string(f"{place}.html", dict(letter.context)), "text/html")
    return message


def _reason(error: Exception) -> str:
    return one_line(_words(error))[:REASON_MAX]


def _words(error: Exception) -> str:
    match error:
        case SMTPRecipientsRefused(recipients=refused):
            return "; ".join(_said(code, text) for code, text in refused.values())
        case SMTPResponseException(smtp_code=code, smtp_error=text):
            return _said(code, text)
    return f"{type(error).__name__}: {error}"


def _said(code: int, text: bytes | str) -> str:
    return f"{code} {text.decode('utf-8', 'replace') if isinstance(text, bytes) else text}"


def _hang_up(connection: BaseEmailBackend) -> None:
    try:
        connection.close()
    except (SMTPException, OSError):
        pass  # It is being let go of anyway.
