"""What a database restored from a backup needs before anything works with it.

It knows less than the targets do: what was opened, ended and decided since the backup. How one is
made and restored is in docs/backup.md; accounts that it does not know are the reconciler's affair.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from django.contrib.sessions.models import Session
from django.db import connection, transaction

from approvals import grants, heartbeats, installation, tokens
from approvals.errors import Invalid, WrongState
from approvals.models import Grant
from approvals.states import EndReason, GrantState
from audit import clock, log
from audit.log import SYSTEM, Subject

MARGIN: Final = 10_000
"""Numbers that are passed over: more than grants, requests or Events since a daily backup."""
NOTE: Final = (
    "The database was restored, and does not know whether this was opened since its backup."
)


@dataclass(frozen=True)
class Settled:
    """How many numbering sequences moved on, grants ended unopened, sign-ins and tokens ended."""

    sequences: int
    grants: int
    sessions: int
    tokens: int


@transaction.atomic
def settle(*, margin: int = MARGIN) -> Settled:
    """Make a restored database fit to go on. All or nothing; may be done again.

    1. Pass over `margin` numbers of every sequence: the lost ones are in use elsewhere, as names
       of accounts on targets, in mails and in copies of the audit log.
    2. End what was not open yet: it may have been opened, used and taken away since.
    3. End all sign-ins and tokens, forget passwords not shown yet: some were since.
    4. Have somebody confirm (`reconcile --restored`) before the reconciler removes anything.

    Raises Invalid for a margin below 1; WrongState while a sweeper works with it, and where the
    dump was loaded in a way that lets the application change the log.
    """
    if margin < 1:
        raise Invalid(f"The margin is 1 or more, not {margin}: numbers would be given out twice.")
    _refuse_at_work()
    _refuse_powers()
    # A restore into the same cluster, or to a point in time, would not show by itself.
    installation.forget_place()
    settled = Settled(
        sequences=_pass_over(margin),
        grants=_end_unopened(),
        sessions=Session.objects.all().delete()[0],
        tokens=tokens.end_all(),
    )
    Grant.objects.not_ended().update(secret="")
    log.record(
        "installation.settled",
        actor=SYSTEM,
        subject=Subject("installation", str(installation.key()), "this installation"),
        passed_over=margin,
        ended=settled.grants,
        signed_out=settled.sessions,
        tokens=settled.tokens,
    )
    return settled


def _refuse_at_work() -> None:
    if heartbeats.sweeping().exists():
        raise WrongState("A sweeper works here. Stop web, workers and sweepers first.")


def _refuse_powers() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT has_table_privilege('audit_event', 'UPDATE, DELETE')")
        if cursor.fetchone() != (False,):
            raise WrongState(
                "The application may change the audit log here. Load the backup into a database "
                "made by `prepare_database --for-restore`, as docs/backup.md says."
            )


def _pass_over(margin: int) -> int:
    """By taking the numbers, as the application may: only the owner may set a sequence."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT format('%I.%I', schemaname, sequencename) FROM pg_sequences"
            " WHERE schemaname = 'public'"
        )
        names = [name for (name,) in cursor.fetchall()]
        for name in names:
            taken = "SELECT count(nextval(%s::text::regclass)) FROM generate_series(1, %s)"
            cursor.execute(taken, [name, margin])
    return len(names)


def _end_unopened() -> int:
    unopened = Grant.objects.filter(state__in=[GrantState.SCHEDULED, GrantState.PROVISIONING])
    ids = list(unopened.order_by("id").values_list("pk", flat=True))
    for pk in ids:
        grant = Grant.objects.locked(pk)
        grants.finish(
            grant, EndReason.FAILED, by=SYSTEM, now=clock.now(), code="restored", note=NOTE
        )
    return len(ids)
