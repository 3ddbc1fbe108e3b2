"""What happened, told as sentences: one for every action that `events` declares.

Plain text for pages, mails and chat alike; what they look like is the templates' business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from approvals.lengths import lasting
from approvals.states import EndReason, RequestState, ReviewOutcome
from audit.looking import SEARCHED

if TYPE_CHECKING:
    from approvals.models import AccessRequest
    from audit.models import Event

Teller = Callable[["Event", dict[str, Any]], str]

VOID_REASONS: Final = {
    "left": "its author had left",
    "reduced_level_changed": "the lower level that it was for is not what it was",
    "begun_anew": "the chain begins anew",
    "policy_changed": "the policy asks others now",
}
EDITED: Final = {
    "duration": "how long it lasts",
    "reason": "why it is needed",
    "ticket": "the ticket",
    "starts_at": "when it starts",
}
VOTED: Final = {"approve": "approved", "deny": "denied"}
STEPS: Final = {
    "open": "opening it",
    "extend": "extending it",
    "cut": "cutting it off",
    "clean": "cleaning up",
}
# Why a verb said no, by its reason code, to follow "and was refused: ".
REASONS: Final = {
    "already_counted": "they are counted already",
    "asked_already": "the same is asked already",
    "gone": "it does not exist",
    "circle": "the votes would come back to whose they are",
    "delegated_already": "they are lent already",
    "changed_since": "what it was about had changed since they looked",
    "grants_open": "access there has not ended",
    "in_use": "others refer to it",
    "invalid": "what was entered cannot be used",
    "key_in_progress": "the first call with this key is under way",
    "key_lost": "whether the first call with this key was done is not known",
    "key_reused": "this key was used for another call",
    "made_already": "it had just been made",
    "needed_later": "a later stage needs them",
    "newer_version": "somebody else had published meanwhile",
    "no_extensions": "its policy allows no longer access",
    "no_level": "there is no such level",
    "no_policy": "no policy governs it",
    "no_sign_in": "the new secret does not sign in",
    "not_admin": "they do not administer it",
    "not_allowed": "they may not",
    "not_checked": "the level has not been checked on its target",
    "not_eligible": "they are not asked here",
    "not_less": "that is no less than was asked, or cannot be given",
    "not_lent": "no vote of theirs was lent",
    "not_requestable": "they may not ask for it",
    "not_stuck": "closing it had not failed for long enough",
    "not_yours": "it is not theirs",
    "review_open": "their last emergency has not been looked back at",
    "secret_in_proposal": "a secret is not kept until somebody agrees",
    "scope_changed": "what is asked for had changed since they looked",
    "self_abandon": "nobody gives up closing access of their own",
    "self_approval": "nobody decides about themselves",
    "slack_button": "its button was not made for them",
    "slack_elsewhere": "it came from another Slack workspace",
    "slack_inactive": "their account is switched off",
    "slack_unknown": "no account is connected to that Slack account",
    "step_up_required": "they had not proved who they are",
    "self_delegation": "nobody takes another's votes for themselves",
    "self_redraw": "nobody chooses who decides about themselves",
    "token_expired": "the token has expired",
    "token_inactive": "the token's account is switched off",
    "token_revoked": "the token was revoked",
    "token_risk": "so much is decided on its page only",
    "token_unknown": "there is no such token",
    "too_many_pending": "too many requests wait under it",
    "unchanged": "nothing was changed",
    "too_early": "it is not near its end yet",
    "unfillable": "nobody could decide it",
    "unknown_kind": "there is no such kind of target",
    "unpublishable": "the policy could not work",
    "unsafe_level": "the level is unsafe to hand out",
    "unverified": "another system could stand in the target's place",
    "used_up": "it may not be extended again",
    "voted_already": "they had voted already",
    "wrong_stage": "another stage is open",
    "wrong_state": "it was too late",
}

# The embedding, override and isolate controls of Unicode's bidirectional algorithm (UAX #9).
OVERRIDES = dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A)], "\u2426")


def event_sentence(event: Event) -> str:
    """`event` as one sentence with its actor in it; an unknown action is shown by its name."""
    tell = TELLERS.get(event.action)
    who = event.actor_name or "Somebody"
    words = tell(event, event.data) if tell else f"did “{event.action}”"
    return unspoofed(f"{who} {words}{_as_proposed(event)}.")


def _as_proposed(event: Event) -> str:
    """Who proposed what somebody agreed to. Votes, and proposals themselves, say whose they are."""
    if not event.on_behalf_of_name or event.action.startswith(("vote.", "proposal.")):
        return ""
    return f", as {event.on_behalf_of_name} had proposed"


def unspoofed(text: str) -> str:
    """Other people's text with its direction overrides made visible: they hide what is written.

    The letters of right-to-left scripts need none, and stay as they are.
    """
    return text.translate(OVERRIDES)


def tell_also(tellers: Mapping[str, Teller]) -> None:
    """Tell of other packages' actions, too. Raises ValueError for one that is told already."""
    if twice := TELLERS.keys() & tellers.keys():
        raise ValueError(f"told twice: {', '.join(sorted(twice))}")
    TELLERS.update(tellers)


