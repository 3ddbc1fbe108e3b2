"""Longer access on the pages: offered near the end, told to those who decide, and as it comes."""

from __future__ import annotations

import re
from typing import Any

import pytest

from approvals import extending
from approvals.errors import ProvisionError
from approvals.models import AccessRequest, ExtensionApproval
from tests.approvals.test_views import HTMX, opened, vote
from tests.pages import signed_in, text
from tests.world import HOUR, World, publish

WINDOW = 1800
LONGER: dict[str, Any] = {
    "extensions_most": 2,
    "extension_max": 2 * HOUR,
    "max_total": 8 * HOUR,
    "extension_approval": ExtensionApproval.LAST,
    "extension_window": WINDOW,
    "bridge": 600,
}


@pytest.fixture
def sign_in(world: World):
    return lambda name: signed_in(world.people[name])


@pytest.fixture
def grant(world: World) -> Any:
    """alice's, open for an hour."""
    publish(world, **LONGER)
    return opened(world)


def ask(client: Any, grant: Any, **more: str) -> Any:
    typed = {"duration": "3600", "minutes": "", "reason": "The index is still being built.", **more}
    return client.post(f"/grants/{grant.pk}/extend/", typed, follow=True)


@pytest.mark.slow
def test_before_its_time_the_page_says_from_when(world, grant, sign_in, clock):
    alice = sign_in("alice")
    page = alice.get(f"/grants/{grant.pk}/")
    assert "Longer access can be asked for from" in text(page)
    assert "up to 2 h more" in text(page)
    assert "/extend/" not in page.content.decode()
    assert "Longer access" not in text(sign_in("bob").get(f"/grants/{grant.pk}/"))
    assert "Ask for longer" not in text(alice.get("/"))


@pytest.mark.slow
def test_near_its_end_alice_asks_on_the_page(world, grant, sign_in, clock):
    clock.forward(HOUR - WINDOW + 1)
    alice = sign_in("alice")
    page = alice.get(f"/grants/{grant.pk}/")
    assert f'action="/grants/{grant.pk}/extend/"' in page.content.decode()
    assert "extended 0 of 2 times" in text(page)
    assert "it goes on for 10 min, once" in text(page)
    assert f'href="/grants/{grant.pk}/#longer"' in alice.get("/").content.decode()
    assert "/extend/" not in sign_in("bob").get(f"/grants/{grant.pk}/").content.decode()
    asked = ask(alice, grant)
    assert "alice asks for 1 h more of read-only on orders" in text(asked)
    assert "Asked. The end moves by itself" in text(asked)
    assert "longer access is asked for" in text(alice.get("/"))
    request = AccessRequest.objects.get(extends=grant)
    assert f"request {request.pk} is not decided yet" in text(alice.get(f"/grants/{grant.pk}/"))


@pytest.mark.slow
def test_what_she_typed_stays_where_it_will_not_do(world, grant, sign_in, clock):
    clock.forward(HOUR - 60)
    alice = sign_in("alice")
    refused = ask(alice, grant, duration="other", minutes="300", reason="Half-written")
    assert refused.status_code == 422
    assert "Up to 2 h; the limit is that of the policy." in text(refused)
    assert "Half-written" in refused.content.decode()
    assert 'value="300"' in refused.content.decode()
    assert "Say what is broken" in text(ask(alice, grant, reason=""))
    assert ask(alice, grant, duration="nonsense").status_code == 422
    assert not AccessRequest.objects.filter(extends=grant).exists()
    assert ask(alice, grant, duration="other", minutes="45").status_code == 200
    assert AccessRequest.objects.get(extends=grant).duration == 45 * 60


@pytest.mark.slow
def test_those_who_decide_read_what_it_is(world, grant, sign_in, clock):
    clock.forward(HOUR - 60)
    ask(sign_in("alice"), grant)
    request = AccessRequest.objects.get(extends=grant)
    carol = sign_in("carol")
    page = text(carol.get(f"/requests/{request.pk}/"))
    assert f"+1 h on grant {grant.pk}" in page
    begins, ends = f"{request.starts_at:%H:%M}", f"{request.wanted_until:%H:%M}"
    # With its date where the hour is another day's.
    assert re.search(rf"{begins} → (\w+ \d\d \w+, )?{ends}", page.replace("  ", " "))
    assert "Skipped" in page
    assert "Approve 1 h more" in page
    queue = text(carol.get("/queue/"))
    assert "Longer access" in queue
    assert "+1 h" in queue
    assert "Approve 1 h more" in text(carol.get("/"))
    assert vote(carol, request).status_code == 302
    assert carol.get(f"/grants/{grant.pk}/").status_code == 200


@pytest.mark.slow
def test_the_countdown_follows(world, grant, sign_in, clock):
    clock.forward(HOUR - 60)
    alice = sign_in("alice")
    ask(alice, grant)
    world.vote(AccessRequest.objects.get(extends=grant), "carol")
    page = alice.get(f"/grants/{grant.pk}/")
    assert "Going on until" in text(page)
    seen = page.context["seen"]
    extending.extend_grant(grant.pk, worker="w1")
    grant.refresh_from_db()
    part = alice.get(f"/grants/{grant.pk}/?seen={seen}", headers=HTMX)
    assert part.status_code == 200
    assert grant.expires_at.isoformat() in part.content.decode()
    assert "Going on until" not in text(part)
    assert "extended 1 of 2 times" in text(alice.get(f"/grants/{grant.pk}/"))
    assert "left of 1 h, extended" in text(alice.get("/grants/"))


@pytest.mark.slow
def test_what_fails_is_said(world, grant, sign_in, clock):
    clock.forward(HOUR - 60)
    alice = sign_in("alice")
    ask(alice, grant)
    world.vote(AccessRequest.objects.get(extends=grant), "carol")
    world.server.fail_next("extend", ProvisionError("It does not answer."), times=1)
    extending.extend_grant(grant.pk, worker="w1")
    page = text(alice.get(f"/grants/{grant.pk}/"))
    assert "It does not answer. It is tried again by itself." in page
    world.server.levels["read-only"] = ("may read", "more")
    clock.forward(10)
    extending.extend_grant(grant.pk, worker="w1")
    page = text(alice.get(f"/grants/{grant.pk}/"))
    assert "It could not be extended, and ends as shown." in page


@pytest.mark.slow
def test_a_bridge_is_said(world, grant, sign_in, clock):
    clock.forward(HOUR - 20)
    alice = sign_in("alice")
    ask(alice, grant)
    extending.bridge_due()
    extending.extend_grant(grant.pk, worker="w1")
    page = text(alice.get(f"/grants/{grant.pk}/"))
    assert "Bridged: it goes on this long, once" in page
    assert "bridged" in text(alice.get("/grants/"))


@pytest.mark.slow
def test_where_nobody_is_asked_the_end_moves_at_once(world, sign_in, clock):
    publish(world, **{**LONGER, "extension_approval": ExtensionApproval.NONE})
    grant = opened(world)
    clock.forward(HOUR - 60)
    assert "asks nobody for this" in text(ask(sign_in("alice"), grant))
    extending.extend_grant(grant.pk, worker="w1")
    grant.refresh_from_db()
    assert grant.extended_count == 1
