"""A sweeper in a process of its own, beside those inside the workers."""

from __future__ import annotations

import signal
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from approvals.sweeper import Sweeper


class Command(BaseCommand):
    requires_system_checks = "__all__"
    help = "Open, cut and clean up whatever is due, until stopped. Needs no broker."

    def handle(self, *args: Any, **options: Any) -> None:
        sweeper = Sweeper(interval=settings.SWEEP_INTERVAL, threads=settings.SWEEP_THREADS)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: sweeper.stop())
        self.stdout.write(f"Sweeping every {settings.SWEEP_INTERVAL} s. Ctrl-C stops.")
        self.stdout.flush()
        sweeper.run()
