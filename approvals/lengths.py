"""Lengths of time in words, for pages, messages and mails alike."""

from __future__ import annotations

from datetime import timedelta


def lasting(seconds: int) -> str:
    """A length of time in words: “45 s”, “90 min”, “4 h”, “2 h 30 min”, “3 days”.

    Never rounded: what is shown is what was asked for.
    """
    if seconds % 86400 == 0 and seconds > 86400:
        return f"{seconds // 86400} days"
    if seconds % 60 == 0 and 3600 < seconds < 7200:
        return f"{seconds // 60} min"
    hours, rest = divmod(seconds, 3600)
    minutes, left = divmod(rest, 60)
    parts = [(hours, "h"), (minutes, "min"), (left, "s")]
    return " ".join(f"{count} {unit}" for count, unit in parts if count) or "0 s"


def apart(length: timedelta) -> str:
    """A distance in time in its natural unit: “a moment”, “12 min”, “3 h”, “5 days”."""
    seconds = abs(length.total_seconds())
    if seconds < 45:
        return "a moment"
    if seconds < 2 * 3600:
        return f"{max(1, round(seconds / 60))} min"
    if seconds < 2 * 86400:
        return f"{round(seconds / 3600)} h"
    return f"{round(seconds / 86400)} days"
