"""What the past tells whoever asks or decides. Nothing is decided by it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median
from typing import Final

from django.db.models import Count, F, Max, Q

from approvals.models import AccessRequest, Grant, Policy
from approvals.models.requests import RequestKind
from approvals.states import EndReason, RequestState

# Of all policies together, so that the look has a bound however much was decided.
LOOKED_AT: Final = 500
FEWEST: Final = 3  # decisions that make something usual


@dataclass(frozen=True)
class Past:
    """The accesses of one target that somebody has had, of any level."""

    opened: int
    last: datetime | None
    revoked: int
    emergencies: int


def before(asked: AccessRequest) -> Past:
    """What its beneficiary has had on its target, this request's own access left out."""
    grants = Grant.objects.filter(beneficiary=asked.beneficiary_id, target=asked.target_id)
    # One that was taken away by somebody has no code: those are the system's reasons.
    taken_away = Q(end_reason=EndReason.REVOKED, end_code="")
    found = grants.exclude(Q(request=asked.pk) | Q(pk=asked.extends_id or 0)).aggregate(
        opened=Count("pk", Q(activated_at__isnull=False)),
        last=Max("activated_at"),
        revoked=Count("pk", Q(activated_at__isnull=False) & taken_away),
        emergencies=Count("pk", Q(activated_at__isnull=False, request__kind=RequestKind.EMERGENCY)),
    )
    return Past(**found)


def usual_wait(policy: Policy) -> timedelta | None:
    """From asking to the last approval, as it was for half of this policy's newest requests; None
    where too few were approved lately to call anything usual."""
    approved = AccessRequest.objects.filter(
        state=RequestState.APPROVED, kind=RequestKind.ACCESS
    ).order_by("-pk")
    took = (
        AccessRequest.objects.filter(pk__in=approved.values("pk")[:LOOKED_AT])
        .filter(policy_version__policy=policy)
        .values_list(F("decided_at") - F("submitted_at"), flat=True)
    )
    waited = list(took)
    return median(waited) if len(waited) >= FEWEST else None
