"""Writing and reading Events: who did what to which subject, inside the change's transaction.

Which actions exist is in `actions`, where the work comes from in `context`. Who may read what is
not decided here.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, cast

import rfc8785
from django.db import connection, transaction

from audit import actions, clock, context
from audit.models import Event, EventQuerySet, canonical, leaf_hash, timestamp


class NotAtomic(RuntimeError):
    """An Event outside the transaction of what it tells could outlive it, or be lost."""


class Unrecordable(ValueError):
    """A value has no exact place in an Event. The message names where, never the value."""


class Named(Protocol):
    """What `Actor.of` needs of an account."""

    @property
    def pk(self) -> Any: ...

    def get_username(self) -> str: ...


@dataclass(frozen=True)
class Actor:
    """Who acts, as text."""

    type: str
    id: str
    name: str

    @classmethod
    def of(cls, user: Named) -> "Actor":
        """The actor for an account. Raises ValueError for one that is not stored."""
        if user.pk is None:
            raise ValueError("someone without an account is ANONYMOUS")
        return cls("user", str(user.pk), user.get_username())


@dataclass
class _Batch:
    """Events that wait to be written, and how deep in savepoints they wait."""

    depth: int
    events: list[Event] = field(default_factory=list)


_batch: ContextVar[_Batch | None] = ContextVar("audit_batch", default=None)

Listener = Callable[[Sequence[Event]], None]
_listeners: list[Listener] = []


def listen(listener: Listener) -> None:
    """Have `listener` given the Events just written, still in the transaction that wrote them.

    What it writes stands or falls with them; what it raises undoes them, and the change as well.
    Those who are there already are not added twice.
    """
    if listener not in _listeners:
        _listeners.append(listener)


_for: ContextVar[Actor | None] = ContextVar("audit_acting_for", default=None)


@contextmanager
def acting_for(whom: Actor) -> Iterator[None]:
    """Events recorded inside say on whose behalf somebody did it, unless they say so themselves."""
    token = _for.set(whom)
    try:
        yield
    finally:
        _for.reset(token)


def _depth() -> int:
    return len(connection.savepoint_ids)


SYSTEM = Actor("system", "", "debugflow")
ANONYMOUS = Actor("anonymous", "", "")
"""Whoever has not signed in; what they claim to be belongs in the data."""


@dataclass(frozen=True)
class Subject:
    """What was acted on, as text. `thread` names the timeline, by default its own."""

    type: str
    id: str
    label: str
    thread: str = ""


class Auditable(Protocol):
    """An object that says what it is called in the log."""

    def audit_subject(self) -> Subject: ...


def record(
    action: str,
    *,
    actor: Actor,
    subject: Subject | Auditable,
    on_behalf_of: Actor | None = None,
    at: datetime | None = None,
    policy_version: str = "",
    scope_hash: str = "",
    **data: object,
) -> Event:
    """Write one Event in the caller's transaction, so that both stand or neither does.

    `at` is the time that the verb has read, by default read now. `data` may hold text, whole
    numbers, booleans, None, times, lists and mappings of these. Raises NotAtomic, UnknownAction,
    and Unrecordable for anything else.
    """
    if not connection.in_atomic_block:
        raise NotAtomic(NotAtomic.__doc__)
    if actor != SYSTEM:
        on_behalf_of = on_behalf_of or _for.get()
    columns = {
        "action": actions.require(action),
        "actor_type": actor.type,
        "actor_id": actor.id,
        "actor_name": actor.name,
        "on_behalf_of_id": on_behalf_of.id if on_behalf_of else "",
        "on_behalf_of_name": on_behalf_of.name if on_behalf_of else "",
        **_subject(subject),
        **_origin(),
        "policy_version": policy_version,
        "scope_hash": scope_hash,
    }
    event = Event(**_texts(columns), data=_plain(data, "data"), at=at or clock.now())
    waiting = _batch.get()
    # In a savepoint within the batch it is written now, to be rolled back with it.
    if waiting is None or waiting.depth != _depth():
        _write([event])
    else:
        waiting.events.append(event)
    return event


@contextmanager
def batch() -> Iterator[None]:
    """Write all Events recorded inside together, in order, when the block ends without an error.

    For a verb that makes several changes: one insert instead of one for each. Until then they
    have no id. A batch within a batch joins it. Raises NotAtomic outside a transaction.
    """
    if not connection.in_atomic_block:
        raise NotAtomic(NotAtomic.__doc__)
    if _batch.get() is not None:
        yield
        return
    waiting = _Batch(_depth())
    token = _batch.set(waiting)
    try:
        yield
        _write(waiting.events)
    finally:
        _batch.reset(token)


@transaction.atomic(durable=True)
def record_refusal(
    action: str,
    *,
    actor: Actor,
    subject: Subject | Auditable,
    code: str,
    **more: Any,
) -> Event:
    """Write that something was refused, and the reason code, in a transaction of its own.

    For use after the refused change was rolled back; `more` is as for `record`. Inside a
    transaction it raises RuntimeError (from Django), since the Event would be rolled back with
    it; otherwise what `record` raises.
    """
    return record(action, actor=actor, subject=subject, code=code, **more)


def timeline(thread: str) -> EventQuerySet:
    """The Events of one thread, such as `request:12`, oldest first."""
    return Event.objects.filter(thread=thread).order_by("id")


def _write(events: list[Event]) -> None:
    for event, pk in zip(events, _next_ids(len(events)), strict=True):
        event.id = pk
        event.canonical = _canonical(event.told())
        event.leaf_hash = leaf_hash(event.canonical)
    Event.objects.append(events)
    for listener in _listeners if events else ():
        listener(events)


def _next_ids(count: int) -> list[int]:
    """Ids before the insert: they are hashed, so that no two Events have the same leaf."""
    if not count:
        return []
    with connection.cursor() as cursor:
        cursor.execute("SELECT nextval('audit_event_id_seq') FROM generate_series(1, %s)", [count])
        return [cast(int, row[0]) for row in cursor.fetchall()]


def _canonical(columns: dict[str, Any]) -> bytes:
    try:
        return canonical(columns)
    except rfc8785.CanonicalizationError:
        # Its message would repeat the value.
        raise Unrecordable("a number is beyond 2**53 or a text is not Unicode") from None


def _subject(subject: Subject | Auditable) -> dict[str, str]:
    told = subject if isinstance(subject, Subject) else subject.audit_subject()
    return {
        "subject_type": told.type,
        "subject_id": told.id,
        "subject_label": told.label,
        "thread": told.thread or f"{told.type}:{told.id}",
    }


def _origin() -> dict[str, str]:
    origin = context.current()
    return {"request_id": origin.request_id, "address": origin.address, "agent": origin.agent}


def _texts(columns: Mapping[str, object]) -> dict[str, str]:
    for name, value in columns.items():
        if not isinstance(value, str):
            raise Unrecordable(f"{name} is text, not {type(value).__name__}")
    return {name: _text(cast(str, value), name) for name, value in columns.items()}


def _text(value: str, where: str) -> str:
    if "\x00" in value:
        raise Unrecordable(f"{where} holds a NUL character, which PostgreSQL cannot store")
    # The plain text of an enumeration's member too, whose own str() may be its name.
    return str.__str__(value)


def _plain(value: object, where: str) -> Any:
    """`value` as JSON that reads back exactly as it was hashed.

    Floats are refused: RFC 8785 writes numbers as ECMAScript does, and two implementations that
    differ in the last digit would differ in the hash. Write units as whole numbers or as text.
    """
    match value:
        case None | bool():
            return value
        case int():
            return int(value)
        case str():
            return _text(value, where)
        case datetime():
            return _moment(value, where)
        case list() | tuple():
            return [_plain(item, f"{where}[{place}]") for place, item in enumerate(value)]
        case Mapping():
            return {_key(key, where): _plain(item, f"{where}.{key}") for key, item in value.items()}
    raise Unrecordable(f"{where} is a {type(value).__name__}, which has no exact form in an Event")


def _moment(value: datetime, where: str) -> str:
    try:
        return timestamp(value)
    except ValueError:
        raise Unrecordable(f"{where} is a time without a time zone") from None


def _key(key: object, where: str) -> str:
    if not isinstance(key, str):
        raise Unrecordable(f"a key in {where} is text, not {type(key).__name__}")
    return _text(key, f"a key in {where}")
