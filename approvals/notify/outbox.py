"""Notices are written here: with the Events that make them, or found by the clock.

Nobody is told yet, and nothing is looked up: that would hold up the change. Who is told is derived
later, in `expanding`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from django.db import connection
from django.db.models import Exists, OuterRef

from approvals import queue
from approvals.models import Delivery, Notice
from approvals.notify import facts
from approvals.notify.facts import Fact
from audit import clock
from audit.models import Event

KEPT: Final = timedelta(days=180)
TELL_TASK: Final = "approvals.tasks.tell"

COLUMNS: Final = (
    "fact, key, event_id, subject_type, subject_id, thread, at, urgent, next_try_at,"
    " attempts, last_error, text, step, quote, link"
)
ROW: Final = "(%s, %s, %s, %s, %s, %s, %s, %s, (SELECT dbnow()), 0, '', '', '', '', '')"
INSERT: Final = f"INSERT INTO approvals_notice ({COLUMNS}) VALUES "  # noqa: S608 - our own names

# Ten minutes before the end, or a fifth of what it lasts, whichever is later. Named by the end, so
# that one which is moved is told anew and one which is found twice is not.
ENDING: Final = f"""
INSERT INTO approvals_notice ({COLUMNS})
SELECT 'ending', 'ending:' || g.id || ':' || to_char(g.expires_at AT TIME ZONE 'UTC',
           'YYYY-MM-DD"T"HH24:MI:SS.US'),
       NULL, 'grant', g.id::text, 'request:' || g.request_id, n.now, true, n.now,
       0, '', '', '', '', ''
FROM approvals_grant g, (SELECT dbnow() AS now) n
WHERE g.state = 'active' AND g.expires_at > n.now AND g.expires_at <= n.now + interval '10 min'
  AND g.expires_at - n.now <= (g.expires_at - g.activated_at) / 5
ON CONFLICT (key) DO NOTHING
RETURNING id
"""  # noqa: S608 - our own names


def written(events: Sequence[Event]) -> None:
    """Note what somebody should hear of, in the transaction of these Events: one statement."""
    told = [_values(event, fact) for event in events for fact in facts.of(event)]
    if not told:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            f"{INSERT}{', '.join([ROW] * len(told))} RETURNING id",
            [value for values in told for value in values],
        )
        first = cursor.fetchone()
    # One ring for all of them: whoever answers takes all that is due.
    queue.ring(TELL_TASK, int(first[0]))


def _values(event: Event, fact: Fact) -> list[Any]:
    return [
        fact.name,
        f"event:{event.pk}:{fact.name}",
        event.pk,
        event.subject_type,
        event.subject_id,
        event.thread,
        event.at,
        fact.urgent,
    ]


def forget_old(most: int = 1000) -> int:
    """Forget notices of long ago with their deliveries, and so entries of inboxes.

    Of the `most` oldest, which are the first ones: no index has to tell. What is still to be told
    or sent stays. Events stay for ever: this was only who was told.
    """
    oldest = Notice.objects.order_by("pk").values("pk")[:most]
    waiting = Delivery.objects.filter(notice=OuterRef("pk"), next_try_at__isnull=False)
    old = Notice.objects.filter(pk__in=oldest, at__lt=clock.DbNow() - KEPT)
    ids = list(old.filter(~Exists(waiting), next_try_at__isnull=True).values_list("pk", flat=True))
    Notice.objects.filter(pk__in=ids).delete()
    return len(ids)


def note_endings() -> int:
    """Note what is about to end and is not noted yet; returns how much. Any number may look."""
    with connection.cursor() as cursor:
        cursor.execute(ENDING)
        return int(cursor.rowcount)
