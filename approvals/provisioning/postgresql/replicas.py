"""Read replicas: roles and NOLOGIN arrive there by replication, and sessions are each server's own.

So an account is cut on every replica too, by oid, which a physical replica shares. One that cannot
be asked fails the cut, with its name, and delays that of the primary by nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from approvals.errors import ProvisionError
from approvals.provisioning.base import Account

from .connect import Db, Deadline, Dialer, all_rows, value
from .sessions import (
    PAUSE,
    count_sessions,
    in_session,
    open_names,
    settle,
    terminate,
    terminate_all,
    wait_for_sign_ins,
)

T = TypeVar("T")

WAIT = 0.02
"""Seconds between two looks while the primary is being cut."""
SPARED = 4.0
"""Seconds that a replica which did not answer is not asked again: no cut is held back for more than
5 s."""
LAST_WORD = 1.0
"""Seconds of the deadline kept for saying that replication is behind."""
TOGETHER = 1.0
"""Seconds that many cuts at once wait for replication; then each is made singly, and says so."""
BEHIND = 0.5
"""Seconds for a replica that was behind less than `SPARED` seconds ago: one cut after the other
waits for it, and each would take its whole time."""


class Closing(Protocol):
    """The cut of an account, as every server of the target takes part in it."""

    @property
    def account(self) -> Account: ...
    @property
    def oids(self) -> list[int]: ...
    @property
    def name(self) -> str: ...
    @property
    def deadline(self) -> Deadline: ...


@dataclass(frozen=True)
class Closed:
    """The primary's word that nobody may sign in: where its log was after that, and whose it is."""

    position: str
    system: int
    oids: Sequence[int]


@dataclass(frozen=True)
class Seen:
    """What a read-back of one replica saw."""

    can_sign_in: bool
    sessions: int


def closed_on(db: Db, oids: Sequence[int]) -> Closed:
    """Return this for the primary that `db` is connected to, which has just closed the account.

    The close was flushed before it returned (`synchronous_commit`), so that it lies before this.
    """
    position, system = db.execute(
        "SELECT pg_current_wal_lsn()::text, system_identifier FROM pg_control_system()"
    ).fetchone() or ("", 0)
    return Closed(position, system, oids)


def on_each(replicas: Sequence[Dialer], act: Callable[[Dialer], T]) -> list[Future[T]]:
    """Begin `act` on every replica, at once. Every error says which replica it came from."""
    pool = ThreadPoolExecutor(max_workers=max(1, len(replicas)))
    begun = [pool.submit(_named, one, act) for one in replicas]
    pool.shutdown(wait=False)
    return begun


def _named(replica: Dialer, act: Callable[[Dialer], T]) -> T:
    try:
        return act(replica)
    except ProvisionError as error:
        raise ProvisionError(
            f"Replica {_place(replica)}: {error.message}",
            code=error.code,
            permanent=error.permanent,
        ) from error


def results(begun: Sequence[Future[T]], *, but: str = "") -> list[T]:
    """Return what all came to, in their order; wait for every one of them.

    Raises `ProvisionError` with the words of all that failed, after `but`, and `alone` in its
    details: it says nothing about the primary.
    """
    failed = [error for one in begun if (error := one.exception()) is not None]
    told = [error for error in failed if isinstance(error, ProvisionError)]
    if len(told) < len(failed):
        raise next(error for error in failed if not isinstance(error, ProvisionError))
    if told:
        words = " ".join([but, *(error.message for error in told)])
        raise ProvisionError(words.strip(), code=told[0].code, alone=True)
    return [one.result() for one in begun]


@dataclass
class Silence:
    """Replicas that did not answer or were behind a moment ago, for all cuts of this process.

    A dead one costs its connect time-out once in a while and not once per cut: hundreds of them may
    be due in one second, and their cuts on the primary must not wait for each other's.
    """

    _since: dict[str, tuple[float, str]] = field(default_factory=dict)
    _behind: dict[str, float] = field(default_factory=dict)

    def patience(self, replica: Dialer, seconds: float) -> Deadline:
        """Return `seconds` for replication, or less where it was behind a moment ago."""
        last = self._behind.get(_place(replica), -math.inf)
        return Deadline(BEHIND if time.monotonic() - last < SPARED else seconds)

    def respect(self, replica: Dialer, act: Callable[[], T]) -> T:
        """Return what `act` does, or raise what it raised less than `SPARED` seconds ago for want
        of an answer."""
        place = _place(replica)
        began, said = self._since.get(place, (-math.inf, ""))
        if time.monotonic() - began < SPARED:
            raise ProvisionError(said, code="unreachable")
        try:
            done = act()
        except ProvisionError as error:
            if error.code in ("unreachable", "timeout"):
                self._since[place] = time.monotonic(), error.message
            elif error.code == "replica_behind":
                self._behind[place] = time.monotonic()
            raise
        self._since.pop(place, None)
        self._behind.pop(place, None)
        return done


