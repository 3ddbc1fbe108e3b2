"""What the first set-up is told: by options, and on a terminal by asking for the rest.

What the answers are used for is in `first_setup` and its command.
"""

from __future__ import annotations

import getpass
import json
from collections.abc import Mapping
from typing import Any, Final

from django.core.management.base import CommandError

DEFAULTS: Final = {
    "admin": "admin",
    "kind": "postgresql",
    "environment": "production",
    "owners": "owners",
    "askers": "developers",
    "approvers": "approvers",
    "level": "read-only",
    "policy": "First policy",
}


class Answers:
    """What was given by options, and on a terminal what is asked for."""

    def __init__(self, given: dict[str, Any], *, asks: bool) -> None:
        self.given = given
        self.asks = asks

    def wants(self, name: str, question: str) -> bool:
        """Whether something optional is named."""
        if name not in self.given and self.asks:
            self.given[name] = input(f"{question}: ").strip()
        return bool(self.given.get(name))

    def text(self, name: str, question: str) -> str:
        """One line: given, typed, or the default. Raises CommandError without any."""
        if name in self.given:
            return str(self.given[name])
        default = DEFAULTS.get(name, "")
        typed = input(f"{question} [{default}]: ").strip() if self.asks else ""
        self.given[name] = typed or default
        if not self.given[name]:
            raise CommandError(f"Give --{name}.")
        return str(self.given[name])

    def secret(self, given: str, question: str, *, instead: str, twice: bool = True) -> str:
        """Given in the environment or typed unseen. Raises CommandError without either."""
        if given:
            return given
        if not self.asks:
            raise CommandError(instead)
        typed = getpass.getpass(f"{question}: ")
        if twice and getpass.getpass("Once more: ") != typed:
            raise CommandError("They differ. Nothing was made of it; run this again.")
        return typed

    def mapping(self, name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """JSON from the option, or field by field; what is left empty keeps its default."""
        if name in self.given:
            return _parsed(str(self.given[name]), f"--{name}")
        if not self.asks:
            raise CommandError(f"Give --{name} as JSON, with {', '.join(_required(fields))}.")
        asked = [key for key, field in fields.items() if _is_simple(field)]
        typed = {key: input(f"  {key} [{_default(fields[key])}]: ").strip() for key in asked}
        return {key: value for key, value in typed.items() if value}


def _required(fields: Mapping[str, Any]) -> list[str]:
    return [key for key, field in fields.items() if field.is_required()]


def _is_simple(field: Any) -> bool:
    return field.is_required() or isinstance(field.default, str | int)


def _default(field: Any) -> str:
    return "needed" if field.is_required() else str(field.default)


def _parsed(text: str, option: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise CommandError(f"{option} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise CommandError(f'{option} is a JSON object, such as {{"host": "db1"}}.')
    return found
