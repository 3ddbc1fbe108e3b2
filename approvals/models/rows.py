"""Writing many rows of one table in one statement, each with values of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import connection, models


def save_all(objects: Sequence[models.Model], names: Sequence[str]) -> None:
    """Save the fields of these names, of rows that exist and that the caller has locked.

    Written out: the ORM's `bulk_update` composes a CASE for every field and row, which took longer
    than all the rest of a claim.
    """
    if not objects:
        return
    meta: Any = type(objects[0])._meta
    key, *changed = fields = [meta.pk, *map(meta.get_field, names)]
    written = ", ".join(f"{field.column} = v.{field.column}" for field in changed)
    columns = ", ".join(field.column for field in fields)
    arrays = ", ".join(f"%s::{_type(field)}[]" for field in fields)
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {meta.db_table} AS t SET {written}"  # noqa: S608 - names of our own models
            f" FROM unnest({arrays}) AS v({columns}) WHERE t.{key.column} = v.{key.column}",
            [[_value(field, one) for one in objects] for field in fields],
        )


def _type(field: Any) -> str:
    # Without its length: a cast to one would cut off what is too long, and say nothing.
    return str(field.cast_db_type(connection)).partition("(")[0]


def _value(field: Any, row: models.Model) -> Any:
    value = field.get_db_prep_save(getattr(row, field.attname), connection)
    # A list is of one type, and members of an enumeration are not of the type of plain text.
    return str(value) if isinstance(value, str) else value
