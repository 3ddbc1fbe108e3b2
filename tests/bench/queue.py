"""The queue page, and one request's, with a hundred thousand requests pending.

Two thousand of them wait for bob. Times are the server's, through the middleware and with the page
rendered, without a network.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

from django.contrib.auth import get_user_model

from approvals import overdue, untended
from approvals.models import AccessRequest
from debugflow.embedded.installation import Installation
from tests.bench.looks import LOOKS, milliseconds, queries, signed_in, timed
from tests.bench.pending import filled
from tests.bench.votes import read_only, submitted


def measure(site: Installation, figure: Callable[..., Any]) -> list[Any]:
    people = {user.username: user for user in get_user_model().objects.all()}
    bob = signed_in(people["bob"])
    submitted(people, read_only())
    small = milliseconds(bob, "/queue/")
    filled(site, people)
    newest = AccessRequest.objects.waiting_for(people["bob"]).latest("pk").pk
    return [
        figure("queue_page_ms_100k", milliseconds(bob, "/queue/"), "ms", small),
        figure("queue_all_page_ms_100k", milliseconds(bob, "/queue/?show=all"), "ms", small),
        figure("expiry_scan_ms_100k", _scan(partial(overdue.late, 100)), "ms"),
        figure("reminder_scan_ms_100k", _scan(partial(untended.nudges, 100)), "ms"),
        figure("leaver_scan_ms_5k", _scan(partial(untended.Rounds().look, 5000)), "ms"),
        figure("queue_page_queries", queries(bob, "/queue/"), "statements"),
        figure("request_page_queries", queries(bob, f"/requests/{newest}/"), "statements"),
    ]


def _scan(look: Callable[[], object]) -> float:
    """What each sweeper does every so often: look for requests that it has to see to."""
    return median(timed(look) for _ in range(LOOKS)) * 1000
