"""The arithmetic of a chain: can it be filled, is a stage filled, what would one more vote do.

A stage is a set of slots, and filling them is one bipartite matching of slots and people. Pure:
frozen values in, an outcome out. Who is a candidate, who is barred and which vote is somebody's
latest is decided by the caller; so is what to do with the answer. No ORM, no clock, no Django.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import ClassVar, NamedTuple


@dataclass(frozen=True, kw_only=True)
class StageRule:
    """What a stage asks for: a minimum per group, and a total over all of them.

    A group with minimum 0 may fill free slots only. A total below the sum of the minima adds no
    free slot and takes none away.

    Raises ValueError for a negative minimum and for a deny quorum below 1, under which silence
    would deny.
    """

    groups: Mapping[str, int]
    total: int
    deny_quorum: int = 1

    def __post_init__(self) -> None:
        if self.deny_quorum < 1:
            raise ValueError("A deny quorum is at least 1.")
        if any(minimum < 0 for minimum in self.groups.values()):
            raise ValueError("A group's minimum is at least 0.")

    @property
    def slots(self) -> tuple[frozenset[str], ...]:
        """The groups that may fill each slot: the minima first, then the free ones."""
        if not self.groups:
            return ()
        minima = [frozenset({name}) for name, least in self.groups.items() for _ in range(least)]
        free = max(0, self.total - len(minima))
        return (*minima, *[frozenset(self.groups)] * free)


@dataclass(frozen=True, kw_only=True)
class StageState:
    """A stage as it stands: its rule, who may fill it, and everybody's latest vote in it.

    `candidates` holds, by person id, the stage's groups that a person was drawn with and still
    holds; who stands in for a group (fallback, escalation) is listed with the group they stand in
    for. `cast_by` names, for a vote given on somebody's behalf, who gave it: principal to
    delegate. The votes of a passed stage stand whatever has become of their authors; in any other
    stage a vote stands only while its author is a candidate.

    Raises ValueError if somebody approves and denies at once.
    """

    rule: StageRule
    candidates: Mapping[int, frozenset[str]]
    approvals: frozenset[int] = frozenset()
    denials: frozenset[int] = frozenset()
    cast_by: Mapping[int, int] = field(default_factory=dict)
    passed: bool = False

    def __post_init__(self) -> None:
        if both := self.approvals & self.denials:
            raise ValueError(f"Only the latest vote counts, but two were given for {sorted(both)}.")

    def admits(self, person: int) -> bool:
        """Whether some slot of this stage, empty or not, could be theirs."""
        held = self.candidates.get(person, frozenset())
        return any(not held.isdisjoint(slot) for slot in self.rule.slots)

    @property
    def standing_approvals(self) -> frozenset[int]:
        if self.passed:
            return self.approvals
        return frozenset(person for person in self.approvals if self.admits(person))

    @property
    def standing_denials(self) -> frozenset[int]:
        """Denials that count; a candidate may deny even where no slot is theirs to fill."""
        if self.passed:
            return self.denials
        return frozenset(
            person
            for person in self.denials
            if not self.rule.groups.keys().isdisjoint(self.candidates.get(person, ()))
        )

    def people_behind(self, voter: int) -> frozenset[int]:
        """Whom the vote counted for `voter` uses up: them, and whoever gave it for them."""
        return frozenset({voter, self.cast_by.get(voter, voter)})


@dataclass(frozen=True, kw_only=True)
class Missing:
    """So many people are missing, each from any one of these groups."""

    count: int
    groups: frozenset[str]

    def __str__(self) -> str:
        return f"{self.count} of {' or '.join(sorted(self.groups))}"


@dataclass(frozen=True, kw_only=True)
class ChainOutcome:
    """Whether a chain can be filled and, if not, why not.

    `stage` is the index of the first stage that cannot be filled together with those before it
    (None when there is no stage at all), `missing` what it lacks (nothing when it has no slot),
    and `shares_people_with` the earlier stages that need the people it would have needed.
    """

    fillable: bool
    stage: int | None = None
    missing: tuple[Missing, ...] = ()
    shares_people_with: tuple[int, ...] = ()


class Verdict(StrEnum):
    """What a stage has come to."""

    FILLED = "filled"
    OPEN = "open"
    DENIED = "denied"
    UNFILLABLE = "unfillable"


@dataclass(frozen=True, kw_only=True)
class StageOutcome:
    """What a stage has come to and, while it is open, which slots are still empty."""

    verdict: Verdict
    missing: tuple[Missing, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Allowed:
    """The approval may be given. `fills` is False if it is surplus: counted, but no slot fills."""

    fills: bool


@dataclass(frozen=True, kw_only=True)
class NeededLater:
    """The approval would cost `stage` (an index) somebody whom nobody else can replace there."""

    reason: ClassVar[str] = "needed_later"
    stage: int


@dataclass(frozen=True, kw_only=True)
class AlreadyCounted:
    """A vote in `stage` (an index) has used up the voter, or the one who votes for them."""

    reason: ClassVar[str] = "already_counted"
    stage: int


@dataclass(frozen=True, kw_only=True)
class NotEligible:
    """No slot of this stage could be the voter's."""

    reason: ClassVar[str] = "not_eligible"