def headline(request: AccessRequest) -> str:
    """“alice asks for read-only on orders for 1 h”."""
    what = f"{request.level.name} on {request.target.name} for {lasting(request.duration)}"
    if request.state == RequestState.BYPASSED:
        return f"{request.requester} opened {what} without approval"
    asks = f"{request.requester} asks"
    if request.beneficiary_id != request.requester_id:
        asks += f", for {request.beneficiary},"
    if request.extends_id:
        longer = f"{lasting(request.duration)} more of {request.level.name}"
        return f"{asks} for {longer} on {request.target.name}"
    return f"{asks} for {what}"


def saying(words: str) -> Teller:
    return lambda event, data: words


def _with_note(words: str) -> Teller:
    def tell(event: Event, data: dict[str, Any]) -> str:
        return f"{words}{_in_their_words(data)}"

    return tell


def _in_their_words(data: dict[str, Any]) -> str:
    """A note, told apart from the sentence: it may read like one of ours."""
    note = str(data.get("note") or "").rstrip(".")
    return f": “{note}”" if note else ""


def _stage(words: str) -> Teller:
    return lambda event, data: words.format(stage=event.subject_label)


def _voted(event: Event, data: dict[str, Any]) -> str:
    said = VOTED.get(data.get("decision", ""), "voted")
    return f"{said}{_only(data)}{_for_whom(event)} in “{data.get('stage', '')}”"


def _only(data: dict[str, Any]) -> str:
    """“ only 30 min of read-only”, where it was approved with less."""
    less = data.get("less") or {}
    return f" only {amount(less.get('duration'), less.get('level', ''))}" if less else ""


def amount(duration: int | None, level: str) -> str:
    """“30 min of read-only”, or either of them."""
    parts = [lasting(int(duration)) if duration else "", level]
    return " of ".join(filter(None, parts))


def _for_whom(event: Event) -> str:
    return f" for {event.on_behalf_of_name}" if event.on_behalf_of_name else ""


def _voted_anew(event: Event, data: dict[str, Any]) -> str:
    before, now = (VOTED.get(data.get(key, ""), "voted") for key in ("before", "decision"))
    stage = data.get("stage", "")
    whom = _for_whom(event)
    if before == now:
        again = " all that was asked" if data.get("before_less") else " again"
        return f"{now}{_only(data) or again}{whom} in “{stage}”"
    whose = f"the vote of {event.on_behalf_of_name}" if whom else "their vote"
    return f"changed {whose} in “{stage}” from {before} to {now}"


def _ending(event: Event, data: dict[str, Any]) -> str:
    reason = str(data.get("reason") or "")
    why = EndReason(reason).label.lower() if reason in EndReason.values else "it is over"
    return f"began to close the access, {why}{_in_their_words(data)}"


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


def _agreed(event: Event, data: dict[str, Any]) -> str:
    if note := str(data.get("note") or "").rstrip("."):
        return f"approved it: {note[0].lower()}{note[1:]}"
    return "completed the chain: approved"


