"""A sweeper in a process of its own, beside those inside the workers."""

from __future__ import annotations

import signal

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError

from approvals.sweeper import Sweeper
from debugflow.startup import refuse_unsafe


class Command(BaseCommand):
    help = "Open, cut and clean up whatever is due, until stopped. Needs no broker."
    # All of them, those of the database and of deployment too, are run by `refuse_unsafe`.
    requires_system_checks = []

    def handle(self, **_: object) -> None:
        """Raises CommandError on unsafe settings."""
        try:
            refuse_unsafe()
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from error
        sweeper = Sweeper(interval=settings.SWEEP_INTERVAL, threads=settings.SWEEP_THREADS)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: sweeper.stop())
        self.stdout.write(f"Sweeping every {settings.SWEEP_INTERVAL} s. Ctrl-C stops.")
        sweeper.run()
