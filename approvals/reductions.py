"""What is opened when some approve with less than was asked: the shortest time, the lowest level.

Every approval of the present round that stands takes away what it takes away, whether or not it
fills a place. Reads only; who may take away what is in `narrowing`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from approvals import scope
from approvals.models import AccessLevel, AccessRequest, Vote
from approvals.states import RequestState

if TYPE_CHECKING:
    from approvals.scope import Scope


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a request opens with the approvals so far. The duration is in seconds."""

    level: AccessLevel
    duration: int
    scope: Scope
    less: bool

    @property
    def scope_hash(self) -> str:
        return scope.digest(self.scope)


def outcome(request: AccessRequest, counting: Iterable[Vote]) -> Outcome:
    """What the request opens with these votes, which count in its present round."""
    votes = [vote for vote in counting if vote.reduced_scope and vote.voided_at is None]
    shorter = [vote.reduced_duration for vote in votes if vote.reduced_duration]
    lower = [(vote.reduced_level, vote) for vote in votes if vote.reduced_level]
    level, part = request.level, request.scope
    if lower:
        level, vote = min(lower, key=lambda pair: (pair[0].rank, pair[1].pk))
        part = vote.reduced_scope or part
    duration = min([request.duration, *shorter])
    narrowed = scope.narrowed(request.scope, duration=duration, level=part)
    return Outcome(level=level, duration=duration, scope=narrowed, less=bool(votes))


def opens(request: AccessRequest, counting: Iterable[Vote]) -> Outcome:
    """The same for people to read. What was approved stays so, whatever ranks there are now."""
    grant = getattr(request, "grant", None) if request.state == RequestState.APPROVED else None
    if grant is None:
        return outcome(request, counting)
    less = grant.scope_hash != request.scope_hash
    return Outcome(level=grant.level, duration=grant.duration, scope=grant.scope, less=less)


def is_stale(vote: Vote, request: AccessRequest) -> bool:
    """Whether the lower level that was approved is not any more what it was then, or not lower."""
    level = vote.reduced_level
    if level is None or vote.reduced_scope is None:
        return False
    seen = {name: vote.reduced_scope[name] for name in scope.OF_A_LEVEL}
    lower = level.enabled and level.rank < request.level.rank
    return not lower or seen != scope.of_level(level)


def told(duration: int | None, level: AccessLevel | None) -> dict[str, Any]:
    """For Events: how much less it is, and nothing of what stays as it was asked."""
    seconds = {} if duration is None else {"duration": duration}
    return seconds if level is None else {**seconds, "level": level.name}
