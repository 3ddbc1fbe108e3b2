"""A part of the broker campaign: one of each fault, and three restarts."""

from __future__ import annotations

import pytest

from tests.faults import broker
from tests.faults.campaign import Run, broken

pytestmark = pytest.mark.timeout(300)


def test_access_ends_and_pages_answer_whatever_the_broker_does(run: Run):
    assert broken(broker.broker(run)) == []
