"""Who decides: which policy governs a request, whom its stages ask, and who may vote now.

Reads only. The arithmetic is in `chain`; whatever changes something is a verb elsewhere.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.db.models import F, Prefetch, QuerySet, prefetch_related_objects
from pydantic import BaseModel, ConfigDict

from approvals import access, chain
from approvals.errors import NotAllowed, WrongState
from approvals.models import (
    AccessLevel,
    AccessRequest,
    Decision,
    ExtensionApproval,
    PolicyVersion,
    RequestKind,
    RequestStage,
    Stage,
    StageGroup,
    Vote,
)
from approvals.models.delegations import DEEP
from approvals.states import UNDECIDED, RequestState, StageState
from audit import clock

if TYPE_CHECKING:
    from approvals.people import Person


class AppliesTo(BaseModel):
    """Which requests a policy governs. An empty list or mapping sets no condition."""

    model_config = ConfigDict(extra="forbid")

    environments: list[str] = []
    labels: dict[str, str] = {}
    risks: list[str] = []
    levels: list[int] = []
    requester_groups: list[int] = []


@dataclass(frozen=True)
class NearMiss:
    """A policy that does not govern a request, and each condition that fails."""

    policy: str
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.policy}: {'; '.join(self.reasons)}"


@dataclass(frozen=True)
class Choice:
    version: PolicyVersion | None
    near_misses: tuple[NearMiss, ...]


def choose(level: AccessLevel, requester: Person) -> Choice:
    """The first enabled policy by rank that governs `requester` asking for `level`."""
    misses: list[NearMiss] = []
    for version, reasons in weighed(level, requester):
        if not reasons:
            return Choice(version, tuple(misses))
        misses.append(NearMiss(version.policy.name, reasons))
    return Choice(None, tuple(misses))


def weighed(
    level: AccessLevel, requester: Person
) -> Iterator[tuple[PolicyVersion, tuple[str, ...]]]:
    """What is in force, by rank, each with the conditions that fail; with none it governs."""
    groups = set(requester.groups.values_list("pk", flat=True))
    for version in _in_force():
        applies_to = AppliesTo.model_validate(version.applies_to)
        yield version, tuple(_mismatches(applies_to, level, groups))


def governing(levels: Iterable[AccessLevel], requester: Person) -> dict[int, PolicyVersion]:
    """What `choose` chooses for each of several levels, by the level's id, with its stages."""
    groups = set(requester.groups.values_list("pk", flat=True))
    in_force = [(AppliesTo.model_validate(one.applies_to), one) for one in _in_force()]
    found: dict[int, PolicyVersion] = {}
    for level in levels:
        fitting = (one for rule, one in in_force if not any(_mismatches(rule, level, groups)))
        if (version := next(fitting, None)) is not None:
            found[level.pk] = version
    prefetch_related_objects(list({one.pk: one for one in found.values()}.values()), _STAGES)
    return found


_STAGES = "stages__stage_groups"


def _in_force() -> QuerySet[PolicyVersion]:
    current = PolicyVersion.objects.filter(
        policy__enabled=True, policy__current=F("pk"), published_at__isnull=False
    )
    return current.select_related("policy").order_by("policy__rank")


def _mismatches(applies_to: AppliesTo, level: AccessLevel, groups: set[int]) -> Iterable[str]:
    target = level.target
    if applies_to.environments and target.environment not in applies_to.environments:
        wanted = " or ".join(applies_to.environments)
        yield f"it is for {wanted}, and {target.name} is {target.environment}"
    for label, value in sorted(applies_to.labels.items()):
        if target.labels.get(label) != value:
            yield f"it is for targets labelled {label}={value}"
    if applies_to.risks and level.risk not in applies_to.risks:
        yield f"it is for {' or '.join(applies_to.risks)} risk, and this level is {level.risk} risk"
    if applies_to.levels and level.pk not in applies_to.levels:
        yield "it names other levels"
    if applies_to.requester_groups and not groups.intersection(applies_to.requester_groups):
        yield "it is for requests of other groups"


