"""Who would have to approve a request that nobody asks, and why not by another policy.

By what `submit` itself goes: it can say nothing else. Changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from approvals import policy, workflow
from approvals.asking import AskedStage, asked_stages
from approvals.models import AccessLevel, Policy
from approvals.wishes import Wish
from approvals.workflow import Preview

if TYPE_CHECKING:
    from approvals.people import Person

NAMED: Final = 10  # people of a stage that are shown by name; the others are counted
PLACEHOLDER: Final = "…"  # stands for a reason and a ticket, which anybody can write

OFF = "It is switched off."
UNPUBLISHED = "Nothing of it is published."


@dataclass(frozen=True)
class PassedOver:
    """A policy that would not govern the request, and why."""

    name: str
    rank: int
    why: str


@dataclass(frozen=True)
class Simulated:
    """What asking would do. `refusals` are each in words; with one nobody would be asked."""

    preview: Preview
    stages: tuple[AskedStage, ...]
    others: tuple[PassedOver, ...]
    refusals: tuple[str, ...]


def simulate(level: AccessLevel, *, by: Person, duration: int) -> Simulated:
    """What `submit` would do now if `by` asked for `level` for `duration` seconds."""
    wish = Wish(duration=duration, reason=PLACEHOLDER, ticket=PLACEHOLDER)
    preview = workflow.preview(level, by=by, wish=wish)
    return Simulated(
        preview=preview,
        stages=tuple(asked_stages(preview.plan.stages, most=NAMED)),
        others=tuple(_passed_over(level, by, preview)),
        refusals=tuple(_refusals(preview)),
    )


def _passed_over(level: AccessLevel, by: Person, preview: Preview) -> Iterator[PassedOver]:
    """Every policy but the one that governs, by rank."""
    reasons = {version.policy_id: why for version, why in policy.weighed(level, by)}
    governs = preview.version.policy if preview.version else None
    for one in Policy.objects.order_by("rank"):
        if one == governs:
            continue
        if not one.enabled:
            why = OFF
        elif one.pk not in reasons:
            why = UNPUBLISHED
        elif reasons[one.pk]:
            why = _sentence("; ".join(reasons[one.pk]))
        else:
            why = f"It would govern it, but {governs} comes first."
        yield PassedOver(one.name, one.rank, why)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _refusals(preview: Preview) -> Iterator[str]:
    if preview.problem is None:
        return
    fields = getattr(preview.problem, "fields", {})
    if fields:
        for lines in fields.values():
            yield from lines
    else:
        yield preview.problem.message