@dataclass(frozen=True, kw_only=True)
class WrongStage:
    """Another stage is open, or none is (`open` is None)."""

    reason: ClassVar[str] = "wrong_stage"
    open: int | None


VoteEffect = Allowed | NeededLater | AlreadyCounted | NotEligible | WrongStage


class _Slot(NamedTuple):
    stage: int
    number: int
    groups: frozenset[str]


class _Tally(NamedTuple):
    approvals: frozenset[int]
    used_up: frozenset[int]


# What stays empty, each with the slots (itself included) that could be the empty one instead.
_Gaps = dict[_Slot, frozenset[_Slot]]


def open_stage(stages: Sequence[StageState]) -> int | None:
    """Return the index of the stage whose turn it is: the first that has not passed."""
    return next((index for index, stage in enumerate(stages) if not stage.passed), None)


def simulate(stages: Sequence[StageState]) -> ChainOutcome:
    """Tell whether people can be found for all slots that are left, one slot a person.

    Votes already given bind their people to their stage. Somebody who denied may still change
    their mind or approve elsewhere, so a denial takes nobody away (unless given on behalf of
    another, which uses up both). No stages, or a stage without a slot, is never fillable.
    """
    if not stages:
        return ChainOutcome(fillable=False)
    for index, stage in enumerate(stages):
        if not stage.rule.slots:
            return ChainOutcome(fillable=False, stage=index)
    gaps = _chain_gaps(stages)
    if not gaps:
        return ChainOutcome(fillable=True)
    first = min(slot.stage for slot in gaps)
    return ChainOutcome(
        fillable=False,
        stage=first,
        missing=_missing(gaps, stage=first),
        shares_people_with=_other_stages(gaps, stage=first),
    )


def outcome(stages: Sequence[StageState], index: int) -> StageOutcome:
    """Tell what the stage at `index` has come to.

    It is filled only if its approvals can be matched to all of its slots, one slot a person; an
    approval of somebody used up earlier in the chain is left out. Denial wins over approval.

    Raises IndexError if there are stages, but none at `index`.
    """
    if not stages or not stages[index].rule.slots:
        return StageOutcome(verdict=Verdict.UNFILLABLE)
    stage = stages[index]
    if stage.passed:
        return StageOutcome(verdict=Verdict.FILLED)
    if len(stage.standing_denials) >= stage.rule.deny_quorum:
        return StageOutcome(verdict=Verdict.DENIED)
    if gaps := _stage_gaps(stages, index):
        return StageOutcome(verdict=Verdict.OPEN, missing=_missing(gaps, stage=index))
    return StageOutcome(verdict=Verdict.FILLED)


