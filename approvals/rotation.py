"""Every stored secret encrypted anew under the newest key, row by row, beside whoever works.

How one is encrypted is in `secrets`. A table that begins to hold secrets gets its line here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from django.db import models, transaction

from approvals import secrets
from approvals.models import Grant, SlackWorkspace, Target, WebhookEndpoint
from approvals.secrets import SecretUnreadable
from audit import log
from audit.log import SYSTEM, Subject

BATCH: Final = 100  # rows locked at a time, for some milliseconds


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where a table keeps its secrets, by the name of the field they were sealed for."""

    model: type[models.Model]
    column: str
    read: Callable[[Any], Mapping[str, str]]
    write: Callable[[Any, Mapping[str, str]], None]
    filled: Mapping[str, Any]


def _write_all(row: Any, sealed: Mapping[str, str]) -> None:
    row.secrets = dict(sealed)


def _write_grant(row: Any, sealed: Mapping[str, str]) -> None:
    row.secret = sealed["secret"]


PLACES: Final[Mapping[str, _Place]] = {
    "target": _Place(
        model=Target,
        column="secrets",
        read=lambda row: row.secrets,
        write=_write_all,
        filled={"secrets": {}},
    ),
    "webhookendpoint": _Place(
        model=WebhookEndpoint,
        column="secrets",
        read=lambda row: row.secrets,
        write=_write_all,
        filled={"secrets": {}},
    ),
    "slackworkspace": _Place(
        model=SlackWorkspace,
        column="secrets",
        read=lambda row: row.secrets,
        write=_write_all,
        filled={"secrets": {}},
    ),
    "grant": _Place(
        model=Grant,
        column="secret",
        read=lambda row: {"secret": row.secret},
        write=_write_grant,
        filled={"secret": ""},
    ),
}


@dataclass(frozen=True, kw_only=True)
class Rotated:
    """What became of one batch. `unreadable` names each secret that no key in use reads."""

    table: str
    rotated: int = 0
    current: int = 0
    unreadable: tuple[str, ...] = ()


def rotate_all() -> Iterator[Rotated]:
    """Encrypt all anew that is not under the newest key yet, and tell of each batch.

    Each batch is a transaction of its own with its Event, so that it may be stopped at any moment
    and begun again. Rows are locked while they are written, so that a verb which replaces a secret
    comes before or after. What no key reads stays as it is. Raises ImproperlyConfigured without a
    usable key.
    """
    for table, place in PLACES.items():
        last = 0
        while True:
            last, batch = _rotate_batch(table, place, last)
            if batch is None:
                break
            yield batch


@transaction.atomic
def _rotate_batch(table: str, place: _Place, after: int) -> tuple[int, Rotated | None]:
    """The batch behind the id `after`, with its own last id; None when there is none."""
    rows = place.model._default_manager.filter(pk__gt=after).exclude(**place.filled)
    batch = list(rows.select_for_update(no_key=True, of=("self",)).order_by("pk")[:BATCH])
    if not batch:
        return after, None
    counts = [_rotate_row(table, place, row) for row in batch]
    done = Rotated(
        table=table,
        rotated=sum(one.rotated for one in counts),
        current=sum(one.current for one in counts),
        unreadable=tuple(name for one in counts for name in one.unreadable),
    )
    if done.rotated:
        _record(done)
    return batch[-1].pk, done


def _rotate_row(table: str, place: _Place, row: Any) -> Rotated:
    anew: dict[str, str] = {}
    current = 0
    unreadable = []
    for field, sealed in place.read(row).items():
        try:
            # Its place as well: one that was moved here is of no use, under whichever key.
            secrets.unseal(sealed, table=table, key=str(row.pk), field=field)
        except SecretUnreadable as error:
            unreadable.append(f"{field} of {table} {row.pk} ({row}): {error}")
            continue
        if secrets.is_current(sealed):
            current += 1
        else:
            anew[field] = secrets.rotate(sealed)
    if anew:
        place.write(row, {**place.read(row), **anew})
        row.save(update_fields=[place.column])
    return Rotated(table=table, rotated=len(anew), current=current, unreadable=tuple(unreadable))


def _record(done: Rotated) -> None:
    log.record(
        "secrets.rotated",
        actor=SYSTEM,
        subject=Subject("secrets", done.table, f"the secrets of each {done.table}"),
        rotated=done.rotated,
        current=done.current,
        unreadable=list(done.unreadable),
    )
