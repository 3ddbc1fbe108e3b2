"""`manage.py healthcheck web|worker|sweeper`: for containers. Exit 0 if healthy, else 1, at once.

Of what restarting the container would mend, and of nothing else: neither database nor broker come
back by it.
"""

from __future__ import annotations

import argparse

import httpx
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from approvals import heartbeats
from approvals.models import Heartbeat
from audit import clock
from debugflow import health
from debugflow.probes import HURRIED, Probe, hurried

WEB_WITHIN = 4  # seconds; its own answer takes 3 at most
PORT = 8000


class Command(BaseCommand):
    help = "Say whether this container's process is healthy: exit 0 if so, else 1."
    requires_system_checks = []

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("role", choices=["web", "worker", "sweeper"])
        parser.add_argument("--port", type=int, default=PORT, help=f"of the web server ({PORT})")

    def handle(self, *, role: str, port: int, **_: object) -> None:
        """Raises CommandError if it is not healthy."""
        told = _web(port) if role == "web" else _process(is_worker=role == "worker")
        self.stdout.write(told)


def _web(port: int) -> str:
    url = f"http://127.0.0.1:{port}/health/live"
    try:
        response = httpx.get(url, timeout=WEB_WITHIN, trust_env=False)
    except httpx.TransportError as error:
        raise CommandError(f"The web server does not answer: {error}") from None
    if response.status_code != httpx.codes.OK:
        raise CommandError(f"The web server cannot serve: {response.text}")
    return response.text


def _process(*, is_worker: bool) -> str:
    try:
        return Probe(lambda: _alive(is_worker=is_worker), within=health.DATABASE_WITHIN)()
    except (DatabaseError, TimeoutError):
        return "The database does not answer, so nothing is known, and restarting mends nothing."


def _alive(*, is_worker: bool) -> str:
    """What to say of the newest process of this kind on this host. Raises CommandError."""
    with hurried():
        here = Heartbeat.objects.using(HURRIED).filter(
            name__startswith=heartbeats.this_host(), is_worker=is_worker
        )
        newest = here.order_by("-started_at").first()
        if newest is None:
            raise CommandError("No process of this kind has begun to sweep on this host.")
        if not heartbeats.sweeping().using(HURRIED).filter(pk=newest.pk).exists():
            raise CommandError(f"The sweeper of {newest.name} does not look for work.")
        served = not is_worker or _serves(newest)
    if not served and _broker_answers():
        raise CommandError(f"No task comes through to {newest.name}.")
    return f"{newest.name} is alive."


def _serves(worker: Heartbeat) -> bool:
    """Whether its canary came through of late, or it is too young to tell."""
    young = Heartbeat.objects.using(HURRIED).filter(
        pk=worker.pk, started_at__gt=clock.DbNow() - heartbeats.SERVING_WITHIN
    )
    serving = heartbeats.serving().using(HURRIED).filter(pk=worker.pk)
    return serving.exists() or young.exists()


def _broker_answers() -> bool:
    try:
        return bool(health.ask_broker())
    except health.BROKER_ERRORS:
        return False
