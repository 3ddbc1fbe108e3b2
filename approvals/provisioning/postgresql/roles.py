"""Opening and extending: the one transaction that makes a temporary login, and its later expiry.

For many at once it is made in `opening`, of the statements here. Taking it away is in `cut` and
`clean`. What a level may do is checked in `level`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from psycopg import sql

from approvals.errors import ProvisionError
from approvals.provisioning.base import Account, Fence, OpenOrder

from .account import (
    SET_OPTION,
    TRANSACTION_TIMEOUT,
    cluster_of,
    oid_of,
    oids_of,
)
from .config import LevelRights
from .connect import Db, Deadline, Dialer
from .openers import opener_name
from .scram import verifier

OPEN_DEADLINE = 30
"""Seconds for the whole of an open, from our side; well under the 60 s an open may take."""
OPEN_STATEMENT = 10
"""Seconds for one statement of it."""


def open_account(
    dialer: Dialer, order: OpenOrder, rights: LevelRights, fence: Fence, deadline: Deadline
) -> datetime:
    """Make the login in one transaction and return its expiry.

    1. Make the role, or find the one an earlier attempt committed; a stranger's is left alone.
    2. Make it a member of the level, and leave the installation's stamp on it.
    3. Read its oid; set `VALID UNTIL` from the control database's time, as the last statement.
    4. Have the fence hold, which stores the oid; then COMMIT. Anything raised rolls back.
    """
    name = opener_name(order.grant_id)
    with (
        dialer.session(name, deadline, statement_timeout=OPEN_STATEMENT) as db,
        db.transaction(),
    ):
        limit(db)
        oid = _make(db, order, rights)
        until = fence.now() + timedelta(seconds=order.duration)
        _set_expiry(db, order.account, until)
        deadline.check("opening")
        undo = {"oid": oid, "cluster": cluster_of(db), "valid_until": until.isoformat()}
        fence.hold(undo | acts_as(db, rights.role))
    return until


def limit(db: Db) -> None:
    """Have the server end the transaction by itself, where it can."""
    if db.info.server_version >= TRANSACTION_TIMEOUT:
        db.execute(sql.SQL("SET LOCAL transaction_timeout = {}").format(OPEN_DEADLINE * 1000))


def _make(db: Db, order: OpenOrder, rights: LevelRights) -> int:
    known = oids_of(order.known)
    found = oid_of(db, order.account)
    if found is not None and found not in known:
        raise _taken(order.account)
    made = verifier(order.password)
    db.execute(role_statement(order.account, rights, made, exists=found is not None))
    db.execute(membership(db, [order.account], rights.role))
    db.execute(stamped(order.account, order.stamp))
    oid = oid_of(db, order.account)
    # The row is locked by us now, so that this oid is the one we wrote to.
    if oid is None or (found is not None and oid != found):
        raise _taken(order.account)
    return oid


def _taken(account: str) -> ProvisionError:
    return ProvisionError(
        f"The target has a role {account} that is not ours. Rename or drop it there.",
        code="name_taken",
        permanent=True,
    )


def role_statement(
    account: str, rights: LevelRights, verifier: str, *, exists: bool
) -> sql.Composed:
    """Return the statement that makes the role, or makes it anew, with a verifier in it: the
    password itself is never sent."""
    return sql.SQL("{} ROLE {} LOGIN INHERIT CONNECTION LIMIT {} PASSWORD {}").format(
        sql.SQL("ALTER" if exists else "CREATE"),
        sql.Identifier(account),
        rights.connection_limit,
        verifier,
    )


def stamped(account: str, stamp: str) -> sql.Composed:
    """Return the statement that leaves the installation's stamp on it."""
    return sql.SQL("COMMENT ON ROLE {} IS {}").format(sql.Identifier(account), stamp)


def membership(db: Db, accounts: Sequence[str], level: str) -> sql.Composed:
    """Return the grant of the level. Without SET a holder cannot keep a role past its revocation.

    Before PostgreSQL 16 the option does not exist; there the end of the session is what counts, and
    the level is noted, so that what was made while acting as it is found.
    """
    members = sql.SQL(", ").join(map(sql.Identifier, accounts))
    grant = sql.SQL("GRANT {} TO {}").format(sql.Identifier(level), members)
    if db.info.server_version >= SET_OPTION:
        grant += sql.SQL(" WITH ADMIN FALSE, INHERIT TRUE, SET FALSE")
    return grant


def acts_as(db: Db, level: str) -> dict[str, int | str | None]:
    """Return the level to look through at the end, where its members may SET ROLE to it."""
    if db.info.server_version >= SET_OPTION:
        return {}
    return {"level": oid_of(db, level), "level_name": level}


def expiry(account: str, until: datetime) -> sql.Composed:
    """Return the statement that sets the role's own expiry."""
    statement = sql.SQL("ALTER ROLE {} VALID UNTIL {}")
    return statement.format(sql.Identifier(account), until.isoformat())


def _set_expiry(db: Db, account: str, until: datetime) -> None:
    db.execute(expiry(account, until))


def extend_account(
    dialer: Dialer, account: Account, until: datetime, fence: Fence, deadline: Deadline
) -> None:
    """Move the role's own expiry to `until`; raise `ProvisionError` (code `gone`) without one.

    It bears the opener's name, so that a close ends it as it ends an opener. Nothing but the expiry
    is said: the password stays what its holder knows, and a NOLOGIN stays one.

    1. Find our role; a stranger's of that name is left alone.
    2. Set `VALID UNTIL`, which locks its row, and look again whose it is.
    3. Have the fence hold; then COMMIT. Anything raised rolls back.
    """
    name = opener_name(account.grant_id)
    with (
        dialer.session(name, deadline, statement_timeout=OPEN_STATEMENT) as db,
        db.transaction(),
    ):
        limit(db)
        if oid_of(db, account.account) not in oids_of(account.traces):
            raise ProvisionError(
                f"The target has no role {account.account} of ours.", code="gone", permanent=True
            )
        _set_expiry(db, account.account, until)
        if oid_of(db, account.account) not in oids_of(account.traces):
            raise _taken(account.account)
        deadline.check("extending")
        fence.hold({"valid_until": until.isoformat()})