def _scheduled(event: Event, data: dict[str, Any]) -> str:
    less = data.get("less") or {}
    what = amount(less.get("duration"), less.get("level", ""))
    return f"scheduled the access: {what}, less than was asked" if less else "scheduled the access"


def _extending(event: Event, data: dict[str, Any]) -> str:
    longer, number = _longer(data, "until"), data.get("number", 1)
    less = ", less than was asked" if data.get("less") else ""
    return f"agreed that the access goes on for {longer} more{less}, extension {number}"


def _extended(event: Event, data: dict[str, Any]) -> str:
    return f"extended the access by {_longer(data, 'expires_at')}: the target has the later end"


def _bridged(event: Event, data: dict[str, Any]) -> str:
    length = _longer(data, "until")
    return f"lets the access go on for {length}, once: the decision about more of it is out"


def _bridge_ended(event: Event, data: dict[str, Any]) -> str:
    return "put the end of the access back: longer access was not agreed to"


def _given_up(event: Event, data: dict[str, Any]) -> str:
    return f"gave up extending the access, which ends as it was to{_in_their_words(data)}"


def _longer(data: dict[str, Any], later: str) -> str:
    """From the end before to the later one, both as the log keeps times."""
    try:
        ends = [datetime.fromisoformat(str(data.get(name))) for name in ("before", later)]
    except ValueError:
        return "longer"
    return lasting(round((ends[1] - ends[0]).total_seconds()))


def _abandoned(event: Event, data: dict[str, Any]) -> str:
    others = ", ".join(map(str, data.get("others") or [])) or "somebody"
    words = f"and {others} abandoned it: unsafe, tried every hour from now on"
    return f"{words}{_in_their_words(data)}"


def _abandon_voided(event: Event, data: dict[str, Any]) -> str:
    left = data.get("reason") == "left"
    why = "they could not ask it now" if left else "what they had given up on was over"
    return f"took no account of {data.get('person', 'somebody')} asking to abandon it: {why}"


def _token_used(event: Event, data: dict[str, Any]) -> str:
    called = f"{data.get('method') or ''} {data.get('path') or ''}".strip()
    words = f"used the token {event.subject_label}"
    return f"{words} for {called}" if called else words


def _used_slack(event: Event, data: dict[str, Any]) -> str:
    return f"pressed “{data.get('did') or 'something'}” in Slack as {event.subject_label}"


def _slack_asked(event: Event, data: dict[str, Any]) -> str:
    return f"had a code sent to the Slack account {data.get('member') or ''}".rstrip()


def _slack_ill(event: Event, data: dict[str, Any]) -> str:
    return f"found that Slack takes nothing any more: {data.get('because') or 'it says not why'}"


def _token_revoked(event: Event, data: dict[str, Any]) -> str:
    words = f"revoked the token {event.subject_label}"
    return f"{words}, with the new password" if data.get("because") else words


def _searched(event: Event, data: dict[str, Any]) -> str:
    terms = str(data.get("searched") or "")
    words = f"searched the audit log for {terms}" if terms else "looked at the audit log"
    where = data.get("where")
    return f"{words}, {where}" if where else words


QUARANTINED: Final = {
    "quarantined": "took over {n} that the holder had made",
    "disarmed": "made {n} run as their caller that ran as their owner",
    "dropped": "dropped {n} that could belong to nobody else",
}


def _quarantined(event: Event, data: dict[str, Any]) -> str:
    parts = []
    for key, words in QUARANTINED.items():
        found = data.get(key) or {}
        if count := int(found.get("count") or 0):
            names = ", ".join(map(str, found.get("names") or []))
            more = count - len(found.get("names") or [])
            what = "1 thing" if count == 1 else f"{count} things"
            parts.append(f"{words.format(n=what)} ({names}{f' and {more} more' if more else ''})")
    return "; ".join(parts) or "looked after what the holder had made"


def _attempt_failed(event: Event, data: dict[str, Any]) -> str:
    step = STEPS.get(str(data.get("step")), "working on it")
    error = str(data.get("error") or data.get("code") or "no reason given").rstrip(".")
    return f"failed at {step}, attempt {data.get('attempt', 1)}: {error}"


