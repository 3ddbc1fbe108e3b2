"""Who is told of a fact, derived when they are told: never from a list that was made before.

Each function answers with ids of people, or None where nobody needs to hear of it any more.
Whoever did it themselves, is inactive, or is a program's account is left out by whoever asks.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from django.contrib.auth import get_user_model
from django.db.models import Q

from approvals import access, grants, policy, proposals, reviews
from approvals.models import (
    AccessRequest,
    Decision,
    Delivery,
    Proposal,
    RequestStage,
    Review,
    Target,
    Vote,
)
from approvals.notify.case import Case
from approvals.states import UNDECIDED, GrantState, ProposalState, RequestState, StageState

People = Collection[int] | None

ASKING: Final = ("asked", "reminded", "escalated")  # about a stage
ASKING_ANEW: Final = ("redrawn", "again")  # about a request, whichever of its stages is open
ASKING_TO_AGREE: Final = ("proposed",)


def can_decide(case: Case) -> People:
    """Whoever may vote in that stage now and has not; None once it is not open any more."""
    request, chain = case.asked, case.chain
    if request.state != RequestState.PENDING or chain.index is None:
        return None
    stage = chain.stages[chain.index]
    if str(stage.pk) != case.notice.subject_id or policy.is_too_late(request, chain):
        return None
    return _may_decide(request, chain)


def may_decide_again(case: Case) -> People:
    """The same of one that came back as it was, in whichever stage is open; a change opens one."""
    request, chain = case.asked, case.chain
    if request.state != RequestState.PENDING or chain.index is None:
        return None
    began = chain.stages[chain.index].opened_at
    if (began and began >= case.notice.at) or policy.is_too_late(request, chain):
        return None
    return _may_decide(request, chain)


def newly_drawn(case: Case) -> People:
    """Whoever may decide since candidates were drawn anew, and was not asked in the open stage."""
    request, chain = case.asked, case.chain
    if request.state != RequestState.PENDING or chain.index is None:
        return None
    stage = str(chain.stages[chain.index].pk)
    told = Delivery.objects.filter(notice__subject_id=stage, notice__fact__in=ASKING)
    return set(_may_decide(request, chain)) - set(told.values_list("person", flat=True))


def _may_decide(request: AccessRequest, chain: policy.Chain) -> list[int]:
    """Whoever may vote, for themselves or for somebody who lent them theirs."""
    voted = {person for vote in chain.votes for person in (vote.voter_id, vote.whose)}
    asked = {*chain.states[chain.require_open()].candidates, *chain.lent}
    people = get_user_model()._default_manager.in_bulk(asked)
    return [
        person.pk
        for person in people.values()
        if person.pk not in voted
        and policy.may_vote(request, chain, person, Decision.APPROVE) is None
    ]


def newly_asked(case: Case) -> People:
    """Of those who can decide, the ones who were not asked before. None where telling was so late
    that they were asked together with the others."""
    people = can_decide(case)
    if people is None:
        return None
    asked = Delivery.objects.filter(asking_here(case), person__in=people)
    new = set(people) - set(asked.values_list("person", flat=True))
    return new if new or not asked.filter(notice__told_at__gte=case.notice.at).exists() else None


def was_asked(case: Case) -> People:
    """Whoever was asked in that stage and did not vote there: nothing is left for them to do."""
    voters = Vote.objects.filter(stage=int(case.notice.subject_id)).values_list("voter", flat=True)
    return (_told(case) - set(voters)) or None


def _told(case: Case) -> set[int]:
    """Whom the notices of the same stage that ask have been made for."""
    asked = Delivery.objects.filter(asking_here(case), person__isnull=False)
    return set(asked.values_list("person", flat=True).distinct())


def nobody(case: Case) -> People:
    """No person is told: it is of use to programs, or settles what somebody was told before."""
    return None


def asking_here(case: Case) -> Q:
    """The entries of inboxes that ask to decide in this stage, whoever's they are."""
    return Q(
        notice__subject_type=case.notice.subject_type,
        notice__subject_id=case.notice.subject_id,
        notice__fact__in=ASKING,
    )


def asking_at_all(case: Case) -> Q:
    """Those that ask to decide about this request, in whichever stage."""
    stages = RequestStage.objects.filter(request=case.asked).values_list("pk", flat=True)
    return Q(
        notice__subject_type="requeststage",
        notice__subject_id__in=[str(pk) for pk in stages],
        notice__fact__in=ASKING,
    ) | Q(
        notice__subject_type="accessrequest",
        notice__subject_id=str(case.asked.pk),
        notice__fact__in=ASKING_ANEW,
    )


