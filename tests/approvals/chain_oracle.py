"""A second opinion on the chain's arithmetic: every assignment of people to slots, tried in turn.

Slow and plain on purpose, and without a line of `approvals.chain`'s matching: it reads only the
fields of `StageState` and `StageRule`. Good for chains of some five slots and six people.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from approvals.chain import StageState

Slot = tuple[int, frozenset[str]]
People = Mapping[int, Mapping[int, frozenset[str]]]


def slots_of(stage: StageState) -> list[frozenset[str]]:
    """Spell out the slots: one per head of each minimum, then anybody's up to the total."""
    slots = []
    for name, minimum in stage.rule.groups.items():
        slots += [frozenset([name])] * minimum
    while slots_left(stage, len(slots)):
        slots.append(frozenset(stage.rule.groups))
    return slots


def slots_left(stage: StageState, count: int) -> bool:
    return bool(stage.rule.groups) and count < stage.rule.total


def assignments(slots: Sequence[Slot], people: People) -> Iterator[list[bool]]:
    """Yield, for every way to seat people one slot each, which slots are filled."""
    yield from _seat(list(slots), people, frozenset())


def _seat(slots: list[Slot], people: People, seated: frozenset[int]) -> Iterator[list[bool]]:
    if not slots:
        yield []
        return
    (stage, groups), rest = slots[0], slots[1:]
    for person, held in people[stage].items():
        if person not in seated and held & groups:
            for filled in _seat(rest, people, seated | {person}):
                yield [True, *filled]
    for filled in _seat(rest, people, seated):
        yield [False, *filled]


def could_approve(stage: StageState, person: int) -> bool:
    return any(stage.candidates.get(person, frozenset()) & slot for slot in slots_of(stage))


def counted_approvals(stages: Sequence[StageState]) -> list[set[int]]:
    """Return the approvals that count; knows delegated approvals, not delegated denials."""
    used: set[int] = set()
    counted = []
    for stage in stages:
        counted.append(set[int]())
        own = sorted(stage.approvals - set(stage.cast_by))
        lent = sorted(stage.approvals & set(stage.cast_by))
        for person in own + lent:
            both = {person, stage.cast_by.get(person, person)}
            if (stage.passed or could_approve(stage, person)) and not both & used:
                used |= both
                counted[-1].add(person)
    return counted


def used_people(stages: Sequence[StageState]) -> list[set[int]]:
    return [
        approvals | {stage.cast_by[p] for p in approvals if p in stage.cast_by}
        for stage, approvals in zip(stages, counted_approvals(stages), strict=True)
    ]


def best_fill(stages: Sequence[StageState]) -> tuple[list[int], int]:
    """Return how many slots stay empty per stage, earlier stages favoured, and at least in all."""
    counted, used = counted_approvals(stages), set[int]().union(*used_people(stages))
    people = {
        index: {
            person: held
            for person, held in stage.candidates.items()
            if person in counted[index] or person not in used
        }
        for index, stage in enumerate(stages)
    }
    slots = [(i, s) for i, stage in enumerate(stages) if not stage.passed for s in slots_of(stage)]
    empty = [
        [
            sum(1 for (at, _), full in zip(slots, filled, strict=True) if at == i and not full)
            for i in range(len(stages))
        ]
        for filled in assignments(slots, people)
    ]
    return min(empty), min(sum(row) for row in empty)


def fillable(stages: Sequence[StageState]) -> bool:
    return bool(stages) and all(slots_of(stage) for stage in stages) and not best_fill(stages)[1]


def empty_slots(stages: Sequence[StageState], index: int) -> int:
    """Return how many slots of one stage its counted approvals cannot fill."""
    stage = stages[index]
    people = {index: {p: stage.candidates[p] for p in counted_approvals(stages)[index]}}
    slots = [(index, slot) for slot in slots_of(stage)]
    return min(filled.count(False) for filled in assignments(slots, people))


def denied(stage: StageState) -> bool:
    names = set(stage.rule.groups)
    voices = [p for p in stage.denials if stage.candidates.get(p, frozenset()) & names]
    return len(voices) >= stage.rule.deny_quorum


def judge(
    stages: Sequence[StageState], index: int, voter: int, caster: int
) -> tuple[str, int | bool | None]:
    """Return the reason an approval is refused with the stage named, or "allowed" and fills."""
    still_open = [i for i, stage in enumerate(stages) if not stage.passed]
    if [index] != still_open[:1]:
        return "wrong_stage", still_open[0] if still_open else None
    if not could_approve(stages[index], voter):
        return "not_eligible", None
    if voter in counted_approvals(stages)[index]:
        return "already_counted", index
    before = _revote(stages, index, voter, None)
    for at, used in enumerate(used_people(before)):
        if used & {voter, caster}:
            return "already_counted", at
    after = _revote(stages, index, voter, caster)
    was, now = best_fill(before)[0], best_fill(after)[0]
    for at, (fewer, more) in enumerate(zip(was, now, strict=True)):
        if more > fewer:
            return "needed_later", at
    return "allowed", empty_slots(after, index) < empty_slots(before, index)


def _revote(
    stages: Sequence[StageState], index: int, voter: int, caster: int | None
) -> list[StageState]:
    """Replace the voter's vote by an approval given by `caster`, or by none."""
    old, copy = stages[index], list(stages)
    casters = {p: c for p, c in old.cast_by.items() if p != voter}
    if caster not in (None, voter):
        casters[voter] = caster
    copy[index] = StageState(
        rule=old.rule,
        candidates=old.candidates,
        approvals=old.approvals - {voter} | ({voter} if caster is not None else set()),
        denials=old.denials - {voter},
        cast_by=casters,
    )
    return copy
