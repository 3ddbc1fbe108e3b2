"""Alarms: what somebody must know of until it is over. Opened and ended by what the rows say.

Nothing here touches a target or decides about access. How they are worded is in `alarm_words`, who
is told, and when, in `alarm_mails`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import structlog
from django.db import connection, transaction
from django.db.models import Exists, OuterRef, Q, QuerySet

from approvals import alarm_words
from approvals.alarm_mails import mail_due
from approvals.models import Alarm, AlarmKind, Grant, Reconciliation
from audit import clock, log
from audit.log import SYSTEM, Auditable

__all__ = ["keep", "mail_due"]

logger = structlog.get_logger(__name__)

MOST: Final = 500  # of a kind in one look; more are found by the next
TIME_LIMIT: Final = "3s"  # for each statement of a look
# What begins together is told together. A condition is noticed within a look (5 s) and mailed
# within another: in all well below the minute in which people must be paged.
FIRST_MAIL_AFTER: Final = timedelta(seconds=20)
MORE_MAIL_AFTER: Final = timedelta(minutes=10)  # more of what was told about this target already
OVER_MAIL_AFTER: Final = timedelta(minutes=1)
NOT_COMPARED: Final = timedelta(minutes=10)  # ten comparisons in a row that came to nothing

RAISE: Final = """
WITH given AS (SELECT %(kind)s::varchar AS kind, %(now)s::timestamptz AS now,
                      %(first)s::interval AS first, %(more)s::interval AS more)
INSERT INTO approvals_alarm
    (kind, target_id, grant_id, text, began_at, next_mail_at, mails, failures, last_error)
SELECT g.kind, c.target, c."grant", c.text, g.now, g.now + CASE WHEN EXISTS (
    SELECT FROM approvals_alarm a
    WHERE a.kind = g.kind AND a.target_id = c.target AND a.mails > 0
      AND (a.ended_at IS NULL OR a.ended_at > g.now - g.more)
) THEN g.more ELSE g.first END, 0, 0, ''
FROM given g,
     jsonb_to_recordset(%(cases)s::jsonb) AS c(target bigint, "grant" bigint, text text)
