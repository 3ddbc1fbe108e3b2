"""What /metrics tells. docs/monitoring.md says what each number means.

All of it comes from the database and the broker, so that any web server tells the same. What has
ended is not counted again each time: the questions cost as much as is open.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import accumulate
from typing import Any, Final

from django.conf import settings
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Count, Max, Min, QuerySet
from django.db.models.functions import Abs, Coalesce, Least
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from approvals import heartbeats, opening, queue, tallies
from approvals.models import (
    AccessRequest,
    Alarm,
    AlarmKind,
    Delivery,
    Grant,
    Heartbeat,
    Notice,
    Reconciliation,
)
from approvals.models.targets import Target
from approvals.states import NOT_ENDED
from debugflow.health import BROKER_ERRORS
from debugflow.probes import HURRIED, hurried

Rows = QuerySet[Any]
SUMS: Final = {
    tallies.LATENESS: (
        "debugflow_revocation_lateness_seconds",
        "From the moment access was to end until nobody was in.",
    ),
    tallies.OPENING: (
        "debugflow_opening_seconds",
        "From the approval, or the wanted start, until it was usable.",
    ),
}


def take() -> list[Metric]:
    """Measure everything. Raises DatabaseError; a broker that is away is a measurement."""
    with hurried() as connection:
        now = _now(connection)
        parts = (_grants, _waiting, _messages, _processes, _targets)
        found = [family for part in parts for family in part(now)]
        found += _counted(heartbeats.totals(using=HURRIED))
    return found + list(_broker())


def queues() -> list[str]:
    """The queues that workers take from, those of their canaries left out."""
    routed = {route["queue"] for route in settings.CELERY_TASK_ROUTES.values()}
    return sorted(routed | {settings.CELERY_TASK_DEFAULT_QUEUE})


def _now(connection: BaseDatabaseWrapper) -> datetime:
    with connection.cursor() as cursor:
        cursor.execute("SELECT dbnow()")
        now: datetime = cursor.fetchone()[0]
        return now


def _gauge(name: str, told: str, value: float) -> Metric:
    return GaugeMetricFamily(f"debugflow_{name}", told, value=value)


def _labelled(name: str, told: str, label: str, values: dict[str, float]) -> Metric:
    family = GaugeMetricFamily(f"debugflow_{name}", told, labels=[label])
    for of, value in values.items():
        family.add_metric([of], value)
    return family


def _age(now: datetime, since: datetime | None) -> float:
    """Seconds; 0 where there is nothing that could be old."""
    return max(0.0, (now - since).total_seconds()) if since else 0.0


def _counts(rows: Rows, by: str, known: Any) -> dict[str, float]:
    """How many there are of each kind, 0 included: a series that comes and goes alerts late."""
    counted = rows.order_by().values_list(by).annotate(Count("pk"))
    return {str(kind): 0.0 for kind in known} | dict(counted)


def _how_many_since(rows: Rows, moment: Any) -> tuple[int, datetime | None]:
    found = rows.order_by().aggregate(many=Count("pk"), since=Min(moment))
    return found["many"], found["since"]


def _grants(now: datetime) -> Iterator[Metric]:
    grants = Grant.objects.using(HURRIED)
    states = _counts(grants.not_ended(), "state", NOT_ENDED)
    yield _labelled("grants", "Grants that have not ended.", "state", states)
    overdue, since = _how_many_since(grants.overdue(), Least("expires_at", "revoking_at"))
    yield _gauge("grants_overdue", "Past their end by over 5 s and not cut.", overdue)
    yield _gauge("grants_overdue_oldest_seconds", "Of those, the longest.", _age(now, since))
    yield _gauge("grants_stuck", "Ending them keeps failing.", grants.stuck().count())
    yield _gauge("grants_abandoned", "Given up and not ended: unsafe.", grants.abandoned().count())


def _waiting(now: datetime) -> Iterator[Metric]:
    undecided = AccessRequest.objects.using(HURRIED).undecided()
    pending, since = _how_many_since(undecided, "submitted_at")
    yield _gauge("requests_pending", "Requests that wait for people.", pending)
    yield _gauge("requests_pending_oldest_seconds", "Of those, the longest.", _age(now, since))
    opens, since = _how_many_since(opening.due().using(HURRIED), "opens_at")
    yield _gauge("opens_waiting", "Approved, due, and no worker is at it.", opens)
    yield _gauge("opens_waiting_oldest_seconds", "Of those, the longest.", _age(now, since))
    alarms = Alarm.objects.using(HURRIED).filter(ended_at__isnull=True)
    kinds = _counts(alarms, "kind", AlarmKind.values)
    yield _labelled("alarms_open", "Alarms that are not over.", "kind", kinds)


def _messages(now: datetime) -> Iterator[Metric]:
    notices = Notice.objects.using(HURRIED).filter(next_try_at__lte=now)
    deliveries = Delivery.objects.using(HURRIED).filter(next_try_at__isnull=False)
    found = [
        _how_many_since(rows, "next_try_at")
        for rows in (notices, deliveries.filter(next_try_at__lte=now))
    ]
    since = min((since for _, since in found if since), default=None)
    yield _gauge("messages_due", "Due, and nobody is at it.", sum(many for many, _ in found))
    yield _gauge("messages_due_oldest_seconds", "Of those, the longest.", _age(now, since))
    failing = deliveries.exclude(last_error="").count()
    yield _gauge("messages_failing", "Not taken so far, and tried again.", failing)
    given_up = Delivery.objects.using(HURRIED).filter(dead_at__gt=now - timedelta(days=1))
    yield _gauge("messages_given_up", "Within the last day.", given_up.count())


def _processes(now: datetime) -> Iterator[Metric]:
    sweeping = heartbeats.sweeping().using(HURRIED)
    yield _gauge("sweepers", "Processes whose sweeper looked within 15 s.", sweeping.count())
    serving = heartbeats.serving().using(HURRIED)
    yield _gauge("workers", "Workers that a task came through to within 60 s.", serving.count())
    last = Heartbeat.objects.using(HURRIED).aggregate(at=Max("swept_at"))["at"]
    yield _gauge("sweep_age_seconds", "Since any sweeper last looked.", _age(now, last))
    skew = sweeping.aggregate(most=Max(Abs("skew_ms")))["most"] or 0
    yield _gauge("clock_skew_seconds", "Between a process and the database, most.", skew / 1000)


def _targets(now: datetime) -> Iterator[Metric]:
    compared = Coalesce("reconciliation__ran_at", "created_at")
    oldest = Target.objects.using(HURRIED).aggregate(at=Min(compared))["at"]
    told = "Since the target compared longest ago was compared with the ledger."
    yield _gauge("reconciliation_age_seconds", told, _age(now, oldest))
    held = Reconciliation.objects.using(HURRIED).filter(held_back_since__isnull=False)
    told = "Targets whose clean-up waits for somebody's consent."
    yield _gauge("reconciliations_held_back", told, held.count())


def _counted(totals: dict[str, float]) -> Iterator[Metric]:
    """What all processes counted, as counters and histograms that never go down."""
    steps = CounterMetricFamily(
        "debugflow_steps", "Attempts at targets.", labels=["kind", "outcome"]
    )
    for kind in tallies.STEPS:
        for outcome in tallies.OUTCOMES:
            steps.add_metric([kind, outcome], totals.get(tallies.step_name(kind, outcome), 0))
    yield steps
    for what, (name, told) in SUMS.items():
        each = [totals.get(tallies.bucket_name(what, bound), 0) for bound in tallies.LABELS]
        buckets = list(zip(tallies.LABELS, accumulate(each), strict=True))
        yield HistogramMetricFamily(name, told, buckets, totals.get(tallies.sum_name(what), 0))


def _broker() -> Iterator[Metric]:
    lengths: dict[str, float] = {}
    try:
        with queue.hurried() as connection:
            client = connection.default_channel.client
            lengths = {name: client.llen(name) for name in queues()}
    except BROKER_ERRORS:
        pass
    yield _gauge("broker_up", "Whether the broker answers within 1 s.", bool(lengths))
    yield _labelled("queue_length", "Tasks that wait in the broker.", "queue", lengths)
