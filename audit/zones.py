"""The time zone that somebody reads and writes times in."""

from __future__ import annotations

from zoneinfo import ZoneInfo, ZoneInfoNotFoundError


def zone_of(person: object) -> ZoneInfo:
    """The person's own time zone; UTC for whoever has none, or one that does not exist."""
    try:
        return ZoneInfo(getattr(person, "time_zone", "") or "UTC")
    except (ValueError, OSError, ZoneInfoNotFoundError):
        return ZoneInfo("UTC")
