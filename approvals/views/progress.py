"""How far requests have come, for lists: a fixed number of queries, however long the list.

The exact arithmetic of one request is `policy.load_chain`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from django.db.models import Count, Exists, F, OuterRef, Prefetch, QuerySet, Subquery
from django.db.models.functions import Coalesce

from approvals.models import AccessRequest, Decision, RequestStage, Vote
from approvals.states import StageState

ROW_REASON = 200  # characters


@dataclass(frozen=True)
class Progress:
    """A request and where its chain stands."""

    request: AccessRequest
    stages: tuple[RequestStage, ...]
    stage: RequestStage | None  # the open one
    approvals: int  # in the open one
    less: bool  # whether somebody approved with less

    @property
    def number(self) -> int:
        return self.stages.index(self.stage) + 1 if self.stage else len(self.stages)

    @property
    def told_in_a_row(self) -> bool:
        """Whether a row can say all of why: then it may be decided there."""
        reason = self.request.reason
        return len(reason) <= ROW_REASON and len(reason.splitlines()) <= 1

    @property
    def groups(self) -> str:
        """Whom the open stage asks: “dba or security”."""
        return " or ".join(sorted(self.stage.group_names.values())) if self.stage else ""


def with_progress(requests: QuerySet[AccessRequest]) -> QuerySet[AccessRequest]:
    """The same requests, with all that `progress` and a list's row read."""
    approvals = Vote.objects.counting().filter(stage=OuterRef("pk"), decision=Decision.APPROVE)
    given = approvals.order_by().values("stage").annotate(count=Count("pk")).values("count")
    stages = RequestStage.objects.filter(round=F("request__round")).order_by("order")
    stages = stages.annotate(given=Coalesce(Subquery(given), 0))
    here = {"stage__request": OuterRef("pk"), "stage__round": OuterRef("round")}
    less = Exists(Vote.objects.counting().filter(**here, reduced_scope__isnull=False))
    return (
        requests.select_related("requester", "beneficiary", "level", "target", "grant")
        .annotate(with_less=less)
        .prefetch_related(Prefetch("stages", stages, to_attr="present_stages"))
    )


def progress(requests: Iterable[AccessRequest]) -> list[Progress]:
    """For requests that were loaded by `with_progress`."""
    return [_progress(request) for request in requests]


def _progress(request: AccessRequest) -> Progress:
    stages: tuple[RequestStage, ...] = tuple(request.present_stages)  # type: ignore[attr-defined]
    stage = next((stage for stage in stages if stage.state == StageState.OPEN), None)
    given = stage.given if stage else 0  # type: ignore[attr-defined]
    return Progress(request, stages, stage, given, request.with_less)  # type: ignore[attr-defined]