def _rescoped(event: Event, data: dict[str, Any]) -> str:
    changed = ", ".join(map(str, data.get("changed") or [])) or "the scope"
    return f"changed what is asked for ({changed}), so the chain began anew"


def _begun_anew(event: Event, data: dict[str, Any]) -> str:
    levels = " and ".join(map(str, data.get("levels") or [])) or "a level"
    return f"changed {levels}, which had been approved instead, so the chain began anew"


def _reevaluated(event: Event, data: dict[str, Any]) -> str:
    return f"put it under {event.policy_version} instead of {data.get('before', 'another')}"


def _edited(event: Event, data: dict[str, Any]) -> str:
    after = data.get("after") or {}
    names = [EDITED.get(name, name) for name in after]
    return f"changed {' and '.join(names) or 'what they ask for'}"


def _carried(event: Event, data: dict[str, Any]) -> str:
    who, voted = data.get("voter", "somebody"), VOTED.get(data.get("decision", ""), "voted")
    return f"let it stand in “{data.get('stage', '')}” that {who} {voted}"


def _voided(event: Event, data: dict[str, Any]) -> str:
    why = VOID_REASONS.get(str(data.get("reason")), "what it was for has changed")
    return f"made the vote of {data.get('voter', 'somebody')} void: {why}"


def _lent(words: str) -> Teller:
    def tell(event: Event, data: dict[str, Any]) -> str:
        lender, delegate = data.get("person") or "somebody", data.get("delegate") or "somebody"
        until = str(data.get("ends_at") or "")[:16].replace("T", " ")
        told = words.format(person=lender, delegate=delegate)
        return f"{told} (until {until} UTC){_in_their_words(data)}" if until else told

    return tell


def _lending_ended(event: Event, data: dict[str, Any]) -> str:
    lender, delegate = data.get("person") or "somebody", data.get("delegate") or "somebody"
    words = f"ended the lending of {lender}'s votes to {delegate}"
    return f"{words}: its time was over" if data.get("because") == "over" else words


def _reminded(event: Event, data: dict[str, Any]) -> str:
    skipped = int(data.get("skipped") or 0)
    words = f"reminded whoever can decide “{event.subject_label}”"
    if data.get("of"):
        words += f", {data.get('n')} of {data['of']}"
    return f"{words} ({skipped} before it missed)" if skipped else words


def _escalated(event: Event, data: dict[str, Any]) -> str:
    why = "nobody was left who could" if data.get("because") == "nobody_left" else "it took long"
    group = data.get("group") or "the escalation group"
    return f"asked {group} to decide “{event.subject_label}” as well{_newly(data)}: {why}"


def _newly(data: dict[str, Any]) -> str:
    added = data.get("added")
    if added is None:
        return ""
    return f" ({', '.join(map(str, added))})" if added else " (nobody who was not asked before)"


def _stood_in(event: Event, data: dict[str, Any]) -> str:
    group = data.get("group") or "the fallback group"
    lost = " and ".join(map(str, data.get("stands_in_for") or [])) or "whoever left"
    return f"let {group} stand in for {lost} in “{event.subject_label}”{_newly(data)}"


def _stalled(event: Event, data: dict[str, Any]) -> str:
    missing = " and ".join(map(str, data.get("missing") or []))
    words = f"found nobody left who can decide “{event.subject_label}”"
    return f"{words}: it lacks {missing}" if missing else words


def _redrawn(event: Event, data: dict[str, Any]) -> str:
    changed = "; ".join(filter(None, map(_drawn, data.get("stages") or [])))
    return f"drew anew who is asked: {changed or 'the same people'}"


def _drawn(stage: dict[str, Any]) -> str:
    added, left = (", ".join(map(str, stage.get(key) or [])) for key in ("added", "left"))
    parts = [f"{added} more" if added else "", f"no longer {left}" if left else ""]
    told = ", ".join(filter(None, parts))
    return f"in “{stage.get('name', '')}” {told}" if told else ""


