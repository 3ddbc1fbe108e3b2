"""One's own settings: the zone that times are shown in, and tokens for one's programs."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from zoneinfo import available_timezones

import pytest
from django.db import connection, connections, transaction
from django.test import Client

from approvals import tokens
from approvals.errors import Invalid, NotAllowed, WrongState
from approvals.models import ApiToken
from approvals.notify import preferences
from approvals.notify.preferences import Wishes
from approvals.tokens import TokenWish
from audit.models import Event
from debugflow.accounts import changing, zones
from tests.conftest import Clock
from tests.pages import signed_in, text
from tests.world import World

WISH = {"name": "nightly report", "scopes": ["read"], "days": "30", "after": "0"}
TOKEN = re.compile(r"dbf_[0-9A-Za-z]{49}")
DAY = 86400


def events(action: str) -> list[Event]:
    return list(Event.objects.filter(action=action).order_by("id"))


def made(client: Client, **changes: Any) -> str:
    """The text of a new token, as the page shows it."""
    page = client.post("/settings/tokens/", WISH | changes)
    assert page.status_code == 200, text(page)
    (clear,) = set(TOKEN.findall(page.content.decode()))
    return str(clear)


def calls(clear: str) -> Any:
    return Client().get("/api/v1/tokens/this/", headers={"Authorization": f"Bearer {clear}"})


class TestNotifications:
    SENT = {"channels": ["email"], "quiet_from": "22:00", "quiet_until": "07:00"}

    def test_alice_says_how_she_is_told(self, world: World):
        alice = signed_in(world.alice)
        sent = {"quiet_from": "22:00", "quiet_until": "07:00", "digest_at": "9:00", "unasked": "on"}
        answer = alice.post("/settings/notifications/", sent)
        assert (answer.status_code, answer["Location"]) == (302, "/settings/")
        page = alice.get("/settings/").content.decode()
        for field in ("quiet_from", "quiet_until", "digest_at"):
            assert f'name="{field}" value="{sent[field].zfill(5)}"' in page
        assert 'name="unasked" id="id_unasked" checked' in page
        assert 'value="email" id="id_channels_0" checked' not in page
        (event,) = events("account.notifications_changed")
        assert (event.actor_name, event.subject_label) == ("alice", "alice")
        assert event.data["after"]["channels_off"] == ["email", "slack"]

    def test_what_is_the_same_is_no_event(self, world: World):
        alice = signed_in(world.alice)
        for _ in range(2):
            assert alice.post("/settings/notifications/", self.SENT).status_code == 302
        assert len(events("account.notifications_changed")) == 1

    def test_from_nothing_everything_is_on(self, world: World):
        page = signed_in(world.alice).get("/settings/").content.decode()
        assert 'value="email" id="id_channels_0" checked' in page

    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({"quiet_until": ""}, "Give both, from when and until when, or neither."),
            ({"quiet_until": "22:00"}, "This is the whole day."),
            ({"digest_at": "soon"}, "Write a time such as 22:00."),
            ({"channels": ["pigeon"]}, "pigeon is not one of the available choices"),
        ],
    )
    def test_what_makes_no_sense_is_explained_and_kept(
        self, world: World, changes: dict[str, Any], told: str
    ):
        alice = signed_in(world.alice)
        answer = alice.post("/settings/notifications/", {**self.SENT, **changes})
        assert answer.status_code == 422
        assert told in text(answer)
        assert 'name="quiet_from" value="22:00"' in answer.content.decode()
        assert events("account.notifications_changed") == []

    def test_nobody_sets_another_persons(self, world: World):
        with pytest.raises(NotAllowed):
            preferences.save(world.bob.pk, by=world.ada, wishes=Wishes(channels_off=["email"]))
        (event,) = events("notifications.refused")
        assert (event.actor_name, event.data["code"]) == ("ada", "not_yours")

    def test_the_inbox_cannot_be_switched_off(self, world: World):
        with pytest.raises(Invalid):
            preferences.save(world.bob.pk, by=world.bob, wishes=Wishes(channels_off=["inbox"]))


class TestTimeZone:
    def test_alice_sees_times_as_her_clock_shows_them(self, world: World):
        alice = signed_in(world.alice)
        answer = alice.post("/settings/time-zone/", {"time_zone": "Europe/Berlin"})
        assert (answer.status_code, answer["Location"]) == (302, "/settings/")
        page = alice.get("/settings/")
        assert "Times are shown in Europe/Berlin from now on." in text(page)
        assert re.search(r"\d\d:\d\d:\d\d Europe/Berlin", text(page))
        (event,) = events("account.time_zone_changed")
        assert (event.actor_name, event.subject_label) == ("alice", "alice")
        assert event.data == {"before": "UTC", "after": "Europe/Berlin"}

    @pytest.mark.parametrize(
        ("typed", "meant"),
        [
            ("europe/berlin", "Europe/Berlin"),
            (" America/New York ", "America/New_York"),
            ("utc", "UTC"),
            ("Asia/Calcutta", "Asia/Calcutta"),  # what some browsers still say
        ],
    )
    def test_a_name_is_known_however_it_is_written(self, world: World, typed: str, meant: str):
        signed_in(world.alice).post("/settings/time-zone/", {"time_zone": typed})
        world.alice.refresh_from_db()
        assert world.alice.time_zone == meant

    @pytest.mark.parametrize(
        ("typed", "said"),
        [
            ("Berlin", "Did you mean Europe/Berlin"),
            ("Europe/Berlni", "Did you mean Europe/Berlin"),
            ("berlni", "Did you mean Europe/Berlin"),
            ("new yrok", "America/New_York"),
            ("", "Write a region and a city"),
            ("localtime", "no such time zone"),
            ("../../etc/passwd", "no such time zone"),
            ("\x00", "no such time zone"),
            ("x" * 100_000, "no such time zone"),
        ],
    )
    def test_what_is_no_zone_is_refused_with_what_may_be_meant(
        self, world: World, typed: str, said: str
    ):
        page = signed_in(world.alice).post("/settings/time-zone/", {"time_zone": typed})
        assert page.status_code == 422
        assert said in text(page)
        world.alice.refresh_from_db()
        assert world.alice.time_zone == "UTC"
        (event,) = events("time_zone.refused")
        assert (event.actor_name, event.data["code"]) == ("alice", "invalid")

    def test_what_was_typed_is_still_there(self, world: World):
        typed = '"><b>Mars'
        page = signed_in(world.alice).post("/settings/time-zone/", {"time_zone": typed})
        assert 'value="&quot;&gt;&lt;b&gt;Mars"' in page.content.decode()

    def test_the_same_again_is_no_change(self, world: World):
        signed_in(world.alice).post("/settings/time-zone/", {"time_zone": "UTC"})
        assert events("account.time_zone_changed") == []

    def test_nobody_sets_anothers(self, world: World):
        with pytest.raises(NotAllowed) as refused:
            changing.set_time_zone(world.alice.pk, by=world.ada, name="Europe/Berlin")
        assert refused.value.code == "not_yours"
        assert [event.actor_name for event in events("time_zone.refused")] == ["ada"]

    def test_all_that_are_offered_exist(self):
        assert set(zones.offered()) <= available_timezones()
        assert {"UTC", "Europe/Berlin", "America/Argentina/Salta"} <= set(zones.offered())
        assert not {"Etc/GMT+1", "EST5EDT", "Factory"} & set(zones.offered())
        assert [zones.find(name) for name in zones.offered()] == list(zones.offered())


class TestTokens:
    def test_alice_makes_one_and_is_shown_it_once(self, world: World):
        alice = signed_in(world.alice)
        clear = made(alice, scopes=["read", "request"], days="7")
        told = calls(clear).json()
        assert (told["name"], told["scopes"]) == ("nightly report", ["read", "request"])
        token = ApiToken.objects.get()
        assert (token.account, token.made_by) == (world.alice, world.alice)
        assert (token.expires_at - token.made_at).days == 7
        page = alice.get("/settings/")
        for part in ("nightly report", "Works", clear[:8], "last used", "expires in 7 days"):
            assert part in text(page)
        assert "Read what its account may see; ask, comment, cancel" in text(page)
        assert clear not in page.content.decode()

    def test_its_text_is_in_that_answer_and_nowhere_else(self, world: World):
        alice = signed_in(world.alice)
        clear = made(alice)
        for address in ("/settings/", "/", "/audit/"):
            assert clear[8:] not in alice.get(address).content.decode()
        with connection.cursor() as cursor:
            for table in ("approvals_apitoken", "audit_event", "django_session"):
                cursor.execute(f"SELECT t::text FROM {table} t")
                assert [row for (row,) in cursor.fetchall() if clear[8:] in row] == []

    def test_that_answer_is_kept_by_nobody(self, world: World):
        page = signed_in(world.alice).post("/settings/tokens/", WISH)
        assert "no-store" in page["Cache-Control"]
        assert page["Referrer-Policy"] == "same-origin"

    def test_a_look_at_the_address_shows_none(self, world: World):
        assert signed_in(world.alice).get("/settings/tokens/").status_code == 405

    def test_reloading_the_answer_makes_no_second_one(self, world: World):
        alice = signed_in(world.alice)
        made(alice)
        page = alice.post("/settings/tokens/", WISH)
        assert page.status_code == 409
        assert "has just been made" in text(page)
        assert TOKEN.search(page.content.decode()) is None
        assert ApiToken.objects.count() == 1
        assert [e.data["code"] for e in events("token.make_refused")] == ["made_already"]

    def test_another_of_the_same_name_is_made_from_a_new_page(self, world: World):
        alice = signed_in(world.alice)
        first = made(alice)
        form = alice.get("/settings/").context["form"]
        assert made(alice, after=form["after"].value()) != first

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"name": ""}, "Say what it is for"),
            ({"name": "a\u202eb"}, "printable"),
            ({"scopes": []}, "Take at least one."),
            ({"scopes": ["root"]}, "not one of the available choices"),
            ({"days": "366"}, "not one of the available choices"),
            ({"days": ""}, "Say how long"),
            ({"after": "x"}, "This form is damaged."),
        ],
    )
    def test_what_will_not_do_is_told_where_it_was_typed(
        self, world: World, changes: dict[str, Any], said: str
    ):
        page = signed_in(world.alice).post("/settings/tokens/", WISH | changes)
        assert page.status_code == 422
        assert said in text(page)
        assert page.context["form"].data["days"] == (WISH | changes)["days"]
        assert not ApiToken.objects.exists()

    def test_no_longer_than_the_installation_allows(self, world: World, settings: Any):
        settings.API_TOKEN_DAYS = 14
        alice = signed_in(world.alice)
        page = alice.get("/settings/")
        assert [days for days, _ in page.context["form"].fields["days"].choices] == [7, 14]
        assert alice.post("/settings/tokens/", WISH).status_code == 422
        made(alice, days="14")

    @pytest.mark.slow
    def test_not_more_than_so_many(self, world: World):
        alice = signed_in(world.alice)
        for number in range(tokens.LIVE_MOST):
            made(alice, name=f"program {number}")
        page = alice.post("/settings/tokens/", WISH)
        assert page.status_code == 422
        assert "Revoke one that is not used." in text(page)

    def test_alice_revokes_one_and_it_is_dead_at_once(self, world: World):
        alice = signed_in(world.alice)
        clear = made(alice)
        address = f"/settings/tokens/{ApiToken.objects.get().pk}/revoke/"
        assert alice.get(address).status_code == 405
        answer = alice.post(address)
        assert (answer.status_code, answer["Location"]) == (302, "/settings/")
        assert calls(clear).json()["code"] == "token_revoked"
        page = text(alice.get("/settings/"))
        assert "Revoked. The token nightly report does not work any more." in page
        assert "You have no token that works." in page
        assert "1 that is over" in page

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["mallory", "bob"])
    def test_anothers_are_neither_listed_nor_revoked(self, world: World, name: str):
        clear = made(signed_in(world.alice))
        other = signed_in(world.people[name])
        assert "nightly report" not in text(other.get("/settings/"))
        assert (
            other.post(f"/settings/tokens/{ApiToken.objects.get().pk}/revoke/").status_code == 404
        )
        assert other.post("/settings/tokens/999999/revoke/").status_code == 404
        assert calls(clear).status_code == 200

    def test_one_that_expired_is_told_so(self, world: World, clock: Clock):
        made(signed_in(world.alice), days="7")
        clock.forward(8 * DAY)
        page = text(signed_in(world.alice).get("/settings/"))
        assert "1 that is over" in page
        assert "Expired" in page

    def test_a_program_opens_no_settings(self, world: World):
        clear = made(signed_in(world.alice))
        headers = {"Authorization": f"Bearer {clear}"}
        for answer in (
            Client().get("/settings/", headers=headers),
            Client().post("/settings/tokens/", WISH, headers=headers),
        ):
            assert answer["Location"].startswith("/sign-in/")

    def test_ada_makes_and_ends_one_of_a_service(self, world: World):
        ada = signed_in(world.ada)
        made(ada, service="incident-bot")
        token = ApiToken.objects.get()
        assert (token.kind, token.account.get_username()) == ("service", "incident-bot")
        page = text(ada.get("/settings/"))
        assert "Tokens of services" in page
        assert "acts as incident-bot" in page
        assert ada.post(f"/settings/tokens/{token.pk}/revoke/").status_code == 302
        again = ada.post("/settings/tokens/", WISH | {"service": "bob", "name": "another"})
        assert again.status_code == 422
        assert "This is a person's account." in text(again)

    def test_nobody_else_makes_one_of_a_service(self, world: World):
        alice = signed_in(world.alice)
        assert "For a service" not in text(alice.get("/settings/"))
        answer = alice.post("/settings/tokens/", WISH | {"service": "incident-bot"})
        assert answer.status_code == 403
        assert [e.data["code"] for e in events("token.make_refused")] == ["not_admin"]

    def test_an_empty_list_teaches(self, world: World):
        page = text(signed_in(world.alice).get("/settings/"))
        assert "You have no token that works." in page
        assert 'curl -H "Authorization: Bearer $DEBUGFLOW_TOKEN"' in page
        assert "http://testserver/api/v1/tokens/this/" in page

    def test_a_name_is_shown_as_text(self, world: World):
        alice = signed_in(world.alice)
        made(alice, name="<script>alert(1)</script>")
        page = alice.get("/settings/").content.decode()
        assert "<script>alert(1)" not in page
        assert "&lt;script&gt;alert(1)" in page


class TestANewPassword:
    """What it does to tokens."""

    FRESH = "orders-hang-at-noon"

    def change(self, client: Client, **more: str) -> Any:
        form = {"old_password": "a long password", "new_password1": self.FRESH}
        return client.post("/password/", {**form, "new_password2": self.FRESH, **more})

    def test_of_ones_own_leaves_them_unless_one_asks(self, world: World):
        alice = signed_in(world.alice)
        clear = made(alice)
        assert "Revoke my API token as well" in text(alice.get("/password/"))
        assert self.change(alice).status_code == 302
        assert calls(clear).status_code == 200

    @pytest.mark.slow
    def test_and_ends_them_if_one_does(self, world: World):
        alice = signed_in(world.alice)
        dead = [made(alice, name="one"), made(alice, name="two")]
        others = made(signed_in(world.bob))
        assert "Revoke my 2 API tokens as well" in text(alice.get("/password/"))
        assert self.change(alice, revoke_tokens="on").status_code == 302
        assert "So have 2 tokens." in text(alice.get("/"))
        assert {calls(clear).json()["code"] for clear in dead} == {"token_revoked"}
        assert calls(others).status_code == 200
        told = events("token.revoked")
        assert [(e.actor_name, e.data["because"]) for e in told] == [
            ("alice", "account.password_changed")
        ] * 2

    def test_a_refused_one_ends_none_and_keeps_what_was_wished(self, world: World):
        alice = signed_in(world.alice)
        clear = made(alice)
        page = self.change(alice, old_password="wrong", revoke_tokens="on")
        assert page.status_code == 200
        assert 'name="revoke_tokens" checked' in page.content.decode()
        assert calls(clear).status_code == 200

    def test_whoever_has_none_is_not_asked(self, world: World):
        assert "API token" not in text(signed_in(world.alice).get("/password/"))

    @pytest.mark.parametrize("usable", ["true", "false"])
    def test_one_that_an_admin_sets_or_takes_away_ends_them(self, world: World, usable: str):
        clear, adas = made(signed_in(world.alice)), made(signed_in(world.ada))
        form = {"password1": self.FRESH, "password2": self.FRESH, "usable_password": usable}
        form |= {"unset-password": "yes"} if usable == "false" else {}
        page = f"/admin/accounts/user/{world.alice.pk}/password/"
        assert signed_in(world.ada).post(page, form).status_code == 302
        assert calls(clear).json()["code"] == "token_revoked"
        assert calls(adas).status_code == 200
        (event,) = events("account.password_reset")
        assert (event.actor_name, event.subject_label) == ("ada", "alice")
        (event,) = events("token.revoked")
        assert (event.actor_name, event.data["because"]) == ("ada", "account.password_reset")

    def test_one_that_is_refused_to_an_admin_ends_none(self, world: World):
        clear = made(signed_in(world.alice))
        form = {"password1": "short", "password2": "short", "usable_password": "true"}
        page = f"/admin/accounts/user/{world.alice.pk}/password/"
        assert signed_in(world.ada).post(page, form).status_code == 200
        assert calls(clear).status_code == 200
        assert events("account.password_reset") == []

    def test_a_session_that_it_ended_leaves_no_token_behind(self, committed: None, world: World):
        """The call was let in before the new password, and waits for its lock."""
        stale = type(world.alice).objects.get(pk=world.alice.pk)
        wish = TokenWish(name="mine", scopes=["read"], days=7)

        def late() -> str:
            try:
                tokens.make(stale.pk, by=stale, wish=wish)
            except NotAllowed as refusal:
                return refusal.message
            finally:
                connections.close_all()
            return "made"

        with ThreadPoolExecutor(1) as pool:
            with transaction.atomic():
                world.alice.set_password(self.FRESH)
                world.alice.save()
                tokens.revoke_all(world.alice.pk, by=world.ada, because="account.password_reset")
                waiting = pool.submit(late)
                time.sleep(0.3)
                assert not waiting.done()
            assert "Sign in again." in waiting.result()
        assert not ApiToken.objects.exists()
        assert tokens.make(world.alice.pk, by=world.alice, wish=wish).row.account == world.alice

    def test_an_account_switched_off_has_none_that_works_until_it_is_switched_on(
        self, world: World
    ):
        made(signed_in(world.ada), service="incident-bot")
        clear = made(signed_in(world.alice))
        people = type(world.alice).objects
        people.filter(username__in=["alice", "incident-bot"]).update(is_active=False)
        assert calls(clear).json()["code"] == "token_inactive"
        assert "Account switched off" in text(signed_in(world.ada).get("/settings/"))
        people.filter(username="alice").update(is_active=True)
        assert calls(clear).status_code == 200

    def test_nobody_ends_all_of_anothers(self, world: World):
        made(signed_in(world.alice))
        with pytest.raises(NotAllowed) as refused:
            tokens.revoke_all(world.alice.pk, by=world.bob, because="account.password_changed")
        assert refused.value.code == "not_yours"
        assert [e.actor_name for e in events("token.revoke_refused")] == ["bob"]


def test_the_menu_and_a_key_lead_to_the_page(world: World):
    page = signed_in(world.alice).get("/").content.decode()
    assert '<a href="/settings/" data-go="s">' in page
    assert "your settings" in page


def test_the_same_form_sent_twice_makes_one(world: World):
    wish = TokenWish(name="nightly", scopes=["read"], days=7)
    first = tokens.make(world.alice.pk, by=world.alice, wish=wish, after=0)
    with pytest.raises(WrongState):
        tokens.make(world.alice.pk, by=world.alice, wish=wish, after=0)
    tokens.make(world.alice.pk, by=world.alice, wish=wish, after=first.row.pk)
    tokens.make(world.alice.pk, by=world.alice, wish=wish)
    assert ApiToken.objects.count() == 3
