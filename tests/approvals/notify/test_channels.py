"""What every channel promises, held against each that is registered; and the registry itself."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata
from typing import Any

import pytest

from approvals import notify
from approvals.models import Delivery, Notice, SlackAccount, WebhookEndpoint
from approvals.notify import endpoints, expanding, resending, sending
from approvals.notify.base import Channel, Item, Outcome, Parcel
from audit import clock as database_clock
from tests.approvals.notify.slacking import connect, set_up, slack_for
from tests.approvals.notify.telling import tell
from tests.world import World

pytestmark = pytest.mark.django_db
NAMES = sorted(notify.paths())


@pytest.fixture(params=NAMES)
def channel(
    request: pytest.FixtureRequest, world: World, settings: Any, monkeypatch: Any
) -> Iterator[Channel]:
    settings.WEBHOOK_NETWORKS = ["127.0.0.0/8"]
    if request.param != "slack":
        yield notify.get(request.param)
        return
    with slack_for(settings, monkeypatch) as slack:
        set_up(world)
        connect(world, slack, "bob")
        yield notify.get(request.param)


def parcel(world: World, channel: Channel, **more: Any) -> Parcel:
    """One message to bob, or to an endpoint that nobody serves."""
    item = Item(
        delivery=1, notice=1, fact="asked", text="alice asks", step="Decide.", quote="It hangs.",
        link="/requests/1/", at=database_clock.now(), subject=("accessrequest", "1"),
        thread="request:1",
    )  # fmt: skip
    if channel.for_people:
        return Parcel(items=[item], person=world.bob, **more)
    wish = endpoints.Wish(name="chat", url="http://127.0.0.1:1/", facts=["asked"])
    endpoint = WebhookEndpoint.objects.filter(name="chat").first()
    if endpoint is None:
        endpoint = endpoints.save(0, by=world.ada, wish=wish)
        endpoints.rotate(endpoint.pk, by=world.ada)
        endpoint.refresh_from_db()
    return Parcel(items=[item], endpoint=endpoint, **more)


class TestTheContract:
    def test_it_has_a_name_and_a_label(self, channel: Channel):
        assert notify.get(channel.name) is channel
        assert channel.label
        assert channel.for_people or not channel.always

    def test_it_hands_over_each_once_or_says_why_not(
        self, world: World, channel: Channel, mailbox: Any
    ):
        parcels = [parcel(world, channel), parcel(world, channel)]
        told = list(channel.send(parcels, within=5))
        assert [one for one, _ in told] == parcels
        assert {type(outcome) for _, outcome in told} == {Outcome}
        assert channel.for_people == all(not outcome.why for _, outcome in told)

    def test_a_server_that_is_not_there_is_an_outcome_and_no_error(
        self, world: World, channel: Channel, settings: Any
    ):
        settings.EMAIL_BACKEND = "approvals.smtp.Backend"
        settings.EMAIL_HOST, settings.EMAIL_PORT, settings.EMAIL_TIMEOUT = "127.0.0.1", 1, 1
        settings.SLACK_API_URL = "http://127.0.0.1:1/"
        [(_, outcome)] = channel.send([parcel(world, channel)], within=5)
        assert bool(outcome.why) != channel.instant

    def test_what_is_not_begun_in_time_is_left_out(
        self, world: World, channel: Channel, mailbox: Any
    ):
        told = list(channel.send([parcel(world, channel)], within=-1))
        assert len(told) == channel.instant

    def test_a_person_without_an_address_is_not_reached(
        self, world: World, channel: Channel, mailbox: Any
    ):
        world.bob.email = ""
        SlackAccount.objects.all().delete()
        assert channel.reaches(world.bob) == (channel.for_people and channel.always)


class Pigeon(Channel):
    """Somebody else's channel, that carries a handle."""

    name = "pigeon"
    label = "Carrier pigeon"
    sent: list[Parcel] = []

    def reaches(self, person: Any) -> bool:
        return bool(person.username == "bob")

    def send(self, parcels: Any, *, within: float) -> Any:
        for one in parcels:
            self.sent.append(one)
            yield one, Outcome(handle=f"ring {len(self.sent)}")


class TestTheRegistry:
    @pytest.fixture
    def pigeon(self, monkeypatch: Any) -> Any:
        points = [
            metadata.EntryPoint("pigeon", f"{__name__}:Pigeon", notify.ENTRY_POINTS),
            metadata.EntryPoint("inbox", f"{__name__}:Pigeon", notify.ENTRY_POINTS),
            metadata.EntryPoint("owl", "no.such.module:Owl", notify.ENTRY_POINTS),
        ]
        monkeypatch.setattr(metadata, "entry_points", lambda **_: points)
        caches = (notify.paths, notify.get, notify.channels)
        for one in caches:
            one.cache_clear()
        Pigeon.sent.clear()
        yield Pigeon
        monkeypatch.undo()
        for one in caches:
            one.cache_clear()

    def test_others_add_theirs_and_one_that_cannot_be_loaded_breaks_itself_alone(self, pigeon: Any):
        assert {one.name for one in notify.channels()} == {*NAMES, "pigeon"}
        assert notify.get("inbox").label == "Inbox on this site", "ours is not replaced"

    def test_its_handle_is_kept_for_the_next_time(self, world: World, pigeon: Any):
        world.submit()
        expanding.expand_due()
        assert sending.send_due("pigeon") == 1
        [row] = Delivery.objects.filter(channel="pigeon")
        assert row.handle == "ring 1"
        resending.resend(row.pk, by=world.ada)
        sending.send_due("pigeon")
        assert [one.handle for one in pigeon.sent] == ["", "ring 1"]

    def test_a_name_that_nobody_has_is_an_error(self):
        with pytest.raises(LookupError):
            notify.get("telegraph")


def test_whoever_is_told_is_told_over_every_channel_that_reaches_them(world: World, mailbox: Any):
    world.submit()
    tell()
    asked = Notice.objects.get(fact="asked")
    rows = Delivery.objects.filter(notice=asked, person=world.bob)
    assert sorted(rows.values_list("channel", flat=True)) == ["email", "inbox"]
