"""`manage.py doctor`: look at everything, say what is wrong and what to do. Changes nothing."""

from __future__ import annotations

from django.core.management.base import BaseCommand, CommandError

from debugflow.diagnosis import diagnose


class Command(BaseCommand):
    help = "Look at everything and say what is wrong and what to do; exit 1 if anything is."
    # They are among what is looked at, and one that fails must not hide the rest.
    requires_system_checks = []

    def handle(self, **_: object) -> None:
        """Raises CommandError if anything is wrong."""
        wrong = total = 0
        for finding in diagnose():
            total += 1
            wrong += not finding.ok
            self.stdout.write(f"{'ok ' if finding.ok else 'NOT'}  {finding.what}")
            if finding.fix and not finding.ok:
                self.stdout.write(f"     {finding.fix}")
            self.stdout.flush()
        if wrong:
            raise CommandError(f"{wrong} of {total} are not as they should be.")
