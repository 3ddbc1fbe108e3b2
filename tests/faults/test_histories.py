"""The checker of histories notices each thing that it is there to notice."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from approvals.closing import NOT_CUT
from tests.faults.histories import Told, wrongs

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
LIFE = ("scheduled", "provisioning", "active", "revoking", "cut", "ended")


def life(*actions: str) -> list[Told]:
    """Events a second apart, each saying truly which state it left."""
    told, state = [], ""
    for second, action in enumerate(actions):
        told.append(Told(f"grant.{action}", NOON + timedelta(seconds=second), state))
        state = state if action in ("cut", "revealed") else action
    return told


def found(told: list[Told], state: str = "ended") -> list[str]:
    cut_at = next((one.at for one in told if one.action == "grant.cut"), None)
    return list(wrongs(told, state, cut_at))


@pytest.mark.parametrize(
    ("actions", "state"),
    [
        (LIFE, "ended"),
        (("scheduled", "ended"), "ended"),
        (("scheduled", "provisioning", "revoking", "cut", "ended"), "ended"),
        ((*LIFE[:3], "revealed", *LIFE[3:]), "ended"),
        (LIFE[:3], "active"),
        (LIFE[:5], "revoking"),
    ],
)
def test_lives_that_a_grant_may_have(actions, state):
    assert found(life(*actions), state) == []


def test_who_was_found_in_after_the_cut_is_cut_again():
    told = life(*LIFE[:5], "cut", "ended")
    found_in = Told("grant.attempt_failed", told[4].at, code=NOT_CUT)
    again = [*told[:5], found_in, *told[5:]]
    assert list(wrongs(again, "ended", told[5].at)) == []
    assert list(wrongs(again[:6], "revoking", None)) == []
    assert "otherwise" in " ".join(wrongs(again[:6], "revoking", told[4].at))
    assert "2 times" in " ".join(wrongs(told, "ended", told[5].at))


@pytest.mark.parametrize(
    ("actions", "state", "wrong"),
    [
        ((*LIFE[:3], "active", *LIFE[3:]), "ended", "active was followed by active"),
        ((*LIFE, "ended"), "ended", "ended was followed by ended"),
        ((*LIFE, "active"), "active", "ended was followed by active"),
        (LIFE[1:], "ended", "it began as provisioning"),
        (LIFE, "active", "it is active, and the last Event says grant.ended"),
        ((*LIFE[:4], "cut", *LIFE[4:]), "ended", "it was cut 2 times"),
        ((*LIFE[:4], "ended"), "ended", "it ended without having been cut"),
        ((*LIFE[:3], "cut", "revoking", "ended"), "ended", "it was cut before it was to end"),
        ((*LIFE[:4], "ended", "cut"), "ended", "or after it had ended"),
        ((), "scheduled", "no Event tells of its state"),
    ],
)
def test_lives_that_no_grant_may_have(actions, state, wrong):
    assert any(wrong in one for one in found(life(*actions), state))


def test_what_events_say_is_compared_with_the_row_and_with_each_other():
    told = life(*LIFE)
    assert "otherwise" in " ".join(wrongs(told, "ended", NOON))
    lying = [*told[:2], Told("grant.active", told[2].at, "scheduled"), *told[3:]]
    assert found(lying) == ["grant.active says it left scheduled, and it was provisioning"]
    late = [*told[:5], Told("grant.ended", NOON, "revoking")]
    assert found(late) == ["grant.ended is told after grant.cut and was before it"]
