"""Which installation this is, and whether its database is still in the cluster it was in.

Its stamp is left on every account, so that installations that share a target keep theirs apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import connection

from approvals.errors import NotAllowed, WrongState
from approvals.models import Installation
from approvals.provisioning.base import STAMP
from approvals.transition import actor, verb
from audit import log
from audit.log import Subject

if TYPE_CHECKING:
    from uuid import UUID

    from approvals.people import Person

ONLY = 1  # the id of the one row


def key() -> UUID:
    """This installation's own name, made at the first question."""
    return _row().key


def stamp() -> str:
    """What is left on accounts of ours on the targets."""
    return f"{STAMP}{key()}"


def moved() -> bool:
    """Whether the database was restored, so that the ledger may know less than targets hold.

    One without a row never opened anything, and so is where it was. That a restored one may have
    lost the row is `restoring`'s affair: it makes one that has moved.
    """
    return _row().cluster != _cluster()


@verb("reconciliation.refused", lambda pk: _subject())
def restored(installation_id: int, *, by: Person) -> None:
    """Confirm that this database, in the cluster it is in now, is the ledger from here on.

    Raises NotAllowed; WrongState if it has not moved.
    """
    _row()  # made by the first question, and this may be it
    row = Installation.objects.select_for_update().get(pk=installation_id)
    if not by.has_perm("approvals.change_target"):
        raise NotAllowed("Only those who may change targets confirm this.", code="not_admin")
    now = _cluster()
    if row.cluster == now:
        raise WrongState("This database is where it was: there is nothing to confirm.")
    before, row.cluster = row.cluster, now
    row.save(update_fields=["cluster"])
    log.record(
        "installation.restored", actor=actor(by), subject=_subject(), before=before, after=now
    )


def forget_place() -> None:
    """Take this database for a restored one until somebody confirms that it is the ledger."""
    Installation.objects.filter(pk=_row().pk).update(cluster="")


def _row() -> Installation:
    row = Installation.objects.filter(pk=ONLY).first()
    return row or Installation.objects.get_or_create(pk=ONLY, defaults={"cluster": _cluster()})[0]


def _subject() -> Subject:
    return Subject("installation", str(key()), "this installation")


def _cluster() -> str:
    """PostgreSQL's system identifier, made by initdb: a physical copy has the same one."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT system_identifier::text FROM pg_control_system()")
        return str(cursor.fetchone()[0])