def _place(replica: Dialer) -> str:
    return f"{replica.config.host}:{replica.config.port}"


SILENCE = Silence()


def cut_replica(replica: Dialer, closing: Closing, primary: Future[Closed]) -> None:
    """End the account's sessions there until none can begin: the primary's close is replayed.

    Until the primary has said which cluster it is, and should it never do so, those are ended that
    have the account's name as well: in another cluster its number may be somebody else's.
    """
    with replica.session(closing.name, closing.deadline) as db:
        _end_named(db, closing)
        while not primary.done():
            closing.deadline.check("closing the primary")
            time.sleep(WAIT)
            _end_named(db, closing)
        closed = primary.result()
        patience = SILENCE.patience(replica, closing.deadline.left - LAST_WORD)
        _end_until_heard(db, closed, patience)
        terminate_all(db, closed.oids, closing.deadline)
        settle(db, closed.oids, closing.deadline)


def cut_on_all(replicas: Sequence[Dialer], closed: Closed, deadline: Deadline) -> set[int]:
    """End many roles' sessions on every replica; return those that are certainly out of all.

    That is none while a replica is behind or does not answer: single cuts say which, and why.
    """
    begun = on_each(
        replicas,
        lambda one: SILENCE.respect(one, lambda: _cut_many(one, closed, deadline)),
    )
    try:
        return set(closed.oids).intersection(*results(begun))
    except ProvisionError:
        return set()


def _cut_many(replica: Dialer, closed: Closed, deadline: Deadline) -> set[int]:
    with replica.session("dbgf-many", deadline) as db:
        _end_until_heard(db, closed, SILENCE.patience(replica, TOGETHER))
        wait_for_sign_ins(db)
        patience = Deadline(BEHIND)
        while terminate(db, closed.oids) and not patience.passed:
            time.sleep(PAUSE)
        return set(closed.oids) - in_session(db, closed.oids)


def _end_until_heard(db: Db, closed: Closed, patience: Deadline) -> None:
    """End the roles' sessions, again and again, until none can begin any more."""
    check_physical(db, closed.system)
    while not (_replayed(db, closed) and not open_names(db, closed.oids)):
        terminate(db, closed.oids)
        if patience.passed:
            raise _behind()
        time.sleep(PAUSE)


def _end_named(db: Db, closing: Closing) -> None:
    all_rows(
        db,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE usesysid = ANY(%(oids)s::oid[]) AND usename = %(name)s",
        oids=closing.oids,
        name=closing.account.account,
    )


def _replayed(db: Db, closed: Closed) -> bool:
    query = "SELECT pg_last_wal_replay_lsn() >= %(position)s::pg_lsn"
    return bool(value(db, query, position=closed.position))


def _behind() -> ProvisionError:
    return ProvisionError(
        "It has not heard that the account is closed: replication is behind. Sessions there were"
        " ended; new ones may begin until it has.",
        code="replica_behind",
    )


def check_physical(db: Db, system: int) -> None:
    """Raise unless this is a standby of the cluster `system`: elsewhere an oid is another's."""
    found, standby = db.execute(
        "SELECT system_identifier, pg_is_in_recovery() FROM pg_control_system()"
    ).fetchone() or (0, False)
    if found != system:
        raise ProvisionError(
            "It is no replica of this target but a cluster of its own, where nothing was done."
            " Correct the target's replicas.",
            code="not_a_replica",
        )
    if not standby:
        raise ProvisionError(
            "It replicates no more: it was promoted, or is the primary itself. Correct the target's"
            " address and replicas.",
            code="not_a_replica",
        )


def look_at_replica(replica: Dialer, oids: Sequence[int], name: str, deadline: Deadline) -> Seen:
    """Return what is left there of the roles."""
    with replica.session(name, deadline) as db:
        may = bool(open_names(db, oids))
        return Seen(can_sign_in=may, sessions=count_sessions(db, oids))
