"""Pages of a list by cursor, so that rows that arrive meanwhile shift nothing."""

from __future__ import annotations

import re

from rest_framework.exceptions import NotFound
from rest_framework.pagination import Cursor, CursorPagination
from rest_framework.request import Request

from approvals.errors import Invalid

POSITION = re.compile(r"[0-9]{1,18}")  # what an id can be, and within PostgreSQL's bigint


class NewestFirst(CursorPagination):
    ordering = "-id"

    def decode_cursor(self, request: Request) -> Cursor | None:
        """Raises Invalid for a cursor that no page of ours gave out."""
        try:
            cursor = super().decode_cursor(request)
        except NotFound:
            raise _unknown() from None
        if cursor is None or cursor.position is None or POSITION.fullmatch(str(cursor.position)):
            return cursor
        raise _unknown()


class OldestFirst(NewestFirst):
    """For a timeline, which is read from its beginning."""

    ordering = "id"


def _unknown() -> Invalid:
    return Invalid(fields={"cursor": ["Take it from the next or previous link of a page."]})
