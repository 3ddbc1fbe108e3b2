"""A part of the campaigns about targets: each fault once."""

from __future__ import annotations

import pytest

from tests.faults import crowded, dying, target
from tests.faults.campaign import Run, broken

pytestmark = pytest.mark.timeout(300)


def test_access_ends_on_time_or_soon_after_the_targets_return(run: Run):
    assert broken(target.target(run)) == []


def test_six_dead_targets_keep_nobody_in_at_a_living_one(run: Run):
    assert broken(dying.dying(run)) == []


def test_a_full_target_and_one_whose_certificate_fails(run: Run):
    assert broken(crowded.crowded(run)) == []
