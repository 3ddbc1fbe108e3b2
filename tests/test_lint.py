"""Rules that no linter knows, read off the syntax trees of the product's own code.

Each has a counterexample beside it, so that a rule that notices nothing is noticed.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from celery import current_app
from django.conf import settings

from approvals.provisioning import paths
from debugflow.embedded.state import CHECKOUT

PACKAGES = ("debugflow", "approvals", "audit")
OBJECT_PERMISSIONS = ("request_accesslevel", "own_target", "watch_target", "audit_target")
ASKS = {"has_perm", "has_perms", "permission_required"}
# Who reads the environment, and why not through the settings.
READS_ENVIRONMENT = {
    "debugflow/env.py": "it is how the others do",
    "debugflow/settings.py": "where settings are made",
    "debugflow/asgi.py": "names the settings",
    "debugflow/celery.py": "names the settings",
    "debugflow/management/commands/migrate.py": "the migrator's login, which no other may have",
    "debugflow/management/commands/prepare_database.py": "the superuser's, likewise",
    "debugflow/management/commands/seed_demo.py": "the demo's own secret, given to it alone",
    "debugflow/management/commands/setup.py": "the first passwords, likewise",
}
# Runs before there are settings: it makes the servers that the settings will name.
BEFORE_SETTINGS = "debugflow/embedded/"

Rule = Callable[[ast.AST], Iterator[ast.AST]]


def sources() -> list[Path]:
    """The product's code, migrations apart: those are what they were when they were written."""
    found = [path for package in PACKAGES for path in (CHECKOUT / package).rglob("*.py")]
    return sorted(path for path in found if "migrations" not in path.parts)


def templates() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (CHECKOUT / package).rglob("*.html"))


def name_of(path: Path) -> str:
    return path.relative_to(CHECKOUT).as_posix()


def offenders(rule: Rule, *, but: tuple[str, ...] = ()) -> list[str]:
    """Where the rule is broken, as file:line, outside the files or folders `but`."""
    return [
        f"{name_of(path)}:{getattr(broken, 'lineno', 0)}"
        for path in sources()
        if not name_of(path).startswith(but)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for broken in rule(node)
    ]


def breaks(rule: Rule, code: str) -> bool:
    return any(True for node in ast.walk(ast.parse(code)) for _ in rule(node))


def called(node: ast.AST) -> str:
    """The last name of what a call calls; nothing for what is no call."""
    if not isinstance(node, ast.Call):
        return ""
    function = node.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def texts(node: ast.AST) -> list[str]:
    """Every text within."""
    constants = (one for one in ast.walk(node) if isinstance(one, ast.Constant))
    return [one.value for one in constants if isinstance(one.value, str)]


def writes_state(node: ast.AST) -> Iterator[ast.AST]:
    """An assignment to `.state`, however it is spelled, or an UPDATE of it."""
    if isinstance(node, ast.Attribute) and node.attr == "state" and isinstance(node.ctx, ast.Store):
        yield node
    if isinstance(node, ast.Call):
        by_name = called(node) == "setattr" and "state" in [
            t for a in node.args[1:2] for t in texts(a)
        ]
        keywords = {word.arg for word in node.keywords}
        if by_name or (called(node) in {"update", "update_or_create"} and "state" in keywords):
            yield node
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        if re.search(r"\bUPDATE\b.*\bSET\b[^;]*\bstate\s*=", node.value, re.DOTALL):
            yield node


@pytest.mark.parametrize(
    "code",
    [
        "grant.state = 'ended'",
        "before, grant.state = 1, 2",
        "grant.state: str = 'ended'",
        "for grant.state in states: pass",
        "setattr(grant, 'state', 'ended')",
        "Grant.objects.filter(pk=1).update(state='ended')",
        "cursor.execute('UPDATE approvals_grant SET cut_at = now(), state = %s')",
    ],
)
def test_a_write_of_a_state_is_noticed(code: str):
    assert breaks(writes_state, code)


@pytest.mark.parametrize(
    "code", ["x = grant.state", "rows.filter(state=1)", "a.state == b", "setattr(a, 'b', 'state')"]
)
def test_a_look_at_a_state_is_none(code: str):
    assert not breaks(writes_state, code)


@pytest.mark.slow
def test_one_file_writes_states():
    """An Event goes with every change, which is what `move` is for."""
    assert offenders(writes_state, but=("approvals/transition.py",)) == []
    assert offenders(writes_state)


def asks_has_perm(node: ast.AST) -> Iterator[ast.AST]:
    if called(node) in ASKS and any(name in t for t in texts(node) for name in OBJECT_PERMISSIONS):
        yield node


@pytest.mark.slow
def test_has_perm_is_never_asked_about_an_object():
    """It says yes to every superuser, to whom nothing on the object was assigned."""
    assert breaks(asks_has_perm, "person.has_perm('approvals.own_target', target)")
    assert breaks(asks_has_perm, "@permission_required('approvals.watch_target')\ndef f(): pass")
    assert not breaks(asks_has_perm, "person.has_perm('approvals.view_target')")
    assert offenders(asks_has_perm) == []
    asked = re.compile(rf"\bperms\.approvals\.({'|'.join(OBJECT_PERMISSIONS)})\b")
    assert [name_of(path) for path in templates() if asked.search(path.read_text())] == []


