"""Undecided requests that `workflow.expire` would close now, in SQL.

A query for each clock, in the order of its index, since one for all of them would read everything
undecided, twice a second; what nobody can decide for another reason is looked for less often.
"""

from __future__ import annotations

from datetime import timedelta

from django.db.models import DurationField, ExpressionWrapper, F, Q, Value

from approvals.models import AccessRequest, RequestStage
from approvals.states import GrantState, StageState
from audit import clock


def late(most: int) -> set[int]:
    """Ids of those whose time is over, up to `most` by each clock: to be decided, of the open
    stage, that it was wanted for, and of the access that it was to prolong."""
    now, undecided = clock.DbNow(), AccessRequest.objects.undecided()
    length = ExpressionWrapper(
        F("duration") * Value(timedelta(seconds=1)), output_field=DurationField()
    )
    undecided_too_long = undecided.filter(pending_until__lte=now).order_by("pending_until")
    # The first says nothing more than the second, but an index answers it.
    wanted_before = undecided.filter(starts_at__lte=now).filter(starts_at__lte=now - length)
    stages = RequestStage.objects.filter(state=StageState.OPEN, deadline_at__lte=now)
    # A handful: one for each access whose holder has asked for more of it.
    ended = ~Q(extends__state=GrantState.ACTIVE) | Q(extends__expires_at__lte=now)
    prolonging_nothing = undecided.filter(ended, extends__isnull=False)
    return {
        *prolonging_nothing.order_by("extends").values_list("pk", flat=True)[:most],
        *undecided_too_long.values_list("pk", flat=True)[:most],
        *wanted_before.order_by("starts_at").values_list("pk", flat=True)[:most],
        *stages.order_by("deadline_at").values_list("request_id", flat=True)[:most],
    }


def groundless(most: int) -> set[int]:
    """Ids of up to `most` whose people were deactivated, or whose level, target or policy was
    switched off. Nobody can vote on one, closed or not."""
    requests = AccessRequest.objects.undecided().filter(
        Q(requester__is_active=False)
        | Q(beneficiary__is_active=False)
        | Q(level__enabled=False)
        | Q(target__enabled=False)
        | Q(policy_version__policy__enabled=False)
    )
    return set(requests.order_by("pending_until").values_list("pk", flat=True)[:most])