@dataclass(frozen=True)
class PlannedStage:
    """A stage as it would be copied onto a request, with the people it would ask."""

    stage: Stage
    minima: Mapping[str, int]
    group_names: Mapping[str, str]
    stand_ins: Mapping[str, list[str]]
    candidates: Mapping[int, frozenset[str]]  # person id -> ids of the groups they are drawn by

    def state(self) -> chain.StageState:
        return chain.StageState(
            rule=chain.StageRule(
                groups=self.minima, total=self.stage.total, deny_quorum=self.stage.deny_quorum
            ),
            candidates=standing_in(self.candidates, self.minima, self.stand_ins),
        )


@dataclass(frozen=True)
class Plan:
    """The whole chain for one request, and why it cannot be filled, if so.

    Its first `skipped` stages ask nobody: those that an extension leaves out.
    """

    stages: tuple[PlannedStage, ...]
    obstacle: str = ""
    skipped: int = 0


def standing_in(
    drawn: Mapping[int, frozenset[str]],
    minima: Mapping[str, int],
    stand_ins: Mapping[str, Sequence[str]],
) -> dict[int, frozenset[str]]:
    """Each person's groups as the arithmetic counts them: fallback people as whom they replace."""
    return {
        person: frozenset(
            name for group in groups for name in [group, *stand_ins.get(group, ())]
        ).intersection(minima)
        for person, groups in drawn.items()
    }


def plan(version: PolicyVersion, *, barred: set[int]) -> Plan:
    """Draw the candidates of every stage and simulate the chain, using fallbacks where needed."""
    stages = _stages_of(version)
    return fill(stages, members_of(stages), barred=barred)


def plan_longer(version: PolicyVersion, *, barred: set[int]) -> Plan:
    """The same for longer access, which asks as many of the stages as the policy says."""
    stages = _stages_of(version)
    members = members_of(stages)
    match version.extension_approval:
        case ExtensionApproval.NONE:
            skipped = len(stages)
        case ExtensionApproval.LAST:
            skipped = len(stages) - 1
        case _:
            skipped = 0
    planned = (_planned(stage, members, barred) for stage in stages[:skipped])
    left_out = [replace(stage, candidates={}) for stage in planned]
    rest = stages[skipped:]
    asked = fill(rest, members, barred=barred) if rest else Plan(())
    return Plan((*left_out, *asked.stages), asked.obstacle, skipped)


def _stages_of(version: PolicyVersion) -> list[Stage]:
    prefetch = Prefetch("stage_groups", StageGroup.objects.select_related("group"))
    return list(version.stages.select_related("fallback_group").prefetch_related(prefetch))


def fill(stages: Sequence[Stage], members: Mapping[str, set[int]], *, barred: set[int]) -> Plan:
    """The same for stages whose groups, and whose `members_of` those, are read already."""
    planned = [_planned(stage, members, barred) for stage in stages]
    while not (result := chain.simulate([stage.state() for stage in planned])).fillable:
        index = result.stage
        fallback = None if index is None else planned[index].stage.fallback_group
        if index is None or fallback is None or planned[index].stand_ins:
            return Plan(tuple(planned), _obstacle(planned, result))
        short = {group for missing in result.missing for group in missing.groups}
        planned[index] = _with_fallback(planned[index], fallback, short, members, barred)
    return Plan(tuple(planned))


def members_of(stages: Iterable[Stage], *more: int) -> dict[str, set[int]]:
    """Active members of every group that the stages name, and of `more`, by id as text.

    A service is in nobody's place: it never votes.
    """
    groups = {group.group_id for stage in stages for group in stage.stage_groups.all()}
    groups |= {stage.fallback_group_id for stage in stages if stage.fallback_group_id}
    groups |= {stage.escalation_group_id for stage in stages if stage.escalation_group_id}
    groups |= set(more)
    people = {"user__is_active": True, "user__service__isnull": True}
    rows = Group.objects.filter(pk__in=groups, **people).values_list("pk", "user__pk")
    members: dict[str, set[int]] = {str(group): set() for group in groups}
    for group, person in rows:
        members[str(group)].add(person)
    return members


def _draw(
    groups: Iterable[str], members: Mapping[str, set[int]], barred: set[int]
) -> dict[int, frozenset[str]]:
    drawn: dict[int, set[str]] = {}
    for group in groups:
        for person in members[group] - barred:
            drawn.setdefault(person, set()).add(group)
    return {person: frozenset(held) for person, held in drawn.items()}


