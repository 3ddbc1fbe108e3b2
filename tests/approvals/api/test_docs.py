"""docs/api.md names every endpoint and every reason code that a caller can meet."""

from __future__ import annotations

import re
from pathlib import Path

import approvals
from approvals.api.urls import urlpatterns

PACKAGE = Path(approvals.__file__).parent
DOCS = (PACKAGE.parent / "docs" / "api.md").read_text()
CODE = re.compile(r'(?:\bcode=|Refusal\(\s*|default_code = )"([a-z_]+)"')
# Workers say the first among themselves; the second is for pages, which name the vote they replace.
INTERNAL = {"fenced", "voted_already"}


def test_every_endpoint_is_documented():
    paths = {str(url.pattern).replace("<int:pk>", "{id}") for url in urlpatterns} - {""}
    assert paths
    assert [path for path in sorted(paths) if f"`/{path}`" not in DOCS] == []


def test_every_reason_code_is_documented():
    sources = [
        PACKAGE / f"{name}.py" for name in ("errors", "workflow", "grants", "abandoning", "policy")
    ]
    sources += (PACKAGE / "api").glob("*.py")
    codes = {code for source in sources for code in CODE.findall(source.read_text())}
    assert {"self_approval", "self_abandon", "scope_changed", "no_level", "csrf_failed"} <= codes
    assert [code for code in sorted(codes - INTERNAL) if f"`{code}`" not in DOCS] == []
