"""Sentences for what happens to accounts and groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from approvals.sentences import REASONS, naming, saying, tell_also

if TYPE_CHECKING:
    from audit.models import Event


def _not_signed_in(event: Event, data: dict[str, Any]) -> str:
    return f"tried to sign in as {event.subject_label or 'nobody'} and was refused"


def _throttled(event: Event, data: dict[str, Any]) -> str:
    return f"tried to sign in as {event.subject_label or 'nobody'} too often and has to wait"


def _time_zone(event: Event, data: dict[str, Any]) -> str:
    return f"has times shown in {data.get('after') or 'another zone'} from now on"


def _no_time_zone(event: Event, data: dict[str, Any]) -> str:
    reason = REASONS.get(str(data.get("code") or ""), "there is none of that name")
    return f"tried to change the time zone of {event.subject_label} and was refused: {reason}"


def _renamed(event: Event, data: dict[str, Any]) -> str:
    return f"gave {data.get('before') or 'an account'} the name {event.subject_label}"


tell_also(
    {
        "account.signed_in": saying("signed in"),
        "account.signed_out": saying("signed out"),
        "account.sign_in_failed": _not_signed_in,
        "account.sign_in_throttled": _throttled,
        "token.tries_throttled": saying("showed too many tokens that nobody has, and has to wait"),
        "account.password_changed": saying("changed their password"),
        "account.time_zone_changed": _time_zone,
        "time_zone.refused": _no_time_zone,
        "account.renamed": _renamed,
        "account.password_reset": naming("set a new password for"),
        "account.created": naming("added the account"),
        "account.changed": naming("changed the account"),
        "group.created": naming("added the group"),
        "group.changed": naming("changed the group"),
        "group.deleted": naming("deleted the group"),
    }
)