def _submitted(event: Event, data: dict[str, Any]) -> str:
    version = event.policy_version or data.get("policy_version")
    what = event.subject_label.removesuffix(f" for {event.actor_name}")
    wanted = data.get("scope") or {}
    if wanted.get("extends"):
        what = f"{lasting(int(wanted.get('duration') or 0))} more of {what}"
    return f"asked for {what}" + (f" under {version}" if version else "")


def _refused(tried: str) -> Teller:
    def tell(event: Event, data: dict[str, Any]) -> str:
        code = str(data.get("code") or "")
        return f"tried to {tried} and was refused: {REASONS.get(code, code or 'no reason given')}"

    return tell


def _review_opened(event: Event, data: dict[str, Any]) -> str:
    due = str(data.get("due_at") or "")[:16].replace("T", " ")
    return f"asks for a look back at it by {due} UTC"


def _reviewed(event: Event, data: dict[str, Any]) -> str:
    outcome = str(data.get("outcome") or "")
    known = outcome in ReviewOutcome.values
    found = ReviewOutcome(outcome).label.lower() if known else "something"
    return f"looked back at it and found: {found}{_in_their_words(data)}"


def _alarm(words: str) -> Teller:
    return lambda event, data: f"{words}: {str(data.get('text') or '').rstrip('.')}"


def _rotated(event: Event, data: dict[str, Any]) -> str:
    return f"encrypted {data.get('rotated', 0)} stored secrets anew, under the newest key"


def _drifted(event: Event, data: dict[str, Any]) -> str:
    parts = [
        f"{label}: {'; '.join(map(str, data[key]))}"
        for key, label in (("new", "new"), ("over", "no longer"))
        if data.get(key)
    ]
    where = f"compared {event.subject_label} with what it should hold"
    return f"{where}. {'. '.join(parts)}" if parts else where


def _ended_elsewhere(event: Event, data: dict[str, Any]) -> str:
    address = data.get("address") or "the target's own host"
    account = data.get("account") or "an account"
    return f"ended a session of {account} from {address}, which is no gateway"


def _accounts(words: str) -> Teller:
    def tell(event: Event, data: dict[str, Any]) -> str:
        names = ", ".join(map(str, data.get("accounts") or [])) or "accounts"
        return words.format(names=names, target=event.subject_label)

    return tell


def _cleared_up(event: Event, data: dict[str, Any]) -> str:
    names = ", ".join(map(str, data.get("accounts") or [])) or "an account"
    return f"cleared up after {names} on {event.subject_label}: {_quarantined(event, data)}"


def _not_compared(event: Event, data: dict[str, Any]) -> str:
    error = str(data.get("error") or data.get("code") or "no reason given").rstrip(".")
    return f"failed to compare {event.subject_label} with what it should hold: {error}"


def _undelivered(event: Event, data: dict[str, Any]) -> str:
    error = str(data.get("error") or "no reason given").rstrip(".")
    return f"gave up telling {_told(data)}: {error}"


def _told(data: dict[str, Any]) -> str:
    return f"{data.get('recipient') or 'somebody'} by {data.get('channel') or 'a message'}"


ALONE: Final = {
    "console": "whoever has the server may",
    "nobody_else": "there is no second person yet",
}


def _effects(data: dict[str, Any]) -> str:
    return " ".join(map(str, data.get("effects") or [])).rstrip(".") or "it widens access"


def _proposed(event: Event, data: dict[str, Any]) -> str:
    return f"proposed: {event.subject_label}. What it widens: {_effects(data)}"


def _carried_out(event: Event, data: dict[str, Any]) -> str:
    proposer = data.get("proposer") or "somebody"
    return f"agreed to what {proposer} proposed, and did it: {event.subject_label}"


def _passed_over(event: Event, data: dict[str, Any]) -> str:
    because = str(data.get("because") or "")
    why = ALONE.get(because, because or "no reason given")
    return f"did alone what takes two, since {why}: {_effects(data)}"


