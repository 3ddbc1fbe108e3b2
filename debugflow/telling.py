"""Sentences for what happens to accounts and groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from approvals.sentences import naming, saying, tell_also

if TYPE_CHECKING:
    from audit.models import Event


def _not_signed_in(event: Event, data: dict[str, Any]) -> str:
    return f"tried to sign in as {event.subject_label or 'nobody'} and was refused"


def _throttled(event: Event, data: dict[str, Any]) -> str:
    return f"tried to sign in as {event.subject_label or 'nobody'} too often and has to wait"


tell_also(
    {
        "account.signed_in": saying("signed in"),
        "account.signed_out": saying("signed out"),
        "account.sign_in_failed": _not_signed_in,
        "account.sign_in_throttled": _throttled,
        "account.password_changed": saying("changed their password"),
        "account.created": naming("added the account"),
        "account.changed": naming("changed the account"),
        "group.created": naming("added the group"),
        "group.changed": naming("changed the group"),
        "group.deleted": naming("deleted the group"),
    }
)
