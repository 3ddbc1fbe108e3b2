"""A policy as one sentence: "Requests for production need 1 of dba, then 1 of security."

Reads a version and its stages; nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.contrib.auth.models import Group
from django.db.models import Prefetch, QuerySet

from approvals.lengths import lasting
from approvals.models import AccessLevel, ExtensionApproval, PolicyVersion, Stage, StageGroup
from approvals.policy import AppliesTo

UNPUBLISHED = "Nothing yet: no version of it is published, so it governs no request."
GONE = "a deleted one"


@dataclass(frozen=True)
class Names:
    """What the ids in conditions are called."""

    levels: dict[int, str]
    groups: dict[int, str]


def with_stages(versions: QuerySet[PolicyVersion]) -> QuerySet[PolicyVersion]:
    """`versions` with everything that `sentence` reads, in two more queries."""
    groups = Prefetch("stage_groups", StageGroup.objects.select_related("group"))
    stages = Stage.objects.order_by("order").select_related("fallback_group", "escalation_group")
    return versions.prefetch_related(Prefetch("stages", stages.prefetch_related(groups)))


def names(versions: Sequence[PolicyVersion]) -> Names:
    """The names that the conditions of all of these need, in two queries."""
    conditions = [AppliesTo.model_validate(version.applies_to) for version in versions]
    level_ids = {pk for one in conditions for pk in one.levels}
    group_ids = {pk for one in conditions for pk in one.requester_groups}
    group_ids |= {pk for version in versions for pk in version.emergency_groups}
    levels = AccessLevel.objects.filter(pk__in=level_ids).select_related("target")
    return Names(
        levels={level.pk: str(level) for level in levels},
        groups=dict(Group.objects.filter(pk__in=group_ids).values_list("pk", "name")),
    )


def sentence(version: PolicyVersion, known: Names) -> str:
    """The version in words, in the order in which people are asked."""
    asked = [_asked(stage) for stage in version.stages.all()]
    said = f"{_governed(version, known)} need {', then '.join(asked)}."
    if version.emergency_duration:
        named = _or([known.groups.get(pk, GONE) for pk in version.emergency_groups])
        said += f" In an emergency {named} may open for {lasting(version.emergency_duration)}."
    if not version.allow_delegation:
        said += " Nobody votes for another."
    return said


def clocks(version: PolicyVersion) -> str:
    """Its lengths of time in words."""
    told = (
        f"Up to {lasting(version.max_duration)}; decided within {lasting(version.pending_ttl)}, "
        f"opened within {lasting(version.activation_ttl)}."
    )
    if version.extensions_most:
        told += f" {_longer(version)}"
    if version.review_all:
        told += f" Looked back at within {lasting(version.review_within)}."
    return told


AGREES = {
    ExtensionApproval.CHAIN: "if the whole chain agrees",
    ExtensionApproval.LAST: "if its last stage agrees",
    ExtensionApproval.NONE: "without asking anybody",
}


def _longer(version: PolicyVersion) -> str:
    """What it allows of longer access."""
    often = "once" if version.extensions_most == 1 else f"{version.extensions_most} times"
    told = (
        f"In its last {lasting(version.extension_window)} extended {often}, by up to "
        f"{lasting(version.extension_max)} and to {lasting(version.max_total)} in all, "
        f"{AGREES[ExtensionApproval(version.extension_approval)]}"
    )
    if version.bridge:
        told += f"; undecided at its end it goes on for {lasting(version.bridge)}, once"
    return f"{told}."


def _governed(version: PolicyVersion, known: Names) -> str:
    wanted = AppliesTo.model_validate(version.applies_to)
    labels = [f"{name}={value}" for name, value in sorted(wanted.labels.items())]
    parts = [
        ("from", _or([known.groups.get(pk, GONE) for pk in wanted.requester_groups])),
        ("for", _or([known.levels.get(pk, GONE) for pk in wanted.levels])),
        ("for", _or(wanted.environments)),
        ("of", _or(wanted.risks) and f"{_or(wanted.risks)} risk"),
        ("on targets labelled", " and ".join(labels)),
    ]
    said = [f"{word} {what}" for word, what in parts if what]
    return " ".join(["Requests", *said]) if said else "All requests"


def _asked(stage: Stage) -> str:
    minima = {row.group.name: row.minimum for row in stage.stage_groups.all()}
    parts = [f"{minimum} of {name}" for name, minimum in minima.items() if minimum]
    free = stage.total - sum(minima.values())
    if free:
        parts.append(f"{free} {'more ' if parts else ''}of {_or(list(minima))}")
    return " and ".join(parts) + _while_it_waits(stage)


def _while_it_waits(stage: Stage) -> str:
    """“ (after 1 h also of owners; reminded every 10 min, at most 3 times)”, or nothing."""
    said = []
    if stage.escalate_after:
        said.append(f"after {lasting(stage.escalate_after)} also of {stage.escalation_group}")
    if stage.remind_every:
        times = "once" if stage.max_reminders == 1 else f"at most {stage.max_reminders} times"
        said.append(f"reminded every {lasting(stage.remind_every)}, {times}")
    return f" ({'; '.join(said)})" if said else ""


def _or(words: Sequence[str]) -> str:
    return " or ".join(words)