def _planned(stage: Stage, members: Mapping[str, set[int]], barred: set[int]) -> PlannedStage:
    groups = {str(row.group_id): row for row in stage.stage_groups.all()}
    return PlannedStage(
        stage=stage,
        minima={key: row.minimum for key, row in groups.items()},
        group_names={key: row.group.name for key, row in groups.items()},
        stand_ins={},
        candidates=_draw(groups, members, barred),
    )


def _with_fallback(
    planned: PlannedStage,
    fallback: Group,
    short: set[str],
    members: Mapping[str, set[int]],
    barred: set[int],
) -> PlannedStage:
    key = str(fallback.pk)
    drawn = _draw({*planned.minima, key}, members, barred)
    return PlannedStage(
        stage=planned.stage,
        minima=planned.minima,
        group_names={**planned.group_names, key: fallback.name},
        stand_ins={key: sorted(short or planned.minima)},
        candidates=drawn,
    )


def _obstacle(planned: Sequence[PlannedStage], result: chain.ChainOutcome) -> str:
    if result.stage is None:
        return "The policy has no stage, so nobody could approve. An admin must publish one."
    stage = planned[result.stage]
    wanted = " and ".join(words(missing, stage.group_names) for missing in result.missing)
    others = [planned[index].stage.name for index in result.shares_people_with]
    shared = f" besides those whom {' and '.join(others)} needs" if others else ""
    return (
        f"Nobody could fill the stage “{stage.stage.name}”: it lacks {wanted or 'people'}{shared}. "
        "Whoever asks cannot decide. An admin can add members or a fallback group."
    )


def words(missing: chain.Missing, names: Mapping[str, str]) -> str:
    """ "1 of dba or security" with the groups' names."""
    groups = sorted(names.get(group, "a deleted group") for group in missing.groups)
    return f"{missing.count} of {' or '.join(groups)}"


@dataclass(frozen=True)
class Chain:
    """A request's present round at one moment: its stages, votes, and the arithmetic's view."""

    now: datetime
    stages: tuple[RequestStage, ...]
    votes: tuple[Vote, ...]
    states: tuple[chain.StageState, ...]
    # Who lends their votes to whom just then: by the id of whoever may give them.
    lent: Mapping[int, frozenset[int]] = field(default_factory=dict)

    @property
    def index(self) -> int | None:
        """Of the open stage; None once the request is decided."""
        return next((i for i, s in enumerate(self.stages) if s.state == StageState.OPEN), None)

    def require_open(self) -> int:
        """The open stage's index. Raises WrongState if there is none."""
        if (index := self.index) is None:
            raise WrongState("No stage of this request is open.")
        return index

    def counting_vote(self, stage: RequestStage, person: int) -> Vote | None:
        """The vote of this person, whoever gave it."""
        return next((v for v in self.votes if v.stage_id == stage.pk and v.whose == person), None)

    def given_vote(self, stage: RequestStage, person: int) -> Vote | None:
        """The vote that this person gave, whoever's it is."""
        return next(
            (v for v in self.votes if v.stage_id == stage.pk and v.voter_id == person), None
        )

    def lenders(self, person: int) -> set[int]:
        """Whose votes this person may give: who lent them theirs, or to one who lent them on."""
        found: set[int] = set()
        last = {person}
        for _ in range(DEEP):
            last = {one for holder in last for one in self.lent.get(holder, ())} - found - {person}
            found |= last
        return found

    def with_vote(self, vote: Vote) -> Chain:
        """The chain after `vote`, which replaces its author's earlier one in that stage."""
        kept = [v for v in self.votes if (v.stage_id, v.whose) != (vote.stage_id, vote.whose)]
        candidates = [state.candidates for state in self.states]
        return _chain(self.now, self.stages, [*kept, vote], candidates, self.lent)


