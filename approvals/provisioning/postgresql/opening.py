"""Opening many at once: the same transaction as for one, each of its steps taken for all.

All are made or none. Whatever is odd, fought over or slow is left to `roles.open_account`, one
after the other, which tells what is wrong with which.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg
from psycopg import sql

from approvals.provisioning.base import JointFence, OpenOrder

from .account import cluster_of, oids_of
from .config import LevelRights
from .connect import Db, Deadline, Dialer, all_rows
from .openers import joint_name
from .roles import OPEN_STATEMENT, acts_as, expiry, limit, membership, role_statement, stamped
from .scram import verifier

PATIENCE = 2
"""Seconds for which one is waited that holds a role or a level. Joint openings of one level wait
for each other's COMMIT, which takes a fraction of one."""


@dataclass(frozen=True)
class Wanted:
    """One account to be made. Its verifier is made before the target is asked anything."""

    order: OpenOrder
    rights: LevelRights
    verifier: str

    @classmethod
    def of(cls, order: OpenOrder, rights: LevelRights) -> Wanted:
        """With a verifier of the order's password."""
        return cls(order, rights, verifier(order.password))

    @property
    def account(self) -> str:
        """Its name."""
        return self.order.account


def open_together(
    dialer: Dialer, wanted: Sequence[Wanted], fence: JointFence, deadline: Deadline
) -> Mapping[int, datetime]:
    """Make these logins in one transaction; return their expiries by grant, none if it failed.

    Raises `ProvisionError` where the connection is lost, which would befall the single ones too,
    and passes `Fenced` on. The statements do not grow in number with the accounts.
    """
    name = joint_name(one.order.grant_id for one in wanted)
    with dialer.session(name, deadline, statement_timeout=OPEN_STATEMENT) as db:
        try:
            with db.transaction():
                return _made(db, wanted, fence, deadline)
        except psycopg.Error:
            if db.broken or db.closed:
                raise
            return {}  # the single ones tell what it is


def _made(
    db: Db, wanted: Sequence[Wanted], fence: JointFence, deadline: Deadline
) -> Mapping[int, datetime]:
    """1. Look which accounts are there: a stranger's name is left to the single opening.
    2. Make the roles, stamp them, and make them members of their levels, in one go.
    3. Read their oids; set every `VALID UNTIL` from the control database's time.
    4. Have the fence hold for all. The COMMIT follows.
    """
    limit(db)
    db.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(PATIENCE * 1000))
    before = _oids(db, [one.account for one in wanted])
    wanted = [one for one in wanted if _is_free(one, before)]
    if not wanted:
        return {}
    _send(db, [*_roles(wanted, before), *_memberships(db, wanted)])
    oids = _oids(db, [one.account for one in wanted])
    if any(oids.get(name, oid) != oid for name, oid in before.items()):
        raise psycopg.errors.DuplicateObject("a role of ours became somebody else's")
    now = fence.now()
    until = {one.order.grant_id: now + timedelta(seconds=one.order.duration) for one in wanted}
    _send(db, [expiry(one.account, until[one.order.grant_id]) for one in wanted])
    deadline.check("opening")
    fence.hold_many(_undos(db, wanted, oids, until))
    return until


def _oids(db: Db, names: Sequence[str]) -> dict[str, int]:
    query = "SELECT rolname, oid FROM pg_roles WHERE rolname = ANY(%(names)s::text[])"
    return dict(all_rows(db, query, names=names))


def _is_free(one: Wanted, before: Mapping[str, int]) -> bool:
    return one.account not in before or before[one.account] in oids_of(one.order.known)


def _send(db: Db, statements: Sequence[sql.Composed]) -> None:
    db.execute(sql.SQL("; ").join(statements))


def _roles(wanted: Sequence[Wanted], before: Mapping[str, int]) -> list[sql.Composed]:
    return [
        statement
        for one in wanted
        for statement in (
            role_statement(one.account, one.rights, one.verifier, exists=one.account in before),
            stamped(one.account, one.order.stamp),
        )
    ]


def _memberships(db: Db, wanted: Sequence[Wanted]) -> list[sql.Composed]:
    """A level's in one statement: it is locked from then on until the end."""
    levels = sorted({one.rights.role for one in wanted})
    members = {
        level: [one.account for one in wanted if one.rights.role == level] for level in levels
    }
    return [membership(db, names, level) for level, names in members.items()]


def _undos(
    db: Db, wanted: Sequence[Wanted], oids: Mapping[str, int], until: Mapping[int, datetime]
) -> dict[int, dict[str, Any]]:
    cluster = cluster_of(db)
    levels = {one.rights.role: acts_as(db, one.rights.role) for one in wanted}
    return {
        one.order.grant_id: {
            "oid": oids[one.account],
            "cluster": cluster,
            "valid_until": until[one.order.grant_id].isoformat(),
            **levels[one.rights.role],
        }
        for one in wanted
    }
