"""Bytes of a body in, plain JSON out. What the JSON means is for the serializers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import IO, Any, NoReturn

from rest_framework.exceptions import APIException, ParseError
from rest_framework.parsers import JSONParser

BODY_MAX = 64 * 1024  # bytes; the longest reason and comment, every character escaped, fit twice


class TooLarge(APIException):
    status_code = 413
    default_detail = f"Send at most {BODY_MAX // 1024} KiB."
    default_code = "too_large"


class StrictJSON(JSONParser):
    """JSON as RFC 8259 has it: UTF-8, no NaN, no member given twice, and of a bounded size."""

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        """Raises TooLarge, ParseError."""
        raw = stream.read(BODY_MAX + 1)
        if len(raw) > BODY_MAX:
            raise TooLarge
        try:
            return json.loads(
                raw.decode(), parse_constant=_no_constant, object_pairs_hook=_once_each
            )
        except (ValueError, RecursionError):
            # The parser's own message may repeat what was sent, a password among it.
            raise ParseError("The body is not JSON in UTF-8.", code="malformed") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member is given twice")
    return members
