"""`manage.py demo`: start everything, tell the story, then serve. What happens is in `story`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO, cast

import httpx
import psycopg
from django.core.management.base import BaseCommand, CommandError

from debugflow.embedded.installation import Installation, installation
from debugflow.embedded.state import EmbeddedError
from debugflow.embedded.story.acts import Story
from debugflow.embedded.story.checks import StoryFailed
from debugflow.embedded.story.narrator import Narrator
from debugflow.embedded.supervisor import signals_as_interrupt
from debugflow.management.commands.up import add_port, serve

INTERRUPTED = 130  # what shells say of a program that Ctrl-C ended


class Command(BaseCommand):
    """Needs no environment: the servers and every secret are its own, and made anew each time."""

    help = (
        "Play the demonstration on embedded servers, with real processes, then serve it. "
        "Data of an earlier demonstration is removed."
    )
    requires_system_checks = []

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        add_port(parser)
        parser.add_argument(
            "--once", action="store_true", help="end after the story: 0 only if every step held"
        )

    def handle(self, *, once: bool, port: int, **_: object) -> None:
        """Raises CommandError for a step that did not hold, and when the servers cannot run."""
        out = cast("TextIO", self.stdout)
        try:
            with (
                signals_as_interrupt(),
                installation("demo", port=port, out=out, afresh=True) as site,
            ):
                _play(site, Narrator(out))
                if not once:
                    serve(site, out)
        except EmbeddedError as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            raise CommandError("Stopped.", returncode=INTERRUPTED) from None


def _play(site: Installation, narrator: Narrator) -> None:
    narrator.line("debugflow: real servers, real processes, real time. Nothing is simulated.\n")
    with narrator.step("PostgreSQL, Valkey, a production target, web, two workers") as step:
        site.start()
        step.outcome = f"at {site.url}"
    with _explained(site):
        Story(site, narrator).tell()
    narrator.line("\nEvery step held.")


@contextmanager
def _explained(site: Installation) -> Iterator[None]:
    """Turn what can go wrong in the story into a message with the logs."""
    try:
        yield
    except (StoryFailed, httpx.HTTPError, psycopg.Error) as error:
        kind = "" if isinstance(error, StoryFailed) else f"{type(error).__name__}: "
        raise CommandError(
            f"The story failed: {kind}{error}\n\n{site.logs()}", returncode=1
        ) from error
