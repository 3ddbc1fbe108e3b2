"""What looks wrong with the policies in force: one that never governs, or that nobody could fill.

Warnings only: what could not work at all `publish` refuses. `lint` is pure; `look` reads what it
needs, in as many queries for many policies as for one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from django.contrib.auth import get_user_model
from django.db.models import F, Prefetch

from approvals import policy
from approvals.lengths import lasting
from approvals.models import (
    AccessLevel,
    Environment,
    ExtensionApproval,
    PolicyVersion,
    Risk,
    Stage,
    StageGroup,
)
from approvals.policy import AppliesTo

NAMED: Final = 3  # people or policies in one warning
LEAST_NOTICE: Final = 300  # seconds in which somebody may be hoped to decide

UNREACHABLE = "unreachable"
NO_LEVEL = "no_level"
NO_REQUESTER = "no_requester"
UNFILLABLE = "unfillable"
TOO_FEW = "too_few"
NO_FALLBACK = "no_fallback"
NO_EMERGENCY = "no_emergency"
ASKS_NOBODY = "asks_nobody"
NO_ROOM = "no_room"
TOO_LATE = "too_late"
NO_ESCALATION = "no_escalation"
NO_REMINDER = "no_reminder"
USELESS: Final = frozenset({UNREACHABLE, NO_LEVEL, NO_REQUESTER, UNFILLABLE})
"""Codes of what keeps a policy from ever letting anybody in."""


@dataclass(frozen=True)
class Warned:
    """One thing that looks wrong, and what would mend it."""

    code: str
    text: str
    fix: str = ""


@dataclass(frozen=True)
class Place:
    """Where a level is: what conditions other than its id are compared with."""

    environment: str
    risk: str
    labels: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Longer:
    """What a policy allows of longer access. Times are seconds; `single` without extensions."""

    approval: str
    single: int
    total: int
    window: int
    bridge: int


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A policy in force. `stages` have their groups read."""

    policy: int
    name: str
    rank: int
    applies_to: AppliesTo
    stages: Sequence[Stage] = ()
    emergency_groups: Sequence[int] = ()
    longer: Longer | None = None


@dataclass(frozen=True, kw_only=True)
class Ground:
    """Who is there. `members` are the active ones, by the group's id as text; `levels` by id."""

    members: Mapping[str, set[int]]
    levels: Mapping[int, Place]
    names: Mapping[int, str]


def look() -> dict[int, list[Warned]]:
    """By policy, the warnings of every enabled one that has published something."""
    prefetch = Prefetch("stage_groups", StageGroup.objects.select_related("group"))
    stages = Stage.objects.order_by("order").select_related("fallback_group", "escalation_group")
    versions = list(
        PolicyVersion.objects.filter(policy__enabled=True, policy__current=F("pk"))
        .select_related("policy")
        .prefetch_related(Prefetch("stages", stages.prefetch_related(prefetch)))
        .order_by("policy__rank")
    )
    rules = [_rule(version) for version in versions]
    return lint(rules, _ground(rules))


def _rule(version: PolicyVersion) -> Rule:
    return Rule(
        policy=version.policy_id,
        name=version.policy.name,
        rank=version.policy.rank,
        applies_to=AppliesTo.model_validate(version.applies_to),
        stages=list(version.stages.all()),
        emergency_groups=version.emergency_groups,
        longer=_longer(version) if version.extensions_most else None,
    )


def _longer(version: PolicyVersion) -> Longer:
    return Longer(
        approval=version.extension_approval,
        single=version.max_duration,
        total=version.max_total,
        window=version.extension_window,
        bridge=version.bridge,
    )


def _ground(rules: Sequence[Rule]) -> Ground:
    asking = [group for rule in rules for group in rule.applies_to.requester_groups]
    asking += [group for rule in rules for group in rule.emergency_groups]
    members = policy.members_of([stage for rule in rules for stage in rule.stages], *asking)
    wanted = {pk for rule in rules for pk in rule.applies_to.levels}
    levels = AccessLevel.objects.filter(pk__in=wanted, enabled=True, target__enabled=True)
    people = get_user_model()._default_manager.filter(pk__in=set().union(*members.values()))
    return Ground(
        members=members,
        levels={
            level.pk: Place(level.target.environment, level.risk, level.target.labels)
            for level in levels.select_related("target")
        },
        names={person.pk: person.get_username() for person in people},
    )


def lint(rules: Sequence[Rule], ground: Ground) -> dict[int, list[Warned]]:
    """By policy, what looks wrong; `rules` in the order of their ranks."""
    found: dict[int, list[Warned]] = {}
    for index, rule in enumerate(rules):
        warned = [
            *_unreachable(rule, rules[:index]),
            *_governs_nothing(rule, ground),
            *_unfillable(rule, ground),
            *_no_fallback(rule, ground),
            *_no_emergency(rule, ground),
            *_longer_access(rule.longer),
            *_no_escalation(rule, ground),
            *_no_reminder(rule),
        ]
        if warned:
            found[rule.policy] = warned
    return found


def _unreachable(rule: Rule, earlier: Sequence[Rule]) -> Iterator[Warned]:
    """Whether each environment and risk that it is for is taken by one that comes first."""
    takers: dict[int, Rule] = {}
    for environment in rule.applies_to.environments or Environment.values:
        for risk in rule.applies_to.risks or Risk.values:
            one = rule.applies_to.model_copy(
                update={"environments": [environment], "risks": [risk]}
            )
            taker = next((first for first in earlier if _covers(first.applies_to, one)), None)
            if taker is None:
                return
            takers[taker.rank] = taker
    if takers:
        names = _some([f"“{taker.name}” (rank {rank})" for rank, taker in sorted(takers.items())])
        yield Warned(
            UNREACHABLE,
            f"It never governs a request: {names} comes first and takes all that it is for.",
            "Give it a lower rank, or narrow the other.",
        )


