"""What approvers learn of somebody's past with a target, and askers of how long deciding takes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from guardian.shortcuts import assign_perm

from approvals import administration, closing, grants, history, opening
from approvals.models import Policy, Target
from approvals.states import GrantState
from audit import clock as database_clock
from tests.pages import signed_in, text
from tests.world import World, save_level

pytestmark = pytest.mark.django_db


def had(world: World, who: str = "alice", *, revoked: bool = False) -> Any:
    """An access that opened and is over."""
    grant = world.approved(who)
    opening.open_grant(grant.pk, worker="w1")
    if revoked:
        grants.revoke(grant.pk, by=world.olga, reason="Not now.")
    else:
        grants.release(grant.pk, by=world.people[who])
    closing.close_grant(grant.pk, worker="w1")
    grant.refresh_from_db()
    assert grant.state == GrantState.ENDED
    return grant


def test_the_first_time_is_called_that(world):
    asked = world.submit()
    assert history.before(asked) == history.Past(0, None, 0, 0)
    page = signed_in(world.bob).get(f"/requests/{asked.pk}/")
    assert "never had access to this target" in text(page)


@pytest.mark.slow
def test_bob_reads_how_often_alice_was_let_in_and_what_became_of_it(world):
    had(world)
    newest = had(world, revoked=True)
    had(world, "amir")
    asked = world.submit(level=world.write)
    assert history.before(asked) == history.Past(2, newest.activated_at, 1, 0)
    page = signed_in(world.bob).get(f"/requests/{asked.pk}/")
    assert "had access to this target 2 times, last" in text(page)
    assert "1 of them taken away early" in text(page)


@pytest.mark.slow
def test_another_target_is_left_out(world):
    had(world)
    stock = Target(name="stock", kind="memory", environment="production", config={"name": "orders"})
    administration.save_target(stock, by=world.ada, clear_secrets={"password": "admin"})
    elsewhere = save_level(world, name="read-only", target=stock, rank=1)
    assign_perm("approvals.request_accesslevel", world.groups["developers"], elsewhere)
    assert history.before(world.submit(level=elsewhere)).opened == 0
    assert history.before(world.submit()).opened == 1


def test_what_never_opened_is_left_out(world):
    never = world.approved()
    grants.release(never.pk, by=world.alice)
    assert history.before(world.submit()).opened == 0


def test_the_request_itself_is_no_history_of_its_own(world):
    grant = had(world)
    assert history.before(grant.request).opened == 0


def decided(world: World, clock: Any, *minutes: int) -> None:
    for length in minutes:
        asked = world.submit()
        clock.forward(60 * length)
        world.vote(asked, "bob")
        world.vote(asked, "carol")
        grants.release(asked.grant.pk, by=world.alice)


@pytest.mark.slow
def test_a_few_decisions_make_it_usual_and_fewer_do_not(world, clock):
    page = signed_in(world.amir)
    decided(world, clock, 6, 40)
    assert history.usual_wait(world.policy) is None
    assert "Usually takes" not in text(page.get(f"/ask/{world.read.pk}/"))
    decided(world, clock, 2)
    assert history.usual_wait(world.policy) == pytest.approx(
        timedelta(minutes=6), abs=timedelta(seconds=5)
    )
    assert "Usually takes 6 min to be approved." in text(page.get(f"/ask/{world.read.pk}/"))


def test_what_was_denied_or_decided_under_another_policy_says_nothing(world, clock):
    decided(world, clock, 6, 6)
    asked = world.submit()
    world.vote(asked, "bob", "deny")
    other = Policy.objects.create(name="Nights", rank=99)
    assert history.usual_wait(world.policy) is None
    assert history.usual_wait(other) is None


@pytest.mark.slow
def test_bob_approves_at_home(world):
    asked = world.submit()
    bob = signed_in(world.bob)
    page = bob.get("/")
    assert "Approve 1 h" in text(page)
    sent = {
        "decision": "approve",
        "scope_hash": asked.scope_hash,
        "replaces": "0",
        "home": "1",
    }
    assert f'value="{asked.scope_hash}"' in page.content.decode()
    answer = bob.post(f"/requests/{asked.pk}/vote/", sent, follow=True)
    assert answer.redirect_chain == [("/", 302)]
    assert "Your vote on alice: read-only on orders counts." in text(answer)
    assert "No one waits for you" in text(answer)


@pytest.mark.slow
def test_home_offers_to_approve_only_what_it_shows_all_of(world):
    start = database_clock.now() + timedelta(days=20)
    hidden = "Look at one slow query." + "\u00a0" * 190 + "And then I export the customers."
    world.submit(reason=hidden, ticket="OPS-7", starts_at=start)
    world.submit("amir", ticket="OPS-8", starts_at=start)
    told = text(signed_in(world.bob).get("/"))
    assert told.count("Approve 1 h") == told.count("Read all of it") == 1
    assert "may read · OPS-8 · starts" in told
    queue = text(signed_in(world.bob).get("/queue/"))
    assert "OPS-7 · starts" in queue
    assert "OPS-8 · starts" in queue
