"""Setting Slack up, and saying which Slack account is whose: proved, and never shown again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.urls import reverse

from approvals import proposals, rotation, secrets
from approvals.errors import Invalid, NotAllowed, Proposed, WrongState
from approvals.models import Delivery, Proposal, SlackAccount, SlackProof, SlackWorkspace
from approvals.notify.slack import accounts, workspace
from approvals.notify.slack.workspace import Wish
from approvals.states import DeliveryStanding
from audit.models import Event
from tests.approvals.notify.slack_server import SECRET, TEAM, TOKEN, Standin
from tests.approvals.notify.slacking import code, connect, member, set_up, slack_for, tell
from tests.approvals.test_second_look import two as two
from tests.conftest import Clock
from tests.pages import signed_in, text
from tests.world import World

pytestmark = pytest.mark.django_db
BOB, MALLORY = member("bob"), member("mallory")
OTHER = "0123456789abcdef" * 2  # the secret of another app


@pytest.fixture
def slack(world: World, settings: Any, monkeypatch: Any) -> Iterator[Standin]:
    with slack_for(settings, monkeypatch) as standin:
        set_up(world)
        yield standin


def send(world: World, who: str, to: str, *, by: str = "") -> None:
    person = world.people[by or who]
    accounts.send_code(world.people[who].pk, by=person, member_id=to)


def prove(world: World, who: str, typed: str, *, by: str = "") -> SlackAccount:
    return accounts.prove(world.people[who].pk, by=world.people[by or who], code=typed)


def fields_of(told: Any) -> str:
    return " ".join(line for lines in told.value.fields.values() for line in lines)


class TestWhoIsWho:
    def test_the_code_proves_it_and_is_kept_as_a_hash_only(self, world: World, slack: Standin):
        slack.members.add(BOB)
        send(world, "bob", BOB)
        typed = code(slack, "bob")
        assert "connects this Slack account to bob" in slack.to(BOB)[0]["text"]
        account = prove(world, "bob", f" {typed} ")
        assert (account.person, account.team_id, account.member_id) == (world.bob, TEAM, BOB)
        kept = json.dumps(list(Event.objects.values_list("data", flat=True)))
        assert typed not in kept
        assert typed.replace(" ", "") not in kept
        assert typed.replace(" ", "") not in SlackProof.objects.get().digest
        with pytest.raises(WrongState, match="No code is waiting"):
            prove(world, "bob", typed)

    def test_five_wrong_codes_are_the_end_of_it(self, world: World, slack: Standin):
        slack.members.add(BOB)
        send(world, "bob", BOB)
        for left in (4, 3, 2, 1, 0):
            with pytest.raises(Invalid) as told:
                prove(world, "bob", "0000 0000x")
            assert f"{left} times more" in fields_of(told)
        with pytest.raises(Invalid) as told:
            prove(world, "bob", code(slack, "bob"))
        assert "This code is over" in fields_of(told)
        assert not SlackAccount.objects.exists()

    def test_a_code_ends_after_ten_minutes(self, world: World, slack: Standin, clock: Clock):
        slack.members.add(BOB)
        send(world, "bob", BOB)
        clock.forward(601)
        with pytest.raises(Invalid) as told:
            prove(world, "bob", code(slack, "bob"))
        assert "This code is over" in fields_of(told)

    def test_nobody_is_sent_more_than_five_an_hour(
        self, world: World, slack: Standin, clock: Clock
    ):
        slack.members.add(BOB)
        for _ in range(5):
            send(world, "mallory", BOB)
        with pytest.raises(Invalid) as told:
            send(world, "mallory", BOB)
        assert "Too many codes" in fields_of(told)
        assert len(slack.to(BOB)) == 5
        clock.forward(3601)
        send(world, "mallory", BOB)

    def test_the_code_of_another_account_or_person_is_of_no_use(self, world: World, slack: Standin):
        """mallory says that bob's Slack is hers: what she would need is in bob's messages."""
        slack.members |= {BOB, MALLORY}
        send(world, "mallory", MALLORY)
        own = code(slack, "mallory")
        send(world, "mallory", BOB)
        with pytest.raises(Invalid):
            prove(world, "mallory", own)
        send(world, "bob", BOB)
        with pytest.raises(NotAllowed):
            prove(world, "bob", code(slack, "bob"), by="mallory")
        prove(world, "bob", code(slack, "bob"))

    def test_one_slack_account_is_one_persons_and_the_other_way_round(
        self, world: World, slack: Standin
    ):
        connect(world, slack, "bob")
        with pytest.raises(Invalid) as told:
            send(world, "mallory", BOB)
        assert "Somebody else has connected" in fields_of(told)
        slack.members.add(MALLORY)
        with pytest.raises(WrongState, match="Disconnect it first"):
            send(world, "bob", MALLORY)
        # Both had a code before either typed it in.
        SlackAccount.objects.all().delete()
        send(world, "bob", BOB)
        first = code(slack, "bob")
        send(world, "mallory", BOB)
        prove(world, "mallory", code(slack, "bob"))
        with pytest.raises(Invalid) as told:
            prove(world, "bob", first)
        assert "Somebody else has connected" in fields_of(told)

    def test_what_is_no_member_is_not_written_to(self, world: World, slack: Standin):
        for typed in ("bob", "U1", "B0BOBXXXX", "U0BOB XXX", "U" + "0" * 30, "é" * 9, ""):
            with pytest.raises(Invalid):
                send(world, "bob", typed)
        assert slack.messages == {}

    def test_a_member_that_slack_does_not_know_is_said_so(self, world: World, slack: Standin):
        with pytest.raises(Invalid) as told:
            send(world, "bob", BOB)
        assert "knows nobody of this member ID" in fields_of(told)

    def test_only_oneself_and_those_who_look_after_it_disconnect(
        self, world: World, slack: Standin
    ):
        connect(world, slack, "bob")
        with pytest.raises(NotAllowed):
            accounts.end(world.bob.pk, by=world.mallory)
        accounts.end(world.bob.pk, by=world.ada)
        told = Event.objects.filter(action__startswith="slackaccount.").order_by("id")
        assert list(told.values_list("action", flat=True)) == [
            "slackaccount.asked",
            "slackaccount.connected",
            "slackaccount.refused",
            "slackaccount.ended",
        ]


class TestTheWorkspace:
    def test_secrets_are_sealed_for_their_place_and_rotate_with_the_keys(
        self, world: World, slack: Standin
    ):
        row = SlackWorkspace.objects.get()
        assert TOKEN not in json.dumps(row.secrets)
        assert SECRET not in json.dumps(row.secrets)
        for name, clear in (("bot_token", TOKEN), ("signing_secret", SECRET)):
            place = {"table": "slackworkspace", "key": "1", "field": name}
            assert secrets.unseal(row.secrets[name], **place) == clear
        [done] = [one for one in rotation.rotate_all() if one.table == "slackworkspace"]
        assert (done.current, done.unreadable) == (2, ())
        kept = json.dumps(list(Event.objects.values_list("data", flat=True)))
        assert TOKEN not in kept
        assert SECRET not in kept

    def test_what_cannot_work_is_refused_and_replaces_nothing(self, world: World, slack: Standin):
        SlackWorkspace.objects.all().delete()
        for field, typed in (
            ("bot_token", "xoxp-1111111111-abcdefg"),
            ("bot_token", "xoxb-2222222222-unknown"),
            ("bot_token", ""),
            ("signing_secret", "short"),
            ("signing_secret", ""),
        ):
            with pytest.raises(Invalid) as told:
                set_up(world, **{field: typed})
            assert list(told.value.fields) == [field]
        assert not SlackWorkspace.objects.exists()

    def test_only_whoever_administers_it(self, world: World, slack: Standin):
        asked = Wish(bot_token=TOKEN, signing_secret=SECRET)
        before = slack.calls.copy()
        assert workspace.identify(asked, by=world.olga) is None
        assert slack.calls == before, "nor is Slack asked for them"
        with pytest.raises(NotAllowed):
            workspace.save(1, by=world.olga, wish=asked, identity=None)
        with pytest.raises(NotAllowed):
            workspace.delete(1, by=world.olga)
        assert Event.objects.filter(action="slackworkspace.refused").count() == 2

    def test_what_waits_goes_with_it(self, world: World, slack: Standin):
        connect(world, slack, "bob")
        slack.dead = "token_revoked"
        world.submit()
        tell()
        workspace.delete(1, by=world.ada)
        [row] = Delivery.objects.filter(channel="slack")
        assert row.standing == DeliveryStanding.WITHDRAWN
        assert SlackAccount.objects.exists(), "who is who is still known if it comes back"


class TestItTakesTwo:
    """Whoever knows the secret, and reads what the app wrote, presses everybody's buttons."""

    def test_a_new_secret_waits_for_somebody_else_and_is_not_kept(
        self, slack: Standin, two: World, clock: Clock
    ):
        before = SlackWorkspace.objects.get().secrets
        found = proposed(lambda: set_up(two, bot_token="", signing_secret=OTHER))
        assert SlackWorkspace.objects.get().secrets == before
        assert OTHER not in json.dumps([found.arguments, found.effects, found.differences])
        assert "decide as everybody whose Slack account is connected" in found.effects[0]
        assert proposed(lambda: set_up(two, signing_secret="")) == found, "nor a token"
        proposals.agree(found.pk, by=two.adam, digest=found.digest)
        assert SlackWorkspace.objects.get().secrets == before, "it is leave to do it"
        assert not workspace.takes_two(two.ada)
        assert workspace.takes_two(two.adam), "and ada's only"
        set_up(two, bot_token="", signing_secret=OTHER)
        row = SlackWorkspace.objects.get()
        assert workspace.unsealed(row, "signing_secret") == OTHER
        found = proposed(lambda: set_up(two))
        proposals.agree(found.pk, by=two.adam, digest=found.digest)
        clock.forward(proposals.LEAVE.total_seconds() + 1)
        assert proposed(lambda: set_up(two)) != found

    def test_off_at_once_and_on_by_two(self, slack: Standin, two: World):
        nothing = {"bot_token": "", "signing_secret": ""}
        set_up(two, **nothing)  # changes nothing that matters
        off = Wish(enabled=False)
        workspace.save(1, by=two.ada, wish=off, identity=None)
        assert not SlackWorkspace.objects.get().enabled
        found = proposed(lambda: set_up(two, **nothing))
        workspace.delete(1, by=two.ada)
        with pytest.raises(WrongState):
            proposals.agree(found.pk, by=two.adam, digest=found.digest)
        found = proposed(lambda: set_up(two))
        proposals.agree(found.pk, by=two.adam, digest=found.digest)
        assert set_up(two).enabled

    def test_until_there_is_a_second_superuser_one_does_it(
        self, world: World, slack: Standin, settings: Any
    ):
        settings.FOUR_EYES = True
        set_up(world, signing_secret=OTHER)
        [event] = Event.objects.filter(action="four_eyes.passed_over")
        assert event.data["effects"] == [workspace.WORTH]

    @pytest.mark.slow
    def test_the_pages_say_so(self, slack: Standin, two: World):
        ada, change = signed_in(two.ada), reverse("admin:approvals_slackworkspace_change", args=[1])
        asks = "Somebody else has to agree to a new token or secret"
        assert asks in text(ada.get(change))
        typed = {"enabled": "on", "bot_token": "", "signing_secret": OTHER}
        page = ada.post(change, typed, follow=True)
        assert "Proposed, and not done yet" in text(page)
        assert "What you typed is not kept. Once somebody else has agreed you have an" in text(page)
        assert OTHER not in page.content.decode()
        found = Proposal.objects.get()
        proposals.agree(found.pk, by=two.adam, digest=found.digest)
        at = reverse("admin:approvals_proposal_change", args=[found.pk])
        assert change in ada.get(at).content.decode()
        assert asks not in text(ada.get(change))
        ada.post(change, typed)
        row = SlackWorkspace.objects.get()
        assert workspace.unsealed(row, "signing_secret") == OTHER