def covers(slots: Sequence[frozenset[str]], wanted: Sequence[frozenset[str]]) -> bool:
    """Tell whether whoever fills all `slots` would fill the `wanted` ones as well.

    That is so if each of these has one of `slots` for itself that is for none but its groups.
    """
    fits = {
        number: frozenset(str(which) for which, place in enumerate(wanted) if slot <= place)
        for number, slot in enumerate(slots)
    }
    return not _match([_Slot(0, n, frozenset({str(n)})) for n in range(len(wanted))], {0: fits})


def vote_effect(
    stages: Sequence[StageState], index: int, voter: int, *, cast_by: int | None = None
) -> VoteEffect:
    """Tell what an approval for `voter` in the stage at `index` would do, or why it is refused.

    `cast_by` is who gives it on the voter's behalf, if another does. The voter's earlier denial
    in this stage counts as replaced. To weigh the replacement of an approval (which is
    `AlreadyCounted` at this very stage), take the old one out of `stages` first. Denials fill
    nothing and are never refused here.
    """
    if index != (now_open := open_stage(stages)):
        return WrongStage(open=now_open)
    if not stages[index].admits(voter):
        return NotEligible()
    if voter in _tally(stages)[index].approvals:
        return AlreadyCounted(stage=index)
    before = _without_vote(stages, index, voter)
    caster = voter if cast_by is None else cast_by
    for number, tally in enumerate(_tally(before)):
        if not tally.used_up.isdisjoint({voter, caster}):
            return AlreadyCounted(stage=number)
    return _weigh(before, _with_approval(before, index, voter, caster=caster), index)


def _weigh(
    before: Sequence[StageState], after: Sequence[StageState], index: int
) -> Allowed | NeededLater:
    # Compared slot by slot, not "fillable or not", so that a chain that has lost people already
    # does not lose more: a vote is refused exactly if fewer slots could be filled after it.
    had = Counter(slot.stage for slot in _chain_gaps(before))
    has = Counter(slot.stage for slot in _chain_gaps(after))
    if worse := has - had:
        return NeededLater(stage=min(worse))
    return Allowed(fills=len(_stage_gaps(after, index)) < len(_stage_gaps(before, index)))


def _without_vote(stages: Sequence[StageState], index: int, voter: int) -> list[StageState]:
    stage = stages[index]
    changed = replace(stage, approvals=stage.approvals - {voter}, denials=stage.denials - {voter})
    return [*stages[:index], changed, *stages[index + 1 :]]


def _with_approval(
    stages: Sequence[StageState], index: int, voter: int, *, caster: int
) -> list[StageState]:
    stage = stages[index]
    changed = replace(
        stage, approvals=stage.approvals | {voter}, cast_by={**stage.cast_by, voter: caster}
    )
    return [*stages[:index], changed, *stages[index + 1 :]]


def _tally(stages: Sequence[StageState]) -> list[_Tally]:
    """Return the approvals that count in each stage, and the people its votes use up.

    A vote whose people are used up already does not count. That cannot arise from votes weighed
    by `vote_effect` alone, but can when somebody leaves, votes elsewhere and comes back.
    """
    used: frozenset[int] = frozenset()
    tallies = []
    for stage in stages:
        tally = _tally_stage(stage, used)
        used |= tally.used_up
        tallies.append(tally)
    return tallies


def _tally_stage(stage: StageState, used: frozenset[int]) -> _Tally:
    counted, spent = set(), set(used)
    delegated_denials = stage.standing_denials & stage.cast_by.keys()
    voters = stage.standing_approvals | delegated_denials
    # One's own vote comes before one given for another; ids only make the order a fixed one.
    for voter in sorted(voters, key=lambda person: (person in stage.cast_by, person)):
        people = stage.people_behind(voter)
        if spent.isdisjoint(people):
            spent |= people
            counted.add(voter)
    return _Tally(frozenset(counted - delegated_denials), frozenset(spent - used))