def _covers(first: AppliesTo, then: AppliesTo) -> bool:
    """Whether whatever `then` is for, `first` is for as well."""
    return (
        _within(then.environments, first.environments)
        and _within(then.risks, first.risks)
        and _within(then.levels, first.levels)
        and _within(then.requester_groups, first.requester_groups)
        and first.labels.items() <= then.labels.items()
    )


def _within(narrow: Iterable[object], wide: Iterable[object]) -> bool:
    """An empty list sets no condition."""
    return not wide or (bool(narrow) and set(narrow) <= set(wide))


def _governs_nothing(rule: Rule, ground: Ground) -> Iterator[Warned]:
    wanted = rule.applies_to
    if wanted.levels and not any(_fits(ground.levels.get(pk), wanted) for pk in wanted.levels):
        yield Warned(
            NO_LEVEL,
            "None of the levels it names is switched on and meets its other conditions.",
            "Publish a version that names others.",
        )
    groups = wanted.requester_groups
    if groups and not any(ground.members.get(str(group)) for group in groups):
        yield Warned(
            NO_REQUESTER,
            "Nobody is in the groups whose requests it is for.",
            "Put people into them.",
        )


def _fits(place: Place | None, wanted: AppliesTo) -> bool:
    return place is not None and (
        _within([place.environment], wanted.environments)
        and _within([place.risk], wanted.risks)
        and wanted.labels.items() <= place.labels.items()
    )


def _unfillable(rule: Rule, ground: Ground) -> Iterator[Warned]:
    """Whether nobody's request could be approved, or not those of some."""
    if obstacle := policy.fill(rule.stages, ground.members, barred=set()).obstacle:
        yield Warned(UNFILLABLE, obstacle)
        return
    stuck: dict[str, list[str]] = defaultdict(list)
    for person in sorted(_may_be_missed(rule, ground)):
        if obstacle := policy.fill(rule.stages, ground.members, barred={person}).obstacle:
            stuck[obstacle].append(ground.names[person])
    for obstacle, names in stuck.items():
        told = obstacle[0].lower() + obstacle[1:]
        yield Warned(TOO_FEW, f"If {_some(names, 'or')} asks, {told}")


def _may_be_missed(rule: Rule, ground: Ground) -> set[int]:
    """Who may ask and could leave a stage short by it.

    A group with more members than the chain has places is never short for one of them.
    """
    places = sum(stage.total for stage in rule.stages)
    named = {str(row.group_id) for stage in rule.stages for row in stage.stage_groups.all()}
    named |= {str(stage.fallback_group_id) for stage in rule.stages if stage.fallback_group_id}
    small = [ground.members[group] for group in named if len(ground.members[group]) <= places]
    people: set[int] = set().union(*small)
    asking = rule.applies_to.requester_groups
    return people & set().union(*(ground.members[str(one)] for one in asking)) if asking else people


def _no_fallback(rule: Rule, ground: Ground) -> Iterator[Warned]:
    for stage in rule.stages:
        group = stage.fallback_group
        if group is not None and not ground.members[str(group.pk)]:
            yield Warned(
                NO_FALLBACK,
                f"Nobody is in {group.name}, which stands in for the stage “{stage.name}”.",
                "Put people into it, or name another fallback group.",
            )


def _no_emergency(rule: Rule, ground: Ground) -> Iterator[Warned]:
    groups = rule.emergency_groups
    if groups and not any(ground.members.get(str(group)) for group in groups):
        yield Warned(
            NO_EMERGENCY,
            "Nobody is in the groups that may open without approval in an emergency.",
            "Put people into them, or publish a version that names others.",
        )


def _longer_access(longer: Longer | None) -> Iterator[Warned]:
    if longer is None:
        return
    if longer.approval == ExtensionApproval.NONE:
        yield Warned(
            ASKS_NOBODY,
            f"It asks nobody for longer access: whoever holds it may keep it for "
            f"{lasting(longer.total)}.",
            "Have its last stage asked, unless that is meant.",
        )
    elif longer.window < LEAST_NOTICE and not longer.bridge:
        yield Warned(
            TOO_LATE,
            f"Longer access can be asked for in the last {lasting(longer.window)} only, which "
            "leaves hardly any time to decide.",
            "Let it be asked for earlier, or bridge the wait.",
        )
    if longer.total == longer.single:
        yield Warned(
            NO_ROOM,
            f"What is asked for in full, {lasting(longer.single)}, can never be extended.",
            "Let it last longer in all, or less at first.",
        )


def _no_escalation(rule: Rule, ground: Ground) -> Iterator[Warned]:
    for stage in rule.stages:
        group = stage.escalation_group
        if group is not None and not ground.members[str(group.pk)]:
            yield Warned(
                NO_ESCALATION,
                f"Nobody is in {group.name}, to which the stage “{stage.name}” escalates.",
                "Put people into it, or name another escalation group.",
            )


def _no_reminder(rule: Rule) -> Iterator[Warned]:
    for stage in rule.stages:
        if stage.remind_every and stage.deadline and stage.remind_every >= stage.deadline:
            yield Warned(
                NO_REMINDER,
                f"The deadline of the stage “{stage.name}” comes before its first reminder.",
                "Remind earlier, or give it more time.",
            )


def _some(names: Sequence[str], word: str = "and") -> str:
    """The first few, and how many more."""
    shown = list(names[:NAMED])
    if len(names) > NAMED:
        shown.append(f"{len(names) - NAMED} more")
    if len(shown) == 1:
        return shown[0]
    return f"{', '.join(shown[:-1])} {word} {shown[-1]}"
