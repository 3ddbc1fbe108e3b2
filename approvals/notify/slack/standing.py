"""What a message says just now: what can be decided, or what became of it.

A message that asks is changed in place when that is settled. As long as it can be decided it says
what the request is now, since that is what its buttons approve; afterwards what was asked then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from django.conf import settings
from django.contrib.auth import get_user_model
from django.urls import reverse

from approvals import policy, reductions, tokens
from approvals.lengths import lasting
from approvals.models import AccessRequest, Decision, Proposal, RequestStage, Vote
from approvals.notify import inbox
from approvals.notify.base import Item
from approvals.notify.recipients import ASKING, ASKING_ANEW, ASKING_TO_AGREE
from approvals.notify.slack.messages import Choice, Told
from approvals.sentences import VOTED, headline
from approvals.states import ProposalState, RequestState, StageState

if TYPE_CHECKING:
    from approvals.people import Person
    from approvals.reductions import Outcome

RELATED: Final = ("requester", "beneficiary", "level", "target", "extends__request")
ON_ITS_PAGE: Final = "At this risk it is decided on its page."
WHOSE: Final = "Several have lent you their votes: choose on its page whose you give."
ENDED: Final = {
    RequestState.APPROVED: "It is approved.",
    RequestState.DENIED: "It is denied.",
    RequestState.CANCELLED: "It was taken back.",
    RequestState.EXPIRED: "Its time has run out.",
    RequestState.CHANGES_REQUESTED: "It was sent back for changes.",
}
ENDED_PROPOSAL: Final = {
    ProposalState.CARRIED_OUT: "{who} agreed, and it is done.",
    ProposalState.DENIED: "{who} denied it.",
    ProposalState.WITHDRAWN: "It was withdrawn.",
    ProposalState.EXPIRED: "Nobody agreed in time.",
    ProposalState.FAILED: "{who} agreed, and it could not be done.",
}


def told(item: Item, person: Person) -> Told:
    """What the message of this notice says to this person now."""
    if item.fact in ASKING_TO_AGREE and (ended := _ended_proposal(item, person)):
        return _settled(item, ended)
    if item.fact not in (*ASKING, *ASKING_ANEW):
        return Told(headline=item.text, quote=item.quote, below=item.step, link=link(item))
    request = _request(item)
    if request is None:
        return _settled(item, "It is not there any more.")
    chain = policy.load_chain(request)
    if not _can_decide(item, request, chain, person):
        return _settled(item, _outcome(item, request, chain, person))
    opens = reductions.outcome(request, chain.votes)
    if not {request.level.risk, opens.level.risk} <= set(tokens.VOTE_RISKS):
        return _asking(item, request, opens, below=f"{item.step} {ON_ITS_PAGE}")
    whose = _whose(request, chain, person)
    if whose is None:
        return _asking(item, request, opens, below=f"{item.step} {WHOSE}")
    choice = _choice(request, chain, person, whose=whose, opens=opens)
    lender = whose if whose != person else None
    return _asking(item, request, opens, below=item.step, choice=choice, lender=lender)


def link(item: Item) -> str:
    """Where it leads, as a link that says which message it was in; nothing without an address."""
    site = settings.SITE_URL
    return site + reverse("inbox-message", args=[inbox.sign(item.delivery)]) if site else ""


def _settled(item: Item, outcome: str) -> Told:
    return Told(headline=item.text, quote=item.quote, below=outcome, link=link(item))


def _asking(
    item: Item,
    request: AccessRequest,
    opens: Outcome,
    *,
    below: str,
    choice: Choice | None = None,
    lender: Person | None = None,
) -> Told:
    asks, gives = headline(request), _gives(request, opens)
    voice = [("You vote for", str(lender))] if lender else []
    confirm = [gives, f"You vote for {lender}." if lender else "", asks]
    return Told(
        headline=item.text if item.text.endswith(asks) else asks,
        facts=[*_facts(request, opens), *voice],
        quote=request.reason,
        below=f"{gives} {below}" if gives else below,
        link=link(item),
        choice=choice,
        confirm=" ".join(part for part in confirm if part),
    )


def _gives(request: AccessRequest, opens: Outcome) -> str:
    """What it opens with the approvals so far, where that is less than was asked."""
    if not opens.less:
        return ""
    more = " more" if request.extends_id else ""
    what = f"{lasting(opens.duration)}{more} of {opens.level.name}"
    return f"With the approvals so far it opens {what}."


def _facts(request: AccessRequest, opens: Outcome) -> list[tuple[str, str]]:
    target = request.target
    asked, given = request.level, opens.level
    facts = [
        ("For", str(request.beneficiary)),
        ("How long", _less(lasting(opens.duration), lasting(request.duration))),
        ("Level", _less(given.name, asked.name)),
        ("Target", f"{target.name} ({target.get_environment_display().lower()})"),
        ("Risk", _less(given.get_risk_display(), asked.get_risk_display())),
    ]
    if request.ticket:
        facts.append(("Ticket", request.ticket))
    return facts


def _less(given: str, asked: str) -> str:
    return given if given == asked else f"{given} (asked: {asked})"


def _request(item: Item) -> AccessRequest | None:
    about, _, number = item.thread.partition(":")
    if about != "request" or not number.isdecimal():
        return None
    return AccessRequest.objects.select_related(*RELATED).filter(pk=int(number)).first()


def _can_decide(item: Item, request: AccessRequest, chain: policy.Chain, person: Person) -> bool:
    """Whether it is the stage that this was about which is open, and theirs to decide still."""
    if request.state != RequestState.PENDING or chain.index is None:
        return False
    about, number = item.subject
    stage = chain.stages[chain.index]
    if about == "requeststage" and number != str(stage.pk):
        return False
    if chain.given_vote(stage, person.pk) or chain.counting_vote(stage, person.pk):
        return False
    return policy.may_vote(request, chain, person, Decision.APPROVE) is None


def _whose(request: AccessRequest, chain: policy.Chain, person: Person) -> Person | None:
    """Whose vote they would give, whichever way; None where that is for them to say."""
    able = {
        tuple(pk for pk, refusal in voices.items() if refusal is None)
        for voices in (policy.voices(request, chain, person, one) for one in Decision.values)
    }
    if able == {(person.pk,)}:
        return person
    if len(able) != 1 or len(only := able.pop()) != 1:
        return None
    return get_user_model()._default_manager.get(pk=only[0])


def _choice(
    request: AccessRequest, chain: policy.Chain, person: Person, *, whose: Person, opens: Outcome
) -> Choice:
    stage = chain.stages[chain.require_open()]
    # Whoever has voted here has no buttons, so that there is never a vote to replace.
    return Choice(
        person=person.pk,
        request=request.pk,
        stage=stage.pk,
        whose=whose.pk,
        scope_hash=request.scope_hash,
        outcome=opens.scope_hash,
        replaces=0,
    )


def _ended_proposal(item: Item, person: Person) -> str:
    """How it ended; nothing while it waits for somebody."""
    proposals = Proposal.objects.select_related("decided_by")
    proposal = proposals.filter(pk=int(item.subject[1])).first()
    if proposal is None:
        return "It is not there any more."
    told = ENDED_PROPOSAL.get(ProposalState(proposal.state), "")
    return told.format(who="You" if proposal.decided_by == person else proposal.decided_by)


def _outcome(item: Item, request: AccessRequest, chain: policy.Chain, person: Person) -> str:
    mine = _my_vote(item, chain, person)
    said = f"You {VOTED[mine.decision]} it. " if mine else ""
    if (ended := ENDED.get(RequestState(request.state))) is not None:
        return f"{said}{ended}"
    if mine is not None and chain.index is not None:
        return f"{said}It waits in “{chain.stages[chain.index].name}”."
    about, number = item.subject
    stages = {str(stage.pk): stage for stage in chain.stages}
    if about == "requeststage" and number in stages:
        if stages[number].state == StageState.PASSED:
            return f"“{stages[number].name}” has passed without you."
    return "Nothing is left for you to do about it."


def _my_vote(item: Item, chain: policy.Chain, person: Person) -> Vote | None:
    """Their vote in the stage that it was about."""
    about, number = item.subject
    stages = RequestStage.objects.filter(pk__in=[stage.pk for stage in chain.stages])
    if about == "requeststage":
        stages = RequestStage.objects.filter(pk=int(number))
    given = Vote.objects.counting().filter(stage__in=stages, voter=person)
    return given.order_by("-pk").first()
