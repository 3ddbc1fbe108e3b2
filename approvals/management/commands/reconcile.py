"""`reconcile` compares targets with the ledger now; a person allows there what was held back.

What it does is in `approvals.reconciler`; sweepers do the same by themselves, every so often.
"""

from __future__ import annotations

import argparse
import os
import socket
from collections.abc import Iterable
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError

from approvals import installation, reconciler
from approvals.errors import DebugflowError
from approvals.models import Reconciliation, Target
from approvals.sentences import event_sentence
from audit import log


class Command(BaseCommand):
    help = "Compare targets with the ledger now; exit 1 if anything failed or waits for consent."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("target", nargs="?", help="Only this target (default: every one).")
        parser.add_argument(
            "--allow",
            nargs="+",
            default=[],
            metavar="ACCOUNT",
            help="Let exactly these be ended: all that is held back, as it was printed.",
        )
        parser.add_argument(
            "--restored",
            action="store_true",
            help="Confirm that this database was restored here and is the ledger from now on.",
        )
        parser.add_argument("--by", metavar="USER", help="Who allows or confirms it.")

    def handle(self, *args: Any, target: str | None, by: str | None, **options: Any) -> None:
        chosen = _chosen(target)
        if options["restored"] or options["allow"]:
            self._consent(chosen, _person(by), **options)
        troubled = [one.name for one in chosen if not self._compare(one)]
        if troubled:
            raise CommandError(f"Look after {', '.join(troubled)}.")

    def _consent(
        self, chosen: list[Target], person: Any, *, restored: bool, allow: list[str], **_: Any
    ) -> None:
        if allow and len(chosen) != 1:
            raise CommandError("Name the one target that --allow is about.")
        try:
            if restored:
                installation.restored(installation.ONLY, by=person)
            if allow:
                reconciler.allow(chosen[0].pk, by=person, accounts=allow)
        except DebugflowError as error:
            raise CommandError(error.message) from None

    def _compare(self, target: Target) -> bool:
        """Whether it was compared and nothing is left for a person to do."""
        last = log.timeline(f"target:{target.pk}").last()
        worker = f"reconcile@{socket.gethostname()}:{os.getpid()}"
        jobs = reconciler.claim_now(target.pk, worker=worker)
        if not jobs:
            self.stdout.write(f"{target}: somebody else is comparing it at this moment.")
            return False
        fine = reconciler.run_all(jobs)
        done = log.timeline(f"target:{target.pk}").filter(id__gt=last.pk if last else 0)
        row = Reconciliation.objects.get(pk=target.pk)
        self._report(target, row, [event_sentence(event) for event in done])
        return fine and not row.held_back

    def _report(self, target: Target, row: Reconciliation, done: list[str]) -> None:
        agrees = not (row.findings or row.held_back or row.last_error)
        self.stdout.write(f"{target}: {'agrees with the ledger' if agrees else 'differs'}")
        self._lines("found", row.findings)
        self._lines("did", done)
        self._lines("held back", row.held_back)
        self._lines("FAILED", [row.last_error] if row.last_error else [])

    def _lines(self, head: str, lines: Iterable[str]) -> None:
        for line in lines:
            self.stdout.write(f"  {head:<10} {line}")


def _chosen(name: str | None) -> list[Target]:
    if name is None:
        return list(Target.objects.all())
    target = Target.objects.filter(name=name).first()
    if target is None:
        raise CommandError(f"There is no target called {name}.")
    return [target]


def _person(name: str | None) -> Any:
    if name is None:
        raise CommandError("Say with --by USER who allows or confirms it.")
    found = get_user_model().objects.filter(username=name, is_active=True).first()
    if found is None:
        raise CommandError(f"There is no active user called {name}.")
    return found
