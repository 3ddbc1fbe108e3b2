"""/metrics: who may read it, and how it is answered. What is measured is in `measures`."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Final

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse
from django.views.decorators.cache import cache_control
from django.views.decorators.http import require_safe
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from debugflow import measures
from debugflow.probes import Probe

SCRAPED_WITHIN: Final = 8.0  # seconds; Prometheus waits for 10 unless told otherwise
UNSET: Final = "Nobody may read this until DEBUGFLOW_METRICS_TOKEN is set.\n"
UNKNOWN: Final = "Send “Authorization: Bearer …” with what DEBUGFLOW_METRICS_TOKEN is set to.\n"
AWAY: Final = "The database does not answer, and every number comes from there.\n"
TEXT: Final = "text/plain; charset=utf-8"


@login_not_required
@require_safe
@cache_control(no_store=True)
def metrics(request: HttpRequest) -> HttpResponse:
    """403 where no token is set, 401 where it is not shown, 503 without the database."""
    if not settings.METRICS_TOKEN:
        return HttpResponse(UNSET, status=403, content_type=TEXT)
    if not _is_known(request.headers.get("Authorization", "")):
        challenge = {"WWW-Authenticate": "Bearer"}
        return HttpResponse(UNKNOWN, status=401, content_type=TEXT, headers=challenge)
    try:
        return HttpResponse(scrape(), content_type=CONTENT_TYPE_LATEST)
    except (DatabaseError, TimeoutError):
        return HttpResponse(AWAY, status=503, content_type=TEXT)


def _is_known(authorization: str) -> bool:
    scheme, _, token = authorization.partition(" ")
    same = secrets.compare_digest(token.strip().encode(), settings.METRICS_TOKEN.encode())
    return same and scheme.lower() == "bearer"


class _Snapshot(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self.families = families

    def collect(self) -> Iterable[Metric]:
        return self.families


def _render() -> bytes:
    # A registry of its own each time: the library's holds what this one process counted.
    registry = CollectorRegistry()
    registry.register(_Snapshot(measures.take()))
    return generate_latest(registry)


scrape: Final = Probe(_render, within=SCRAPED_WITHIN)
