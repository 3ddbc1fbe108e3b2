"""Taking over what a holder owns, in batches: each a short transaction that stays done.

What cannot be moved now is skipped, so that one locked or forbidden thing holds up no other. What
is left after that, and the rights given *to* the holder, are `clean`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import psycopg
from psycopg import sql

from approvals.provisioning.base import Cleaned, Sample

from .connect import Db, all_rows, value
from .failures import cleaned
from .things import ARMED, COUNT, DROPPED, LIST, OWNERS, Thing, described, hold, take_back

BATCH = 200
"""Things in one transaction. Each takes a lock or several of the server's shared table, which has
`max_locks_per_transaction` (64) times `max_connections` of them for everyone."""
BATCH_LOCK_WAIT = "100ms"
"""How long a batch waits for a lock before it is halved to find what is locked."""
NAMES = 50
"""Names kept of one kind of thing in a report."""

Statements = Callable[[Thing], list[bytes]]


@dataclass
class Tally:
    """Names, the first of them, and how many there were."""

    names: list[str] = field(default_factory=list)
    count: int = 0

    def add(self, name: str) -> None:
        """Count one more."""
        self.count += 1
        if len(self.names) < NAMES:
            self.names.append(name)

    @property
    def sample(self) -> Sample:
        """What a report shows of it."""
        return Sample(names=tuple(self.names), count=self.count)


@dataclass
class Moved:
    """What one attempt has done so far."""

    quarantined: Tally = field(default_factory=Tally)
    disarmed: Tally = field(default_factory=Tally)
    dropped: Tally = field(default_factory=Tally)

    @property
    def report(self) -> Cleaned:
        """The same as a value."""
        return Cleaned(
            quarantined=self.quarantined.sample,
            disarmed=self.disarmed.sample,
            dropped=self.dropped.sample,
        )


@dataclass(frozen=True)
class TakeOver:
    """The taking over of one role's things in the database that `db` is connected to."""

    db: Db
    oid: int
    quarantine: str
    database: str
    moved: Moved
    skipped: dict[str, str] = field(default_factory=dict)
    """Some of what could not be moved, with the reason in the server's words."""

    @property
    def armed(self) -> bool:
        """Whether the role owns code here that runs as its owner."""
        return bool(value(self.db, ARMED, oid=self.oid))

    @property
    def left(self) -> int:
        """How many things the role still owns here."""
        found: int = value(self.db, COUNT, oid=self.oid)
        return found

    def take_rights_back(self, *, in_time: Callable[[], bool]) -> None:
        """Undo what was passed on, and stop functions from running as their owner.

        Large objects are left to `move`, which does the same to each before it moves it.
        """
        for page in self._pages(in_time):
            if all(thing.kind == "large object" for thing in page):
                return
            armed = [t for t in page if not t.shut and (t.grantees or t.as_owner)]
            self._note_disarmed(self._run(armed, take_back))

    def move(self, *, in_time: Callable[[], bool]) -> None:
        """Move what can be moved, as far as there is time; nothing that still runs as its owner."""
        self.skipped.clear()
        for page in self._pages(in_time):
            ready = [t for t in page if t.kind in OWNERS and not (t.follows or t.locked)]
            ready = [t for t in ready if not t.as_owner]
            self.note(self._run(ready, self._change_owner))

    def note(self, things: Sequence[Thing]) -> None:
        """Count what has just gone to the quarantine role."""
        self._note_disarmed(things)
        for thing in things:
            if thing.kind not in DROPPED:
                self.moved.quarantined.add(self.told(thing))

    def told(self, thing: Thing) -> str:
        """How a report calls a thing here."""
        return f"{self.database}: {thing.name}"

    def things(self) -> list[Thing]:
        """Everything that is left."""
        return described(self.db, self.oid, all_rows(self.db, LIST, oid=self.oid))

    def _note_disarmed(self, things: Sequence[Thing]) -> None:
        for thing in things:
            if thing.as_owner:
                self.moved.disarmed.add(self.told(thing))

    def _pages(self, in_time: Callable[[], bool]) -> Iterator[list[Thing]]:
        """Yield batches while there is time. The list of them is made once, by the server."""
        with self.db.cursor(name="owned", withhold=True) as cursor:
            cursor.execute(LIST, {"oid": self.oid})
            while in_time() and (page := cursor.fetchmany(BATCH)):
                yield described(self.db, self.oid, page)

    def owner_statement(self, thing: Thing) -> bytes:
        """Return the statement that gives it to the quarantine role."""
        to = sql.Identifier(self.quarantine).as_bytes(self.db)
        return b"ALTER %s %s OWNER TO %s" % (OWNERS[thing.kind], thing.identity, to)

    def _change_owner(self, thing: Thing) -> list[bytes]:
        quarantine = sql.Identifier(self.quarantine).as_bytes(self.db)
        return [*take_back(thing), self.owner_statement(thing), *hold(thing, quarantine)]

    def _run(self, things: Sequence[Thing], statements: Statements) -> list[Thing]:
        """Run the statements for all of `things` in one transaction, if that fails in halves.

        Returns the things for which it succeeded.
        """
        if not things:
            return []
        try:
            self._send([text for thing in things for text in statements(thing)])
        except psycopg.Error as error:
            if self.db.broken or self.db.closed:
                raise
            if len(things) == 1:
                self._skip(things[0], error)
                return []
            half = len(things) // 2
            return [*self._run(things[:half], statements), *self._run(things[half:], statements)]
        return list(things)

    def _send(self, texts: list[bytes]) -> None:
        # Statements sent together are one transaction.
        limit = f"SET LOCAL lock_timeout = '{BATCH_LOCK_WAIT}'".encode()
        self.db.execute(b";".join([limit, *texts]))

    def _skip(self, thing: Thing, error: psycopg.Error) -> None:
        if len(self.skipped) < NAMES:
            said = error.diag.message_primary or type(error).__name__
            self.skipped[thing.name] = cleaned(said, [])
