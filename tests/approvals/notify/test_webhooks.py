"""Webhooks: who sets them up, what they are sent, how it is signed, and what failing does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import standardwebhooks
from django.urls import reverse

from approvals import rotation, secrets
from approvals.errors import Invalid, NotAllowed
from approvals.models import Delivery, WebhookEndpoint
from approvals.notify import endpoints, expanding, resending, sending
from approvals.notify.endpoints import Wish
from approvals.states import DeliveryStanding
from audit import clock as database_clock
from audit.models import Event
from tests.approvals.notify.receiver import Receiver, receiver
from tests.pages import signed_in, text
from tests.world import World

pytestmark = pytest.mark.django_db
DAY = 86400


@pytest.fixture
def server(settings: Any) -> Iterator[Receiver]:
    settings.WEBHOOK_NETWORKS = ["127.0.0.0/8"]
    settings.SITE_URL = "https://debugflow.example.com"
    with receiver() as running:
        yield running


def endpoint(
    world: World, url: str, *facts: str, name: str = "chat"
) -> tuple[WebhookEndpoint, str]:
    wish = Wish(name=name, url=url, facts=facts or ("asked",))
    row = endpoints.save(0, by=world.ada, wish=wish)
    return row, endpoints.rotate(row.pk, by=world.ada)


def tell() -> int:
    expanding.expand_due()
    return sending.send_due("webhook")


def verified(secret: str, got: tuple[str, dict[str, str], str]) -> Any:
    """What a receiver makes of it, by the specification's own library."""
    _, headers, body = got
    return standardwebhooks.Webhook(secret).verify(body, headers)


def rows() -> list[Delivery]:
    return list(Delivery.objects.filter(channel="webhook").order_by("pk"))


def actions() -> list[str]:
    told = Event.objects.filter(subject_type="webhookendpoint").order_by("id")
    return list(told.values_list("action", flat=True))


class TestWhatIsSent:
    @pytest.mark.slow
    def test_ids_and_words_signed_and_no_reason(self, world: World, server: Receiver):
        _, secret = endpoint(world, server.url)
        request = world.submit(reason="The password is hunter2.")
        assert tell() == 1
        [got] = server.got
        told = verified(secret, got)
        assert told["type"] == "asked"
        stage = request.stages.get(name="Database")
        assert told["data"] == {
            "requeststage": stage.pk,
            "request": request.pk,
            "text": "alice asks for read-only on orders for 1 h",
            "next_step": told["data"]["next_step"],
            "url": f"https://debugflow.example.com/requests/{request.pk}/",
        }
        assert "hunter2" not in json.dumps(told)
        assert got[1]["content-type"] == "application/json"
        assert got[1]["webhook-id"].startswith("notice-")

    @pytest.mark.slow
    def test_another_secret_does_not_verify(self, world: World, server: Receiver):
        endpoint(world, server.url)
        world.submit()
        tell()
        with pytest.raises(standardwebhooks.WebhookVerificationError):
            verified("whsec_" + "A" * 43 + "=", server.got[0])

    @pytest.mark.slow
    def test_only_the_facts_it_wants(self, world: World, server: Receiver):
        _, secret = endpoint(world, server.url, "denied", "approved")
        request = world.submit()
        world.vote(request, "bob", "deny")
        tell()
        assert [verified(secret, got)["type"] for got in server.got] == ["denied"]

    @pytest.mark.slow
    def test_without_a_secret_nothing_is_owed(self, world: World, server: Receiver):
        endpoints.save(0, by=world.ada, wish=Wish(name="x", url=server.url, facts=["asked"]))
        world.submit()
        tell()
        assert rows() == []

    @pytest.mark.slow
    def test_both_secrets_sign_for_a_day(self, world: World, server: Receiver, clock: Any):
        row, old = endpoint(world, server.url)
        new = endpoints.rotate(row.pk, by=world.ada)
        world.submit()
        tell()
        row.refresh_from_db()
        assert verified(old, server.got[0]) == verified(new, server.got[0])
        now = database_clock.now()
        clock.forward(DAY + 1)
        assert len(endpoints.keys(row, now)) == 2
        assert endpoints.keys(row, database_clock.now()) == [new]


