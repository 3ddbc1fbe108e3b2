"""`manage.py setup`: from an empty database to the first request, asking or by options alone.

The steps themselves are in `debugflow.first_setup`. Secrets are typed, or come from the
environment or a file, never from an option: every process sees those.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError

from approvals import administration, heartbeats, proposals, provisioning
from approvals.errors import DebugflowError, Invalid
from approvals.models import AccessLevel, Environment, Risk, Target
from approvals.provisioning.base import Provisioner
from debugflow import env, first_setup
from debugflow.accounts.models import User
from debugflow.answers import DEFAULTS, Answers
from debugflow.startup import refuse_unsafe
from debugflow.wording import HOW_TO_START_ONE, NO_SWEEPER

AGAIN: Final = "What is done stays done: run this again once it is mended."


class Command(BaseCommand):
    """May be run again: what exists already is said and left alone."""

    help = (
        "Set up the first admin, groups, target, level and policy. Asks on a terminal for what is "
        "not given; passwords may be given as DEBUGFLOW_ADMIN_PASSWORD and "
        "DEBUGFLOW_TARGET_PASSWORD, or as files (…_FILE). Without --target only the admin is made."
    )
    # All of them, those of the database and of deployment too, are run by `refuse_unsafe`.
    requires_system_checks = []

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """None of them takes a secret."""
        add = parser.add_argument
        add("--no-input", action="store_true", help="Never ask: what is missing is an error.")
        add("--admin", help="The admin's name.")
        add("--email", help="The admin's address, which alarms are sent to.")
        add("--target", help="The target's name.")
        add("--kind", help=f"The target's kind ({DEFAULTS['kind']}).")
        add("--environment", choices=Environment.values, help="Where it belongs (production).")
        add("--config", help='How it is reached, as JSON: {"host": "db1", "database": "orders", …}')
        add("--trust-anchor", help="A file of PEM certificates that its own must chain to.")
        add("--owners", help="The group that owns it and gets its alarms (owners).")
        add("--level", help="The level's name (read-only).")
        add("--rights", help='What the level gives, as JSON: {"role": "orders_readonly"}')
        add("--risk", choices=Risk.values, default="low", help="Of the level (low).")
        add("--max-duration", type=int, default=4 * 3600, help="Its longest, in seconds (14400).")
        add("--askers", help="The group that may ask for it (developers).")
        add("--policy", help="The policy's name (First policy).")
        add("--approvers", help="The group that approves (approvers).")
        add("--approvals", type=int, default=1, help="How many of them must (1).")

    def handle(self, *, no_input: bool, **options: Any) -> None:
        """Raises CommandError, saying what to do, for whatever keeps it from going on."""
        _refuse_unsafe()
        asks = not no_input and sys.stdin.isatty()
        given = {name: value for name, value in options.items() if value is not None}
        self.answers = Answers(given, asks=asks)
        try:
            with proposals.at_the_console():
                self._set_up()
        except DebugflowError as error:
            raise CommandError(f"{_explained(error)}\n{AGAIN}") from error
        except (EOFError, KeyboardInterrupt):
            raise CommandError(f"Stopped. {AGAIN}") from None

    def _set_up(self) -> None:
        admin = self._admin()
        if not self.answers.wants("target", "Name of the first target (empty: none now)"):
            self.stdout.write("\nNo target was named. Run this again with --target to add one.")
            self._next(admin, None)
            return
        target = self._target(admin)
        level = self._level(target, admin)
        self._policy(level, admin)
        self._next(admin, level)

    def _admin(self) -> User:
        name = self.answers.text("admin", "Name of the admin")
        if (there := first_setup.existing_admin(name)) is not None:
            self.stdout.write(str(first_setup.Made(what=there, existed=True)))
            return there
        email = self.answers.text("email", "Address of the admin, for alarms")
        password = self.answers.secret(
            env.text("DEBUGFLOW_ADMIN_PASSWORD", ""),
            "Password of the admin",
            instead="Set DEBUGFLOW_ADMIN_PASSWORD or DEBUGFLOW_ADMIN_PASSWORD_FILE.",
        )
        admin: User = self._made(first_setup.admin(name, email=email, password=password))
        return admin

    def _target(self, admin: User) -> Target:
        kind = provisioning.get(self.answers.text("kind", "Kind"))
        wanted = Target(
            name=self.answers.text("target", "Name of the target"),
            kind=kind.kind,
            environment=self.answers.text("environment", "Environment"),
            config=self.answers.mapping("config", kind.Config.model_fields),
            trust_anchor=self._trust_anchor(),
        )
        owners = self._group("owners", "Group that owns it", admin)
        there = Target.objects.filter(name=wanted.name).exists()
        clear = self._secrets(kind, needed=not there)
        made = first_setup.target(wanted, clear=clear, owners=owners, by=admin)
        target: Target = self._made(made)
        if made.existed and (names := first_setup.differences(wanted, target)):
            self.stdout.write(f"  It differs in {', '.join(names)}; change that in the admin.")
        return target

    def _trust_anchor(self) -> str:
        question = "File of certificates that its own must chain to (empty: none)"
        if not self.answers.wants("trust_anchor", question):
            return ""
        path = self.answers.given["trust_anchor"]
        try:
            return Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CommandError(f"--trust-anchor {path} cannot be read: {error}") from error

    def _secrets(self, kind: type[Provisioner], *, needed: bool) -> dict[str, str]:
        """Of a kind with one secret, from the environment; typed, where that is not set."""
        given = env.text("DEBUGFLOW_TARGET_PASSWORD", "") if len(kind.secrets) == 1 else ""
        if given or not needed:
            return dict.fromkeys(kind.secrets, given) if given else {}
        instead = "Set DEBUGFLOW_TARGET_PASSWORD or DEBUGFLOW_TARGET_PASSWORD_FILE."
        return {
            name: self.answers.secret("", f"The target's {name}", instead=instead, twice=False)
            for name in kind.secrets
        }

    def _level(self, target: Target, admin: User) -> AccessLevel:
        kind = provisioning.get(target.kind)
        wanted = AccessLevel(
            target=target,
            name=self.answers.text("level", "Name of the level"),
            rights=self.answers.mapping("rights", kind.Rights.model_fields),
            risk=self.answers.given["risk"],
            max_duration=self.answers.given["max_duration"],
        )
        askers = self._group("askers", "Group that may ask for it", admin)
        self._test(target, kind, wanted.rights)
        level: AccessLevel = self._made(first_setup.level(wanted, askers=askers, by=admin))
        for line in level.summary:
            self.stdout.write(f"  {line}")
        return level

    def _test(self, target: Target, kind: type[Provisioner], rights: Mapping[str, Any]) -> None:
        """“Test connection”; if anything is missing, what the target's owner has to run."""
        findings = administration.check_target(target)
        for ok, what, fix in findings:
            self.stdout.write(f"  {'ok ' if ok else 'NOT'}  {what}")
            if fix and not ok:
                self.stdout.write(f"       {fix}")
        if all(ok for ok, _, _ in findings):
            return
        self.stdout.write("\nFor the target's owner, to be run once as its superuser:\n")
        self.stdout.write(kind.prepare_sql(target.config, [rights]))

    def _policy(self, level: AccessLevel, admin: User) -> None:
        name = self.answers.text("policy", "Name of the policy")
        approvers = self._group("approvers", "Group that approves", admin)
        count = self.answers.given["approvals"]
        self._made(
            first_setup.policy(name, covers=level, approvers=approvers, approvals=count, by=admin)
        )

    def _group(self, option: str, question: str, admin: User) -> Any:
        name = self.answers.text(option, question)
        return self._made(first_setup.group(name, by=admin))

    def _made(self, made: first_setup.Made) -> Any:
        self.stdout.write(str(made))
        return made.what

    def _next(self, admin: User, level: AccessLevel | None) -> None:
        site = settings.SITE_URL or "the site (set DEBUGFLOW_SITE_URL, for links in mails)"
        steps = [f"Sign in at {site} as {admin}; the admin site is below /admin/."]
        if level is not None:
            askers, approvers = (self.answers.text(n, "") for n in ("askers", "approvers"))
            steps.append(f"Add people there, and put them into {askers} or {approvers}.")
            steps.append(f"One of {askers} asks for {level}; nobody approves their own request.")
        if not heartbeats.sweeping().exists():
            steps.append(f"{NO_SWEEPER} {HOW_TO_START_ONE}")
        self.stdout.write("\nNext:")
        for number, step in enumerate(steps, 1):
            self.stdout.write(f"{number}. {step}")


def _refuse_unsafe() -> None:
    """What is set up here is to last: on settings that a process would not start with, nothing."""
    if settings.DEMO:
        raise CommandError("Unset DEBUGFLOW_DEMO: the demonstration brings its own people.")
    try:
        refuse_unsafe()
    except ImproperlyConfigured as error:
        raise CommandError(str(error)) from error


def _explained(error: DebugflowError) -> str:
    fields = error.fields if isinstance(error, Invalid) else {}
    lines = [f"{name}: {' '.join(problems)}" for name, problems in fields.items()]
    return "\n".join([error.message, *lines])
