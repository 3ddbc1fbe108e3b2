"""The Celery application. Celery is the doorbell: rows in PostgreSQL say what is to be done."""

from __future__ import annotations

import os

from celery import Celery, signals
from django.core.exceptions import ImproperlyConfigured
from kombu.transport import TRANSPORT_ALIASES

from debugflow.sweeping import SweeperStep

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "debugflow.settings")

# By name, so that it is loaded with the first connection and whoever makes none needs no Redis.
TRANSPORT_ALIASES.update(dict.fromkeys(("redis", "rediss"), "debugflow.broker:Transport"))
app = Celery("debugflow")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
# The Worker's blueprint, not the Consumer's: the sweeper must tick while the broker is gone.
app.steps["worker"].add(SweeperStep)


@signals.worker_init.connect
def refuse_unsafe(**_: object) -> None:
    """A worker on unsafe settings does not start."""
    from debugflow.startup import refuse_unsafe as refuse

    try:
        refuse()
    except ImproperlyConfigured as error:
        # Celery logs whatever a signal's receiver raises and goes on, but for this.
        raise SystemExit(str(error)) from error


@signals.setup_logging.connect
def leave_logging_alone(**_: object) -> None:
    """Django's settings have set it up, redaction included: a receiver keeps Celery's own away."""
