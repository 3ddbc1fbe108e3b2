"""Transactions that may go on running a holder's code as the holder after it was disarmed.

A process of the server looks a function up and may keep what it found, and the rights it had, until
its transaction ends. So the role stays until every transaction has ended that was under way when
the last of its functions was disarmed. Which those are is noted in the role's comment, which its
holder cannot write: a later attempt waits for the same ones, and those that begin afterwards hold
up nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass

from psycopg import sql

from approvals.errors import ProvisionError

from .account import WAITS, names_of
from .blockers import told
from .connect import Db, Deadline, all_rows, value

WAIT = 2.0
"""Seconds an attempt waits for them: an ordinary transaction takes far less."""
LOOK = 0.05
"""Seconds between two looks."""

Waiting = dict[str, list[str] | None]
"""By database, the transactions that have to end; None until they are listed."""


@dataclass(frozen=True)
class Lasting:
    """What one role's comment notes. `db` may be in any database."""

    db: Db
    oid: int

    def expect(self, database: str) -> None:
        """Note that code there is about to be disarmed: whoever may run it is listed afterwards.

        It has to be committed before the disarming is, so that no crash loses it.
        """
        query = "SELECT oid::text FROM pg_database WHERE datname = %(name)s"
        self._write({**self._read(), value(self.db, query, name=database): None})

    def wait(self) -> None:
        """Wait until all that were listed have ended, in every database.

        Raises `ProvisionError`, code `clean_blocked`, naming those that take longer than `WAIT`.
        """
        if not (waiting := self._listed()):
            return
        patience = Deadline(WAIT)
        while last := self._last(waiting):
            if patience.passed:
                raise _blocked(last)
            time.sleep(LOOK)

    def _listed(self) -> Waiting:
        waiting = self._read()
        if None in waiting.values():
            found = {one: list(_under_way(self.db, one)) for one in waiting}
            waiting = {one: found[one] if old is None else old for one, old in waiting.items()}
            self._write(waiting)
        return waiting

    def _last(self, waiting: Waiting) -> list[str]:
        now = {one: _under_way(self.db, one) for one in waiting}
        return sorted(
            now[one][each] for one in now for each in waiting[one] or () if each in now[one]
        )

    def _read(self) -> Waiting:
        note = self._comment().partition(WAITS)[2]
        return json.loads(note) if note else {}

    def _write(self, waiting: Mapping[str, list[str] | None]) -> None:
        """Keep the stamp, which says whose the role is, before it."""
        stamp = self._comment().partition(WAITS)[0]
        with self.db.transaction():
            if name := names_of(self.db, [self.oid]).get(self.oid):
                comment = sql.SQL("COMMENT ON ROLE {} IS {}")
                text = stamp + WAITS + json.dumps(waiting)
                self.db.execute(comment.format(sql.Identifier(name), text))

    def _comment(self) -> str:
        query = "SELECT coalesce(shobj_description(%(oid)s::oid, 'pg_authid'), '')"
        return str(value(self.db, query, oid=self.oid))


def _under_way(db: Db, database: str) -> dict[str, str]:
    """Return every transaction in the database but ours, with whose it is.

    Each holds a lock on a virtual id of its own until it ends, which anyone may see; the number is
    not given again before the server restarts.
    """
    rows = all_rows(
        db,
        "SELECT l.virtualxid, l.pid, a.usename FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
        " WHERE l.locktype = 'virtualxid' AND l.granted AND l.mode = 'ExclusiveLock'"
        " AND a.datid = %(database)s::oid AND a.usesysid IS DISTINCT FROM"
        " (SELECT oid FROM pg_roles WHERE rolname = session_user)",
        database=database,
    )
    return {number: told(pid, user) for number, pid, user in rows}


def _blocked(last: list[str]) -> ProvisionError:
    return ProvisionError(
        "Code that the holder left ran with the account's rights until now. Transactions that began"
        f" before may still run it: {', '.join(last)}. End them there, or wait until they end.",
        code="clean_blocked",
        blockers=last,
    )
