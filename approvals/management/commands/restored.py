"""`manage.py restored`, the step between restoring a backup and starting anything on it."""

from __future__ import annotations

import argparse
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from approvals import restoring
from approvals.errors import Invalid, WrongState


class Command(BaseCommand):
    help = (
        "Make a database that was restored from a backup fit to go on, before web and workers "
        "start: no number is given out twice, what was not open yet ends, everybody signs in anew."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--margin",
            type=int,
            default=restoring.MARGIN,
            help="numbers passed over: more than grants, requests or Events since the backup",
        )

    def handle(self, *, margin: int, **_: Any) -> None:
        """Raises CommandError for a useless margin, and while a sweeper works with the database."""
        try:
            settled = restoring.settle(margin=margin)
        except (Invalid, WrongState) as error:
            raise CommandError(error.message) from None
        self.stdout.write(
            f"Numberings moved on by {margin}: {settled.sequences}. "
            f"Accesses ended unopened: {settled.grants}. Sign-ins ended: {settled.sessions}. "
            f"Tokens ended: {settled.tokens}.\n"
            "Now start web and workers, then: manage.py reconcile --restored --by USER"
        )
