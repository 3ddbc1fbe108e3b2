"""Of what people are told: one entry for each fact. To add one, add its entry; nothing else.

An entry says which Events make it, who is told, in which words, and how urgently. The action must
be declared, and `Case` must find what it is about. `docs/notifications.md` lists them from here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from django.db.models import Q

from approvals.notify import recipients, words
from approvals.notify.case import Case
from approvals.notify.recipients import People
from approvals.notify.words import Words
from approvals.states import EndReason, GrantState
from audit.models import Event


def always(event: Event) -> bool:
    return True


def ends(*reasons: EndReason) -> Callable[[Event], bool]:
    """The moment at which somebody or something ended it: what never opened ends at once."""

    def matches(event: Event) -> bool:
        at_once = event.data.get("before") == GrantState.SCHEDULED
        begun = event.action == f"grant.{GrantState.REVOKING}" or at_once
        return begun and event.data.get("reason") in set(map(str, reasons))

    return matches


def is_over(*reasons: EndReason) -> Callable[[Event], bool]:
    return lambda event: event.data.get("reason") in set(map(str, reasons))


def names_somebody(event: Event) -> bool:
    return bool(event.data.get("mentions"))


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One thing that people are told of.

    `urgent`: somebody has to act before long, so that neither quiet hours nor a digest hold it
    back. `required`: that nobody can be told is an error. `asking`: spares those who may decide but
    do not wish to be asked, as long as others are. `not_over`: channels that do not carry it.
    `settles`: entries of inboxes that it makes old news, so that they are new to nobody any more,
    and messages that say from then on what became of it. `changes`: messages that say something
    else from then on, whether or not they are settled; those that it settles unless it is given.
    """

    name: str
    label: str
    who: Callable[[Case], People]
    words: Callable[[Case], Words]
    actions: frozenset[str] = frozenset()
    when: Callable[[Event], bool] = always
    urgent: bool = False
    required: bool = False
    asking: bool = False
    not_over: frozenset[str] = frozenset()
    settles: Callable[[Case], Q] | None = None
    changes: Callable[[Case], Q] | None = None


