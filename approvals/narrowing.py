"""Approving with less than was asked: what an approver may take away. Nothing is written here.

A lower rank alone does not make a level harmless, so it has to be one that the beneficiary could
ask for as well, and whose policy wants nobody more for it than this chain has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.db import connection
from django.db.models import QuerySet

from approvals import access, chain, policy, scope, wishes
from approvals.errors import Invalid, WrongState
from approvals.lengths import lasting
from approvals.models import (
    AccessLevel,
    AccessRequest,
    Decision,
    ExtensionApproval,
    PolicyVersion,
    RequestStage,
    Stage,
)

if TYPE_CHECKING:
    from approvals.scope import Scope


@dataclass(frozen=True, kw_only=True)
class Less:
    """What an approver wants to leave of a request: fewer seconds, a lower level (an id), or both.

    `level_hash` is that of the level as they read it, of `Lower`.
    """

    duration: int | None = None
    level: int | None = None
    level_hash: str = ""


@dataclass(frozen=True, kw_only=True)
class Reduction:
    """What a vote keeps of it. One of duration and level is None if it stays as it was asked."""

    duration: int | None
    level: AccessLevel | None
    scope: Scope

    @property
    def scope_hash(self) -> str:
        return scope.digest(self.scope)


@dataclass(frozen=True)
class Lower:
    """A lower level, and why it cannot be given instead, or who limits for how long it can."""

    level: AccessLevel
    limit: int = 0  # seconds
    whose: str = ""
    why_not: str = ""

    @property
    def hash(self) -> str:
        """Of its rights as they are now, for whoever reads them to say that they have."""
        return scope.digest(scope.of_level(self.level))

    @property
    def chosen(self) -> str:
        """How a form names it: with what was read of it."""
        return f"{self.level.pk}:{self.hash}"


def hold_ground(request_id: int) -> None:
    """Lock the request's target against change, before the request: as `workflow.hold_level` does,
    and whoever changes a level."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT FROM approvals_target WHERE id ="
            " (SELECT target_id FROM approvals_accessrequest WHERE id = %s) FOR SHARE",
            [request_id],
        )


def reduction(
    request: AccessRequest, less: Less, *, decision: str, stages: Sequence[RequestStage]
) -> Reduction:
    """What `less` leaves of the request, whose lock and ground the caller has.

    Raises Invalid for what is not less or cannot be given; WrongState if the level is not what
    they read.
    """
    if decision != Decision.APPROVE:
        raise _no("A denial gives nothing, so there is no less of it.")
    if less.duration is None and less.level is None:
        raise _no("Say how much less: a shorter time, a lower level, or both.")
    if less.duration is not None and (problem := _wrong_duration(request, less.duration)):
        raise _no(problem)
    duration = less.duration or request.duration
    if less.level is None:
        narrowed = scope.narrowed(request.scope, duration=duration, level=request.scope)
        return Reduction(duration=less.duration, level=None, scope=narrowed)
    level = _lower_level(request, less, duration, stages)
    narrowed = scope.narrowed(request.scope, duration=duration, level=scope.of_level(level))
    return Reduction(duration=less.duration, level=level, scope=narrowed)


def _no(why: str) -> Invalid:
    return Invalid(fields={"less": [why]}, code="not_less")


def _wrong_duration(request: AccessRequest, seconds: int) -> str:
    if not 0 < seconds < request.duration:
        return f"Shorter than the {lasting(request.duration)} that were asked for."
    bridge = request.policy_version.bridge if request.extends_id else 0
    if seconds <= bridge:
        return f"More than {lasting(bridge)}, which the policy bridges by itself."
    return ""


def _lower_level(
    request: AccessRequest, less: Less, duration: int, stages: Sequence[RequestStage]
) -> AccessLevel:
    if request.extends_id:
        raise _no("Longer access is for the level that is open: only its time can be less.")
    if (level := _lower_levels(request).filter(pk=less.level or 0).first()) is None:
        raise _no("Choose a lower level of the same target.")
    if not (why := _unfit(level)) and not _askable(request, [level]):
        why = f"{request.beneficiary} may not ask for it."
    lower = Lower(level, why_not=why) if why else _weighed([level], request, stages)[0]
    if lower.why_not:
        raise _no(f"{level.name} cannot be given instead: {lower.why_not}")
    if less.level_hash != lower.hash:
        raise WrongState(
            f"{level.name} has changed since you looked at it. Read it again, then decide.",
            code="scope_changed",
        )
    if duration > lower.limit:
        raise _no(
            f"{level.name} lasts up to {lasting(lower.limit)}, the limit of {lower.whose}: "
            "give it for a shorter time."
        )
    return level