@functools.cache
def _stages_query() -> str:
    """A round's stages, each with (person, group) of its candidates who are still members, and with
    (delegate, person) of the votes that are lent at the time, of those who are active.

    Written out because every vote runs it: through the ORM it took twice as long to compose.
    """
    people = get_user_model()._meta
    members = people.get_field("groups").remote_field.through._meta  # type: ignore[union-attr]
    return f"""
        SELECT s.*, ARRAY(
            SELECT ARRAY[c.user_id, c.group_id] FROM approvals_candidate c
            JOIN {people.db_table} u ON u.id = c.user_id AND u.is_active
            JOIN {members.db_table} m ON m.user_id = c.user_id AND m.group_id = c.group_id
            WHERE c.stage_id = s.id
        ) AS still, ARRAY(
            SELECT ARRAY[d.delegate_id, d.person_id, d.made_by_id] FROM approvals_delegation d
            JOIN {people.db_table} person ON person.id = d.person_id AND person.is_active
            JOIN {people.db_table} delegate ON delegate.id = d.delegate_id AND delegate.is_active
            WHERE d.ended_at IS NULL AND d.starts_at <= %s AND d.ends_at > %s
        ) AS lent
        FROM approvals_requeststage s WHERE s.request_id = %s AND s.round = %s ORDER BY s."order"
    """  # noqa: S608 - the names of Django's own tables


@functools.cache
def _votes_query() -> str:
    """As `Vote.objects.counting()`, written out for the same reason, and whether whoever gave each
    is active."""
    people = get_user_model()._meta.db_table
    return f"""
        SELECT v.*, u.is_active AS author_active
        FROM approvals_vote v JOIN {people} u ON u.id = v.voter_id
        WHERE stage_id = ANY(%s) AND replaced_at IS NULL AND voided_at IS NULL ORDER BY v.id
    """  # noqa: S608 - the names of Django's own tables


def _lent(request: AccessRequest, stages: Sequence[RequestStage]) -> dict[int, frozenset[int]]:
    """Who lends their votes to whom; nobody where the policy does not allow it."""
    pairs = stages[0].lent if stages else []  # type: ignore[attr-defined]
    if not pairs or not request.policy_version.allow_delegation:
        return {}
    barred = barred_from(request)
    lent: dict[int, set[int]] = {}
    for delegate, person, made_by in pairs:
        # Whoever is barred neither passes a vote on, nor has chosen who gives another's.
        through = {delegate, person} | ({made_by} - {person})
        if through.isdisjoint(barred):
            lent.setdefault(delegate, set()).add(person)
    return {delegate: frozenset(people) for delegate, people in lent.items()}


def load_chain(request: AccessRequest, *, now: datetime | None = None) -> Chain:
    """Two queries: the stages of the round with candidates who are still members, and its votes.

    A candidate counts while active and a member of the group they were drawn by, so the answer is
    about this instant; take the request's lock first if it matters.
    """
    now = now or clock.now()
    asked = [now, now, request.pk, request.round]
    stages = tuple(RequestStage.objects.raw(_stages_query(), asked))
    barred = barred_from(request)
    candidates = [
        standing_in(_by_person(stage.still, barred), stage.minima, stage.stand_ins)  # type: ignore[attr-defined]
        for stage in stages
    ]
    votes = Vote.objects.raw(_votes_query(), [[stage.pk for stage in stages]])
    return _chain(now, stages, list(votes), candidates, _lent(request, stages))


def shown_chain(request: AccessRequest) -> Chain:
    """The chain for people to read: the votes with their voters' names."""
    loaded = load_chain(request)
    prefetch_related_objects(list(loaded.votes), "voter", "on_behalf_of", "reduced_level")
    return loaded


def _by_person(pairs: list[tuple[int, int]], barred: set[int]) -> dict[int, frozenset[str]]:
    drawn: dict[int, set[str]] = {}
    for person, group in pairs:
        if person not in barred:
            drawn.setdefault(person, set()).add(str(group))
    return {person: frozenset(groups) for person, groups in drawn.items()}