TABLE: Final = (
    Fact(
        name="asked",
        label="Somebody is asked to decide",
        actions=frozenset({"requeststage.open"}),
        who=recipients.can_decide,
        words=words.asked,
        urgent=True,
        required=True,
        asking=True,
    ),
    Fact(
        name="reminded",
        label="They are reminded",
        actions=frozenset({"requeststage.reminded"}),
        who=recipients.can_decide,
        words=words.reminded,
        urgent=True,
        required=True,
        asking=True,
    ),
    Fact(
        name="escalated",
        label="Others are asked as well",
        actions=frozenset({"requeststage.escalated", "requeststage.stood_in"}),
        who=recipients.newly_asked,
        words=words.escalated,
        urgent=True,
        required=True,
    ),
    Fact(
        name="redrawn",
        label="Others are asked instead",
        actions=frozenset({"accessrequest.redrawn"}),
        who=recipients.newly_drawn,
        words=words.redrawn,
        urgent=True,
    ),
    Fact(
        name="stalled",
        label="Nobody is left who can decide",
        actions=frozenset({"requeststage.stalled"}),
        who=recipients.administrators,
        words=words.stalled,
        urgent=True,
        required=True,
    ),
    Fact(
        name="voted",
        label="Somebody has voted",
        actions=frozenset({"vote.cast", "vote.replaced"}),
        who=recipients.nobody,
        words=words.voted,
        settles=recipients.asking_voter,
        changes=recipients.asking_of_less,
    ),
    Fact(
        name="not_needed",
        label="Whoever was asked need not act any more",
        actions=frozenset({"requeststage.passed", "requeststage.denied", "requeststage.closed"}),
        who=recipients.was_asked,
        words=words.not_needed,
        settles=recipients.asking_here,
        # The message that asked says so itself.
        not_over=frozenset({"slack"}),
    ),
    Fact(
        name="approved",
        label="A request is approved",
        actions=frozenset({"accessrequest.approved"}),
        who=recipients.askers,
        words=words.approved,
        settles=recipients.asking_at_all,
    ),
    Fact(
        name="denied",
        label="A request is denied",
        actions=frozenset({"accessrequest.denied"}),
        who=recipients.askers,
        words=words.denied,
        settles=recipients.asking_at_all,
    ),
    Fact(
        name="undecided",
        label="A request is closed undecided",
        actions=frozenset({"accessrequest.expired", "accessrequest.cancelled"}),
        who=recipients.askers,
        words=words.undecided,
        settles=recipients.asking_at_all,
    ),
    Fact(
        name="usable",
        label="Access can be used",
        actions=frozenset({"grant.active"}),
        who=recipients.users,
        words=words.usable,
        urgent=True,
    ),
    Fact(
        name="ending",
        label="Access is about to end",
        who=recipients.users,
        words=words.ending,
        urgent=True,
    ),
    Fact(
        name="ended",
        label="Access has ended",
        actions=frozenset({"grant.ended"}),
        when=is_over(EndReason.EXPIRED, EndReason.UNUSED),
        who=recipients.holders,
        words=words.ended,
    ),
    Fact(
        name="failed",
        label="Access could not be opened",
        actions=frozenset({"grant.revoking", "grant.ended"}),
        when=ends(EndReason.FAILED),
        who=recipients.holders,
        words=words.failed,
        urgent=True,
    ),
    Fact(
        name="revoked",
        label="Access is taken away",
        actions=frozenset({"grant.revoking", "grant.ended"}),
        when=ends(EndReason.REVOKED),
        who=recipients.holders,
        words=words.revoked,
        urgent=True,
    ),
    Fact(
        name="sent_back",
        label="Somebody asks for changes",
        actions=frozenset({"accessrequest.changes_requested"}),
        who=recipients.askers,
        words=words.sent_back,
        urgent=True,
        settles=recipients.asking_at_all,
    ),
    Fact(
        name="again",
        label="It comes again as it was",
        actions=frozenset({"accessrequest.pending"}),
        who=recipients.may_decide_again,
        words=words.again,
        urgent=True,
        asking=True,
    ),
    Fact(
        name="extended",
        label="Access goes on longer",
        actions=frozenset({"grant.extended"}),
        who=recipients.users,
        words=words.extended,
        urgent=True,
    ),
    Fact(
        name="bridged",
        label="Access goes on while its extension is undecided",
        actions=frozenset({"grant.bridged"}),
        who=recipients.users,
        words=words.bridged,
        urgent=True,
    ),
    Fact(
        name="emergency",
        label="Access is opened without approval",
        actions=frozenset({"accessrequest.bypassed"}),
        who=recipients.passed_over,
        words=words.emergency,
        urgent=True,
        required=True,
    ),
    Fact(
        name="review_due",
        label="Somebody has to look back at access",
        actions=frozenset({"review.opened", "review.reminded"}),
        who=recipients.reviewers,
        words=words.review_due,
    ),
    Fact(
        name="review_overdue",
        label="A look back is overdue",
        actions=frozenset({"review.overdue"}),
        who=recipients.reviewers,
        words=words.review_overdue,
        urgent=True,
        required=True,
    ),
    Fact(
        name="reviewed",
        label="Somebody has looked back at one's access",
        actions=frozenset({"review.done"}),
        who=recipients.reviewed,
        words=words.reviewed,
    ),
    Fact(
        name="lent",
        label="Votes are lent",
        actions=frozenset({"delegation.made"}),
        who=recipients.lent_to,
        words=words.lent,
    ),
    Fact(
        name="alarm",
        label="An alarm is raised",
        actions=frozenset({"alarm.raised"}),
        who=recipients.keepers,
        words=words.alarm,
        urgent=True,
        # They have mails of their own, which are repeated until it is over.
        not_over=frozenset({"email"}),
    ),
    Fact(
        name="alarm_over",
        label="An alarm is over",
        actions=frozenset({"alarm.ended"}),
        who=recipients.keepers,
        words=words.alarm_over,
        not_over=frozenset({"email"}),
    ),
    Fact(
        name="abandon_asked",
        label="Somebody asks to give up closing access",
        actions=frozenset({"grant.abandon_asked"}),
        who=recipients.second_keepers,
        words=words.abandon_asked,
        urgent=True,
        required=True,
    ),
    Fact(
        name="proposed",
        label="Somebody is asked to agree to a change",
        actions=frozenset({"proposal.proposed"}),
        who=recipients.can_agree,
        words=words.proposed,
        urgent=True,
        required=True,
    ),
    Fact(
        name="proposal_ended",
        label="What one proposed is decided",
        actions=frozenset(
            {
                "proposal.carried_out",
                "proposal.denied",
                "proposal.withdrawn",
                "proposal.expired",
                "proposal.failed",
            }
        ),
        who=recipients.proposer,
        words=words.proposal_ended,
        settles=recipients.asking_to_agree,
    ),
    Fact(
        name="mentioned",
        label="Somebody is named in a comment",
        actions=frozenset({"comment.added"}),
        when=names_somebody,
        who=recipients.mentioned,
        words=words.mentioned,
    ),
    Fact(
        name="commented",
        label="Somebody comments on one's request",
        actions=frozenset({"comment.added"}),
        who=recipients.spoken_to,
        words=words.commented,
    ),
)
FACTS: Final = {fact.name: fact for fact in TABLE}


def of(event: Event) -> Iterator[Fact]:
    """The facts that an Event makes."""
    return (fact for fact in _by_action.get(event.action, ()) if fact.when(event))


_by_action: Final = {
    action: [fact for fact in TABLE if action in fact.actions]
    for action in {name for fact in TABLE for name in fact.actions}
}