def can_be_given(
    level: AccessLevel, duration: int, request: AccessRequest, stages: Sequence[RequestStage]
) -> bool:
    """Whether these stages may give a lower level that they were not asked for, for so long."""
    [lower] = _weighed([level], request, stages)
    return not lower.why_not and duration <= lower.limit


def offered(request: AccessRequest, stages: Sequence[RequestStage]) -> list[Lower]:
    """The levels that can be given instead, the one that allows most first."""
    if request.extends_id:
        return []
    fit = [level for level in _lower_levels(request) if not _unfit(level)]
    levels = _askable(request, fit) if fit else []
    return [lower for lower in _weighed(levels, request, stages) if not lower.why_not]


def _lower_levels(request: AccessRequest) -> QuerySet[AccessLevel]:
    """All that rank lower on the same target."""
    levels = AccessLevel.objects.filter(target=request.target_id, rank__lt=request.level.rank)
    return levels.select_related("target").order_by("-rank")


def _unfit(level: AccessLevel) -> str:
    """Why it can be given to nobody now."""
    if not level.enabled:
        return "it is switched off."
    if level.summarised_at is None:
        return "it has not been checked on its target yet."
    return ""


def _askable(request: AccessRequest, levels: Sequence[AccessLevel]) -> list[AccessLevel]:
    """Those that the beneficiary may ask for."""
    theirs = access.requestable_levels(request.beneficiary)
    keys = set(theirs.filter(target=request.target_id).values_list("pk", flat=True))
    return [level for level in levels if level.pk in keys]


def _weighed(
    levels: Sequence[AccessLevel], request: AccessRequest, stages: Sequence[RequestStage]
) -> list[Lower]:
    """What their own policies say of it."""
    if not levels:
        return []
    versions = policy.governing(levels, request.beneficiary)
    return [_weigh(level, versions.get(level.pk), request, stages) for level in levels]


def _weigh(
    level: AccessLevel,
    version: PolicyVersion | None,
    request: AccessRequest,
    stages: Sequence[RequestStage],
) -> Lower:
    whom = request.beneficiary
    if version is None:
        return Lower(level, why_not=f"no policy governs it for {whom}.")
    if version.ticket_required and not request.ticket.strip():
        return Lower(level, why_not=f"{version} wants a ticket for it.")
    if not _asks_for_no_more(version, request, stages):
        why = f"{version} asks for others, or for more, than this chain. {whom} can ask for it."
        return Lower(level, why_not=why)
    limit, whose = wishes.limit_of(level, version)
    return Lower(level, limit, whose)


def _asks_for_no_more(
    version: PolicyVersion, request: AccessRequest, stages: Sequence[RequestStage]
) -> bool:
    """Whether each place of the version's chain has one of its own in this chain that only people
    fill who could fill it there, and it wants nothing else that this request's version does not.
    """
    own = request.policy_version
    lends = own.allow_delegation and not version.allow_delegation
    if lends or (version.review_all and not own.review_all) or _goes_on_easier(own, version):
        return False
    here = [slot for stage in stages for slot in _slots(stage, stage.minima)]
    wanted = [
        slot
        for stage in version.stages.all()
        for slot in _slots(
            stage, {str(row.group_id): row.minimum for row in stage.stage_groups.all()}
        )
    ]
    return chain.covers(here, wanted)


def _goes_on_easier(own: PolicyVersion, version: PolicyVersion) -> bool:
    """Whether a grant under `own` is extended with fewer people, or for longer, than under the
    other: a grant of a lower level stays under the version it was asked under."""
    if not own.extensions_most:
        return False
    order = [ExtensionApproval.NONE, ExtensionApproval.LAST, ExtensionApproval.CHAIN]
    asks = [order.index(ExtensionApproval(one.extension_approval)) for one in (own, version)]
    limits = ("extensions_most", "extension_max", "max_total", "bridge")
    longer = any((getattr(own, name) or 0) > (getattr(version, name) or 0) for name in limits)
    return longer or asks[0] < asks[1]


def _slots(stage: Stage | RequestStage, minima: Mapping[str, int]) -> Iterator[frozenset[str]]:
    """A stage's slots, each with the groups that may fill it, whoever stands in included."""
    others = {str(pk) for pk in (stage.fallback_group_id, stage.escalation_group_id) if pk}
    for slot in chain.StageRule(groups=minima, total=stage.total).slots:
        yield slot | others
