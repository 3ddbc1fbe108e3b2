"""How alarms are worded: what each begins with and keeps, and what is to be said of it by now.

When there is one is in `alarms`, who is told of it in `alarm_mails`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from approvals.mails import one_line
from approvals.models import Alarm, AlarmKind, Grant, Reconciliation

TEXT_MAX: Final = 500


def of_grant(kind: AlarmKind, grant: Grant) -> str:
    """“read-only for alice (dbgf_12) was to end on 1 Jan 2030, 10:00:00 UTC”."""
    who = f"{grant.level.name} for {grant.beneficiary} ({grant.account})"
    said = {
        AlarmKind.OVERDUE: f"was to end on {moment(grant.meant_to_end_at)}",
        AlarmKind.STUCK: f"cannot be ended, tried since {moment(grant.stuck_since)}",
        AlarmKind.ABANDONED: "was given up by two people and may still be open",
    }[kind]
    return one_line(f"{who} {said}")[:TEXT_MAX]


def of_target(kind: AlarmKind, row: Reconciliation) -> str:
    """What waits for consent; or why it cannot be compared, and what was found when it last was."""
    if kind == AlarmKind.HELD_BACK:
        words = [f"{len(row.held_back)} removals wait for consent: {', '.join(row.held_back)}"]
    else:
        words = [*_not_compared(row), *row.findings]
    return one_line("; ".join(words))[:TEXT_MAX]


def _not_compared(row: Reconciliation) -> list[str]:
    if not row.last_error:
        return []
    last = f"last on {moment(row.ran_at)}" if row.ran_at else "never yet"
    return [f"it cannot be compared with the ledger: {row.last_error} (compared {last})"]


def by_now(alarm: Alarm) -> str:
    """What has changed since its text was written, or nothing: the text keeps how it began."""
    if alarm.grant is not None:
        return f"Last error: {one_line(alarm.grant.last_error)}" if alarm.grant.last_error else ""
    row = Reconciliation.objects.filter(target=alarm.target_id).first()
    now = of_target(AlarmKind(alarm.kind), row) if row else ""
    return "" if now in ("", alarm.text) else f"By now: {now}"


def moment(at: datetime | None) -> str:
    """A moment in words, in UTC: whoever reads a mail may be anywhere."""
    return f"{at.astimezone(UTC):%d %b %Y, %H:%M:%S} UTC" if at else "an unknown moment"
