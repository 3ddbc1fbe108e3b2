"""Mallory guesses passwords: how far she comes, and that alice is not kept out by it.

Her tries come from addresses of her own; alice's browser has signed in before.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth import aauthenticate
from django.contrib.auth.hashers import MD5PasswordHasher
from django.db import connections
from django.test import Client

from approvals.lengths import lasting
from audit import context
from audit.models import Event
from debugflow.accounts import throttle
from debugflow.accounts.models import SignInLimit
from debugflow.accounts.throttle import ACCOUNT, ADDRESS, BROWSER, TooManyTries
from tests.conftest import Clock
from tests.world import World

RIGHT, WRONG = "a long password", "hunter2-hunter2"
KNOWN = settings.KNOWN_BROWSER_COOKIE_NAME


def sign_in(password: str = WRONG, who: str = "alice", *, at: str = "", by: Any = None) -> Any:
    client = by or Client()
    client.defaults["REMOTE_ADDR"] = at or "192.0.2.1"
    return client.post("/sign-in/", {"username": who, "password": password})


def use_up(who: str = "alice") -> None:
    """All of the account's slots, each from another address."""
    for number in range(ACCOUNT.slots):
        assert sign_in(who=who, at=f"203.0.113.{number}").status_code == 200


def throttled() -> list[tuple[str, str]]:
    events = Event.objects.filter(action="account.sign_in_throttled").order_by("id")
    return [(event.subject_label, event.data["limit"]) for event in events]


def test_an_account_takes_so_many_wrong_passwords_from_wherever_they_come(world: World):
    use_up()
    refused = sign_in(at="198.51.100.7")
    assert refused.status_code == 429
    assert 0 < int(refused["Retry-After"]) <= ACCOUNT.pause
    page = refused.content.decode()
    assert "Too many wrong passwords were tried." in page
    assert lasting(int(refused["Retry-After"])) in page
    assert 'value="alice"' in page
    assert WRONG not in page


def test_not_even_the_right_password_is_looked_at_then(world: World):
    use_up()
    answer = sign_in(RIGHT)
    assert answer.status_code == 429
    assert settings.SESSION_COOKIE_NAME not in answer.cookies


def test_one_more_try_comes_back_with_time_and_only_one(world: World, clock: Clock):
    use_up()
    clock.forward(ACCOUNT.pause)
    assert [sign_in().status_code for _ in range(2)] == [200, 429]
    clock.forward(ACCOUNT.pause * ACCOUNT.slots * 2)
    use_up()  # no more than all of them, however long nobody tried
    assert sign_in().status_code == 429


@pytest.mark.slow
def test_tries_without_a_slot_cost_none(world: World, clock: Clock):
    use_up()
    for _ in range(20):
        assert sign_in().status_code == 429
    clock.forward(ACCOUNT.pause)
    assert sign_in(RIGHT).status_code == 302


@pytest.mark.slow
def test_right_passwords_do_not_count(world: World):
    for _ in range(ACCOUNT.slots + 2):
        assert sign_in(RIGHT).status_code == 302
    assert throttled() == []


def test_mallory_does_not_keep_alice_out_of_the_browser_she_knows(world: World):
    alice = Client()
    sign_in(RIGHT, by=alice)
    alice.post("/sign-out/")
    use_up()
    assert sign_in(RIGHT).status_code == 429
    assert sign_in(RIGHT, by=alice).status_code == 302


def test_a_known_browser_has_a_limit_of_its_own(world: World):
    alice = Client()
    sign_in(RIGHT, by=alice)
    alice.post("/sign-out/")
    answers = [sign_in(by=alice).status_code for _ in range(BROWSER.slots + 1)]
    assert answers == [200] * BROWSER.slots + [429]
    assert throttled() == [("alice", "browser")]


def test_a_browser_is_known_to_the_account_it_signed_in_to_and_no_other(world: World):
    mallory = Client()
    sign_in(RIGHT, "mallory", by=mallory)
    mallory.post("/sign-out/")
    use_up()
    assert sign_in(RIGHT, by=mallory).status_code == 429


@pytest.mark.parametrize("forged", ["", "x", "x.y:z", "a" * 64 + ".b", "\x00", "é"])
def test_nobody_makes_a_known_browser_up(world: World, forged: str):
    client = Client()
    client.cookies[KNOWN] = forged
    use_up()
    assert sign_in(RIGHT, by=client).status_code == 429


def test_the_cookie_of_a_known_browser_signs_nobody_in(world: World):
    alice = Client()
    sign_in(RIGHT, by=alice)
    cookie = alice.cookies[KNOWN]
    assert (cookie["httponly"], cookie["samesite"]) == (True, "Lax")
    thief = Client()
    thief.cookies[KNOWN] = cookie.value
    assert thief.get("/").status_code == 302


@pytest.mark.slow
def test_an_address_takes_so_many_wrong_passwords_at_whatever_accounts(world: World):
    for number in range(ADDRESS.slots):
        assert sign_in(who=f"guess-{number}").status_code == 200
    refused = sign_in(who="bob")
    assert refused.status_code == 429
    assert int(refused["Retry-After"]) <= ADDRESS.pause
    assert sign_in(RIGHT, "bob", at="192.0.2.2").status_code == 302
    assert throttled() == [("bob", "address")]


