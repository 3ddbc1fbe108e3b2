"""A twentieth of each campaign, on the servers of the other tests; `make faults` runs the whole."""

from __future__ import annotations

import pytest

from tests.faults import kills
from tests.faults.campaign import CAMPAIGNS, Row, Run, broken, campaign

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_workers_killed_at_random_leave_nothing_open(run: Run):
    assert broken(kills.kills(run)) == []


def test_installed_workers_killed_at_random_leave_nothing_open(run: Run):
    assert broken(kills.kills_installed(run)) == []


def test_a_row_is_broken_by_what_is_bad_by_a_figure_over_its_limit_and_by_nothing_looked_at():
    assert not Row(what="late", runs=9, worst=5.0, limit=5.0).broken
    assert Row(what="late", runs=9, worst=5.1, limit=5.0).broken
    assert Row(what="orphans", runs=9, bad=1).broken
    assert Row(what="kills", runs=0).broken


def test_a_campaign_is_known_by_its_name():
    assert {"kills", "kills-installed"} <= set(CAMPAIGNS)
    assert campaign("kills")(kills.kills) is CAMPAIGNS["kills"]
