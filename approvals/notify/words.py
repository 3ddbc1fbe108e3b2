"""What people are told of each fact: a sentence, what they can do next, and what somebody wrote.

Plain text; each channel escapes it in its own way. Other people's text is one harmless line by
then. What somebody wrote stands apart, since not every channel is to have it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from django.urls import reverse

from approvals import alarm_words, reductions
from approvals.lengths import apart, lasting
from approvals.mails import one_line
from approvals.models import Decision, Vote
from approvals.notify.case import Case
from approvals.sentences import VOTED, headline, unspoofed
from approvals.states import EndReason, RequestState, StageState

QUOTE_MAX: Final = 300  # characters of what somebody wrote; its page has it whole


@dataclass(frozen=True, kw_only=True)
class Words:
    """A sentence without its full stop, a next step with one, and a quotation or nothing."""

    text: str
    step: str
    quote: str = ""


def harmless(text: str, most: int = QUOTE_MAX) -> str:
    """One line that neither forges another nor hides what is written, cut to length."""
    line = one_line(unspoofed(text))
    return line if len(line) <= most else f"{line[: most - 1]}…"


def asked(case: Case) -> Words:
    stage, request = case.stage, case.asked
    ends = [at for at in (stage.deadline_at, request.pending_until) if at]
    return Words(
        text=headline(request),
        step=f"Approve or deny it in “{stage.name}”, by {alarm_words.moment(min(ends))}.",
        quote=request.reason,
    )


def reminded(case: Case) -> Words:
    told = asked(case)
    return Words(text=f"Still to be decided: {told.text}", step=told.step, quote=told.quote)


def escalated(case: Case) -> Words:
    told = asked(case)
    return Words(
        text=f"Not decided by those asked first: {told.text}", step=told.step, quote=told.quote
    )


def stalled(case: Case) -> Words:
    return Words(
        text=f"Nobody is left who can decide “{case.stage.name}”: {headline(case.asked)}",
        step="Bring somebody back into its groups, or draw its candidates anew.",
    )


def voted(case: Case) -> Words:
    said = VOTED.get(str(case.data.get("decision")), "voted on")
    return Words(
        text=f"{case.actor_name} {said} {_what(case)}",
        step="Its page shows who else is asked.",
        quote=str(case.data.get("comment") or ""),
    )


ENDED_STAGE: Final = {
    StageState.PASSED: "“{stage}” has passed without you",
    StageState.DENIED: "It was denied",
}
ENDED_REQUEST: Final = {
    RequestState.CANCELLED: "It was taken back",
    RequestState.EXPIRED: "Its time has run out",
    RequestState.DENIED: "It was denied",
}


def not_needed(case: Case) -> Words:
    """A stage is over. One that closed did so with its request, which says why."""
    stage = case.stage
    closed = ENDED_REQUEST.get(RequestState(case.asked.state), "It was asked for anew")
    how = ENDED_STAGE.get(StageState(stage.state), closed).format(stage=stage.name)
    return Words(
        text=f"{how}: {headline(case.asked)}", step="Nothing is left for you to do about it."
    )


def approved(case: Case) -> Words:
    request = case.asked
    opens = reductions.opens(request, Vote.objects.all().with_less(request))
    what = f"{opens.level.name} on {request.target.name} for {request.beneficiary}"
    length, wanted = lasting(opens.duration), lasting(request.duration)
    said = "Approved with less" if opens.less else "Approved"
    instead = f", instead of the {wanted} asked for" if opens.duration < request.duration else ""
    if request.extends_id:
        return Words(
            text=f"{said}: {length} more of {what}{instead}",
            step="Go on: it is made longer by itself, and you are told its new end.",
        )
    if opens.level != request.level:
        instead = f", instead of {request.level.name} for {wanted}"
    later = request.starts_at
    when = f"It opens at {alarm_words.moment(later)}" if later else "It opens by itself"
    return Words(
        text=f"{said}: {what} for {length}{instead}",
        step=f"{when}, and you are told when you can use it.",
    )


def denied(case: Case) -> Words:
    last = Vote.objects.counting().filter(
        stage__request=case.asked, stage__round=case.asked.round, decision=Decision.DENY
    )
    vote = last.order_by("-voted_at", "-pk").first()
    return Words(
        text=f"{case.actor_name} denied {_what(case)}",
        step="Change what you ask for as it says, and ask again.",
        quote=vote.comment if vote else "",
    )


def undecided(case: Case) -> Words:
    """Expired, or cancelled by somebody or something else than whoever is told."""
    return Words(
        text=f"Closed undecided: {_what(case)}",
        step="Ask again if you need it still.",
        quote=case.asked.decision_note,
    )


def usable(case: Case) -> Words:
    grant = case.held
    end = alarm_words.moment(grant.expires_at)
    return Words(
        text=f"{_what(case)} is open until {end}",
        step="Open its page: it shows how to connect, and the credential once.",
    )


def ending(case: Case) -> Words:
    grant = case.held
    left = apart(grant.expires_at - case.now) if grant.expires_at else "a moment"
    return Words(
        text=f"{_what(case)} ends in {left}, at {alarm_words.moment(grant.expires_at)}",
        step="Finish what you are at: sessions are cut at that moment.",
    )


def ended(case: Case) -> Words:
    reason = EndReason(case.held.end_reason).label.lower()
    return Words(
        text=f"{_what(case)} has ended: {reason}",
        step="Ask again if you need it still.",
    )


def failed(case: Case) -> Words:
    return Words(
        text=f"{_what(case)} could not be opened",
        step="Ask again, or ask an owner of the target what is wrong there.",
        quote=case.held.end_note,
    )


def revoked(case: Case) -> Words:
    return Words(
        text=f"{case.actor_name} took {_what(case)} away",
        step="Sessions are cut and the account is removed. Ask whoever did it.",
        quote=case.held.end_note,
    )


def sent_back(case: Case) -> Words:
    return Words(
        text=f"{case.actor_name} asks for changes: {headline(case.asked)}",
        step="Change it, or ask for the same again: nobody can vote until then.",
        quote=str(case.data.get("note") or ""),
    )


def redrawn(case: Case) -> Words:
    return Words(
        text=f"You are asked now: {headline(case.asked)}",
        step="Approve or deny it on its page.",
        quote=case.asked.reason,
    )


def again(case: Case) -> Words:
    return Words(
        text=f"Asked again, unchanged: {headline(case.asked)}",
        step="Approve or deny it on its page.",
        quote=case.asked.reason,
    )


def extended(case: Case) -> Words:
    end = alarm_words.moment(case.held.expires_at)
    return Words(
        text=f"{_what(case)} goes on until {end}",
        step="Go on: your account, password and sessions are the same.",
    )


def bridged(case: Case) -> Words:
    end = alarm_words.moment(case.held.expires_at)
    return Words(
        text=f"{_what(case)} goes on until {end}, while the decision about more is out",
        step="Finish what you are at: it goes on this once.",
    )


def emergency(case: Case) -> Words:
    return Words(
        text=f"EMERGENCY: {headline(case.asked)}",
        step="Look what is done there. Somebody who was not asked has to look back at it.",
        quote=case.asked.reason,
    )


def review_due(case: Case) -> Words:
    return Words(
        text=f"To be looked back at: {headline(case.asked)}",
        step="Say on its page what you found.",
        quote=case.asked.reason,
    )


def review_overdue(case: Case) -> Words:
    told = review_due(case)
    return Words(
        text=f"Nobody has looked back at it in time: {headline(case.asked)}",
        step=told.step,
        quote=told.quote,
    )


def reviewed(case: Case) -> Words:
    found = str(case.data.get("outcome") or "").replace("_", " ")
    return Words(
        text=f"{case.actor_name} looked back at your access and found it {found}",
        step="Its page has what they say.",
        quote=str(case.data.get("note") or ""),
    )


def lent(case: Case) -> Words:
    delegate, person = case.data.get("delegate"), case.data.get("person")
    return Words(
        text=f"{delegate} votes for {person} while {person} is away",
        step="Your settings show until when.",
    )


def alarm(case: Case) -> Words:
    return Words(
        text=_alarm(case),
        step="debugflow goes on trying. Look what is wrong on the target.",
    )


def alarm_over(case: Case) -> Words:
    return Words(text=f"Over: {_alarm(case)}", step="Nothing is left to do.")


def abandon_asked(case: Case) -> Words:
    return Words(
        text=f"{case.actor_name} asks to give up closing {_what(case)}",
        step="It takes one more person. See first whether it can be closed after all.",
        quote=str(case.data.get("note") or ""),
    )


def proposed(case: Case) -> Words:
    return Words(
        text=f"{case.actor_name} proposes: {_about(case)}",
        step="It widens access to production. See what it does, and agree to it or deny it.",
    )


PROPOSAL_ENDED: Final = {
    "carried_out": "{who} agreed, and it is done: {what}",
    "denied": "{who} denied it: {what}",
    "withdrawn": "{who} withdrew it: {what}",
    "expired": "Nobody agreed in time: {what}",
    "failed": "{who} agreed, and it could not be done: {what}",
}


def proposal_ended(case: Case) -> Words:
    ended = case.event.action.partition(".")[2] if case.event else ""
    told = PROPOSAL_ENDED.get(ended, "It has ended: {what}")
    undone = ended in ("denied", "expired", "failed")
    return Words(
        text=told.format(who=case.actor_name, what=_about(case)),
        step="Propose it anew if it is needed still." if undone else "Its page tells what it did.",
        quote=str(case.data.get("note") or ""),
    )


def _about(case: Case) -> str:
    return case.event.subject_label if case.event else "a change"


def mentioned(case: Case) -> Words:
    return Words(
        text=f"{case.actor_name} named you about {_what(case)}",
        step="Answer on its page; you need not vote to do so.",
        quote=str(case.data.get("comment") or ""),
    )


def commented(case: Case) -> Words:
    return Words(
        text=f"{case.actor_name} said something about {_what(case)}",
        step="Answer on its page.",
        quote=str(case.data.get("comment") or ""),
    )


def page(case: Case) -> str:
    """Where it can be seen and acted on: the grant, the request, or what cannot be closed."""
    if case.notice.subject_type == "proposal":
        return reverse("admin:approvals_proposal_change", args=[case.notice.subject_id])
    if case.notice.subject_type == "delegation":
        return reverse("settings")
    if case.notice.subject_type == "review":
        return reverse("review", args=[int(case.notice.subject_id)])
    if case.grant is not None:
        return reverse("grant", args=[case.grant.pk])
    if case.request is not None:
        return reverse("request", args=[case.request.pk])
    return f"{reverse('grants')}?show=all"


def _what(case: Case) -> str:
    """“read-only on orders”, and for whom where it is about a grant of somebody's."""
    if case.grant is not None:
        return f"{case.grant.level.name} on {case.grant.target.name} for {case.grant.beneficiary}"
    if case.request is not None:
        return (
            f"{case.request.level.name} on {case.request.target.name}"
            f" for {case.request.beneficiary}"
        )
    return case.target.name if case.target else case.notice.subject_id


def _alarm(case: Case) -> str:
    """“orders: read-only for alice (dbgf_12) cannot be ended”."""
    where = case.target.name if case.target else case.notice.subject_id
    return f"{where}: {str(case.data.get('text') or '').rstrip('.')}"
