"""Having people told, as a worker does it, and looking at what became of it."""

from __future__ import annotations

from typing import Any

from approvals import closing, opening
from approvals.models import INBOX, Delivery, Grant
from approvals.notify import expanding, preferences, sending
from approvals.notify.preferences import Wishes
from tests.world import World


def tell() -> int:
    """Whatever is due: deliveries are made, and mails sent. Returns how many were taken."""
    expanding.expand_due()
    return sending.send_due("email")


def told(fact: str, channel: str = INBOX) -> list[str]:
    """Who was told of it, by name."""
    rows = Delivery.objects.filter(notice__fact=fact, channel=channel, person__isnull=False)
    return sorted(rows.values_list("person__username", flat=True))


def facts_of(person: Any) -> list[str]:
    """The facts in somebody's inbox, oldest first."""
    rows = Delivery.objects.filter(person=person, channel=INBOX).order_by("pk")
    return list(rows.values_list("notice__fact", flat=True))


def words_of(fact: str) -> str:
    """What is said of it."""
    notice = Delivery.objects.filter(notice__fact=fact).latest("pk").notice
    return " | ".join(part for part in (notice.text, notice.quote, notice.step) if part)


def opened(world: World, who: str = "alice", **wish: Any) -> Grant:
    grant = world.approved(who, **wish)
    opening.open_grant(grant.pk, worker="w")
    return Grant.objects.get(pk=grant.pk)


def close(grant: Grant) -> None:
    closing.close_grant(grant.pk, worker="w")


def wish(person: Any, **wishes: Any) -> None:
    preferences.save(person.pk, by=person, wishes=Wishes(**wishes))