def _of_proposal(words: str) -> Teller:
    def tell(event: Event, data: dict[str, Any]) -> str:
        proposer = data.get("proposer") or "somebody"
        told = words.format(proposer=proposer, what=event.subject_label)
        return f"{told}{_in_their_words(data)}"

    return tell


def _resent(event: Event, data: dict[str, Any]) -> str:
    return f"had a message sent again, to {_told(data)}"


def _switched_off(event: Event, data: dict[str, Any]) -> str:
    return f"switched off the webhook {event.subject_label}: {data.get('because') or 'it is gone'}"


def naming(words: str) -> Teller:
    return lambda event, data: f"{words} {event.subject_label}"


TELLERS: Final[dict[str, Teller]] = {
    "accessrequest.submitted": _submitted,
    "accessrequest.pending": saying("asked for it again"),
    "accessrequest.changes_requested": _with_note("asked for changes"),
    "accessrequest.approved": _agreed,
    "accessrequest.denied": _with_note("ended the request: denied"),
    "accessrequest.cancelled": _with_note("cancelled the request"),
    "accessrequest.expired": _with_note("closed the request"),
    "accessrequest.bypassed": _with_note("took emergency access without a chain"),
    "accessrequest.rescoped": _rescoped,
    "accessrequest.begun_anew": _begun_anew,
    "accessrequest.reevaluated": _reevaluated,
    "accessrequest.edited": _edited,
    "accessrequest.redrawn": _redrawn,
    "requeststage.reminded": _reminded,
    "requeststage.escalated": _escalated,
    "requeststage.stood_in": _stood_in,
    "requeststage.stalled": _stalled,
    "requeststage.revived": _stage("found somebody again who can decide “{stage}”"),
    "requeststage.waiting": _stage("put “{stage}” back to wait"),
    "requeststage.open": _stage("opened “{stage}” for votes"),
    "requeststage.passed": _stage("filled the last place in “{stage}”"),
    "requeststage.denied": _stage("ended “{stage}” with a denial"),
    "requeststage.skipped": _stage("skipped “{stage}”"),
    "requeststage.closed": _stage("closed “{stage}” undecided"),
    "vote.cast": _voted,
    "vote.replaced": _voted_anew,
    "vote.voided": _voided,
    "vote.carried": _carried,
    "comment.added": saying("commented"),
    "delegation.made": _lent("lent the votes of {person} to {delegate}"),
    "delegation.begun": _lent("began to let {delegate} vote for {person}"),
    "delegation.ended": _lending_ended,
    "grant.scheduled": _scheduled,
    "grant.provisioning": saying("began to open the access"),
    "grant.active": _opened,
    "grant.revoking": _ending,
    "grant.extending": _extending,
    "grant.extended": _extended,
    "grant.extension_given_up": _given_up,
    "grant.bridged": _bridged,
    "grant.bridge_ended": _bridge_ended,
    "grant.cut": _cut,
    "grant.ended": _ended,
    "grant.attempt_failed": _attempt_failed,
    "grant.quarantined": _quarantined,
    "grant.revealed": saying("was shown the credential, once"),
    "grant.tried_again": saying("asked for the next try at closing it to be made now"),
    "grant.abandon_asked": _with_note("asked to abandon it, which takes one more person"),
    "grant.abandon_voided": _abandon_voided,
    "grant.abandoned": _abandoned,
    "target.created": naming("added the target"),
    "target.changed": naming("changed the target"),
    "accesslevel.created": naming("added the level"),
    "accesslevel.changed": naming("changed the level"),
    "policy.changed": naming("changed the policy"),
    "policy.published": naming("published a new version of the policy"),
    "target.deleted": naming("deleted the target"),
    "accesslevel.deleted": naming("deleted the level"),
    "policy.deleted": naming("deleted the policy"),
    "permissions.changed": naming("changed who may do what on"),
    "proposal.proposed": _proposed,
    "proposal.carried_out": _carried_out,
    "proposal.denied": _of_proposal("denied what {proposer} proposed ({what})"),
    "proposal.withdrawn": _of_proposal("withdrew what they had proposed ({what})"),
    "proposal.expired": _of_proposal("closed what {proposer} proposed ({what}), undecided"),
    "proposal.failed": _of_proposal("agreed to what {proposer} proposed ({what}), in vain"),
    "four_eyes.in_force": saying("found a second superuser: what widens access takes two now"),
    "four_eyes.passed_over": _passed_over,
    "target.drifted": _drifted,
    "session.ended_elsewhere": _ended_elsewhere,
    "reconciliation.removed": _accounts("removed {names} from {target}, which nobody should have"),
    "reconciliation.quarantined": _cleared_up,
    "reconciliation.held_back": _accounts("removes nothing on {target} until allowed: {names}"),
    "reconciliation.allowed": _accounts("allowed {names} to be ended on {target}"),
    "reconciliation.failed": _not_compared,
    "installation.settled": saying("made the restored database fit to go on"),
    "installation.restored": saying(
        "confirmed that the database was restored here, so that removals go on"
    ),
    "review.opened": _review_opened,
    "review.reminded": saying("reminded those who have to look back at it"),
    "review.overdue": saying("asked the target's owners too, since nobody had looked back at it"),
    "review.done": _reviewed,
    "alarm.raised": _alarm("raised an alarm"),
    "alarm.ended": _alarm("ended an alarm"),
    "secrets.rotated": _rotated,
    "notice.reached_nobody": saying("found nobody who could be told of it"),
    "delivery.failed": _undelivered,
    "delivery.resent": _resent,
    "account.notifications_changed": saying("changed how they are told"),
    "webhookendpoint.created": naming("added the webhook"),
    "webhookendpoint.changed": naming("changed the webhook"),
    "webhookendpoint.secret_rotated": naming("made a new secret for the webhook"),
    "webhookendpoint.disabled": _switched_off,
    "webhookendpoint.deleted": naming("deleted the webhook"),
    "slackworkspace.created": naming("set up the Slack workspace"),
    "slackworkspace.changed": naming("changed the Slack workspace"),
    "slackworkspace.deleted": naming("removed the Slack workspace"),
    "slackworkspace.fell_ill": _slack_ill,
    "slackworkspace.recovered": saying("found that Slack takes messages again"),
    "slackaccount.asked": _slack_asked,
    "slackaccount.connected": naming("connected the Slack account"),
    "slackaccount.ended": naming("disconnected the Slack account"),
    "slackaccount.used": _used_slack,
    "slackworkspace.refused": _refused("change the Slack workspace"),
    "slackaccount.refused": _refused("use a Slack account"),
    "service.made": naming("made the account of a service,"),
    "token.made": naming("made a token of the API:"),
    "token.revoked": _token_revoked,
    "token.used": _token_used,
    "send_back.refused": _refused("send it back"),
    "edit.refused": _refused("change it"),
    "emergency.refused": _refused("open access without approval"),
    "review.refused": _refused("look back at it"),
    "token.refused": _refused("use a token"),
    "token.make_refused": _refused("make a token"),
    "token.revoke_refused": _refused("revoke a token"),
    SEARCHED: _searched,
    "submit.refused": _refused("ask for access"),
    "vote.refused": _refused("vote"),
    "comment.refused": _refused("say something"),
    "cancel.refused": _refused("cancel the request"),
    "extend.refused": _refused("ask for longer access"),
    "release.refused": _refused("release the access"),
    "revoke.refused": _refused("revoke the access"),
    "expire.refused": _refused("close the request"),
    "tend.refused": _refused("look after the request"),
    "redraw.refused": _refused("draw anew who is asked"),
    "delegate.refused": _refused("lend votes"),
    "end_delegation.refused": _refused("end a lending of votes"),
    "reveal.refused": _refused("see the credential"),
    "try_again.refused": _refused("have it tried again"),
    "abandon.refused": _refused("abandon it"),
    "reconciliation.refused": _refused("allow a removal"),
    "administration.refused": _refused("change the set-up"),
    "agree.refused": _refused("decide about a proposal"),
    "notifications.refused": _refused("change how somebody is told"),
    "resend.refused": _refused("have a message sent again"),
    "webhookendpoint.refused": _refused("change a webhook"),
}