def asking_of_less(case: Case) -> Q:
    """Those that ask about what opens otherwise since this vote: with less, or not any more."""
    if case.data.get("less") or case.data.get("before_less"):
        return asking_at_all(case)
    return asking_voter(case)


def asking_voter(case: Case) -> Q:
    """Those that asked whoever has voted now."""
    facts = (*ASKING, *ASKING_ANEW)
    return Q(person=case.actor, notice__thread=case.notice.thread, notice__fact__in=facts)


def askers(case: Case) -> People:
    """Whoever asked, and for whom."""
    return {case.asked.requester_id, case.asked.beneficiary_id}


def holders(case: Case) -> People:
    """Whoever holds it, and whoever asked for it for them."""
    return {case.held.beneficiary_id, case.held.request.requester_id}


def users(case: Case) -> People:
    """The holders of what can be used now; None once it is over, whoever has noticed."""
    return holders(case) if grants.is_usable(case.held, case.now) else None


def passed_over(case: Case) -> People:
    """Whoever would have been asked, the target's owners, and the policy's security group."""
    request = case.asked
    told = Q(candidacies__stage__request=request)
    if (group := request.policy_version.emergency_tells_id) is not None:
        told |= Q(groups=group)  # without the condition it would be whoever is in no group
    people = get_user_model()._default_manager.filter(told)
    owners = {person.pk for person in access.owners(request.target)}
    return {*people.values_list("pk", flat=True), *owners}


def reviewers(case: Case) -> People:
    """Whoever may look back at it; None once somebody has."""
    review = _review(case)
    if review.reviewed_at is not None:
        return None
    return {person.pk for person in reviews.reviewers(review, case.now)}


def reviewed(case: Case) -> People:
    """Whose access it was."""
    return {_review(case).person_id}


def _review(case: Case) -> Review:
    return Review.objects.with_ground().get(pk=int(case.notice.subject_id))


def lent_to(case: Case) -> People:
    """Who may vote for somebody now, and who that is, if somebody else saw to it."""
    names = [case.data.get("delegate"), case.data.get("person")]
    people = get_user_model()._default_manager.filter(username__in=[n for n in names if n])
    return set(people.values_list("pk", flat=True)) or None


def keepers(case: Case) -> People:
    """The target's owners, and administrators: whoever gets its alarms."""
    return {person.pk for person in (*access.owners(_target(case)), *access.administrators())}


def second_keepers(case: Case) -> People:
    """The same while it takes one more of them, without its holder, who has no say in it."""
    grant = case.held
    if grant.state != GrantState.REVOKING or grant.abandoned_at is not None:
        return None
    return set(keepers(case) or ()) - {grant.beneficiary_id}


def administrators(case: Case) -> People:
    """None once the request is decided, or there is no such stage to look after."""
    if case.asked.state not in UNDECIDED or not _is_open(case):
        return None
    asked = case.asked
    own = {asked.requester_id, asked.beneficiary_id}
    return {person.pk for person in access.policy_admins()} - own


def can_agree(case: Case) -> People:
    """Whoever may agree to it now; None once it is decided."""
    found = proposal(case)
    if found.state != ProposalState.PROPOSED or case.now >= found.expires_at:
        return None
    return {person.pk for person in proposals.can_agree(found, case.now)}


def proposer(case: Case) -> People:
    return {proposal(case).proposer_id}


def asking_to_agree(case: Case) -> Q:
    """The entries of inboxes that ask to agree to it."""
    return Q(notice__thread=case.notice.thread, notice__fact__in=ASKING_TO_AGREE)


def proposal(case: Case) -> Proposal:
    return Proposal.objects.select_related("proposer").get(pk=int(case.notice.subject_id))


def mentioned(case: Case) -> People:
    """Whoever is named, as far as they may still see what it is about."""
    named = get_user_model()._default_manager.filter(username__in=case.data.get("mentions") or [])
    seen = [
        person.pk
        for person in named
        if access.visible_requests(person).filter(pk=case.asked.pk).exists()
    ]
    return seen or None


def spoken_to(case: Case) -> People:
    """Whoever asked, less those who are told because they are named."""
    return set(askers(case) or ()) - set(mentioned(case) or ()) or None


def _is_open(case: Case) -> bool:
    stages = RequestStage.objects.filter(pk=int(case.notice.subject_id), state=StageState.OPEN)
    return stages.exists()


def _target(case: Case) -> Target:
    if case.target is None:
        raise LookupError(f"{case.notice.subject_type} {case.notice.subject_id}: no target")
    return case.target
