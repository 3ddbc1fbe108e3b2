"""The only writer of `.state`, and the shape every verb shares.

A verb is atomic; it locks by id, reads the time, authorizes, acts, records and rings. When it
refuses, the refusal is recorded after the roll-back, in a transaction of its own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast

from django.db import OperationalError, connection, models, transaction
from psycopg.errors import DeadlockDetected

from approvals import states
from approvals.errors import Invalid, NotAllowed, WrongState
from approvals.models.rows import save_all
from audit import log
from audit.log import SYSTEM, Actor, Subject

P = ParamSpec("P")
T = TypeVar("T")


class Stateful(Protocol):
    pk: Any
    state: Any

    def audit_subject(self) -> Subject: ...

    def save(self, *, update_fields: list[str]) -> None: ...


S = TypeVar("S", bound=Any)


def actor(by: Any) -> Actor:
    """The audit log's name for whoever acts: a user, or SYSTEM for the clock."""
    return by if isinstance(by, Actor) else Actor.of(by)


def move(
    obj: Stateful,
    to: models.TextChoices,
    *,
    by: Any,
    changed: tuple[str, ...] = (),
    **data: Any,
) -> None:
    """Put `obj` into state `to`, saving the fields named in `changed` with it.

    The caller holds the row's lock. Raises WrongState if the table knows no such step.
    """
    if not states.allowed(obj.state, to):
        raise WrongState(_too_late(obj, to))
    before, obj.state = obj.state, to
    obj.save(update_fields=["state", *changed])
    log.record(
        f"{obj.audit_subject().type}.{to}", actor=actor(by), subject=obj, before=str(before), **data
    )


def move_all(
    objects: Sequence[S],
    to: models.TextChoices,
    *,
    by: Any,
    at: datetime,
    changed: tuple[str, ...] = (),
    told: Callable[[S], Mapping[str, Any]],
) -> None:
    """Put many into state `to` in one statement, saving the fields named in `changed` with it.

    The caller holds their locks. `told` is what the Event of one says besides. Raises WrongState,
    and moves none, if the table knows no such step for one of them.
    """
    for obj in objects:
        if not states.allowed(obj.state, to):
            raise WrongState(_too_late(obj, to))
    before = [str(obj.state) for obj in objects]
    for obj in objects:
        obj.state = to
    save_all(objects, ["state", *changed])
    for obj, was in zip(objects, before, strict=True):
        subject = obj.audit_subject()
        action = f"{subject.type}.{to}"
        log.record(action, actor=actor(by), subject=subject, at=at, before=was, **told(obj))


def _too_late(obj: Stateful, to: models.TextChoices) -> str:
    return f"It is {states_label(obj.state, type(to))} by now, so this is too late."


def states_label(state: str, machine: type[models.TextChoices]) -> str:
    return str(machine(state).label).lower()


_committed: ContextVar[list[int] | None] = ContextVar("committed", default=None)


@contextmanager
def committed() -> Iterator[list[int]]:
    """What verbs have committed within: the ids they were called with."""
    ids: list[int] = []
    token = _committed.set(ids)
    try:
        yield ids
    finally:
        _committed.reset(token)


def _transaction(
    function: Callable[Concatenate[int, P], T], pk: int, *args: P.args, **kwargs: P.kwargs
) -> T:
    """Run it in a transaction; where PostgreSQL chose it to resolve a deadlock, once more.

    Verbs lock in one order, but the key locks of foreign keys come on top of that.
    """
    try:
        with transaction.atomic(), log.batch():
            return function(pk, *args, **kwargs)
    except OperationalError as error:
        if not isinstance(error.__cause__, DeadlockDetected) or connection.in_atomic_block:
            raise
    with transaction.atomic(), log.batch():
        return function(pk, *args, **kwargs)


def verb(
    refusal: str, subject: Callable[[int], Subject]
) -> Callable[[Callable[Concatenate[int, P], T]], Callable[Concatenate[int, P], T]]:
    """Make a function of an id a verb: atomic, its refusals recorded under `refusal`."""

    def wrap(function: Callable[Concatenate[int, P], T]) -> Callable[Concatenate[int, P], T]:
        @functools.wraps(function)
        def run(pk: int, *args: P.args, **kwargs: P.kwargs) -> T:
            try:
                done = _transaction(function, pk, *args, **kwargs)
                if (ids := _committed.get()) is not None:
                    ids.append(pk)
                return done
            except (NotAllowed, WrongState, Invalid) as error:
                log.record_refusal(
                    refusal,
                    actor=actor(kwargs.get("by", SYSTEM)),
                    subject=subject(pk),
                    code=error.code,
                )
                raise

        return cast("Callable[Concatenate[int, P], T]", run)

    return wrap