class TestFailing:
    @pytest.mark.slow
    def test_what_it_does_not_take_is_tried_again_under_the_same_id(
        self, world: World, server: Receiver, clock: Any
    ):
        endpoint(world, server.url)
        server.status = 503
        world.submit()
        assert tell() == 0
        assert [row.last_error for row in rows()] == ["It answered 503."]
        server.status = 200
        clock.forward(60)
        assert tell() == 1
        assert len({got[1]["webhook-id"] for got in server.got}) == 1

    @pytest.mark.slow
    def test_one_that_is_down_is_asked_by_one_message_at_a_time(
        self, world: World, server: Receiver
    ):
        endpoint(world, server.url, "asked", "approved", "not_needed")
        server.status = 500
        world.approved()
        assert len(rows()) == 0
        tell()
        assert len(rows()) > 2
        assert len(server.got) == 1
        assert {row.standing for row in rows()} == {DeliveryStanding.RETRYING}

    @pytest.mark.slow
    def test_one_that_is_down_holds_up_no_other(self, world: World, server: Receiver):
        endpoint(world, "http://127.0.0.1:1/", name="dead")
        endpoint(world, server.url)
        world.submit()
        assert tell() == 1

    @pytest.mark.slow
    def test_410_switches_it_off(self, world: World, server: Receiver):
        row, _ = endpoint(world, server.url)
        server.status = 410
        world.submit()
        tell()
        row.refresh_from_db()
        assert not row.enabled
        assert actions()[-1] == "webhookendpoint.disabled"
        world.submit("amir")
        tell()
        assert len(server.got) == 1

    @pytest.mark.slow
    def test_one_that_was_switched_off_meanwhile_is_sent_nothing(
        self, world: World, server: Receiver
    ):
        row, _ = endpoint(world, server.url)
        world.submit()
        expanding.expand_due()
        WebhookEndpoint.objects.filter(pk=row.pk).update(enabled=False)
        assert sending.send_due("webhook") == 0
        assert [one.standing for one in rows()] == [DeliveryStanding.WITHDRAWN]

    @pytest.mark.slow
    def test_what_was_given_up_can_be_sent_again(self, world: World, server: Receiver, clock: Any):
        endpoint(world, server.url)
        server.status = 500
        world.submit()
        tell()
        clock.forward(2 * DAY)
        tell()
        [row] = rows()
        assert row.standing == DeliveryStanding.DEAD
        server.status = 200
        resending.resend(row.pk, by=world.ada)
        assert tell() == 1

    @pytest.mark.slow
    def test_an_address_inside_is_sent_nothing(self, world: World, server: Receiver, settings: Any):
        """Allowed when it was set up, and not any more."""
        endpoint(world, server.url)
        settings.WEBHOOK_NETWORKS = []
        world.submit()
        assert tell() == 0
        assert server.got == []
        assert "is not a public address" in rows()[0].last_error


