"""How fast people are told: mails a second, and from asking to the mail with a thousand waiting.

Real workers do the work, rung or by their sweepers; the mail server is this process's. The ground
is the same mail handed over again and again on one connection, by Python's own library.
"""

from __future__ import annotations

import smtplib
import time
from collections.abc import Callable
from email.message import EmailMessage
from typing import Any, Final

from django.contrib.auth import get_user_model

from approvals import workflow
from approvals.models import Delivery, Notice
from audit import clock
from tests.bench.mail import MailServer
from tests.bench.votes import read_only, submitted

WAITING: Final = 1000
ASKS: Final = 60
WITHIN: Final = 120.0  # seconds
ASKED: Final = b"alice asks for"


def measure(mail: MailServer, figure: Callable[..., Any]) -> list[Any]:
    people = {user.username: user for user in get_user_model().objects.all()}
    for person in people.values():
        person.email = f"{person.username}@example.com"
        person.save(update_fields=["email"])
    ground = _handed_over_per_second(mail)
    rate = _delivered_per_second(mail, people["bob"])
    asked = sorted(_ask_to_message(mail, people) for _ in range(ASKS))
    return [
        figure("deliveries_per_s", rate, "1/s", ground),
        figure("ask_to_message_p50_s", asked[ASKS // 2], "s"),
        figure("ask_to_message_p99_s", asked[-1], "s"),
    ]


def _delivered_per_second(mail: MailServer, person: Any) -> float:
    before, began = len(mail.taken), time.monotonic()
    _fill(person, WAITING)
    _until(lambda: len(mail.taken) >= before + WAITING)
    return WAITING / (time.monotonic() - began)


def _ask_to_message(mail: MailServer, people: dict[str, Any]) -> float:
    """From the commit to the first mail that asks, while so many others are due."""
    _fill(people["bob"], WAITING - _waiting())
    before = len(mail.taken)
    request = submitted(people, read_only())
    began = time.monotonic()
    _until(lambda: bool(_asked(mail, before)))
    took = _asked(mail, before)[0] - began
    workflow.cancel(request.pk, by=people["alice"])
    return took


def _asked(mail: MailServer, before: int) -> list[float]:
    return [at for at, subject in mail.taken[before:] if ASKED in subject]


def _waiting() -> int:
    return Delivery.objects.filter(channel="email", next_try_at__isnull=False).count()


def _fill(person: Any, count: int) -> None:
    """So many mails that need no action, due now."""
    now = clock.now()
    notices = Notice.objects.bulk_create(
        Notice(
            fact="commented",
            key=f"bench:{time.time_ns()}:{number}",
            subject_type="accessrequest",
            subject_id="0",
            thread="bench",
            at=now,
            urgent=False,
            told_at=now,
            text="bob said something about read-only on orders",
            step="Answer on its page.",
        )
        for number in range(count)
    )
    Delivery.objects.bulk_create(
        Delivery(
            notice=notice,
            channel="email",
            person=person,
            urgent=False,
            since=now,
            next_try_at=now,
        )
        for notice in notices
    )


def _handed_over_per_second(mail: MailServer) -> float:
    message = EmailMessage()
    message["Subject"], message["From"], message["To"] = "x", "a@example.com", "b@example.com"
    message.set_content("bob said something about read-only on orders.\n" * 8)
    with smtplib.SMTP("127.0.0.1", mail.port) as server:
        began = time.monotonic()
        for _ in range(WAITING):
            server.send_message(message)
        return WAITING / (time.monotonic() - began)


def _until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + WITHIN
    while not done():
        if time.monotonic() > end:
            raise RuntimeError("the mails did not come")
        time.sleep(0.005)
