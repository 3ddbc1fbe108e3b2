"""One POST to an address that somebody else chose, without letting them choose where it goes.

The name is resolved once, every address it has is looked at, and that very address is connected
to: a name that answers differently the next time leads nowhere. TLS is verified for the name. No
redirect is followed, no proxy of the environment is used, and all of it together has an end.
"""

from __future__ import annotations

import http.client
import io
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from django.conf import settings

WITHIN: Final = 5.0  # seconds for all of it
ANSWER_MAX: Final = 4096  # bytes of an answer that are read
URL_MAX: Final = 500
# Never sent to, whatever a Python's own tables say of them: they grow with its versions.
NEVER: Final = tuple(
    ip_network(network)
    for network in (
        "100.64.0.0/10",  # shared by carriers, and one cloud's metadata
        "168.63.129.16/32",  # public by its number, the agent of another cloud's hosts
        "192.0.0.0/24",
        "192.88.99.0/24",
        "::/8",  # IPv4 inside, in several ways; NAT64
        "100::/8",
        "2001::/23",  # Teredo among them
        "2001:db8::/32",
        "2002::/16",  # 6to4
        "3fff::/20",
        "5f00::/16",
        "fc00::/7",
        "fe80::/9",
    )
)

Address = IPv4Address | IPv6Address
Resolve = Callable[..., Sequence[Any]]


class Refused(Exception):
    """This address is not sent to. The message says why."""


class Unanswered(Exception):
    """Nothing came of it. The message says why."""


@dataclass(frozen=True)
class Place:
    """Where an URL leads, before its name is resolved."""

    tls: bool
    host: str
    port: int
    path: str


def place(url: str) -> Place:
    """What an URL says. Raises Refused for one that is not plainly an HTTP(S) address."""
    if not url.isascii() or not url.isprintable() or " " in url or len(url) > URL_MAX:
        raise Refused(f"Write it in at most {URL_MAX} plain ASCII characters without spaces.")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise Refused("This is no URL.") from None
    if parts.scheme not in ("https", "http"):
        raise Refused("It begins with https://.")
    if "@" in parts.netloc or "\\" in url or parts.fragment or port == 0:
        raise Refused("Leave out user names, passwords, backslashes and what follows a #.")
    if not parts.hostname:
        raise Refused("It names no host.")
    tls = parts.scheme == "https"
    return Place(tls, parts.hostname, port or (443 if tls else 80), _path(parts))


def _path(parts: SplitResult) -> str:
    return f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"


def refusal(address: Address) -> str:
    """Why nothing is sent to this address; empty where it may be.

    Public addresses, and the networks that a setting lists. An IPv4 address inside of an IPv6 one
    counts as what it is.
    """
    inner = getattr(address, "ipv4_mapped", None) or address
    if _is_listed(inner):
        return ""
    if not _is_public(inner):
        return f"{address} is not a public address"
    return ""


def _is_listed(address: Address) -> bool:
    return any(address in ip_network(network) for network in settings.WEBHOOK_NETWORKS)


def _is_public(address: Address) -> bool:
    odd = address.is_multicast or address.is_reserved or address.is_unspecified
    return address.is_global and not odd and not any(address in one for one in NEVER)


def check(url: str) -> None:
    """Raises Refused for what can be told of an URL without resolving a name."""
    found = place(url)
    try:
        address = ip_address(found.host)
    except ValueError:
        return
    _require(found, [address])


def _require(where: Place, addresses: Sequence[Address]) -> None:
    """All of them: a name with a public and a private address is not to be believed."""
    for address in addresses:
        if why := refusal(address):
            raise Refused(f"Nothing is sent to {where.host}: {why}.")
        if not where.tls and not _is_listed(getattr(address, "ipv4_mapped", None) or address):
            raise Refused("It begins with https://: what is sent is not for everybody on the way.")


def post(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    within: float = WITHIN,
    resolve: Resolve = socket.getaddrinfo,
) -> int:
    """Send it and return the status of the answer. Raises Refused, Unanswered."""
    deadline, where = time.monotonic() + within, place(url)
    addresses = _resolved(where, deadline, resolve)
    _require(where, addresses)
    try:
        with _connected(where, addresses[0], deadline) as stream:
            return _answer(where, stream, body, headers, deadline)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Unanswered(f"{type(error).__name__}: {error}") from None


def _resolved(where: Place, deadline: float, resolve: Resolve) -> list[Address]:
    """Every address of the name, once. The system's resolver knows no limit, so it is left."""
    found: queue.Queue[Any] = queue.Queue(1)

    def look() -> None:
        try:
            found.put(resolve(where.host, where.port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            found.put(error)

    threading.Thread(target=look, name="resolve", daemon=True).start()
    try:
        answer = found.get(timeout=max(0.0, deadline - time.monotonic()))
    except queue.Empty:
        raise Unanswered(f"The name {where.host} was not resolved in time.") from None
    if isinstance(answer, Exception) or not answer:
        raise Unanswered(f"The name {where.host} cannot be resolved.")
    return [ip_address(str(one[4][0]).partition("%")[0]) for one in answer]


def _connected(where: Place, address: Address, deadline: float) -> socket.socket:
    plain = socket.create_connection((str(address), where.port), _left(deadline))
    if not where.tls:
        return plain
    try:
        plain.settimeout(_left(deadline))
        return context().wrap_socket(plain, server_hostname=where.host)
    except BaseException:
        plain.close()
        raise


def context() -> ssl.SSLContext:
    return ssl.create_default_context()


def _answer(
    where: Place,
    stream: socket.socket,
    body: bytes,
    headers: Mapping[str, str],
    deadline: float,
) -> int:
    kind = http.client.HTTPSConnection if where.tls else http.client.HTTPConnection
    connection = kind(where.host, where.port)
    connection.sock = _Timed(stream, deadline)
    connection.request("POST", where.path, body, {**headers, "Connection": "close"})
    response = connection.getresponse()
    response.read(ANSWER_MAX)
    return response.status


def _left(deadline: float) -> float:
    """Seconds until then. Raises TimeoutError when there are none."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


class _Timed:
    """A socket as http.client uses one, on which no wait goes beyond the deadline.

    A socket's own limit counts from byte to byte: one that says a byte a second has no end.
    """

    def __init__(self, stream: socket.socket, deadline: float) -> None:
        self._stream, self._deadline = stream, deadline

    def sendall(self, data: bytes) -> None:
        self._stream.settimeout(_left(self._deadline))
        self._stream.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Answers(self._stream, self._deadline))

    def close(self) -> None:
        """Whoever opened it closes it, when the answer has been read."""


class _Answers(io.RawIOBase):
    """What the server says."""

    def __init__(self, stream: socket.socket, deadline: float) -> None:
        self._stream, self._deadline = stream, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._stream.settimeout(_left(self._deadline))
        return self._stream.recv_into(buffer)