@pytest.mark.slow
def test_an_ipv6_customer_has_one_address(world: World):
    for number in range(ADDRESS.slots):
        sign_in(who=f"guess-{number}", at=f"2001:db8:0:1::{number:x}")
    assert sign_in(who="bob", at="2001:db8:0:1:ffff::1").status_code == 429
    assert sign_in(who="bob", at="2001:db8:0:2::1").status_code == 200


@pytest.mark.parametrize("spelling", ["ALICE", " alice ", "ａｌｉｃｅ", "Alice\u3000"])
def test_another_spelling_is_no_fresh_counter(world: World, spelling: str):
    use_up()
    assert sign_in(who=spelling).status_code == 429


@pytest.mark.slow
def test_unknown_and_inactive_accounts_are_limited_in_the_same_words(world: World):
    world.amir.is_active = False
    world.amir.save()
    told = set()
    for who in ("alice", "nobody-by-this-name", "amir"):
        use_up(who)
        page = sign_in(who=who)
        told.add((page.status_code, page["Retry-After"], page.content.count(b"Too many")))
    assert told == {(429, str(ACCOUNT.pause), 1)}


class CountingHasher(MD5PasswordHasher):
    """Counts how often a password is worked on, which is what signing in takes time for."""

    times = 0

    def encode(self, password: str, salt: str) -> str:
        type(self).times += 1
        return super().encode(password, salt)


def test_unknown_and_inactive_accounts_take_as_long(world: World, settings: Any):
    settings.PASSWORD_HASHERS = [f"{__name__}.{CountingHasher.__name__}"]
    world.amir.is_active = False
    world.amir.save()
    counted = []
    for who in ("alice", "nobody-by-this-name", "amir"):
        before = CountingHasher.times
        assert sign_in(who=who).status_code == 200
        counted.append(CountingHasher.times - before)
    assert counted == [1, 1, 1]


def test_a_flood_is_told_once_until_it_may_go_on(world: World, clock: Clock):
    use_up()
    for _ in range(5):
        sign_in()
    assert throttled() == [("alice", "account")]
    clock.forward(ACCOUNT.pause)
    for _ in range(3):
        sign_in()
    assert throttled() == [("alice", "account")] * 2
    failed = Event.objects.filter(action="account.sign_in_failed")
    assert failed.count() == ACCOUNT.slots + 1
    assert WRONG not in "".join(str(event.canonical) for event in Event.objects.all())


def test_programs_are_limited_with_the_same_counters(world: World):
    use_up()
    body = {"username": "alice", "password": RIGHT}
    refused = Client().post("/api/v1/session/", body, content_type="application/json")
    assert refused.status_code == 429
    assert refused["Content-Type"] == "application/problem+json"
    assert refused.json()["code"] == "too_many_tries"
    assert 0 < int(refused["Retry-After"]) <= ACCOUNT.pause


def test_the_admins_own_sign_in_is_no_way_around(world: World):
    form = {"username": "ada", "password": RIGHT}
    answer = Client().post("/admin/login/?next=/admin/auth/", form)
    assert (answer.status_code, answer["Location"]) == (302, "/sign-in/?next=%2Fadmin%2Fauth%2F")
    assert settings.SESSION_COOKIE_NAME not in answer.cookies


def test_nobody_goes_around_it_by_waiting_asynchronously(committed: None):
    for _ in range(ACCOUNT.slots):
        throttle.take("alice")
    with pytest.raises(TooManyTries):
        asyncio.run(aauthenticate(username="alice", password=RIGHT))


def test_an_open_session_does_not_tell_the_password(world: World):
    alice = Client()
    alice.force_login(world.alice)
    guess = {"old_password": WRONG, "new_password1": "x" * 20, "new_password2": "x" * 20}
    answers = [alice.post("/password/", guess).status_code for _ in range(ACCOUNT.slots + 1)]
    assert answers == [200] * ACCOUNT.slots + [429]
    assert alice.post("/password/", guess)["Retry-After"]
    world.alice.refresh_from_db()
    assert world.alice.check_password(RIGHT)


def test_counters_name_nobody_and_go_away(world: World, clock: Clock):
    sign_in()
    keys = "".join(SignInLimit.objects.values_list("key", flat=True))
    assert len(keys) == 2 * 64
    assert "alice" not in keys
    clock.forward(ACCOUNT.pause * ACCOUNT.slots)
    sign_in(RIGHT, "bob", at="192.0.2.9")
    clock.forward(ACCOUNT.pause)
    sign_in(RIGHT, "bob", at="192.0.2.9")
    assert SignInLimit.objects.count() == 2


def test_tries_at_once_get_no_more_slots_than_there_are(committed: None):
    """Each in a connection of its own, as in processes of their own."""

    def one(number: int) -> bool:
        try:
            with context.bind(request_id=f"try-{number:05}", address=f"203.0.113.{number}"):
                throttle.take("alice")
        except TooManyTries:
            return False
        finally:
            connections.close_all()
        return True

    with ThreadPoolExecutor(16) as pool:
        taken = list(pool.map(one, range(40)))
    assert taken.count(True) == ACCOUNT.slots
    assert len(throttled()) == 1
