"""`manage.py up`: serve on embedded servers, without the story; data is kept between runs."""

from __future__ import annotations

import argparse
from typing import TextIO, cast

from django.core.management.base import BaseCommand, CommandError

from debugflow.embedded.installation import Installation, installation
from debugflow.embedded.runtime import uses_real_servers
from debugflow.embedded.state import EmbeddedError
from debugflow.embedded.story import cast as names
from debugflow.embedded.story.narrator import Narrator
from debugflow.embedded.supervisor import signals_as_interrupt

PORT = 8000


class Command(BaseCommand):
    """For trying things out on one machine; docker-compose.yml shows a real installation."""

    help = "Serve on embedded servers with the demonstration's people and target, until Ctrl-C."
    requires_system_checks = []

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        add_port(parser)

    def handle(self, *, port: int, **_: object) -> None:
        """Raises CommandError when the servers cannot run, or real ones are named."""
        out = cast("TextIO", self.stdout)
        try:
            _refuse_real_servers()
            with signals_as_interrupt(), installation("up", port=port, out=out) as site:
                site.start()
                serve(site, out)
        except EmbeddedError as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            out.write("Stopped.\n")


def _refuse_real_servers() -> None:
    """Its people have a password that everybody knows: they belong in no real database."""
    if uses_real_servers():
        raise EmbeddedError(
            "`up` brings its own servers and people. Unset DATABASE_URL and REDIS_URL, or start "
            "the web server and the workers as docker-compose.yml does."
        )


def add_port(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--port",
        type=int,
        default=PORT,
        help=f"of the web server ({PORT}); another if it is taken, any free one for 0",
    )


def serve(site: Installation, out: TextIO) -> None:
    """Say where it is and who may sign in, then wait for Ctrl-C."""
    narrator = Narrator(out)
    narrator.line(f"\nServing at {site.url} until Ctrl-C. Everybody's password: {names.PASSWORD}\n")
    narrator.table(("sign in as", "who is"), list(names.PEOPLE.items()))
    narrator.line(f"\nTry: sign in as alice and ask for {names.READ_ONLY} on {names.TARGET};")
    narrator.line("approve as bob, then as carol; reveal the password as alice and connect with")
    narrator.line("psql; then as olga take it away. The API is below /api/v1/.")
    narrator.line(f"Logs: {site.processes.log('web').parent}\n")
    site.processes.supervisor.wait()