def _chain(
    now: datetime,
    stages: tuple[RequestStage, ...],
    votes: Sequence[Vote],
    candidates: Sequence[Mapping[int, frozenset[str]]],
    lent: Mapping[int, frozenset[int]],
) -> Chain:
    def voters(stage: RequestStage, decision: Decision) -> frozenset[int]:
        return frozenset(
            v.whose
            for v in votes
            if v.stage_id == stage.pk and v.decision == decision and _stands(v, stage)
        )

    states = tuple(
        chain.StageState(
            rule=chain.StageRule(
                groups=stage.minima, total=stage.total, deny_quorum=stage.deny_quorum
            ),
            candidates=drawn,
            approvals=voters(stage, Decision.APPROVE),
            denials=voters(stage, Decision.DENY),
            cast_by={
                v.whose: v.voter_id for v in votes if v.on_behalf_of_id and v.stage_id == stage.pk
            },
            passed=stage.state in (StageState.PASSED, StageState.SKIPPED),
        )
        for stage, drawn in zip(stages, candidates, strict=True)
    )
    return Chain(now, stages, tuple(votes), states, lent)


def _stands(vote: Vote, stage: RequestStage) -> bool:
    """Whether whoever gave it is there: a candidate who is not is none any more, but whoever gave
    it for one need not have been a candidate."""
    return stage.state == StageState.PASSED or getattr(vote, "author_active", True)


def ground_lost(request: AccessRequest, now: datetime) -> tuple[RequestState, str] | None:
    """Why an undecided request cannot be decided any more, whatever its stages say."""
    if not (request.requester.is_active and request.beneficiary.is_active):
        return RequestState.CANCELLED, "Whoever asked, or for whom, was deactivated."
    if not (request.target.enabled and request.level.enabled):
        return RequestState.CANCELLED, "The target or level was switched off."
    if not request.policy_version.policy.enabled:
        return RequestState.CANCELLED, "The policy it was asked under was switched off."
    if request.extends is not None and not request.extends.goes_on(now):
        return RequestState.EXPIRED, "The access that it was to prolong has ended."
    if request.pending_until <= now:
        return RequestState.EXPIRED, "Nobody decided in time."
    if request.starts_at and request.starts_at + timedelta(seconds=request.duration) <= now:
        return RequestState.EXPIRED, "The time it was wanted for has passed."
    return None


def lacking(chain_: Chain) -> tuple[chain.Missing, ...]:
    """What the open stage needs and nobody is left to give; nothing while it can be filled."""
    if chain_.index is None:
        return ()
    result = chain.simulate(chain_.states)
    return result.missing if result.stage == chain_.index else ()


def verdict_of_its_own(request: AccessRequest, chain_: Chain) -> chain.Verdict:
    """What the open stage has come to without anybody who stands in for its groups."""
    index = chain_.require_open()
    stage, states = chain_.stages[index], list(chain_.states)
    drawn = _by_person(stage.still, barred_from(request))  # type: ignore[attr-defined]
    own = standing_in(drawn, stage.minima, {})
    states[index] = replace(states[index], candidates=own)
    return chain.outcome(states, index).verdict


def missing(chain_: Chain) -> list[str]:
    """What the open stage waits for, in words."""
    index = chain_.require_open()
    names = chain_.stages[index].group_names
    return [words(one, names) for one in chain.outcome(chain_.states, index).missing]


def barred_from(request: AccessRequest) -> set[int]:
    """Those who may not decide about this request, whoever they are otherwise."""
    barred = {request.requester_id, request.beneficiary_id, request.last_edited_by_id}
    if request.extends is not None:  # whoever asked for the access in the first place
        barred.add(request.extends.request.requester_id)
    return barred


@dataclass(frozen=True)
class Refusal:
    """Why somebody may not do something: a reason code and a sentence that says what to do."""

    code: str
    message: str
    conflict: bool = False  # with how things stand, as `wrong_state` is, not with who it is

    def error(self) -> NotAllowed | WrongState:
        """WrongState if how things stand forbids it, NotAllowed if it is this person's case."""
        kind = WrongState if self.conflict or self.code == "wrong_state" else NotAllowed
        return kind(self.message, code=self.code)


SELF_APPROVAL = Refusal(
    "self_approval",
    "Nobody decides about their own access, or about a request they edited last. "
    "Someone else named in the chain has to.",
)


def may_vote(
    request: AccessRequest, chain_: Chain, person: Person, decision: str
) -> Refusal | None:
    """Why `person` may not cast this vote now, or None if they may, for themselves or another."""
    weighed = voices(request, chain_, person, decision).values()
    return None if None in weighed else next(iter(weighed))


