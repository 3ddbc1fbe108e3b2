"""docs/api.md names every endpoint and reason code that a caller can meet; its examples run."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.core.handlers.wsgi import WSGIHandler

import approvals
from approvals.api.urls import urlpatterns
from approvals.models import AccessRequest
from tests.approvals.api.conftest import PASSWORD, connection_kept, program
from tests.docs.pages import section
from tests.world import World

PACKAGE = Path(approvals.__file__).parent
DOCS = (PACKAGE.parent / "docs" / "api.md").read_text()
CODE = re.compile(r'(?:\bcode=|Refusal\(\s*|default_code = )"([a-z_]+)"')
ROW = re.compile(r"^\| \d{3} \| `([a-z_]+)` \|", re.MULTILINE)
# Said by the framework, or in our words for what it raises.
FRAMEWORKS = {
    "too_many_tries",  # of signing in, wherever
    "not_found",
    "permission_denied",
    "method_not_allowed",
    "not_acceptable",
    "not_authenticated",
    "throttled",
    "unsupported_media_type",
}
# Workers say the first among themselves; the others are for pages, which name the vote that they
# replace, or the newest token that they knew of.
INTERNAL = {"fenced", "voted_already", "made_already"}


def test_every_endpoint_is_documented():
    paths = {str(url.pattern).replace("<int:pk>", "{id}") for url in urlpatterns} - {""}
    assert paths
    assert [path for path in sorted(paths) if f"`/{path}`" not in DOCS] == []


def sources() -> list[Path]:
    names = (
        "errors",
        "workflow",
        "wishes",
        "rounds",
        "emergency",
        "editing",
        "grants",
        "reviews",
        "abandoning",
        "extensions",
        "policy",
        "tokens",
        "answers",
        "escalation",
        "delegating",
        "narrowing",
    )
    return [*(PACKAGE / f"{name}.py" for name in names), *(PACKAGE / "api").glob("*.py")]


def codes() -> set[str]:
    return {code for source in sources() for code in CODE.findall(source.read_text())}


def test_every_reason_code_is_documented():
    assert {"self_approval", "self_abandon", "scope_changed", "no_level", "csrf_failed"} <= codes()
    assert {"token_scope", "needs_session", "key_reused", "shown_once"} <= codes()
    assert codes() - INTERNAL - documented() == set()


def test_no_reason_code_is_documented_that_there_is_not():
    assert documented() - codes() == FRAMEWORKS


def documented() -> set[str]:
    return set(ROW.findall(section(DOCS, "Refusals")))


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", DOCS, re.MULTILINE | re.DOTALL)


def test_the_shell_examples_are_shell():
    assert len(blocks("sh")) >= 2
    for block in blocks("sh"):
        subprocess.run(["bash", "-n"], input=block, text=True, check=True)
        for payload in re.findall(r"-d '(\{.*?\})'", block):
            json.loads(payload)


def test_the_json_examples_are_json():
    assert len(blocks("json")) >= 6
    for block in blocks("json"):
        json.loads(block)


class Here(httpx.Client):
    """Calls this process instead of a server."""

    def __init__(self, **options: Any) -> None:
        super().__init__(transport=httpx.WSGITransport(app=WSGIHandler()), **options)


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_the_python_examples_run(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
):
    """As they stand, but for the password and where the site is."""

    monkeypatch.setenv("DEBUGFLOW_TOKEN", program(world).clear)
    example = blocks("python")[number].replace('"…"', repr(PASSWORD))
    example = example.replace("https://debugflow.example.com", "http://localhost")
    example = example.replace('"level": 1', f'"level": {world.read.pk}')
    with connection_kept(), monkeypatch.context() as here_only:
        here_only.setattr(httpx, "Client", Here)
        exec(compile(example, f"docs/api.md, example {number}", "exec"), {})
    assert AccessRequest.objects.get().requester == world.alice
    assert capsys.readouterr().out in ("", f"{AccessRequest.objects.get().pk} orders pending\n")
