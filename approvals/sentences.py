"""What happened, told as sentences: one for every action that `events` declares.

Plain text for pages, mails and chat alike; what they look like is the templates' business.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from approvals.lengths import lasting
from approvals.states import EndReason

if TYPE_CHECKING:
    from approvals.models import AccessRequest
    from audit.models import Event

Teller = Callable[["Event", dict[str, Any]], str]

VOTED: Final = {"approve": "approved", "deny": "denied"}
STEPS: Final = {"open": "opening it", "cut": "cutting it off", "clean": "cleaning up"}
# Why a verb said no, by its reason code, to follow "and was refused: ".
REASONS: Final = {
    "already_counted": "their vote counts in another stage",
    "asked_already": "the same is asked already",
    "gone": "it does not exist",
    "grants_open": "access there has not ended",
    "in_use": "others refer to it",
    "invalid": "what was entered cannot be used",
    "needed_later": "a later stage needs them",
    "newer_version": "somebody else had published meanwhile",
    "no_level": "there is no such level",
    "no_policy": "no policy governs it",
    "no_sign_in": "the new secret does not sign in",
    "not_admin": "they do not administer it",
    "not_allowed": "they may not",
    "not_checked": "the level has not been checked on its target",
    "not_eligible": "they are not asked here",
    "not_requestable": "they may not ask for it",
    "not_yours": "it is not theirs",
    "scope_changed": "what is asked for had changed since they looked",
    "self_approval": "nobody decides about themselves",
    "unfillable": "nobody could decide it",
    "unknown_kind": "there is no such kind of target",
    "unpublishable": "the policy could not work",
    "unsafe_level": "the level is unsafe to hand out",
    "unverified": "another system could stand in the target's place",
    "voted_already": "they had voted already",
    "wrong_stage": "another stage is open",
    "wrong_state": "it was too late",
}


def event_sentence(event: Event) -> str:
    """`event` as one sentence with its actor in it; an unknown action is shown by its name."""
    tell = TELLERS.get(event.action)
    who = event.actor_name or "Somebody"
    words = tell(event, event.data) if tell else f"did “{event.action}”"
    return f"{who} {words}."


def headline(request: AccessRequest) -> str:
    """“alice asks for read-only on orders for 1 h”."""
    asks = f"{request.requester} asks"
    if request.beneficiary_id != request.requester_id:
        asks += f", for {request.beneficiary},"
    level, target = request.level.name, request.target.name
    return f"{asks} for {level} on {target} for {lasting(request.duration)}"


def _constant(words: str) -> Teller:
    return lambda event, data: words


def _with_note(words: str) -> Teller:
    def tell(event: Event, data: dict[str, Any]) -> str:
        note = str(data.get("note") or "").rstrip(".")
        return f"{words}: {note}" if note else words

    return tell


def _stage(words: str) -> Teller:
    return lambda event, data: words.format(stage=event.subject_label)


def _voted(event: Event, data: dict[str, Any]) -> str:
    return f"{VOTED.get(data.get('decision', ''), 'voted')} in “{data.get('stage', '')}”"


def _voted_anew(event: Event, data: dict[str, Any]) -> str:
    before, now = (VOTED.get(data.get(key, ""), "voted") for key in ("before", "decision"))
    stage = data.get("stage", "")
    if before == now:
        return f"{now} again in “{stage}”"
    return f"changed their vote in “{stage}” from {before} to {now}"


def _ending(event: Event, data: dict[str, Any]) -> str:
    reason = str(data.get("reason") or "")
    why = EndReason(reason).label.lower() if reason in EndReason.values else "it is over"
    note = str(data.get("note") or "").rstrip(".")
    return f"began to close the access: {why}" + (f". {note}" if note else "")


def _ended(event: Event, data: dict[str, Any]) -> str:
    reason = str(data.get("reason") or "")
    why = EndReason(reason).label.lower() if reason in EndReason.values else "it is over"
    if data.get("account"):
        return f"read the target back: {data['account']} is gone ({why})"
    return f"ended the access before it opened ({why})"


def _cut(event: Event, data: dict[str, Any]) -> str:
    late = int(data.get("late_ms") or 0) / 1000
    return f"cut the access off {late:.1f} s after its end: no session, no sign-in"


def _opened(event: Event, data: dict[str, Any]) -> str:
    return f"opened the access as {data.get('account') or 'an account of its own'}"


def _attempt_failed(event: Event, data: dict[str, Any]) -> str:
    step = STEPS.get(str(data.get("step")), "working on it")
    error = str(data.get("error") or data.get("code") or "no reason given").rstrip(".")
    return f"failed at {step}, attempt {data.get('attempt', 1)}: {error}"


def _rescoped(event: Event, data: dict[str, Any]) -> str:
    changed = ", ".join(map(str, data.get("changed") or [])) or "the scope"
    return f"changed what is asked for ({changed}), so the chain began anew"


def _voided(event: Event, data: dict[str, Any]) -> str:
    why = "its author had left" if data.get("reason") == "left" else "what it was for has changed"
    return f"made the vote of {data.get('voter', 'somebody')} void: {why}"


def _submitted(event: Event, data: dict[str, Any]) -> str:
    version = event.policy_version or data.get("policy_version")
    what = event.subject_label.removesuffix(f" for {event.actor_name}")
    return f"asked for {what}" + (f" under {version}" if version else "")


def _refused(tried: str) -> Teller:
    def tell(event: Event, data: dict[str, Any]) -> str:
        code = str(data.get("code") or "")
        return f"tried to {tried} and was refused: {REASONS.get(code, code or 'no reason given')}"

    return tell


def _named(words: str) -> Teller:
    return lambda event, data: f"{words} {event.subject_label}"


TELLERS: Final[dict[str, Teller]] = {
    "accessrequest.submitted": _submitted,
    "accessrequest.pending": _constant("put the request back to be decided"),
    "accessrequest.changes_requested": _with_note("asked for changes"),
    "accessrequest.approved": _constant("completed the chain: approved"),
    "accessrequest.denied": _with_note("ended the request: denied"),
    "accessrequest.cancelled": _with_note("cancelled the request"),
    "accessrequest.expired": _with_note("closed the request"),
    "accessrequest.bypassed": _with_note("took emergency access without a chain"),
    "accessrequest.rescoped": _rescoped,
    "requeststage.waiting": _stage("put “{stage}” back to wait"),
    "requeststage.open": _stage("opened “{stage}” for votes"),
    "requeststage.passed": _stage("filled the last place in “{stage}”"),
    "requeststage.denied": _stage("ended “{stage}” with a denial"),
    "requeststage.skipped": _stage("skipped “{stage}”"),
    "requeststage.closed": _stage("closed “{stage}” undecided"),
    "vote.cast": _voted,
    "vote.replaced": _voted_anew,
    "vote.voided": _voided,
    "grant.scheduled": _constant("scheduled the access"),
    "grant.provisioning": _constant("began to open the access"),
    "grant.active": _opened,
    "grant.revoking": _ending,
    "grant.cut": _cut,
    "grant.ended": _ended,
    "grant.attempt_failed": _attempt_failed,
    "grant.revealed": _constant("was shown the credential, once"),
    "target.created": _named("added the target"),
    "target.changed": _named("changed the target"),
    "accesslevel.created": _named("added the level"),
    "accesslevel.changed": _named("changed the level"),
    "policy.changed": _named("changed the policy"),
    "policy.published": _named("published a new version of the policy"),
    "target.deleted": _named("deleted the target"),
    "accesslevel.deleted": _named("deleted the level"),
    "policy.deleted": _named("deleted the policy"),
    "permissions.changed": _named("changed who may do what on"),
    "submit.refused": _refused("ask for access"),
    "vote.refused": _refused("vote"),
    "cancel.refused": _refused("cancel the request"),
    "release.refused": _refused("release the access"),
    "revoke.refused": _refused("revoke the access"),
    "expire.refused": _refused("close the request"),
    "reveal.refused": _refused("see the credential"),
    "administration.refused": _refused("change the set-up"),
}
