"""The Event: one append-only row, and the bytes that prove it. How one is written is in `log`."""

import hashlib
import json
from datetime import UTC, datetime
from typing import Any, NoReturn

import rfc8785
from django.db import connections, models
from psycopg.types.json import Jsonb

FORMAT = 1
"""The version of the canonical form, its member `v`. Another set of members is another version."""

COLUMNS = (
    "id",
    "at",
    "action",
    "actor_type",
    "actor_id",
    "actor_name",
    "on_behalf_of_id",
    "on_behalf_of_name",
    "subject_type",
    "subject_id",
    "subject_label",
    "thread",
    "request_id",
    "address",
    "agent",
    "policy_version",
    "scope_hash",
    "data",
)
"""The columns that the canonical bytes repeat: all but the bytes, their hash and the `xid`."""


WRITTEN = (*COLUMNS, "canonical", "leaf_hash")
"""All columns but `xid`, which the database sets."""


class AppendOnly(TypeError):
    """Events are only ever added: none is changed, removed or written in bulk."""

    def __init__(self) -> None:
        super().__init__(self.__doc__)


class TransactionId(models.BigIntegerField):  # type: ignore[type-arg]  # generic in stubs only
    """PostgreSQL's `xid8`: the 64-bit id of the transaction that wrote the row."""

    def db_type(self, connection: Any) -> str:
        return "xid8"

    def from_db_value(self, value: str | None, expression: Any, connection: Any) -> int | None:
        return None if value is None else int(value)

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        # xid8 has no comparison with integers; an untyped literal becomes whatever is needed.
        return None if value is None else str(value)


class EventQuerySet(models.QuerySet["Event"]):
    """Reads as any other; refuses what would change a row or go around `audit.log`."""

    def append(self, events: list["Event"]) -> None:
        """Insert whole, new Events in one statement. For `audit.log` alone.

        Written out: composing it anew through the ORM took longer than running it.
        """
        if not events:
            return
        row = f"({', '.join(['%s'] * len(WRITTEN))})"
        statement = f"INSERT INTO audit_event ({', '.join(WRITTEN)}) VALUES "  # noqa: S608
        with connections[self.db].cursor() as cursor:
            cursor.execute(
                statement + ", ".join([row] * len(events)),
                [value for event in events for value in event.written()],
            )
        for event in events:
            event._state.adding, event._state.db = False, self.db

    def update(self, **kwargs: Any) -> NoReturn:
        raise AppendOnly

    def delete(self) -> NoReturn:
        raise AppendOnly

    def bulk_create(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise AppendOnly

    def bulk_update(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise AppendOnly


class Event(models.Model):
    """What one actor did to one subject, as text that outlives both. `audit.log` writes it.

    `canonical` is the RFC 8785 JSON of the COLUMNS, kept as the very bytes that were hashed,
    since jsonb keeps neither order nor spelling. `xid` is the database's own stamp (a trigger
    writes it): the order `(xid, id)` is that in which committed Events can be sealed, and ids
    alone are not.
    """

    id = models.BigAutoField(primary_key=True)
    at = models.DateTimeField()
    action = models.TextField()
    actor_type = models.TextField()
    actor_id = models.TextField()
    actor_name = models.TextField()
    on_behalf_of_id = models.TextField(blank=True)
    on_behalf_of_name = models.TextField(blank=True)
    subject_type = models.TextField()
    subject_id = models.TextField()
    subject_label = models.TextField()
    thread = models.TextField()
    request_id = models.TextField(blank=True)
    address = models.TextField(blank=True)
    agent = models.TextField(blank=True)
    policy_version = models.TextField(blank=True)
    scope_hash = models.TextField(blank=True)
    data = models.JSONField()
    canonical = models.BinaryField()
    leaf_hash = models.BinaryField(max_length=32)
    xid = TransactionId(
        editable=False,
        db_default=models.Func(function="pg_current_xact_id", output_field=TransactionId()),
    )

    objects = EventQuerySet.as_manager()

    class Meta:
        default_permissions = ("view",)
        indexes = [
            models.Index(fields=["thread", "id"], name="audit_event_thread"),
            models.Index(fields=["subject_type", "subject_id", "id"], name="audit_event_subject"),
            models.Index(fields=["actor_id", "id"], name="audit_event_actor"),
            models.Index(fields=["at"], name="audit_event_at"),
            models.Index(fields=["xid", "id"], name="audit_event_sealing"),
        ]

    def __str__(self) -> str:
        return f"{self.action}: {self.subject_label}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Insert a new Event. Raises AppendOnly for one that is stored already."""
        if not self._state.adding:
            raise AppendOnly
        # The id is known beforehand (it is hashed), and with an id Django would try UPDATE first.
        super().save(*args, **{**kwargs, "force_insert": True})

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise AppendOnly

    def written(self) -> list[Any]:
        """The values of WRITTEN."""
        values = [getattr(self, name) for name in WRITTEN]
        values[WRITTEN.index("data")] = Jsonb(self.data)
        return values

    def told(self) -> dict[str, Any]:
        """The COLUMNS as the canonical bytes repeat them."""
        return {name: self._column(name) for name in COLUMNS}

    def mismatches(self) -> list[str]:
        """Names of the columns that differ from what was hashed; empty for a sound Event.

        `leaf_hash` stands for a hash that is not that of the canonical bytes; `canonical` for
        bytes that are not canonical JSON of exactly the COLUMNS.
        """
        wrong = [] if bytes(self.leaf_hash) == leaf_hash(bytes(self.canonical)) else ["leaf_hash"]
        told = _read(bytes(self.canonical))
        if told is None:
            return [*wrong, "canonical"]
        return wrong + [name for name in COLUMNS if not _same(self._column(name), told[name])]

    def _column(self, name: str) -> Any:
        value = getattr(self, name)
        return timestamp(value) if name == "at" else value


def timestamp(moment: datetime) -> str:
    """`moment` as Events write it: UTC, always six decimals, `Z`. Raises ValueError if naive."""
    if moment.tzinfo is None:
        raise ValueError("a time in an Event needs a time zone")
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def canonical(columns: dict[str, Any]) -> bytes:
    """The bytes to hash and keep for these COLUMNS, their values plain JSON.

    Raises rfc8785.CanonicalizationError.
    """
    return rfc8785.dumps({"v": FORMAT, **columns})


def leaf_hash(entry: bytes) -> bytes:
    """The Merkle tree's hash of a leaf: SHA-256(0x00 || entry), RFC 9162 section 2.1.1."""
    return hashlib.sha256(b"\x00" + entry).digest()


def _read(entry: bytes) -> dict[str, Any] | None:
    """What the canonical bytes tell, or None unless they are canonical and complete."""
    try:
        told = json.loads(entry)
        # Two members of one name would be read differently by different verifiers.
        if rfc8785.dumps(told) != entry:
            return None
    except (ValueError, RecursionError):
        return None
    whole = isinstance(told, dict) and told.keys() == {"v", *COLUMNS} and told["v"] == FORMAT
    return told if whole else None


def _same(column: Any, told: Any) -> bool:
    """Whether both are the same JSON. Python's `==` would take True for 1."""
    try:
        return rfc8785.dumps(column) == rfc8785.dumps(told)
    except (ValueError, RecursionError):
        return False
