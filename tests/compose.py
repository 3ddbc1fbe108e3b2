"""docker-compose.yml, Dockerfile and the page that explains them, as data for the tests."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from debugflow.embedded.state import CHECKOUT
from tests.docs.pages import DOCS

SERVERS = {"postgres", "valkey"}
# What is run and goes on: these open, cut, serve and never change a table.
LASTING = {"web", "worker", "revoke"}
OURS = LASTING | {"prepare", "migrate"}
VARIABLE = re.compile(r"\$\{(\w+)(?::([?-])([^}]*))?\}|\$\$")
BLOCK = r"^( *)```{kind}\n(.*?)^\1```"


def text() -> str:
    return (CHECKOUT / "docker-compose.yml").read_text(encoding="utf-8")


def parsed() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text())
    return found


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = parsed()["services"]
    return found


def dockerfile() -> str:
    return (CHECKOUT / "Dockerfile").read_text(encoding="utf-8")


def ignored() -> list[str]:
    return (CHECKOUT / ".dockerignore").read_text(encoding="utf-8").splitlines()


def wanted() -> tuple[set[str], set[str]]:
    """The variables that have to be given, and those that may be."""
    found = [match.groups()[:2] for match in VARIABLE.finditer(text()) if match[1]]
    required = {name for name, how in found if how == "?"}
    passed = {
        name
        for service in services().values()
        for name, value in service.get("environment", {}).items()
        if value is None
    }
    return required, ({name for name, _ in found} | passed) - required


def environment(name: str, given: Mapping[str, str]) -> dict[str, str]:
    """A service's variables as compose sets them. What is named without a value is passed on as it
    was given, and is not there if it was not. Raises LookupError for what has to be given."""
    told: dict[str, str | None] = services()[name].get("environment", {})
    return {
        variable: given[variable] if value is None else interpolated(value, given)
        for variable, value in told.items()
        if value is not None or variable in given
    }


def interpolated(value: str, given: Mapping[str, str]) -> str:
    """The value as compose fills it in. Raises LookupError for what has to be given and is not."""

    def fill(match: re.Match[str]) -> str:
        name, how, rest = match.groups()
        if name is None:
            return "$"
        if given.get(name):
            return given[name]
        if how == "?":
            raise LookupError(f"{name}: {rest}")
        return str(rest or "")

    return VARIABLE.sub(fill, value)


def blocks(kind: str) -> list[str]:
    """The fenced blocks of one kind in docs/operations.md, without the indent of their list."""
    page = (DOCS / "operations.md").read_text(encoding="utf-8")
    found = re.findall(BLOCK.replace("{kind}", kind), page, re.MULTILINE | re.DOTALL)
    return [re.sub(rf"^{indent}", "", block, flags=re.MULTILINE) for indent, block in found]


def dotenv() -> dict[str, str]:
    """What the page puts into `.env`."""
    [block] = blocks("env")
    return dict(line.split("=", 1) for line in block.splitlines())
