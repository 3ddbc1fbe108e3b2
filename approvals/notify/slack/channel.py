"""The channel of Slack: a message of the app's to each person, changed in place once it is settled.

What is in it is in `messages` and `standing`; the workspace's token in `workspace`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from django.conf import settings
from django.urls import reverse

from approvals.models import SlackAccount, SlackWorkspace
from approvals.notify.base import Channel, Outcome, Parcel
from approvals.notify.slack import accounts, client, messages, standing, workspace
from approvals.notify.slack.client import Slack as Client
from approvals.notify.slack.client import SlackRefused
from approvals.notify.slack.messages import Message
from approvals.secrets import SecretUnreadable

if TYPE_CHECKING:
    from approvals.people import Person

NOT_SET_UP: Final = "Slack is not set up, or its token cannot be read."
NOT_CONNECTED: Final = "They have no Slack account connected."


class Slack(Channel):
    name = workspace.CHANNEL
    label = "Slack"
    in_place = True

    def reaches(self, person: Person) -> bool:
        there = SlackWorkspace.objects.filter(enabled=True).values("team_id")
        return SlackAccount.objects.filter(person=person, team_id__in=there).exists()

    def send(self, parcels: Sequence[Parcel], *, within: float) -> Iterator[tuple[Parcel, Outcome]]:
        deadline, row = time.monotonic() + within, workspace.current()
        slack, stopped = _connected(row), _held(row)
        for parcel in parcels:
            if time.monotonic() >= deadline:
                return
            if row is None or slack is None:
                outcome = _nowhere(parcel, row)
            else:
                outcome = stopped or _sent(parcel, row, slack)
            # What Slack does not take from us now, it takes from nobody.
            stopped = outcome if outcome.all_of_it else None
            yield parcel, outcome


def _nowhere(parcel: Parcel, row: SlackWorkspace | None) -> Outcome:
    """Without a workspace what was said before stays as it is."""
    if row is None and parcel.handle:
        return Outcome(handle=parcel.handle)
    return Outcome(why=NOT_SET_UP, all_of_it=True)


def _held(row: SlackWorkspace | None) -> Outcome | None:
    """Slack has said how long it wants to be left alone, and that is not over."""
    left = workspace.held(row) if row else 0.0
    return _outcome(SlackRefused(client.RATE_LIMITED, wait=left)) if left else None


def _connected(row: SlackWorkspace | None) -> Client | None:
    try:
        return workspace.connect(row, within=client.WITHIN) if row else None
    except (LookupError, SecretUnreadable):
        return None


def _sent(parcel: Parcel, row: SlackWorkspace, slack: Client) -> Outcome:
    """An account that is not theirs any more is told nothing: what was sent stays as it is."""
    account = accounts.of(parcel.reader, row)
    if account is None:
        return Outcome() if parcel.handle else Outcome(why=NOT_CONNECTED, final=True)
    try:
        handle = changed(parcel, slack) if parcel.handle else _posted(parcel, account, slack)
    except SlackRefused as refusal:
        workspace.noticed(row, refusal)
        return _outcome(refusal)
    workspace.noticed(row, None)
    return Outcome(handle=handle)


def _outcome(refusal: SlackRefused) -> Outcome:
    unanswered = refusal.code.startswith(client.UNANSWERED)
    return Outcome(
        why=str(refusal),
        final=refusal.gone,
        wait=refusal.wait,
        all_of_it=refusal.ill or unanswered or refusal.code == client.RATE_LIMITED,
    )


def _posted(parcel: Parcel, account: SlackAccount, slack: Client) -> str:
    """The handle of the new message. Raises SlackRefused."""
    if not account.channel:
        account.channel = slack.open_direct(account.member_id)
        account.save(update_fields=["channel"])
    return f"{account.channel}:{slack.post(account.channel, rendered(parcel))}"


def changed(parcel: Parcel, slack: Client) -> str:
    """The same message with what there is to say now; it has no handle any more if it is gone.

    Raises SlackRefused.
    """
    channel, _, ts = parcel.handle.partition(":")
    try:
        slack.update(channel, ts, rendered(parcel))
    except SlackRefused as refusal:
        if refusal.code not in client.UNCHANGEABLE and not refusal.gone:
            raise
        return ""
    return parcel.handle


def rendered(parcel: Parcel) -> Message:
    if len(parcel.items) == 1:
        return messages.message(standing.told(parcel.items[0], parcel.reader))
    site = settings.SITE_URL
    sentences = [f"{item.text}. {item.step}" for item in parcel.items]
    return messages.digest(sentences, site + reverse("inbox") if site else "")
