"""Mallory guesses tokens: she is held up, and nobody whose token counts is.

That a guess is right is as good as impossible; the limit bounds what guesses cost, and tells.
"""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from approvals import tokens
from approvals.tokens import TokenWish
from audit.models import Event
from debugflow.accounts.models import SignInLimit
from debugflow.accounts.throttle import TOKEN
from tests.conftest import Clock
from tests.world import World

MALLORYS = "192.0.2.66"


def call(clear: str, at: str = MALLORYS) -> Any:
    client = Client(REMOTE_ADDR=at)
    return client.get("/api/v1/requests/", headers={"Authorization": f"Bearer {clear}"})


def guess(number: int = 0, at: str = MALLORYS) -> Any:
    """One that is whole, so that it is looked up, and nobody's."""
    body = f"dbf_{number:043}"
    return call(body + tokens._check(body), at)


def token_of(world: World, who: str) -> str:
    wish = TokenWish(name="nightly", scopes=["read"], days=7)
    return tokens.make(world.people[who].pk, by=world.people[who], wish=wish).clear


def use_up(at: str = MALLORYS) -> None:
    assert {guess(number, at).status_code for number in range(TOKEN.slots)} == {401}


def told() -> list[Event]:
    return list(Event.objects.filter(action="token.tries_throttled"))


@pytest.mark.slow
def test_an_address_takes_so_many_tokens_that_nobody_has(world: World):
    use_up()
    refused = guess()
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_tries")
    assert refused["Content-Type"] == "application/problem+json"
    assert 0 < int(refused["Retry-After"]) <= TOKEN.pause
    assert "nobody has" in refused.json()["detail"]


@pytest.mark.parametrize("shown", ["dbf_", "ghp_123", "dbf_" + "0" * 49])
def test_those_that_are_none_at_first_sight_count_as_well(world: World, shown: str):
    for _ in range(TOKEN.slots):
        assert call(shown).status_code == 401
    assert call(shown).status_code == 429
    assert guess().status_code == 429


@pytest.mark.slow
def test_whoever_has_a_token_is_let_in_from_there_all_the_same(world: World):
    alices = token_of(world, "alice")
    use_up()
    for _ in range(TOKEN.slots + 5):
        assert call(alices).status_code == 200
    assert guess().status_code == 429


def test_a_token_that_counts_uses_nothing_up_nor_does_one_that_is_over(world: World, clock: Clock):
    alices = token_of(world, "alice")
    assert call(alices).status_code == 200
    clock.forward(8 * 86400)
    assert call(alices).json()["code"] == "token_expired"
    assert not SignInLimit.objects.exists()


@pytest.mark.slow
def test_other_addresses_and_passwords_have_limits_of_their_own(world: World):
    use_up()
    assert guess(at="192.0.2.67").status_code == 401
    body = {"username": "alice", "password": "a long password"}
    client = Client(REMOTE_ADDR=MALLORYS)
    assert client.post("/sign-in/", body).status_code == 302


@pytest.mark.slow
def test_an_ipv6_customer_has_one_address(world: World):
    for number in range(TOKEN.slots):
        assert guess(number, f"2001:db8:0:1::{number:x}").status_code == 401
    assert guess(at="2001:db8:0:1:ffff::1").status_code == 429
    assert guess(at="2001:db8:0:2::1").status_code == 401


@pytest.mark.slow
def test_one_more_comes_back_with_time(world: World, clock: Clock):
    use_up()
    clock.forward(TOKEN.pause)
    assert [guess().status_code for _ in range(2)] == [401, 429]


@pytest.mark.slow
def test_a_flood_is_told_once_until_it_may_go_on(world: World, clock: Clock):
    use_up()
    assert told() == []
    for _ in range(5):
        guess()
    (event,) = told()
    assert event.address == MALLORYS
    assert (event.data["limit"], event.subject_label) == ("token", "tokens that nobody has")
    assert "dbf_" not in bytes(event.canonical).decode()
    clock.forward(TOKEN.pause)
    for _ in range(3):
        guess()
    assert len(told()) == 2


def test_a_header_that_is_no_token_is_counted_too(world: World):
    for _ in range(TOKEN.slots):
        answer = Client().get("/api/v1/requests/", headers={"Authorization": "Basic YTpi"})
        assert answer.status_code == 401
    answer = Client().get("/api/v1/requests/", headers={"Authorization": "Basic YTpi"})
    assert answer.status_code == 429
