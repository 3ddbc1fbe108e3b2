"""Sixteen clients at once, over and over: no history may hold what could not have happened."""

from __future__ import annotations

from collections import Counter

import pytest

from approvals.models import locks
from tests.conftest import Control
from tests.faults.ground import Ground
from tests.faults.hindsight import histories
from tests.world import build

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

# What has to have been done by somebody in the histories together, or they would prove little.
DONE = ("submit", "approve", "cancel", "release", "revoke", "reveal", "rescope", "publish", "open",
        "close", "deactivate")  # fmt: skip


@pytest.fixture
def ground(committed: None, control: Control) -> Ground:
    build()
    return Ground(control)


def test_no_history_holds_what_could_not_have_happened(ground: Ground):
    yes, no, looked_at = Counter[str](), Counter[str](), 0
    for done, wrong in histories(ground, count=300, chance=3, most=24):
        assert not wrong, "\n".join([*wrong, *map(str, done)])
        yes.update(one.act.verb for one in done if one.succeeded)
        no.update(one.code for one in done if not one.succeeded)
        looked_at += 1
    assert looked_at > 20
    assert set(DONE) <= yes.keys()
    assert {"wrong_state", "not_yours", "not_eligible", "asked_already"} <= no.keys()


def test_without_row_locks_a_history_soon_does(ground: Ground, monkeypatch: pytest.MonkeyPatch):
    """Else the checker would see nothing, whatever happened."""
    lock = locks._locked
    monkeypatch.setattr(locks, "_locked", lambda model, pk, how: lock(model, pk, ""))
    assert any(wrong for _, wrong in histories(ground, count=100, chance=3, most=10))