def voices(
    request: AccessRequest, chain_: Chain, person: Person, decision: str
) -> dict[int, Refusal | None]:
    """By the id of whose vote it would be: why `person` may not cast it now, or None if they may.

    Whoever can vote for themselves does so; only others give those that were lent to them. There
    is always one answer at least.
    """
    if (refusal := _nobody_may(request, chain_, person)) is not None:
        return {person.pk: refusal}
    index = chain_.require_open()
    asked = chain_.states[index].candidates
    weighed: dict[int, Refusal | None] = {}
    if person.pk in asked:
        weighed[person.pk] = _may_say(chain_, index, person.pk, person.pk, decision)
        if weighed[person.pk] is None:
            return weighed
    for lender in sorted(chain_.lenders(person.pk) & asked.keys()):
        weighed[lender] = _may_say(chain_, index, lender, person.pk, decision)
    return weighed or {person.pk: _not_asked(chain_, index, person)}


def _nobody_may(request: AccessRequest, chain_: Chain, person: Person) -> Refusal | None:
    """What forbids this person any vote here, whoever's it would be."""
    index = chain_.index
    if request.state != RequestState.PENDING or index is None:
        return _not_pending(request)
    if (late := _too_late(request, chain_)) is not None:
        return late
    if person.pk in barred_from(request):
        return SELF_APPROVAL
    return None if person.is_active else _not_asked(chain_, index, person)


def _may_say(chain_: Chain, index: int, whose: int, voter: int, decision: str) -> Refusal | None:
    """Why `voter` may not give the vote of `whose`, their own or another's, in the open stage."""
    stage = chain_.stages[index]
    said, given = chain_.counting_vote(stage, whose), chain_.given_vote(stage, voter)
    if given is not None and given.whose != whose:
        return _already_counted(chain_, index)
    if voter != whose and said is not None and said.voter_id != voter:
        return Refusal("already_counted", "They have voted here, or somebody else has for them.")
    if decision == Decision.DENY:
        return _may_deny(chain_, index, {whose, voter})
    before = _before_replacing(chain_, index, whose)
    cast_by = voter if voter != whose else None
    return _explain(chain_, chain.vote_effect(before, index, whose, cast_by=cast_by))


def _not_pending(request: AccessRequest) -> Refusal:
    if request.state == RequestState.CHANGES_REQUESTED:
        return Refusal("wrong_state", "It was sent back, and comes again once it was changed.")
    label = RequestState(request.state).label.lower()
    return Refusal("wrong_state", f"This request is {label}; there is nothing left to decide.")


def _too_late(request: AccessRequest, chain_: Chain) -> Refusal | None:
    """Late is late, whether or not a sweeper has come by to say so."""
    if (lost := ground_lost(request, chain_.now)) is not None:
        return Refusal("wrong_state", f"{lost[1]} It can no longer be decided.")
    stage = chain_.stages[chain_.require_open()]
    if stage.deadline_at is not None and stage.deadline_at <= chain_.now:
        return Refusal("wrong_state", f"The time for “{stage.name}” has run out.")
    return None


def is_too_late(request: AccessRequest, chain_: Chain) -> bool:
    """Whether an undecided request is only waiting for its end to be written down."""
    if chain_.index is None:
        return ground_lost(request, chain_.now) is not None
    return _too_late(request, chain_) is not None


def _before_replacing(chain_: Chain, index: int, person: int) -> list[chain.StageState]:
    """The stages as if there were no vote of this person in the open one yet."""
    stage = chain_.states[index]
    earlier = chain.StageState(
        rule=stage.rule,
        candidates=stage.candidates,
        approvals=stage.approvals - {person},
        denials=stage.denials - {person},
        cast_by={whose: by for whose, by in stage.cast_by.items() if whose != person},
    )
    return [*chain_.states[:index], earlier, *chain_.states[index + 1 :]]


def _not_asked(chain_: Chain, index: int, person: Person) -> Refusal:
    names = " or ".join(sorted(chain_.stages[index].group_names.values()))
    for number, state in enumerate(chain_.states):
        if number != index and person.pk in state.candidates:
            theirs, now_open = chain_.stages[number].name, chain_.stages[index].name
            asked = f"“{theirs}” has passed" if state.passed else f"You are asked in “{theirs}”"
            return Refusal("wrong_stage", f"{asked}; now “{now_open}” is open.")
    return Refusal(
        "not_eligible",
        f"This stage asks those who were members of {names} when the request was submitted; "
        "they can decide it.",
    )


