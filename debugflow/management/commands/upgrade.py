"""`manage.py upgrade`: move what `up` keeps over to this version's PostgreSQL."""

from __future__ import annotations

import argparse
from pathlib import Path

from django.core.management.base import BaseCommand, CommandError

from debugflow.embedded.state import DirectoryLock, EmbeddedError, state_dir
from debugflow.embedded.upgrade import upgrade


class Command(BaseCommand):
    """For the embedded servers alone; a server of one's own is upgraded by its own means."""

    help = (
        "Move the data that `up` keeps over to the embedded PostgreSQL's present major version, "
        "with the programs of the version that made it. The old data is kept."
    )
    requires_system_checks = []

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--programs",
            type=Path,
            required=True,
            help="directory of the older version's programs, such as /usr/lib/postgresql/17/bin",
        )

    def handle(self, *, programs: Path, **_: object) -> None:
        """Raises CommandError while `up` runs, and when it does not work: then all is as it was."""
        lock = DirectoryLock(state_dir())
        try:
            lock.acquire()
            for name in ("control", "production"):
                self._upgrade(state_dir() / "up" / name, programs.absolute())
        except EmbeddedError as error:
            raise CommandError(str(error)) from error
        finally:
            lock.release()

    def _upgrade(self, directory: Path, programs: Path) -> None:
        kept = upgrade(directory, programs=programs)
        if kept is None:
            self.stdout.write(f"{directory}: nothing to do.")
        else:
            self.stdout.write(f"{directory}: moved over. The old data is kept as {kept.name}.")
