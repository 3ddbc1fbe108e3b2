"""A part of the partition campaign: each partition once."""

from __future__ import annotations

import pytest

from tests.faults import namespaces, partition
from tests.faults.campaign import Run, broken

pytestmark = pytest.mark.timeout(300)


def test_whoever_still_gets_there_ends_access_on_time(run: Run):
    if why := namespaces.missing():
        pytest.skip(why)
    assert broken(partition.partition(run)) == []
