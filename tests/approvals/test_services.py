"""An account of a service is in nobody's place: programs act as it, and so can its maker."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth import authenticate, get_user_model
from django.core.management import CommandError, call_command

from approvals import grants, tokens, workflow
from approvals.errors import Invalid, NotAllowed
from approvals.models import ApiToken
from approvals.tokens import TokenWish
from tests.approvals.test_abandon import close, failing
from tests.pages import signed_in
from tests.world import World

pytestmark = pytest.mark.django_db
BOT = TokenWish(name="deploys", scopes=["read", "request"], days=30, service="ops-bot")


@pytest.fixture
def bot(world: World) -> Any:
    """ops-bot, of which ada has made a token."""
    return tokens.make(world.ada.pk, by=world.ada, wish=BOT).row.account


def test_a_group_of_services_alone_could_fill_no_stage(world: World, bot):
    world.groups["security"].user_set.set([bot])
    with pytest.raises(Invalid) as refused:
        world.submit()
    assert refused.value.code == "unfillable"


def test_a_service_is_nobodys_candidate(world: World, bot):
    world.groups["dba"].user_set.add(bot)
    request = world.submit()
    stage = request.stages.get(state="open")
    drawn = stage.candidates.values_list("user__username", flat=True)
    assert set(drawn) == {"bob", "dan", "dora"}
    with pytest.raises(NotAllowed):
        workflow.vote(request.pk, by=bot, decision="approve", scope_hash=request.scope_hash)


def test_a_service_is_not_one_of_the_two_who_give_an_access_up(world: World, bot, clock):
    world.groups["owners"].user_set.add(bot)
    grant = failing(world)
    clock.forward(31)
    grant = close(grant)
    with pytest.raises(NotAllowed) as refused:
        grants.abandon(grant.pk, by=bot, reason="Gone.")
    assert refused.value.code == "not_yours"
    grants.abandon(grant.pk, by=world.olga, reason="Gone.")
    grant.refresh_from_db()
    assert grant.abandoned_at is None


def test_a_service_signs_in_with_no_password_whoever_sets_one(world: World, bot):
    answer = signed_in(world.ada).get(f"/admin/accounts/user/{bot.pk}/password/")
    assert answer.status_code == 403
    with pytest.raises(CommandError, match="never a password"):
        call_command("changepassword", "ops-bot")
    bot.set_password("a long password")
    bot.save()
    assert authenticate(username="ops-bot", password="a long password") is None
    assert authenticate(username="alice", password="a long password") == world.alice


def test_a_service_makes_no_token_of_its_own(world: World, bot):
    wish = TokenWish(name="more", scopes=["vote"], days=30)
    with pytest.raises(NotAllowed, match="A superuser makes it"):
        tokens.make(bot.pk, by=bot, wish=wish)
    assert ApiToken.objects.count() == 1


def test_who_is_no_superuser_any_more_makes_no_token_of_a_service(world: World):
    """`stale` was read before somebody took the power away."""
    stale = get_user_model().objects.get(pk=world.ada.pk)
    type(stale).objects.filter(pk=stale.pk).update(is_superuser=False)
    with pytest.raises(NotAllowed) as refused:
        tokens.make(stale.pk, by=stale, wish=BOT)
    assert refused.value.code == "not_admin"
    assert not get_user_model().objects.filter(username="ops-bot").exists()
