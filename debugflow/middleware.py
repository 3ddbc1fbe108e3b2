"""The origin of a web request: its id, the client's address and the agent, for Events and logs.

Who is asking, and what answers an error, is not decided here.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import cast

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from structlog.contextvars import bound_contextvars

from audit import context

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
AGENT_LENGTH = 200
"""Characters of the agent that are kept: real ones are shorter, and the header is the client's."""

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
GetResponse = Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]]


class RequestContextMiddleware:
    """Binds the origin around everything further in, and returns the id as X-Request-ID."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response
        self.proxies = trusted_proxies(settings.TRUSTED_PROXIES)
        self.awaits = iscoroutinefunction(get_response)
        if self.awaits:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self.awaits:
            return self._answer_async(request)
        with self._bound(request) as origin:
            response = cast(HttpResponseBase, self.get_response(request))
        response["X-Request-ID"] = origin.request_id
        return response

    async def _answer_async(self, request: HttpRequest) -> HttpResponseBase:
        with self._bound(request) as origin:
            response = await cast(Awaitable[HttpResponseBase], self.get_response(request))
        response["X-Request-ID"] = origin.request_id
        return response

    @contextmanager
    def _bound(self, request: HttpRequest) -> Iterator[context.Origin]:
        with (
            context.bind(
                request_id=request_id(request, self.proxies),
                address=client_address(request, self.proxies),
                agent=printable(request.META.get("HTTP_USER_AGENT", "")),
            ) as origin,
            bound_contextvars(request_id=origin.request_id, address=origin.address),
        ):
            yield origin


def request_id(request: HttpRequest, proxies: list[Network]) -> str:
    """A trusted proxy's id if it is a plain word of 8 to 64 characters, else a new one.

    Events that share an id are read as done at once: nobody else may choose it.
    """
    given = request.META.get("HTTP_X_REQUEST_ID", "")
    peer = _address(request.META.get("REMOTE_ADDR", ""))
    trusted = peer is not None and any(peer in network for network in proxies)
    return given if trusted and REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def printable(agent: str) -> str:
    """The agent without control characters, which would forge log lines, and cut to length."""
    return "".join(character for character in agent if character.isprintable())[:AGENT_LENGTH]


def trusted_proxies(cidrs: list[str]) -> list[Network]:
    """The networks whose X-Forwarded-For is believed. Raises ImproperlyConfigured."""
    try:
        return [ip_network(cidr) for cidr in cidrs]
    except ValueError as error:
        raise ImproperlyConfigured(
            f"TRUSTED_PROXIES must be networks such as 10.0.0.0/8: {error}"
        ) from None


def client_address(request: HttpRequest, proxies: list[Network]) -> str:
    """The nearest hop that is not a trusted proxy; empty if the server knows no address.

    Each proxy appends whom it heard from, so the list is read from the right and only for as long
    as the one who wrote an entry is trusted: everything further left is the client's to invent.
    """
    address = _address(request.META.get("REMOTE_ADDR", ""))
    hops = request.META.get("HTTP_X_FORWARDED_FOR", "").split(",")
    while hops and address and any(address in network for network in proxies):
        hop = _address(hops.pop().strip())
        if hop is None:
            break
        address = hop
    return str(address or "")


def _address(text: str | None) -> Address | None:
    # A scope (`fe80::1%eth0`) may hold any text, and means nothing on another machine.
    if not text or "%" in text:
        return None
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
