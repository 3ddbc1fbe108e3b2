"""How log lines look: one JSON object each, or a readable line; never with a secret in it.

structlog and the standard library share one chain, so that every logger is redacted alike.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

import structlog
from structlog.typing import Processor

HIDDEN = "[hidden]"
_SECRET_KEY = re.compile("password|secret|token|authorization|cookie|verifier", re.IGNORECASE)
# postgresql://user:password@host, redis://:password@host
_URL_PASSWORD = re.compile(r"(://[^\s:/@]*:)[^\s/]+@")
# A token of our API, whole or cut: what follows is hidden, and its kind can still be told.
_TOKEN = re.compile(r"\bdbf_[0-9A-Za-z]{8,}")
# Loggers that Django or the web server give handlers of their own, which would not redact.
_ADOPTED = ("django", "django.server", "uvicorn", "uvicorn.error", "uvicorn.access")


def configuration(*, level: str, json: bool) -> dict[str, Any]:
    """Django's LOGGING: everything to standard error, as JSON or as lines for people."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "structured": {
                "()": structlog.stdlib.ProcessorFormatter,
                "foreign_pre_chain": [*_shared(), structlog.stdlib.ExtraAdder()],
                "processors": [
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    # Before redaction: a traceback's text may quote a secret as well.
                    structlog.processors.format_exc_info,
                    redact,
                    _renderer(json=json),
                ],
            }
        },
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "structured"}},
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {
            name: {"handlers": [], "level": "NOTSET", "propagate": True} for name in _ADOPTED
        },
    }


def configure() -> None:
    """Hand structlog's loggers to the standard library's, whose formatter renders them."""
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_shared(),
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.processors.StackInfoRenderer(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def redact(
    logger: logging.Logger | None, method: str, line: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Hide values whose key speaks of a secret, and the passwords inside URLs, at any depth."""
    return {key: _clean(key, value) for key, value in line.items()}


def _shared() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def _renderer(*, json: bool) -> Processor:
    if json:
        return structlog.processors.JSONRenderer()
    # The plain traceback: the rich one prints local variables, secrets included.
    return structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
    )


def _clean(key: object, value: object) -> Any:
    if isinstance(key, str) and _SECRET_KEY.search(key):
        return HIDDEN
    match value:
        case None | bool() | int() | float():
            return value
        case Mapping():
            return {str(name): _clean(name, item) for name, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_clean(None, item) for item in value]
        case str():
            return _text(value)
    # What the renderer would turn into text itself is turned into it here, to be looked at.
    return _text(repr(value))


def _text(value: str) -> str:
    return _TOKEN.sub(f"dbf_{HIDDEN}", _URL_PASSWORD.sub(rf"\1{HIDDEN}@", value))