def proposed(act: Callable[[], Any]) -> Proposal:
    with pytest.raises(Proposed) as raised:
        act()
    return Proposal.objects.get(pk=raised.value.proposal_id)


class TestPages:
    @pytest.mark.slow
    def test_it_is_set_up_tested_and_its_secrets_are_never_shown(
        self, world: World, settings: Any, monkeypatch: Any
    ):
        with slack_for(settings, monkeypatch) as slack:
            ada, add = signed_in(world.ada), reverse("admin:approvals_slackworkspace_add")
            page = ada.get(add)
            assert "https://debugflow.example.com/integrations/slack/" in text(page)
            wrong = {"bot_token": "xoxb-1234567890", "signing_secret": SECRET, "enabled": "on"}
            page = ada.post(add, wrong)
            assert "It does not work. Slack says invalid_auth." in text(page)
            assert "xoxb-1234567890" not in page.content.decode()
            ada.post(add, {**wrong, "bot_token": TOKEN})
            change = reverse("admin:approvals_slackworkspace_change", args=[1])
            test = reverse("admin:approvals_slackworkspace_test", args=[1])
            page = ada.post(test, follow=True)
            assert "The token works, in Acme." in text(page)
            assert "connect your own Slack account" in text(page)
            connect(world, slack, "ada")
            page = ada.post(test, follow=True)
            assert "A message went to you." in text(page)
            assert "this one does" in slack.to(member("ada"))[0]["text"]
            ada.post(change, {"enabled": "on", "bot_token": "", "signing_secret": ""})
            assert SlackWorkspace.objects.get().secrets.keys() == {"bot_token", "signing_secret"}
            for shown in (page, ada.get(change)):
                assert TOKEN not in shown.content.decode()
                assert SECRET not in shown.content.decode()
            slack.dead = "token_revoked"
            assert "The token does not work." in text(ada.post(test, follow=True))
            assert "Slack takes nothing from debugflow." in text(ada.get(change))
            assert ada.get(add).status_code == 403, "there is one"

    @pytest.mark.slow
    def test_an_account_is_connected_and_disconnected_in_the_settings(
        self, world: World, slack: Standin
    ):
        slack.members.add(BOB)
        bob, page = signed_in(world.bob), reverse("settings")
        assert "Slack reaches you once" in text(bob.get(page))
        answer = bob.post(reverse("settings-slack"), {"member_id": "nonsense"})
        assert answer.status_code == 422
        assert "Copy member ID" in text(answer)
        bob.post(reverse("settings-slack"), {"member_id": BOB.lower()})
        assert "The code that debugflow sent you there" in text(bob.get(page))
        answer = bob.post(reverse("settings-slack-code"), {"code": "1"})
        assert "This is not the code. You can try 4 times more." in text(answer)
        bob.post(reverse("settings-slack-code"), {"code": code(slack, "bob")})
        assert "You are told in Slack as U0BOBXXXX of Acme" in text(bob.get(page))
        bob.post(reverse("settings-slack-end"))
        assert not SlackAccount.objects.exists()

    def test_an_administrator_disconnects_it_from_the_list(self, world: World, slack: Standin):
        connect(world, slack, "bob")
        ada, row = signed_in(world.ada), SlackAccount.objects.get()
        listing = ada.get(reverse("admin:approvals_slackaccount_changelist"))
        assert BOB in text(listing)
        ada.post(reverse("admin:approvals_slackaccount_delete", args=[row.pk]), {"post": "yes"})
        assert not SlackAccount.objects.exists()
        assert Event.objects.filter(action="slackaccount.ended", actor_name="ada").exists()

    def test_where_it_is_not_set_up_the_settings_say_so(self, world: World):
        page = signed_in(world.bob).get(reverse("settings"))
        assert "Slack is not set up here." in text(page)
        answer = signed_in(world.bob).post(reverse("settings-slack"), {"member_id": BOB})
        assert answer.status_code == 409
