"""How many calls a minute: counted in the broker's server, for all web processes together.

Where it cannot be asked nobody is held up: approving and revoking matter more than counting.
"""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Final

import structlog
from django.conf import settings
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from rest_framework.throttling import BaseThrottle

from approvals.models import ApiToken
from audit import context

if TYPE_CHECKING:
    from rest_framework.request import Request
    from rest_framework.views import APIView

logger = structlog.get_logger(__name__)

WINDOW: Final = 60  # seconds
TIMEOUT: Final = 0.1  # seconds for the server to answer: whoever calls waits for it
REST: Final = 5.0  # seconds for which a server that failed is not asked again
SIGN_INS: Final = 60  # a minute from one address


class Counter:
    """Calls of this minute by caller. Safe in threads."""

    def __init__(self, url: str) -> None:
        self._server = Redis.from_url(
            url,
            socket_timeout=TIMEOUT,
            socket_connect_timeout=TIMEOUT,
            retry=Retry(NoBackoff(), 0),
        )
        self._after = 0.0

    def count(self, caller: str) -> int:
        """Count one more; how many there are now, or 0 if the server cannot be asked."""
        if time.monotonic() < self._after:
            return 0
        key = f"debugflow:calls:{caller}:{int(time.time()) // WINDOW}"
        try:
            with self._server.pipeline() as both:
                both.incr(key)
                both.expire(key, 2 * WINDOW)
                return int(both.execute()[0])
        except (RedisError, OSError) as error:
            self._after = time.monotonic() + REST
            logger.warning("Calls are not counted for now.", error=type(error).__name__)
            return 0


@functools.cache
def counter(url: str) -> Counter:
    return Counter(url)


class PerCaller(BaseThrottle):
    """A limit for each token, each person's sessions together, and each address signing in."""

    def allow_request(self, request: Request, view: APIView) -> bool:
        caller, most = _caller(request)
        return counter(settings.REDIS_URL).count(caller) <= most

    def wait(self) -> float:
        return WINDOW - time.time() % WINDOW


def _caller(request: Request) -> tuple[str, int]:
    if isinstance(request.auth, ApiToken):
        return f"token:{request.auth.pk}", settings.API_RATE
    if request.user.is_authenticated:
        return f"user:{request.user.pk}", settings.API_RATE
    return f"address:{context.current().address}", SIGN_INS
