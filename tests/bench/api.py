"""The API's list of requests, with a hundred thousand of them, and the page that people open first.

The ground is a view of the same server that gives the same rows as `.values()`, joined as they are
in the list, behind the same middleware and sign-in.
"""

from __future__ import annotations

import gzip
import re
import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.staticfiles import finders
from django.http import HttpRequest, JsonResponse
from django.test import Client, override_settings
from django.urls import path

from approvals import access
from approvals.models import RequestStage
from debugflow.embedded.installation import Installation
from debugflow.urls import urlpatterns as of_the_site
from tests.bench.looks import milliseconds, queries, signed_in
from tests.bench.pending import filled

LIST, GROUND = "/api/v1/requests/", "/ground/"
SECONDS = 6.0  # how long each of the two is measured
ROUNDS = 6  # in turns, so that whatever else the machine does falls on both
ASSET = re.compile(rb'(?:src|href)="/static/([^"#]+)["#]')
# What the list shows of each row, as columns.
COLUMNS = (
    "id",
    "kind",
    "state",
    "requester__id",
    "requester__username",
    "beneficiary__id",
    "beneficiary__username",
    "target__id",
    "target__name",
    "target__environment",
    "level__id",
    "level__name",
    "level__risk",
    "policy_version__number",
    "policy_version__policy__name",
    "reason",
    "ticket",
    "duration",
    "starts_at",
    "scope_hash",
    "submitted_at",
    "pending_until",
    "decided_at",
    "decision_note",
    "grant__id",
)


def ground(request: HttpRequest) -> JsonResponse:
    """As many rows, by `.values()`, with their stages by another."""
    visible = access.visible_requests(request.user)  # type: ignore[arg-type]  # signed in
    rows = list(visible.order_by("-pk").values(*COLUMNS)[: settings.REST_FRAMEWORK["PAGE_SIZE"]])
    stages = RequestStage.objects.filter(request__in=[row["id"] for row in rows]).values()
    return JsonResponse({"results": rows, "stages": list(stages)})


urlpatterns = [*of_the_site, path(GROUND.strip("/") + "/", ground)]


def measure(site: Installation, figure: Callable[..., Any]) -> list[Any]:
    people = {user.username: user for user in get_user_model().objects.all()}
    filled(site, people)
    with override_settings(ROOT_URLCONF=__name__, API_RATE=10**9):
        bob = signed_in(people["bob"])
        rates = _rates(bob)
        return [
            figure("api_requests_list_ms_100k", milliseconds(bob, LIST), "ms"),
            figure("api_requests_list_queries", queries(bob, LIST), "statements"),
            figure("api_awaiting_me_ms_100k", milliseconds(bob, f"{LIST}?awaiting_me=true"), "ms"),
            figure("api_list_rps", rates[LIST], "1/s", rates[GROUND]),
            figure("page_bytes_home", _bytes(bob, "/"), "bytes"),
        ]


def _rates(client: Client) -> dict[str, float]:
    """Answers a second, one after another, of the list and of the ground."""
    count, spent = dict.fromkeys((LIST, GROUND), 0), dict.fromkeys((LIST, GROUND), 0.0)
    for address in chain.from_iterable([(LIST, GROUND)] * ROUNDS):
        began = time.perf_counter()
        for answer in _answers(client, address, until=began + SECONDS / ROUNDS):
            count[address] += answer
        spent[address] += time.perf_counter() - began
    return {address: count[address] / spent[address] for address in count}


def _answers(client: Client, address: str, *, until: float) -> Iterator[int]:
    while time.perf_counter() < until:
        answer = client.get(address)
        if answer.status_code != 200 or not answer.json()["results"]:
            raise RuntimeError(f"{address} answered {answer.status_code}")
        yield 1


def _bytes(client: Client, address: str) -> float:
    """What a browser that has nothing yet is sent: the page, and compressed all that it names."""
    page = client.get(address).content
    names = {asset.decode() for asset in ASSET.findall(page)}
    return float(len(page) + sum(len(gzip.compress(_asset(name))) for name in names))


def _asset(name: str) -> bytes:
    found = finders.find(name)
    if found is None:
        raise RuntimeError(f"the page names {name}, and there is no such file")
    return Path(found).read_bytes()