def _chain_gaps(stages: Sequence[StageState]) -> _Gaps:
    """Return the slots of stages not passed that nobody is left for, the earliest filled first."""
    tallies = _tally(stages)
    used = frozenset().union(*(tally.used_up for tally in tallies))
    slots: list[_Slot] = []
    free: dict[int, dict[int, frozenset[str]]] = {}
    for index, stage in enumerate(stages):
        if stage.passed:
            continue
        elsewhere = used - tallies[index].approvals
        free[index] = {p: held for p, held in stage.candidates.items() if p not in elsewhere}
        slots += _slots(stage, index)
    return _match(slots, free)


def _stage_gaps(stages: Sequence[StageState], index: int) -> _Gaps:
    """Return the slots of one stage that its counted approvals leave empty."""
    stage = stages[index]
    approvals = _tally(stages)[index].approvals
    return _match(_slots(stage, index), {index: {p: stage.candidates[p] for p in approvals}})


def _slots(stage: StageState, index: int) -> list[_Slot]:
    return [_Slot(index, number, groups) for number, groups in enumerate(stage.rule.slots)]


def _match(slots: Sequence[_Slot], people: Mapping[int, Mapping[int, frozenset[str]]]) -> _Gaps:
    """Fill slots in order with people (by stage: id to groups), and return what stays empty.

    Augmenting paths (Kuhn), searched from the slots: a search meets a free person or walks only
    over people who hold a slot, so its cost grows with the slots, not with the candidates. Taking
    slots in order fills the earliest stages first and still fills as many as possible: sets of
    slots that can be filled together form a matroid.
    """
    fits = {
        (stage, groups): [p for p, held in people[stage].items() if not held.isdisjoint(groups)]
        for stage, groups in {(slot.stage, slot.groups) for slot in slots}
    }
    held_slot: dict[int, _Slot] = {}
    searches = {slot: _augment(slot, fits, held_slot) for slot in slots}
    return {slot: reached for slot, reached in searches.items() if reached}


def _augment(
    start: _Slot,
    fits: Mapping[tuple[int, frozenset[str]], Sequence[int]],
    held_slot: dict[int, _Slot],
) -> frozenset[_Slot]:
    """Fill `start`, moving people if need be; failing that, return the slots it could trade with.

    A newcomer who fits any of the returned slots would make room for `start`.
    """
    came_from: dict[_Slot, tuple[_Slot, int]] = {}
    reached = [start]
    for slot in reached:  # grows while it is walked: breadth first
        for person in fits[slot.stage, slot.groups]:
            held = held_slot.get(person)
            if held is None:
                _move_along(slot, person, came_from, held_slot)
                return frozenset()
            if held not in came_from:
                came_from[held] = (slot, person)
                reached.append(held)
    return frozenset(reached)


def _move_along(
    slot: _Slot,
    person: int,
    came_from: Mapping[_Slot, tuple[_Slot, int]],
    held_slot: dict[int, _Slot],
) -> None:
    held_slot[person] = slot
    while slot in came_from:
        slot, person = came_from[slot]
        held_slot[person] = slot


def _missing(gaps: _Gaps, *, stage: int) -> tuple[Missing, ...]:
    """Describe a stage's empty slots by the groups whose members would help, as few as can be.

    Where carol fills either the slot of dba or that of security, the other one is missing: said
    as "1 of dba or security", since naming one of the two would turn somebody helpful away.
    """
    counts = Counter(
        frozenset[str]().union(*(slot.groups for slot in reached if slot.stage == stage))
        for empty, reached in gaps.items()
        if empty.stage == stage
    )
    return tuple(Missing(count=count, groups=groups) for groups, count in counts.items())


def _other_stages(gaps: _Gaps, *, stage: int) -> tuple[int, ...]:
    reached = frozenset[_Slot]().union(*(gaps[empty] for empty in gaps if empty.stage == stage))
    return tuple(sorted({slot.stage for slot in reached} - {stage}))
