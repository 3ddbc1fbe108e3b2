"""What is in the tables, so that a test can tell whether anything has changed anywhere."""

from __future__ import annotations

from collections.abc import Collection

from django.db import connection


def rows(but: Collection[str] = ()) -> dict[str, str | None]:
    """A hash of all rows of every table, those apart that are named."""
    with connection.cursor() as cursor:
        names = set(connection.introspection.table_names(cursor)) - set(but)
        one = "SELECT '{0}', md5(string_agg(t::text, chr(10) ORDER BY t::text)) FROM {0} t"
        cursor.execute(" UNION ALL ".join(one.format(name) for name in sorted(names)))
        return dict(cursor.fetchall())


def changed(before: dict[str, str | None], but: Collection[str] = ()) -> list[str]:
    """The tables whose rows are not what they were."""
    after = rows(but)
    return [name for name in sorted(before) if before[name] != after[name]]
