"""The origin of a request: which id, which address, which agent end up in Events and logs."""

import asyncio
import re
from typing import Any

import pytest
import structlog
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory

from audit import context
from debugflow.middleware import RequestContextMiddleware

NEW = re.compile(r"[0-9a-f]{32}")


class Page(HttpResponse):
    """A page that keeps where it was asked from, to be looked at from outside."""

    def __init__(self) -> None:
        super().__init__()
        self.origin = context.current()
        self.logged = structlog.contextvars.get_contextvars()


def page(request: HttpRequest) -> Page:
    return Page()


async def awaited_page(request: HttpRequest) -> Page:
    await asyncio.sleep(0)
    return Page()


def asked(**meta: Any) -> Page:
    response = RequestContextMiddleware(page)(RequestFactory().get("/", **meta))
    assert isinstance(response, Page)
    return response


@pytest.fixture(autouse=True)
def proxies(settings):
    settings.TRUSTED_PROXIES = ["10.0.0.0/8", "2001:db8::/32"]
    return settings


def test_a_trusted_proxys_plain_id_is_kept_and_returned():
    response = asked(HTTP_X_REQUEST_ID="edge-1234.5_6", REMOTE_ADDR="10.0.0.1")
    assert response["X-Request-ID"] == response.origin.request_id == "edge-1234.5_6"


def test_nobody_but_a_trusted_proxy_chooses_the_id():
    """Whoever takes another's would have Events read as done at once with theirs."""
    for peer in ("192.0.2.7", "", "nonsense"):
        response = asked(HTTP_X_REQUEST_ID="edge-1234.5_6", REMOTE_ADDR=peer)
        assert NEW.fullmatch(response["X-Request-ID"])


@pytest.mark.parametrize(
    "given", ["", "short", "a" * 65, "with space", "line-break\n", "<script>", "ümläutig"]
)
def test_any_other_incoming_id_is_replaced(given):
    response = asked(HTTP_X_REQUEST_ID=given, REMOTE_ADDR="10.0.0.1")
    assert NEW.fullmatch(response["X-Request-ID"])
    assert response.origin.request_id == response["X-Request-ID"]


def test_two_requests_have_two_ids():
    assert asked()["X-Request-ID"] != asked()["X-Request-ID"]


def test_events_and_log_lines_share_the_origin_and_it_ends_with_the_request():
    response = asked(REMOTE_ADDR="192.0.2.7", HTTP_USER_AGENT="Firefox")
    assert (response.origin.address, response.origin.agent) == ("192.0.2.7", "Firefox")
    assert response.logged["request_id"] == response.origin.request_id
    assert response.logged["address"] == "192.0.2.7"
    assert context.current() == context.Origin()
    assert "request_id" not in structlog.contextvars.get_contextvars()


def test_an_asynchronous_page_has_its_origin_too():
    async def two_at_once() -> list[Page]:
        middleware: Any = RequestContextMiddleware(awaited_page)
        proxied = RequestFactory(REMOTE_ADDR="10.0.0.1")
        requests = [proxied.get("/", HTTP_X_REQUEST_ID=f"request-{n}") for n in (1, 2)]
        return list(await asyncio.gather(*[middleware(request) for request in requests]))

    one, two = asyncio.run(two_at_once())
    assert one.origin.request_id == one["X-Request-ID"] == "request-1"
    assert two.origin.request_id == two["X-Request-ID"] == "request-2"


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("192.0.2.7", "", "192.0.2.7"),
        ("192.0.2.7", "203.0.113.9", "192.0.2.7"),  # mallory is no proxy of ours
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "1.1.1.1, 203.0.113.9", "203.0.113.9"),  # what the client invented
        ("10.0.0.1", "203.0.113.9, 10.2.3.4", "203.0.113.9"),
        ("10.0.0.1", "10.9.9.9,10.2.3.4", "10.9.9.9"),
        ("10.0.0.1", "203.0.113.9, <script>", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9, , 10.2.3.4", "10.2.3.4"),
        ("10.0.0.1", "fe80::1%<script>", "10.0.0.1"),
        ("::ffff:10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("2001:db8::1", "2001:DB9::0:2", "2001:db9::2"),
        ("", "203.0.113.9", ""),
    ],
)
def test_the_address_is_the_nearest_hop_that_is_not_a_trusted_proxy(peer, forwarded, address):
    response = asked(REMOTE_ADDR=peer, HTTP_X_FORWARDED_FOR=forwarded)
    assert response.origin.address == address


def test_without_trusted_proxies_nobody_is_believed(proxies):
    proxies.TRUSTED_PROXIES = []
    response = asked(REMOTE_ADDR="10.0.0.1", HTTP_X_FORWARDED_FOR="203.0.113.9")
    assert response.origin.address == "10.0.0.1"


def test_a_network_that_is_none_is_loud_at_the_start(proxies):
    proxies.TRUSTED_PROXIES = ["10.0.0.1/8"]
    with pytest.raises(ImproperlyConfigured, match="TRUSTED_PROXIES"):
        RequestContextMiddleware(page)


def test_an_agent_loses_control_characters_and_its_excess():
    response = asked(HTTP_USER_AGENT="psql\r\n\x1b[31m\x9b" + "x" * 500)
    assert response.origin.agent == ("psql[31m" + "x" * 500)[:200]
