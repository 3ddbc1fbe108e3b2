"""Whether a call is Slack's own: signed with our secret over these bytes, just now, and not before.

Whose click it is, and whether it may do anything, is not decided here.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from datetime import timedelta
from typing import Final

from django.db import connection
from django.views.decorators.debug import sensitive_variables

from approvals.models import SlackCall, SlackWorkspace
from approvals.notify.slack import workspace
from approvals.secrets import SecretUnreadable
from audit import clock

FRESH: Final = timedelta(minutes=5)
STAMP: Final = re.compile(r"[0-9]{9,12}")
SIGNATURE: Final = re.compile(r"v0=[0-9a-f]{64}")


@sensitive_variables("secret")
def signed(stamp: str, signature: str, body: bytes) -> SlackWorkspace | None:
    """The workspace whose secret has signed this within five minutes; None otherwise.

    Nothing is looked up for what does not even look like a signature.
    """
    if not STAMP.fullmatch(stamp) or not SIGNATURE.fullmatch(signature):
        return None
    if (row := workspace.current()) is None:
        return None
    try:
        secret = workspace.unsealed(row, "signing_secret")
    except (LookupError, SecretUnreadable):
        return None
    told = b"v0:" + stamp.encode() + b":" + body
    right = hmac.new(secret.encode(), told, hashlib.sha256).hexdigest()
    fresh = abs(clock.now().timestamp() - int(stamp)) <= FRESH.total_seconds()
    return row if hmac.compare_digest(right, signature[3:]) and fresh else None


def first_time(signature: str) -> bool:
    """Whether this signature was not acted upon yet; from now on it was, whoever else asks.

    The signature covers its time and all that is said: another call has another one.
    """
    SlackCall.objects.filter(at__lt=clock.DbNow() - 3 * FRESH).delete()
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO approvals_slackcall (signature, at) VALUES (%s, (SELECT dbnow()))"
            " ON CONFLICT DO NOTHING",
            [signature[3:]],
        )
        return bool(cursor.rowcount)
