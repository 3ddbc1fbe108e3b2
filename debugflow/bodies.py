"""What the server takes of a request's body before anything looks at who sends it.

Django's handler reads a body to its end, into memory and then onto the disk, whatever is asked
for; in a container that disk is memory as well.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

Message = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[dict[str, Any], Receive, Send], Awaitable[None]]

MOST: Final = 1024 * 1024  # bytes; the API's own limit is lower, and the longest form far below
TOO_LARGE: Final = b"What was sent is larger than 1 MiB. Nothing here takes so much.\n"


class _TooLarge(Exception):
    """More has come than is taken."""


def limited(application: Application) -> Application:
    """The application, which answers 413 to a body of more than MOST bytes and reads no more."""

    async def serve(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await application(scope, receive, send)
            return
        if _announced(scope) > MOST:
            await _refuse(send)
            return
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            event = await receive()
            taken += len(event.get("body", b""))
            if taken > MOST:
                raise _TooLarge
            return event

        try:
            await application(scope, counted, send)
        except _TooLarge:
            await _refuse(send)

    return serve


def _announced(scope: Mapping[str, Any]) -> int:
    """The length that the request says it has; 0 where it says none."""
    for name, value in scope["headers"]:
        if name.lower() == b"content-length" and value.isdigit():
            return int(value[:20])
    return 0


async def _refuse(send: Send) -> None:
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(TOO_LARGE)).encode()),
        (b"cache-control", b"no-store"),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": TOO_LARGE, "more_body": False})
