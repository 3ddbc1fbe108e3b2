"""Whether what the log tells of a grant is a life that a grant may have. It looks at Events only.

How such lives come about, under kills and stops, is the campaigns' affair.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from approvals import states
from approvals.closing import NOT_CUT
from approvals.models import Grant
from approvals.states import GrantState
from audit.models import Event

STATES = {f"grant.{state.value}": state for state in GrantState}
CUT = "grant.cut"


@dataclass(frozen=True)
class Told:
    """What one Event says, as far as it is looked at here. `before` is the state it left, `code`
    that of a failed attempt."""

    action: str
    at: datetime
    before: str = ""
    code: str = ""


def breaches(grant: Grant) -> list[str]:
    """What is wrong with the history of one grant; nothing if all is well."""
    return all_breaches([grant])


def all_breaches(grants: Iterable[Grant]) -> list[str]:
    """What is wrong with the histories of these grants as they are stored now."""
    wanted = {str(grant.pk): grant for grant in grants}
    told: dict[str, list[Told]] = defaultdict(list)
    events = Event.objects.filter(subject_type="grant", subject_id__in=wanted).order_by("id")
    for event in events.iterator():
        data = event.data
        one = Told(event.action, event.at, data.get("before", ""), data.get("code", ""))
        told[event.subject_id].append(one)
    return [
        f"{grant}: {wrong}"
        for pk, grant in wanted.items()
        for wrong in wrongs(told[pk], str(grant.state), grant.cut_at)
    ]


def wrongs(told: Sequence[Told], state: str, cut_at: datetime | None) -> Iterator[str]:
    """What is wrong with Events in their order, given the state and the cut that the row holds."""
    moves = [one for one in told if one.action in STATES]
    if not moves:
        yield "no Event tells of its state"
        return
    yield from _steps(moves)
    if STATES[moves[-1].action] != state:
        yield f"it is {state}, and the last Event says {moves[-1].action}"
    yield from _cuts(told, state, cut_at)
    # Written under the row's lock, unlike refusals, which may come from anyone at any moment.
    locked = [one for one in told if one.action in STATES or one.action == CUT]
    for earlier, later in pairwise(locked):
        if later.at < earlier.at:
            yield f"{later.action} is told after {earlier.action} and was before it"


def _steps(moves: Sequence[Told]) -> Iterator[str]:
    now: GrantState | None = None
    for move in moves:
        to = STATES[move.action]
        if now is None and to not in states.FIRST[GrantState]:
            yield f"it began as {to}"
        if now is not None and not states.allowed(now, to):
            yield f"{now} was followed by {to}"
        if now is not None and move.before != now:
            yield f"{move.action} says it left {move.before}, and it was {now}"
        now = to


def _cuts(told: Sequence[Told], state: str, cut_at: datetime | None) -> Iterator[str]:
    actions = [one.action for one in told]
    # A clean-up that finds somebody in has the access cut again.
    looks = [one for one in told if one.action == CUT or one.code == NOT_CUT]
    cuts = [one for one in looks if one.action == CUT]
    if any(one.action == next_.action == CUT for one, next_ in pairwise(looks)):
        yield f"it was cut {len(cuts)} times"
    if (looks[-1].at if looks and looks[-1].action == CUT else None) != cut_at:
        yield f"it was cut at {cut_at}, and its Event says otherwise"
    closed = "grant.revoking" in actions and state == GrantState.ENDED
    if closed and not cuts:
        yield "it ended without having been cut"
    if cuts and not _between(actions, "grant.revoking", CUT, "grant.ended"):
        yield "it was cut before it was to end, or after it had ended"


def _between(actions: Sequence[str], first: str, middle: str, last: str) -> bool:
    place = actions.index(middle)
    return first in actions[:place] and last not in actions[:place]
