"""Makes the database and its three roles on a real server. Tables are `migrate`'s affair."""

import argparse

from django.core.management.base import BaseCommand, CommandError

from debugflow import env
from debugflow.embedded.roles import create_roles
from debugflow.embedded.runtime import APP, DATABASE, MIGRATOR, OWNER
from debugflow.embedded.state import EmbeddedError


class Command(BaseCommand):
    """Everything secret comes from the environment (or NAME_FILE), nothing from arguments."""

    help = (
        "Make the database and its roles, or set them right, on the server of "
        "SUPERUSER_DATABASE_URL. The logins' passwords are read from DEBUGFLOW_APP_PASSWORD and "
        "DEBUGFLOW_MIGRATOR_PASSWORD. May be run again."
    )
    requires_system_checks = []

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Names differ where one server holds several installations."""
        parser.add_argument("--database", default=DATABASE)
        parser.add_argument("--owner", default=OWNER)
        parser.add_argument("--migrator", default=MIGRATOR)
        parser.add_argument("--app", default=APP)
        parser.add_argument(
            "--for-restore",
            action="store_true",
            help="before a backup is loaded, which brings the rights on its tables with it",
        )

    def handle(self, *, for_restore: bool = False, **options: str) -> None:
        """Raises CommandError when the application's role is a member of another."""
        names = {name: options[name] for name in ("database", "owner", "migrator", "app")}
        passwords = {
            names["app"]: env.text("DEBUGFLOW_APP_PASSWORD"),
            names["migrator"]: env.text("DEBUGFLOW_MIGRATOR_PASSWORD"),
        }
        try:
            create_roles(_superuser_url(), passwords=passwords, for_restore=for_restore, **names)
        except EmbeddedError as error:
            raise CommandError(str(error)) from error
        what = "pg_restore" if for_restore else "migrate"
        told = f"Database {names['database']}, owned by {names['owner']}, is ready for {what}."
        self.stdout.write(told)


def _superuser_url() -> str:
    url = env.text("SUPERUSER_DATABASE_URL")
    return env.with_password(url, env.text("SUPERUSER_DATABASE_PASSWORD", ""))
