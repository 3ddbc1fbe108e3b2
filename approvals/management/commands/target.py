"""`target prepare` prints what a target's owner runs once; `target test` says what is missing.

Nothing is changed by either, here or on the target, and neither takes or prints a secret.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from approvals import administration, provisioning
from approvals.errors import Invalid
from approvals.models import Target

# The options of a kind's `prepare_sql`, as they are called there; those not given are left out.
PREPARE_OPTIONS = ("major", "databases", "makes_in", "addresses")


class Command(BaseCommand):
    help = "Print the SQL that prepares a target, or test the connection to one."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        test = verbs.add_parser("test", help="Sign in and say what is missing; exit 1 if anything.")
        test.add_argument("name", help="A stored target's name.")
        _add_prepare(verbs.add_parser("prepare", help="Print the SQL for its owner to run once."))

    def handle(self, *args: Any, verb: str, **options: Any) -> None:
        if verb == "test":
            self._test(_stored(options["name"]))
        else:
            self._prepare(**options)

    def _test(self, target: Target) -> None:
        findings = administration.check_target(target)
        for ok, what, fix in findings:
            self.stdout.write(f"{'ok ' if ok else 'NOT'}  {what}")
            if fix and not ok:
                self.stdout.write(f"     {fix}")
        if wrong := sum(not ok for ok, _, _ in findings):
            raise CommandError(f"{wrong} of {len(findings)} are not as they should be.")

    def _prepare(self, *, name: str | None, config: str | None, **options: Any) -> None:
        if (name is None) == (config is None):
            raise CommandError("Name a stored target, or give --config for one to come.")
        if name is not None:
            kind, settings, rights = _of_target(_stored(name))
        else:
            kind, settings, rights = options["kind"], _mapping(config or "", "--config"), []
        rights += [_mapping(text, "--level") for text in options["level"]]
        self.stdout.write(_prepared(kind, settings, rights, options), ending="")


def _add_prepare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="A stored target's name.")
    parser.add_argument("--config", help="The configuration of a target not stored yet, as JSON.")
    parser.add_argument("--kind", default="postgresql", help="Its kind (default: %(default)s).")
    parser.add_argument(
        "--level", action="append", default=[], help="A further level's rights, as JSON. Repeat."
    )
    parser.add_argument("--major", type=int, help="The server's major version.")
    parser.add_argument(
        "--database", action="append", dest="databases", help="Another that holders may use."
    )
    parser.add_argument(
        "--makes-in", action="append", help="A schema in which a level may make things."
    )
    parser.add_argument(
        "--address", action="append", dest="addresses", help="CIDR that debugflow connects from."
    )


def _stored(name: str) -> Target:
    target = Target.objects.filter(name=name).first()
    if target is None:
        raise CommandError(f"There is no target called {name}.")
    return target


def _of_target(target: Target) -> tuple[str, Mapping[str, Any], list[Mapping[str, Any]]]:
    return target.kind, target.config, list(target.levels.values_list("rights", flat=True))


def _mapping(text: str, option: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise CommandError(f"{option} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise CommandError(f'{option} is a JSON object, such as {{"host": "db1"}}.')
    return found


def _prepared(
    kind: str,
    config: Mapping[str, Any],
    rights: Sequence[Mapping[str, Any]],
    options: Mapping[str, Any],
) -> str:
    given = {name: options[name] for name in PREPARE_OPTIONS if options.get(name) is not None}
    try:
        return provisioning.get(kind).prepare_sql(config, rights, **given)
    except Invalid as error:
        raise CommandError(error.message) from None
