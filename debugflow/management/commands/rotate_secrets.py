"""`manage.py rotate_secrets`: after it the older encryption keys are not needed any more."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError

from approvals.rotation import Rotated, rotate_all

DONE = (
    "Every secret is under the first key of DEBUGFLOW_ENCRYPTION_KEYS. The others can be dropped "
    "once every process has been restarted since that key became the first, and this command, run "
    "again after that, has encrypted none."
)
AGAIN = "Run it again until it encrypts none: a process with the old order of keys may still write."


class Command(BaseCommand):
    """May be run at any time, beside everything else, stopped, and run again."""

    help = (
        "Encrypt every stored secret anew under the first key of DEBUGFLOW_ENCRYPTION_KEYS. "
        "Put the new key first and restart every process before. Exit 1 if one cannot be read."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        """Raises CommandError, naming each, if there are secrets that no key reads."""
        batches: list[Rotated] = []
        try:
            for batch in rotate_all():
                batches.append(batch)
                self.stdout.write(f"{batch.table}: {batch.rotated} encrypted anew")
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from error
        rotated, current = sum(b.rotated for b in batches), sum(b.current for b in batches)
        self.stdout.write(f"{rotated} encrypted anew, {current} were so already.")
        if unreadable := [name for batch in batches for name in batch.unreadable]:
            raise CommandError(_explained(unreadable))
        self.stdout.write(AGAIN if rotated else DONE)


def _explained(unreadable: list[str]) -> str:
    lines = "\n".join(f"- {name}" for name in unreadable)
    return (
        f"{len(unreadable)} secrets could not be read and are as they were:\n{lines}\n"
        "Bring back the key that they were encrypted with, as a further one, and run this again; "
        "or enter the secret of the target again. Until then, drop no key."
    )
