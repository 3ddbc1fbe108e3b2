"""The channel of mails: one for each notice, or one a day for what needs no action."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from django.conf import settings
from django.urls import reverse

from approvals import mails
from approvals.mails import Letter
from approvals.notify import inbox
from approvals.notify.base import Channel, Item, Outcome, Parcel

if TYPE_CHECKING:
    from approvals.people import Person

LISTED: Final = 30  # notices that a digest names; the others are a number


class Email(Channel):
    name = "email"
    label = "E-mail"

    def reaches(self, person: Person) -> bool:
        return bool(settings.EMAIL_HOST and person.email.strip())

    def send(self, parcels: Sequence[Parcel], *, within: float) -> Iterator[tuple[Parcel, Outcome]]:
        answers = mails.posting([_letter(parcel) for parcel in parcels], within=within)
        for parcel, why in zip(parcels, answers, strict=True):
            if why == mails.TOO_SLOW:
                return
            yield parcel, Outcome(why=why)


def _letter(parcel: Parcel) -> Letter:
    items = [_told(item) for item in parcel.items[:LISTED]]
    more = len(parcel.items) - len(items)
    context = {"items": items, "more": more, "daily": len(parcel.items) > 1, **_site()}
    return Letter(
        to=parcel.reader.email.strip(),
        subject=f"[debugflow] {_subject(parcel)}",
        template="notice",
        context=context,
        headers={"Message-ID": f"<{parcel.key}@{_domain()}>"},
    )


def _subject(parcel: Parcel) -> str:
    count = len(parcel.items)
    return f"{count} things to know of" if count > 1 else parcel.items[0].text


def _told(item: Item) -> dict[str, Any]:
    site = settings.SITE_URL
    link = site + reverse("inbox-message", args=[inbox.sign(item.delivery)]) if site else ""
    return {"text": item.text, "step": item.step, "quote": item.quote, "link": link}


def _site() -> dict[str, str]:
    site = settings.SITE_URL
    return {"site": site, "settings": site + reverse("settings") if site else ""}


def _domain() -> str:
    return str(settings.DEFAULT_FROM_EMAIL).rpartition("@")[2].rstrip(">") or "localhost"
