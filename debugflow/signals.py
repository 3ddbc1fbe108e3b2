"""Sign-ins in the audit log: the good, the bad and the end; and how long they last."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.db import transaction
from django.dispatch import receiver
from django.utils import timezone

from audit import log
from audit.actions import declare
from audit.log import ANONYMOUS, Actor, Subject

declare(
    "account.signed_in",
    "account.signed_out",
    "account.sign_in_failed",
    "account.password_changed",
)


def _subject(user: Any) -> Subject:
    return Subject("user", str(user.pk), user.get_username(), f"user:{user.pk}")


@receiver(user_logged_in)
@transaction.atomic
def signed_in(sender: Any, request: Any, user: Any, **kwargs: Any) -> None:
    """The session ends at its age, however busy it is: each change would prolong it otherwise."""
    request.session.set_expiry(timezone.now() + timedelta(seconds=settings.SESSION_COOKIE_AGE))
    log.record("account.signed_in", actor=Actor.of(user), subject=_subject(user))


@receiver(user_logged_out)
@transaction.atomic
def signed_out(sender: Any, user: Any, **kwargs: Any) -> None:
    if user is not None:
        log.record("account.signed_out", actor=Actor.of(user), subject=_subject(user))


@receiver(user_login_failed)
@transaction.atomic
def sign_in_failed(sender: Any, credentials: dict[str, Any], **kwargs: Any) -> None:
    """The name that was tried, never the password; cut, since anything can be typed there."""
    name = str(credentials.get("username", ""))[:150].replace("\x00", "")
    log.record(
        "account.sign_in_failed", actor=ANONYMOUS, subject=Subject("user", "", name, "sign-in")
    )