class TestSettingUp:
    @pytest.mark.parametrize(
        ("changes", "field"),
        [
            ({"url": "https://169.254.169.254/"}, "url"),
            ({"url": "https://user@example.com/"}, "url"),
            ({"url": "file:///etc/passwd"}, "url"),
            ({"facts": []}, "facts"),
            ({"facts": ["nonsense"]}, "facts"),
            ({"name": " "}, "name"),
            ({"name": "chat"}, "name"),
        ],
    )
    def test_what_cannot_work_is_refused_with_the_reason(
        self, world: World, changes: dict[str, Any], field: str
    ):
        usual: dict[str, Any] = {"name": "x", "url": "https://example.com/", "facts": ["asked"]}
        endpoints.save(0, by=world.ada, wish=Wish(**{**usual, "name": "chat"}))
        with pytest.raises(Invalid) as told:
            endpoints.save(0, by=world.ada, wish=Wish(**{**usual, **changes}))
        assert list(told.value.fields) == [field]
        assert actions()[-1] == "webhookendpoint.refused"

    @pytest.mark.slow
    def test_only_whoever_administers_it(self, world: World, server: Receiver):
        row, _ = endpoint(world, server.url)
        wish = Wish(name="mine", url="https://example.com/", facts=["asked"])
        for attempt in (
            lambda: endpoints.save(0, by=world.olga, wish=wish),
            lambda: endpoints.save(row.pk, by=world.olga, wish=wish),
            lambda: endpoints.rotate(row.pk, by=world.olga),
            lambda: endpoints.delete(row.pk, by=world.olga),
        ):
            with pytest.raises(NotAllowed):
                attempt()
        row.refresh_from_db()
        assert row.name == "chat"
        assert actions()[2:] == ["webhookendpoint.refused"] * 4

    @pytest.mark.slow
    def test_another_address_gets_neither_the_secret_nor_what_waits(
        self, world: World, server: Receiver
    ):
        row, _ = endpoint(world, "http://127.0.0.1:1/")
        world.submit()
        tell()
        wish = Wish(name="chat", url=server.url, facts=["asked"])
        assert endpoints.save(row.pk, by=world.ada, wish=wish).secrets == {}
        assert [one.standing for one in rows()] == [DeliveryStanding.WITHDRAWN]

    @pytest.mark.slow
    def test_the_secret_is_sealed_for_its_place_and_rotates_with_the_keys(
        self, world: World, server: Receiver
    ):
        row, clear = endpoint(world, server.url)
        row.refresh_from_db()
        assert clear not in json.dumps(row.secrets)
        place = {"table": "webhookendpoint", "key": str(row.pk), "field": "secret"}
        assert secrets.unseal(row.secrets["secret"], **place) == clear
        done = [one for one in rotation.rotate_all() if one.table == "webhookendpoint"]
        assert [one.unreadable for one in done] == [()]

    @pytest.mark.slow
    def test_the_log_has_no_secret(self, world: World, server: Receiver):
        row, clear = endpoint(world, server.url)
        endpoints.delete(row.pk, by=world.ada)
        assert actions() == [
            "webhookendpoint.created",
            "webhookendpoint.secret_rotated",
            "webhookendpoint.deleted",
        ]
        for event in Event.objects.filter(subject_type="webhookendpoint"):
            assert clear not in json.dumps(event.data)


class TestTheDesk:
    @pytest.mark.slow
    def test_one_is_made_its_secret_shown_once_and_deleted(self, world: World):
        ada = signed_in(world.ada)
        sent = {"name": "chat", "url": "https://example.com/h", "facts": ["asked"], "enabled": "on"}
        page = ada.post(reverse("admin:approvals_webhookendpoint_add"), sent, follow=True)
        assert "It has no secret yet" in text(page)
        row = WebhookEndpoint.objects.get(name="chat")
        secret = ada.post(reverse("admin:approvals_webhookendpoint_secret", args=[row.pk]))
        assert "whsec_" in text(secret)
        assert "no-store" in secret["Cache-Control"]
        change = reverse("admin:approvals_webhookendpoint_change", args=[row.pk])
        assert "whsec_" not in text(ada.get(change))
        assert "secrets" not in ada.get(change).content.decode()
        delete = reverse("admin:approvals_webhookendpoint_delete", args=[row.pk])
        ada.post(delete, {"post": "yes"})
        assert not WebhookEndpoint.objects.exists()

    def test_what_the_verb_refuses_is_said_at_its_field(self, world: World):
        sent = {"name": "chat", "url": "https://10.0.0.1/", "facts": ["asked"], "enabled": "on"}
        page = signed_in(world.ada).post(reverse("admin:approvals_webhookendpoint_add"), sent)
        assert "10.0.0.1 is not a public address" in text(page)
        assert not WebhookEndpoint.objects.exists()

    @pytest.mark.slow
    def test_a_message_is_sent_again_from_its_page(self, world: World, server: Receiver):
        endpoint(world, server.url)
        world.submit()
        tell()
        [row] = rows()
        ada = signed_in(world.ada)
        page = ada.get(reverse("admin:approvals_delivery_change", args=[row.pk]))
        assert "Send again" in text(page)
        ada.post(reverse("admin:approvals_delivery_resend", args=[row.pk]))
        assert tell() == 1
        assert len(server.got) == 2
