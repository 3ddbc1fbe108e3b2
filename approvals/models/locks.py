"""Row locks, taken in a statement of their own.

What is joined to a row that had to be waited for is of before the wait, so it is read afterwards.
"""

from __future__ import annotations

from django.db import connection, models


def lock(model: type[models.Model], pk: int) -> None:
    """Lock a row until the transaction ends. Raises the model's DoesNotExist."""
    if not _locked(model, pk, "FOR UPDATE"):
        raise model.DoesNotExist  # type: ignore[attr-defined]


def lock_if_free(model: type[models.Model], pk: int) -> bool:
    """Lock a row unless somebody else has it, or it is gone; whether it was locked."""
    return _locked(model, pk, "FOR UPDATE SKIP LOCKED")


def _locked(model: type[models.Model], pk: int, how: str) -> bool:
    # Written out: through the ORM it took as long to compose as to run.
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT FROM {model._meta.db_table} WHERE id = %s {how}", [pk])
        return bool(cursor.rowcount)