def rings(node: ast.AST) -> Iterator[ast.AST]:
    if called(node) == "ring":
        yield node


def tasks_rung() -> dict[str, str]:
    """The task of each call of `ring`, as it is in the module that calls it, by file and line."""
    found = {}
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and called(node) == "ring":
                module = importlib.import_module(
                    name_of(path).removesuffix(".py").replace("/", ".")
                )
                # A name that is no constant of the module's is an error here, on purpose.
                found[f"{name_of(path)}:{node.lineno}"] = eval(
                    ast.unparse(node.args[0]), vars(module).copy()
                )
    return found


@pytest.mark.slow
def test_whatever_is_rung_for_is_a_task():
    """A misspelt one would be queued and thrown away, and every opening would wait for a sweep."""
    current_app.loader.import_default_modules()
    rung = tasks_rung()
    assert len(rung) >= 3
    assert {place: task for place, task in rung.items() if task not in current_app.tasks} == {}
    assert settings.CELERY_TASK_ROUTES.keys() <= current_app.tasks.keys()
    assert settings.CELERY_TASK_ROUTES.keys() == set(rung.values())


def compares_kind(node: ast.AST) -> Iterator[ast.AST]:
    """A comparison, or a match, of a kind of target with a known one.

    Two rows' kinds may be compared, and the kinds of other things (of a step) be told apart.
    """
    if isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        others = [side for side in sides if not _is_kind(side)]
        if len(others) < len(sides) and any(texts(side) for side in others):
            yield node
    if isinstance(node, ast.Compare | ast.match_case):
        compared = node.pattern if isinstance(node, ast.match_case) else node
        if not set(texts(compared)).isdisjoint(paths()):
            yield compared


def _is_kind(node: ast.expr) -> bool:
    return "kind" in (getattr(node, "id", ""), getattr(node, "attr", ""))


@pytest.mark.parametrize(
    "code",
    [
        "if kind == 'ssh': pass",
        "if target.kind != 'ssh': pass",
        "if 'ssh' == target.kind: pass",
        "if target.kind in ('ssh', 'web'): pass",
        "if what == 'postgresql': pass",
        "match what:\n    case 'memory': pass",
    ],
)
def test_a_comparison_of_kinds_is_noticed(code: str):
    assert breaks(compares_kind, code)


@pytest.mark.parametrize(
    "code", ["before.kind != after.kind", "job.kind == StepKind.CUT", "Target(kind='memory')"]
)
def test_other_kinds_are_told_apart_as_one_likes(code: str):
    assert not breaks(compares_kind, code)


@pytest.mark.slow
def test_what_differs_between_kinds_is_asked_of_the_kind():
    """Else a kind of somebody else's, added from outside, would be none of the known ones."""
    # A URL's scheme, in env.py, is no kind of target.
    assert offenders(compares_kind, but=("approvals/provisioning/", "debugflow/env.py")) == []
    asked = re.compile(rf"\btarget\.kind\s*[=!]=|[=!]=\s*[\"'](?:{'|'.join(paths())})[\"']")
    assert [name_of(path) for path in templates() if asked.search(path.read_text())] == []


def reads_environment(node: ast.AST) -> Iterator[ast.AST]:
    if (
        "environ" in (getattr(node, "attr", ""), getattr(node, "id", ""))
        or called(node) == "getenv"
    ):
        yield node
    if isinstance(node, ast.Import | ast.ImportFrom):
        names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
        if "debugflow.env" in names or ("env" in names and "debugflow" in names):
            yield node


@pytest.mark.parametrize(
    "code",
    [
        "os.environ['A']",
        "os.getenv('A')",
        "from os import environ\nenviron['A']",
        "from debugflow import env",
        "import debugflow.env",
        "from debugflow.env import text",
    ],
)
def test_a_reading_of_the_environment_is_noticed(code: str):
    assert breaks(reads_environment, code)


@pytest.mark.slow
def test_the_environment_is_read_where_settings_are_made():
    read = {place.partition(":")[0] for place in offenders(reads_environment)}
    assert {path for path in read if not path.startswith(BEFORE_SETTINGS)} == set(READS_ENVIRONMENT)


def puts_off(node: ast.AST) -> Iterator[ast.AST]:
    """A message that is to be delivered later: a broker may lose it, or deliver it many times."""
    if isinstance(node, ast.keyword) and node.arg in {"eta", "countdown"}:
        yield node
    if isinstance(node, ast.Dict):
        yield from (key for key in node.keys if key and {"eta", "countdown"} & set(texts(key)))


@pytest.mark.slow
def test_no_message_is_put_off():
    """What is due is found in the database when its time comes."""
    assert breaks(puts_off, "close_grant.apply_async((1,), eta=end)")
    assert breaks(puts_off, "self.retry(countdown=5)")
    assert breaks(puts_off, "task.apply_async(**{'eta': end})")
    assert not breaks(puts_off, "queue.ring('close_grant', 1)")
    assert offenders(puts_off) == []
