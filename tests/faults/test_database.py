"""A part of the database campaign: one of each fault, and short."""

from __future__ import annotations

import pytest

from tests.faults import database
from tests.faults.campaign import Run, broken

pytestmark = pytest.mark.timeout(300)


def test_nothing_acknowledged_is_lost_and_nothing_is_late_whatever_the_database_does(run: Run):
    assert broken(database.database(run)) == []
