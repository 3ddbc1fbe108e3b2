"""Pages and answers as the server makes them: through the middleware, without a network."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

LOOKS = 20


def signed_in(person: Any) -> Client:
    client = Client(headers={"host": "localhost"})
    client.force_login(person)
    return client


def milliseconds(client: Client, address: str) -> float:
    """The median of `LOOKS` looks."""
    return median(seconds(client, address) for _ in range(LOOKS)) * 1000


def seconds(client: Client, address: str) -> float:
    """One look. Raises RuntimeError for anything but an answer that is as it should be."""
    answers: list[Any] = []
    took = timed(lambda: answers.append(client.get(address)))
    if answers[0].status_code != 200:
        raise RuntimeError(f"{address} answered {answers[0].status_code}")
    return took


def timed(act: Callable[[], object]) -> float:
    """How many seconds it takes."""
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def queries(client: Client, address: str) -> float:
    with CaptureQueriesContext(connection) as statements:
        client.get(address)
    return float(len(statements))
