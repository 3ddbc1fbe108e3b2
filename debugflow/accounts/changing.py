"""The verbs of one's own account, and how a change of any is told. What admins do is in `admin`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib.auth import get_user_model

from approvals.errors import Invalid, NotAllowed
from approvals.tokens import account_subject
from approvals.transition import actor, verb
from audit import log
from audit.actions import declare
from audit.log import Actor
from debugflow.accounts import zones

if TYPE_CHECKING:
    from debugflow.accounts.models import User

declare("account.time_zone_changed", "time_zone.refused")


@verb("time_zone.refused", account_subject)
def set_time_zone(person_id: int, *, by: User, name: str) -> User:
    """Have times shown to oneself in this zone, by its IANA name. Raises NotAllowed, Invalid."""
    if by.pk != person_id:
        raise NotAllowed("Everybody sets their own time zone.", code="not_yours")
    zone = zones.find(name)
    if zone is None:
        raise Invalid(fields={"time_zone": [_unknown(name)]})
    person = get_user_model().objects.select_for_update(no_key=True).get(pk=person_id)
    before, person.time_zone = person.time_zone, zone
    if before != zone:
        person.save(update_fields=["time_zone"])
        log.record(
            "account.time_zone_changed",
            actor=actor(by),
            subject=account_subject(person_id),
            before=before,
            after=zone,
        )
    return person


def _unknown(name: str) -> str:
    if meant := zones.near(name[:64]):
        return f"There is no such time zone. Did you mean {' or '.join(meant)}?"
    return "There is no such time zone. Write a region and a city, such as Europe/Berlin."


def tell(action: str, user: User, *, by: User | Actor, **more: Any) -> None:
    """An Event about an account, with what it may do since. In the transaction of the change."""
    log.record(
        action,
        actor=actor(by),
        subject=account_subject(user.pk),
        active=user.is_active,
        staff=user.is_staff,
        superuser=user.is_superuser,
        groups=sorted(user.groups.values_list("name", flat=True)),
        **more,
    )
