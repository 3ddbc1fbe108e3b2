"""Finds in the code which environment variables the project reads, and with which defaults.

Reads syntax trees, runs nothing. What a page says about them is compared in `test_configuration`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.docs.pages import ROOT

PACKAGES = ("debugflow", "approvals", "audit")
READERS = {"text", "boolean", "number", "words", "networks", "database"}
LISTS = {"words", "networks"}  # empty unless they say otherwise
# It reads whatever name it is given; the names are found where it is called.
READER_FILE = ROOT / "debugflow" / "env.py"
COMPUTED = "computed"
REQUIRED = "required"


def sources() -> list[Path]:
    """The product's own Python files."""
    found = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return sorted([ROOT / "manage.py", *found])


def read_by(path: Path) -> dict[str, str]:
    """Each variable a file reads, with its default: text, `required` or `computed`.

    Raises ValueError for a name that cannot be told without running the code.
    """
    if path == READER_FILE:
        return {}
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    named = _named(tree)
    return {
        name: default
        for node in ast.walk(tree)
        for place, default in [*_through_env(node), *_through_os(node)]
        for name in _names(place, named, path)
    }


def _named(tree: ast.Module) -> dict[str, list[str]]:
    """What stands for texts in a module: its constants, and what its loops run over."""
    found: dict[str, list[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = _texts(node.value, found)
    for node in ast.walk(tree):
        if isinstance(node, ast.comprehension | ast.For) and isinstance(node.target, ast.Name):
            found.setdefault(node.target.id, []).extend(_texts(node.iter, found))
    return found


def _texts(node: ast.expr, named: dict[str, list[str]]) -> list[str]:
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.Tuple(elts=items) | ast.List(elts=items):
            return [text for item in items for text in _texts(item, named)]
        case ast.Name(id=name):
            return named.get(name, [])
    return []


def _names(place: ast.expr, named: dict[str, list[str]], path: Path) -> list[str]:
    if names := _texts(place, named):
        return names
    raise ValueError(f"{path}:{place.lineno}: which variable is read here?")


def _through_env(node: ast.AST) -> Iterator[tuple[ast.expr, str]]:
    """Calls such as `env.text(NAME, default)`."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        of_env = isinstance(node.func.value, ast.Name) and node.func.value.id == "env"
        if of_env and node.func.attr in READERS:
            yield node.args[0], _default(node)


def _default(call: ast.Call) -> str:
    if len(call.args) < 2:
        assert isinstance(call.func, ast.Attribute)
        return "" if call.func.attr in LISTS else REQUIRED
    given = call.args[1]
    return str(given.value) if isinstance(given, ast.Constant) else COMPUTED


def _through_os(node: ast.AST) -> Iterator[tuple[ast.expr, str]]:
    """`environ[NAME]`, `environ.get(NAME)`, `environ.setdefault(NAME, …)`, `os.getenv(NAME)`."""
    if isinstance(node, ast.Subscript) and _is_environ(node.value):
        yield node.slice, COMPUTED
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        got = node.func.attr in {"get", "setdefault", "pop"} and _is_environ(node.func.value)
        if got or node.func.attr == "getenv":
            yield node.args[0], COMPUTED


def _is_environ(node: ast.expr) -> bool:
    name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
    return name == "environ"
