"""The names of everything this package writes into the audit log. An undeclared one is refused."""

from __future__ import annotations

from typing import Final

from approvals.states import GrantState, RequestState, StageState
from audit.actions import declare

MOVES: Final = (
    *(f"accessrequest.{state}" for state in RequestState),
    *(f"requeststage.{state}" for state in StageState),
    *(f"grant.{state}" for state in GrantState),
)
VERBS: Final = (
    "accessrequest.submitted",
    "accessrequest.rescoped",
    "accessrequest.reevaluated",
    "accessrequest.edited",
    "vote.cast",
    "vote.replaced",
    "vote.voided",
    "vote.carried",
    "comment.added",
    "grant.attempt_failed",
    "grant.cut",
    "grant.revealed",
    "grant.quarantined",
    "grant.tried_again",
    "grant.abandon_asked",
    "grant.abandon_voided",
    "grant.abandoned",
    "target.created",
    "target.changed",
    "accesslevel.created",
    "accesslevel.changed",
    "policy.changed",
    "policy.published",
    "target.deleted",
    "accesslevel.deleted",
    "policy.deleted",
    "permissions.changed",
    "target.drifted",
    "review.opened",
    "review.reminded",
    "review.overdue",
    "review.done",
    "session.ended_elsewhere",
    "reconciliation.removed",
    "reconciliation.quarantined",
    "reconciliation.held_back",
    "reconciliation.allowed",
    "reconciliation.failed",
    "installation.restored",
    "installation.settled",
    "alarm.raised",
    "alarm.ended",
    "secrets.rotated",
    "service.made",
    "token.made",
    "token.revoked",
    "token.used",
)
REFUSALS: Final = (
    "submit.refused",
    "emergency.refused",
    "review.refused",
    "vote.refused",
    "send_back.refused",
    "edit.refused",
    "cancel.refused",
    "comment.refused",
    "release.refused",
    "revoke.refused",
    "expire.refused",
    "reveal.refused",
    "try_again.refused",
    "abandon.refused",
    "reconciliation.refused",
    "administration.refused",
    "token.make_refused",
    "token.revoke_refused",
    "token.refused",
)

declare(*MOVES, *VERBS, *REFUSALS)