def _may_deny(chain_: Chain, index: int, people: set[int]) -> Refusal | None:
    """A denial is never refused for the chain's sake, only to those whose say is used up."""
    for number, state in enumerate(chain_.states):
        if number != index and state.passed and not people.isdisjoint(_used_up(state)):
            return _already_counted(chain_, number)
    return None


def _used_up(state: chain.StageState) -> set[int]:
    counted = state.approvals | (state.denials & state.cast_by.keys())
    return {person for voter in counted for person in state.people_behind(voter)}


def _already_counted(chain_: Chain, number: int) -> Refusal:
    name = chain_.stages[number].name
    return Refusal(
        "already_counted",
        f"Your vote in “{name}” counts, and one person fills one place in the whole chain.",
    )


def _explain(chain_: Chain, effect: chain.VoteEffect) -> Refusal | None:
    match effect:
        case chain.Allowed():
            return None
        case chain.AlreadyCounted(stage=number):
            return _already_counted(chain_, number)
        case chain.NeededLater(stage=number):
            return Refusal(
                "needed_later",
                f"“{chain_.stages[number].name}” comes later and nobody else could fill your place "
                "there. Leave this stage to somebody else.",
            )
        case chain.NotEligible():
            return Refusal("not_eligible", "No place in this stage is for one of your groups.")
        case chain.WrongStage():
            return Refusal("wrong_stage", "Another stage is open now. Reload the page.")


def permitted_actions(
    request: AccessRequest, chain_: Chain, person: Person
) -> dict[str, Refusal | None]:
    """For each action on a request: None if `person` may do it now, else the Refusal.

    Computed here once; buttons, API and verbs all read it.
    """
    return {
        "approve": may_vote(request, chain_, person, Decision.APPROVE),
        "deny": may_vote(request, chain_, person, Decision.DENY),
        "cancel": may_cancel(request, person),
        "send_back": may_send_back(request, chain_, person),
        "edit": may_edit(request, chain_, person),
        "redraw": may_redraw(request, chain_, person),
    }


def may_send_back(request: AccessRequest, chain_: Chain, person: Person) -> Refusal | None:
    """Whoever may deny it may ask for changes instead."""
    if request.kind != RequestKind.ACCESS:
        return Refusal("wrong_state", "This is approved or denied as it is.")
    return may_vote(request, chain_, person, Decision.DENY)


def may_edit(request: AccessRequest, chain_: Chain, person: Person) -> Refusal | None:
    """Whoever asked, while it is undecided. Nobody else speaks for them."""
    if person.pk != request.requester_id:
        return Refusal("not_yours", "Only whoever asked for this can change it.")
    if request.kind != RequestKind.ACCESS:
        return Refusal("wrong_state", "This cannot be changed. Cancel it and ask again.")
    if request.state not in UNDECIDED or is_too_late(request, chain_):
        return Refusal("wrong_state", "It is not undecided any more; ask anew.")
    return None


def may_redraw(request: AccessRequest, chain_: Chain, person: Person) -> Refusal | None:
    """Why `person` may not have the candidates of this request drawn anew, or None."""
    if not access.sets_policies(person):
        return Refusal("not_admin", "Only those who may change policies can ask others instead.")
    if person.pk in {request.requester_id, request.beneficiary_id}:
        return Refusal(
            "self_redraw", "Nobody chooses who decides about their own access. Ask another admin."
        )
    if request.state != RequestState.PENDING or is_too_late(request, chain_):
        return Refusal("wrong_state", "It is not waiting for anybody, so nobody can be asked.")
    return None


def may_cancel(request: AccessRequest, person: Person) -> Refusal | None:
    if person.pk not in {request.requester_id, request.beneficiary_id}:
        return Refusal("not_yours", "Only whoever asked for this, or for whom, can cancel it.")
    if request.state not in (RequestState.PENDING, RequestState.CHANGES_REQUESTED):
        label = RequestState(request.state).label.lower()
        return Refusal("wrong_state", f"This request is {label}; there is nothing to cancel.")
    return None
