"""The clean-up after a cut: objects to quarantine, rights gone, role dropped.

What a holder owned goes to a role that cannot sign in and may do nothing, never to an admin: a
function that runs as its owner would become a back door. What they passed on is taken back first.
Most of it is done in batches, by `takeover`; the rest in one transaction per database.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import psycopg
from psycopg import sql

from approvals.errors import ProvisionError
from approvals.provisioning.base import Account, Cleaned

from .account import bare, become_member, levels_of, names_of, oids_of, ours
from .blockers import patiently
from .connect import Db, Deadline, Dialer, all_rows, value
from .failures import FIXES
from .lasting import Lasting
from .membership import withdraw
from .prepared import roll_back_prepared
from .sessions import open_names, terminate
from .takeover import Moved, TakeOver
from .things import OWNERS, Thing, hold, take_back

T = TypeVar("T")
Fate = tuple[list[Thing], list[Thing]]
"""What was kept, and what was dropped."""

CLEAN_DEADLINE = 40
"""Seconds for a whole clean-up; less than the lease of the one who does it (60 s)."""
CLEAN_STATEMENT = 10
"""Seconds for one statement of it."""
UNOWNABLE = ("publication", "server")
"""Kinds that only somebody with rights of their own may own (CREATE on the database, USAGE of the
foreign data wrapper): where the quarantine role may not, they are dropped with all that hangs on
them, which is configuration and no data."""
RIGHTS_UNTIL, BATCHES_UNTIL = 24, 13
"""Seconds that must be left of the deadline to begin one more batch of taking back, of moving. The
last one may take a statement's whole time, and the rest needs some."""


@dataclass(frozen=True)
class Cleaner:
    """One clean-up under way."""

    dialer: Dialer
    quarantine: str
    name: str
    deadline: Deadline
    moved: Moved = field(default_factory=Moved)


def clean_account(dialer: Dialer, account: Account, quarantine: str) -> Cleaned:
    """Remove every role of `account`'s attempts and what depends on it.

    Roles that somebody else dropped are nothing to do; the read-back decides what that means. What
    was made in the name of a level comes first: until that is done, the account is still seen.
    Raises `ProvisionError` with what was done before in its details, as `cleaned`.
    """
    deadline = Deadline(CLEAN_DEADLINE)
    cleaner = Cleaner(dialer, quarantine, f"dbgf-clean-{account.grant_id}", deadline)
    try:
        with dialer.session(cleaner.name, deadline, statement_timeout=CLEAN_STATEMENT) as db:
            account = ours(db, account)
            _check_cut(db, account)
            _clean(db, cleaner, account)
            _check_cut(db, account)
    except ProvisionError as error:
        error.details["cleaned"] = cleaner.moved.report
        raise
    return cleaner.moved.report


def _clean(db: Db, cleaner: Cleaner, account: Account) -> None:
    """First disarm everything everywhere: what holds up the rest in one place must not delay it."""
    withdraw(db, oids_of(account.traces), seconds=0)
    roles = names_of(db, oids_of(account.traces))
    levels, keeper = names_of(db, levels_of(account.traces)), next(iter(roles), 0)
    for oid, level in levels.items():
        _disarm_all(db, cleaner, oid, level, keeper)
    for oid, role in roles.items():
        _disarm_all(db, cleaner, oid, role, oid)
    for oid, level in levels.items():
        _relieve(db, cleaner, oid, level)
    for oid, role in roles.items():
        _remove(db, cleaner, oid, role)


def _disarm_all(db: Db, cleaner: Cleaner, oid: int, role: str, keeper: int) -> None:
    """Take back what was passed on, and have code run as its caller; the role `keeper` notes it."""
    if bare(db, [oid]):
        return
    become_member(db, role)
    for database in _databases(db, oid):
        with _inside(cleaner, database, oid) as over:
            if over.armed:
                _note(db, cleaner, keeper, database)
            if over.left:
                over.take_rights_back(in_time=lambda: cleaner.deadline.left > RIGHTS_UNTIL)


def _note(db: Db, cleaner: Cleaner, keeper: int, database: str) -> None:
    note = Lasting(db, keeper)
    _patiently(cleaner, db, lambda: note.expect(database))


def _check_cut(db: Db, account: Account) -> None:
    """End whoever came in after the cut, and have it made again: it is no longer true."""
    oids = oids_of(account.traces)
    if terminate(db, oids) or open_names(db, oids):
        raise ProvisionError(
            "The account was used, or let in again, after it had been cut.", code="not_cut"
        )


def _relieve(db: Db, cleaner: Cleaner, oid: int, level: str) -> None:
    """Take over all that a level owns: it owned nothing, or it would not have been handed out.

    Its rights are for the target's owner to change, and stay. So does its membership of ours.
    """
    _need_quarantine(db, cleaner.quarantine)
    roll_back_prepared(db, cleaner.dialer, [oid], cleaner.name, cleaner.deadline)
    for database in _databases(db, oid):
        with _inside(cleaner, database, oid) as over:
            if over.left:
                _at_once(cleaner, over, functools.partial(_reassign, over, level))


def _remove(db: Db, cleaner: Cleaner, oid: int, role: str) -> None:
    if bare(db, [oid]):
        _patiently(cleaner, db, lambda: _drop(db, oid, role))
        return
    _need_quarantine(db, cleaner.quarantine)
    roll_back_prepared(db, cleaner.dialer, [oid], cleaner.name, cleaner.deadline)
    for database in _databases(db, oid):
        _empty(cleaner, database, oid, role)
    Lasting(db, oid).wait()
    _patiently(cleaner, db, lambda: _drop(db, oid, role))


