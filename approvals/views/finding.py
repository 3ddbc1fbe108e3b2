"""Finding rows of a list by what somebody typed: every word has to occur in one of some columns."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from operator import or_
from typing import Any, Final

from django.db.models import Q
from django.http import HttpRequest

SEARCH_MAX: Final = 100  # characters


def wanted(request: HttpRequest) -> str:
    """What was typed, less what no text can hold."""
    return request.GET.get("q", "").replace("\0", "")[:SEARCH_MAX]


def having(rows: Any, text: str, columns: Iterable[str]) -> Any:
    """The rows in which each word of the text occurs."""
    for word in text.split():
        rows = rows.filter(reduce(or_, (Q((f"{column}__icontains", word)) for column in columns)))
    return rows
