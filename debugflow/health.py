"""/health/live and /health/ready: for load balancers and containers, and how they are worked out.

Tells nobody anything about this installation beyond numbers. More is in `metrics` and `doctor`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from django.conf import settings
from django.db import DatabaseError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.loader import MigrationLoader
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_safe
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from approvals import heartbeats, queue
from debugflow.probes import HURRIED, Asked, Probe, hurried
from debugflow.wording import NO_SWEEPER

# Seconds; a load balancer commonly waits for 5. The broker's own limits are 1 s each.
DATABASE_WITHIN: Final = 2.5
BROKER_WITHIN: Final = 2.0
BROKER_ERRORS: Final = (KombuError, RedisError, OSError)  # a TimeoutError is an OSError
SILENT: Final = "It does not answer."


@dataclass(frozen=True)
class Check:
    name: str
    ok: bool
    detail: str


def sweepers_wanted() -> int:
    """Two in production, so that one may die; on one's own machine one will do."""
    return 1 if settings.DEMO or settings.DEBUG else 2


def missing_migrations(connection: BaseDatabaseWrapper) -> list[str]:
    """The applications' last migrations that this database has not had."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('django_migrations') IS NOT NULL")
        if not cursor.fetchone()[0]:
            return sorted(_newest())
        cursor.execute("SELECT app || '.' || name FROM django_migrations")
        return sorted(_newest() - {name for (name,) in cursor.fetchall()})


@functools.cache
def _newest() -> frozenset[str]:
    """The last migration of each application, as the code has them."""
    return frozenset(f"{app}.{name}" for app, name in MigrationLoader(None).graph.leaf_nodes())


def _ask_database() -> list[Check]:
    with hurried() as connection:
        if missing := missing_migrations(connection):
            return [Check("database", False, f"{len(missing)} applications are not migrated.")]
        sweepers = heartbeats.sweeping().using(HURRIED).count()
        workers = heartbeats.serving().using(HURRIED).count()
    wanted = sweepers_wanted()
    return [
        Check("database", True, "It answers and is migrated."),
        Check(
            "sweepers",
            sweepers >= wanted,
            f"{sweepers} of at least {wanted}." if sweepers else NO_SWEEPER,
        ),
        Check("workers", workers > 0, f"{workers} take work from the broker."),
    ]


def _ask_broker() -> list[Check]:
    with queue.hurried() as connection:
        connection.default_channel.client.ping()
    return [Check("broker", True, "It answers.")]


ask_database: Final = Probe(_ask_database, within=DATABASE_WITHIN)
ask_broker: Final = Probe(_ask_broker, within=BROKER_WITHIN)
NAMES: Final = ("database", "broker", "sweepers", "workers")


def checks() -> list[Check]:
    """All of them, in the order of NAMES. Never raises, and takes the longer of the limits."""
    asked = ask_database.ask(), ask_broker.ask()
    found = [*_of_database(asked[0]), *_of_broker(asked[1])]
    return sorted(found, key=lambda check: NAMES.index(check.name))


def _of_database(asked: Asked[list[Check]]) -> list[Check]:
    unknown = "Not known without the database."
    try:
        checks = asked.answer()
    except (DatabaseError, TimeoutError):
        checks = [Check("database", False, SILENT)]
    have = {check.name for check in checks} | {"broker"}
    return [*checks, *(Check(name, False, unknown) for name in NAMES if name not in have)]


def _of_broker(asked: Asked[list[Check]]) -> list[Check]:
    try:
        return asked.answer()
    except BROKER_ERRORS:
        return [Check("broker", False, SILENT)]


@require_safe
def live(request: HttpRequest) -> HttpResponse:
    """This process answers; it asks nobody else."""
    return JsonResponse({"status": "ok"})


@require_safe
def ready(request: HttpRequest) -> HttpResponse:
    """Whether this instance can serve: 503 if not. It can without a broker, sweeper or worker.

    All web servers would leave the rotation at once if the broker counted; `?require=broker,…`
    makes what it names count all the same, for whoever watches just that.
    """
    required = {name for name in request.GET.get("require", "").split(",") if name}
    if unknown := required - set(NAMES):
        known = ", ".join(NAMES)
        said = {"status": "error", "detail": f"{len(unknown)} unknown in require; known: {known}."}
        return JsonResponse(said, status=400)
    found = checks()
    wrong = {check.name for check in found if not check.ok}
    failing = bool(wrong & (required | {"database"}))
    status = "failing" if failing else "degraded" if wrong else "ok"
    told = [{"name": check.name, "ok": check.ok, "detail": check.detail} for check in found]
    return JsonResponse({"status": status, "checks": told}, status=503 if failing else 200)


PATHS: Final = {"/health/live": live, "/health/ready": ready}


class HealthMiddleware:
    """Answers for health before anything looks at hosts, TLS or sessions.

    Whoever asks calls this process by its address, without TLS, and is told numbers only.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        view = PATHS.get(request.path_info)
        response = view(request) if view else self.get_response(request)
        if view:
            response["Cache-Control"] = "no-store"
        return response
