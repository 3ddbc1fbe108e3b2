"""The verb of a delivery: have it sent once more, by whoever looks after the installation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from approvals import access, notify
from approvals.errors import NotAllowed, WrongState
from approvals.models import Delivery
from approvals.states import DeliveryStanding
from approvals.transition import actor, verb
from audit import clock, log
from audit.log import Subject

if TYPE_CHECKING:
    from approvals.people import Person


def delivery_subject(pk: int) -> Subject:
    row = Delivery.objects.select_related("notice", "person", "endpoint").filter(pk=pk).first()
    return row.audit_subject() if row else Subject("delivery", str(pk), f"delivery {pk}")


def is_over(row: Delivery) -> bool:
    """Whether it was sent or given up, over a channel that sends anything."""
    over = row.standing in (DeliveryStanding.DEAD, DeliveryStanding.SENT)
    return over and row.channel in {one.name for one in notify.channels() if not one.instant}


@verb("resend.refused", delivery_subject)
def resend(delivery_id: int, *, by: Person) -> Delivery:
    """Send it again now, and try for two more days. Raises NotAllowed, WrongState.

    What waits already is left as it is, and so is an entry of an inbox: that is there to be read.
    """
    if not access.administers(by):
        raise NotAllowed("Administrators of targets can have it sent again.", code="not_admin")
    locked = Delivery.objects.select_for_update(of=("self",))
    row = locked.select_related("notice", "person", "endpoint").filter(pk=delivery_id).first()
    if row is None:
        raise WrongState("This delivery does not exist.", code="gone")
    if not is_over(row):
        label = row.standing.label.lower()
        raise WrongState(f"It is {label}: there is nothing to send again.")
    now = clock.now()
    row.next_try_at = row.since = now
    row.attempts, row.sent_at, row.dead_at, row.digest = 0, None, None, False
    row.save(update_fields=["next_try_at", "since", "attempts", "sent_at", "dead_at", "digest"])
    log.record(
        "delivery.resent",
        actor=actor(by),
        subject=row,
        at=now,
        channel=row.channel,
        recipient=str(row.person or row.endpoint),
        fact=row.notice.fact,
    )
    return row