ON CONFLICT DO NOTHING
RETURNING target_id, grant_id
"""


@dataclass(frozen=True, kw_only=True)
class _Case:
    """Something an alarm is about: a grant, or a target as it was last compared."""

    target: int
    grant: int | None
    text: str
    subject: Auditable


Rows = QuerySet[Any]


def _grants(rows: Rows) -> Rows:
    return rows.select_related("level", "target", "beneficiary")


# An abandoned grant stays overdue and stuck: it has one alarm, which says the worst of it.
GRANTS: Final[Mapping[AlarmKind, Callable[[], Rows]]] = {
    AlarmKind.OVERDUE: lambda: Grant.objects.overdue().filter(abandoned_at__isnull=True),
    AlarmKind.STUCK: lambda: Grant.objects.stuck().filter(abandoned_at__isnull=True),
    AlarmKind.ABANDONED: lambda: Grant.objects.abandoned(),
}
TARGETS: Final[Mapping[AlarmKind, Callable[[], Rows]]] = {
    AlarmKind.STRANGE: lambda: Reconciliation.objects.filter(~Q(findings=[]) | _not_compared()),
    AlarmKind.HELD_BACK: lambda: Reconciliation.objects.filter(held_back_since__isnull=False),
}


def _not_compared() -> Q:
    """It keeps failing: a single failure is a target that restarts."""
    long_ago = clock.DbNow() - NOT_COMPARED
    never = Q(ran_at__isnull=True, target__created_at__lte=long_ago)
    return Q(last_error__gt="") & (Q(ran_at__lte=long_ago) | never)


def keep() -> int:
    """Open the alarms that are missing and end those that are over; returns how many.

    Any number of processes may do so at once. Each kind is looked at in a transaction of its own,
    its statements within TIME_LIMIT. Never raises: what fails is logged and looked at again.
    """
    return sum(_kept(kind) for kind in AlarmKind)


def _kept(kind: AlarmKind) -> int:
    try:
        with transaction.atomic(), log.batch():
            with connection.cursor() as cursor:
                cursor.execute("SELECT set_config('statement_timeout', %s, true)", [TIME_LIMIT])
            return _end(kind) + _raise(kind)
    except Exception:
        logger.exception("alarms could not be looked after", kind=str(kind))
        return 0


def _raise(kind: AlarmKind) -> int:
    """Open what is missing. Of two processes at once, one does it and records it."""
    cases = _missing_on_grants(kind) if kind in GRANTS else _missing_on_targets(kind)
    if not cases:
        return 0
    now = clock.now()
    opened = _insert(kind, cases, now)
    for case in cases:
        if (case.target, case.grant) in opened:
            log.record(
                "alarm.raised",
                actor=SYSTEM,
                subject=case.subject,
                at=now,
                kind=str(kind),
                text=case.text,
            )
    return len(opened)


def _insert(kind: AlarmKind, cases: Sequence[_Case], now: datetime) -> set[tuple[int, int | None]]:
    rows = [{"target": c.target, "grant": c.grant, "text": c.text} for c in cases]
    values: dict[str, Any] = {
        "kind": str(kind),
        "now": now,
        "first": FIRST_MAIL_AFTER,
        "more": MORE_MAIL_AFTER,
        "cases": json.dumps(rows),
    }
    with connection.cursor() as cursor:
        cursor.execute(RAISE, values)
        return {(target, grant) for target, grant in cursor.fetchall()}


def _missing_on_grants(kind: AlarmKind) -> list[_Case]:
    there = Alarm.objects.filter(kind=kind, grant=OuterRef("pk"), ended_at__isnull=True)
    rows = _grants(GRANTS[kind]()).filter(~Exists(there)).order_by("expires_at", "pk")[:MOST]
    return [
        _Case(
            target=grant.target_id,
            grant=grant.pk,
            text=alarm_words.of_grant(kind, grant),
            subject=grant,
        )
        for grant in rows
    ]


def _missing_on_targets(kind: AlarmKind) -> list[_Case]:
    there = Alarm.objects.filter(kind=kind, target=OuterRef("target"), ended_at__isnull=True)
    rows = TARGETS[kind]().filter(~Exists(there)).select_related("target")[:MOST]
    return [
        _Case(
            target=row.target_id,
            grant=None,
            text=alarm_words.of_target(kind, row),
            subject=row.target,
        )
        for row in rows
    ]


def _end(kind: AlarmKind) -> int:
    """End what is over. Those who were told of it are told of that as well."""
    still = (
        Q(grant__in=GRANTS[kind]().values("pk"))
        if kind in GRANTS
        else Q(target__in=TARGETS[kind]().values("target"))
    )
    over = list(
        Alarm.objects.filter(~still, kind=kind, ended_at__isnull=True)
        .select_for_update(of=("self",), skip_locked=True)
        .select_related("target", "grant__level", "grant__target", "grant__beneficiary")[:MOST]
    )
    now = clock.now()
    for alarm in over:
        alarm.ended_at = now
        alarm.next_mail_at = now + OVER_MAIL_AFTER if alarm.mails else None
        alarm.failures, alarm.last_error = 0, ""
        _record_end(alarm, now)
    Alarm.objects.bulk_update(over, ["ended_at", "next_mail_at", "failures", "last_error"])
    return len(over)


def _record_end(alarm: Alarm, now: datetime) -> None:
    log.record(
        "alarm.ended",
        actor=SYSTEM,
        subject=alarm.grant or alarm.target,
        at=now,
        kind=alarm.kind,
        text=alarm.text,
        lasted_s=int((now - alarm.began_at).total_seconds()),
        mails=alarm.mails,
    )