def _patiently(cleaner: Cleaner, db: Db, act: Callable[[], T]) -> T:
    return patiently(db, act, dialer=cleaner.dialer, name=cleaner.name, deadline=cleaner.deadline)


def _need_quarantine(db: Db, quarantine: str) -> None:
    """Join the quarantine role once. The membership stays: others may clean at this moment."""
    try:
        if not value(db, "SELECT pg_has_role(%(name)s, 'USAGE')", name=quarantine):
            become_member(db, quarantine)
    except psycopg.errors.UndefinedObject:
        raise ProvisionError(
            f"The target has no role {quarantine} to take over what holders made."
            " Run what `manage.py target prepare` prints.",
            permanent=True,
        ) from None


def _databases(db: Db, oid: int) -> list[str]:
    """Return where anything depends on the role, and this one for what belongs to no database."""
    rows = all_rows(
        db,
        "SELECT datname FROM pg_database WHERE datname = current_database() OR oid IN"
        " (SELECT dbid FROM pg_shdepend WHERE refclassid = 'pg_authid'::regclass"
        " AND refobjid = %(oid)s::oid) ORDER BY 1",
        oid=oid,
    )
    return [name for (name,) in rows]


def _empty(cleaner: Cleaner, database: str, oid: int, role: str) -> None:
    """Leave nothing of the role in one database: most of it in batches, the rest at once."""
    with _inside(cleaner, database, oid) as over:
        if over.left:
            over.move(in_time=lambda: cleaner.deadline.left > BATCHES_UNTIL)
        if cleaner.deadline.left <= BATCHES_UNTIL:
            raise _unfinished(over)
        try:
            _at_once(cleaner, over, lambda: _finish(over, role))
        except psycopg.Error as error:
            if over.skipped and not (over.db.broken or over.db.closed):
                raise _forbidden(over, error) from None
            raise


def _at_once(cleaner: Cleaner, over: TakeOver, act: Callable[[], Fate]) -> None:
    """Do `act` in one transaction, and note what it did once that is done."""
    kept, dropped = _patiently(cleaner, over.db, act)
    over.note(kept)
    for thing in dropped:
        cleaner.moved.dropped.add(over.told(thing))


@contextmanager
def _inside(cleaner: Cleaner, database: str, oid: int) -> Iterator[TakeOver]:
    with cleaner.dialer.session(
        cleaner.name, cleaner.deadline, database=database, statement_timeout=CLEAN_STATEMENT
    ) as db:
        _read_any_name(db)
        yield TakeOver(db, oid, cleaner.quarantine, database, cleaner.moved)


def _read_any_name(db: Db) -> None:
    """In a database without an encoding a holder may have called a thing anything."""
    if value(db, "SELECT current_setting('server_encoding')") == "SQL_ASCII":
        db.execute("SET client_encoding TO 'SQL_ASCII'")


def _unfinished(over: TakeOver) -> ProvisionError:
    return ProvisionError(
        f"{_counted(over)} still to be taken over. The next attempt goes on from here.",
        code="clean_unfinished",
    )


def _counted(over: TakeOver) -> str:
    left = over.left
    return f"{left} {'thing' if left == 1 else 'things'} of the account's in {over.database} are"


def _forbidden(over: TakeOver, error: psycopg.Error) -> ProvisionError:
    """Name one of the things that cannot be moved, which the server's own words may leave out."""
    (name, why), state = next(iter(over.skipped.items())), error.sqlstate or ""
    return ProvisionError(
        f"{_counted(over)} left that cannot be taken over, such as {name}: {why}."
        f" {FIXES.get(state, '')}".strip(),
        sqlstate=state,
    )


def _armed(over: TakeOver) -> ProvisionError:
    """Whoever runs it now has to be waited for, so it is not moved before it is disarmed."""
    return ProvisionError(
        f"Code of the account's in {over.database} still runs as its owner. The next attempt goes"
        " on from here.",
        code="clean_unfinished",
    )


def _finish(over: TakeOver, role: str) -> Fate:
    """Leave nothing of the role here, all of it or none."""
    done = _reassign(over, role)
    over.db.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(role)))
    return done


def _reassign(over: TakeOver, role: str) -> Fate:
    """Leave nothing here in the role's possession; its rights stay."""
    db, rest = over.db, over.things()
    names = {"role": sql.Identifier(role), "to": sql.Identifier(over.quarantine)}
    for thing in rest:
        for statement in (*take_back(thing), *hold(thing, names["role"].as_bytes(db))):
            db.execute(statement)
        if thing.kind == "schema":  # before what is in it: they come first in `things.LIST`
            db.execute(over.owner_statement(thing))
    if any(thing.as_owner for thing in rest):
        raise _armed(over)
    dropped = [thing for thing in rest if thing.kind in UNOWNABLE and _dropped(over, thing)]
    db.execute(sql.SQL("REASSIGN OWNED BY {role} TO {to}").format(**names))
    return [thing for thing in rest if thing not in dropped], dropped


def _dropped(over: TakeOver, thing: Thing) -> bool:
    """Move it if the quarantine role may own such a thing, else drop it; whether it was dropped."""
    try:
        with over.db.transaction():
            over.db.execute(over.owner_statement(thing))
    except psycopg.errors.InsufficientPrivilege:
        over.db.execute(b"DROP %s %s CASCADE" % (OWNERS[thing.kind], thing.identity))
        return True
    return False


def _drop(db: Db, oid: int, role: str) -> None:
    """Drop the role, which takes its memberships along, ours included; check it was that one."""
    with db.transaction() as transaction:
        db.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))
        if oid in names_of(db, [oid]):  # renamed meanwhile: the next attempt finds its new name
            raise psycopg.Rollback(transaction)
