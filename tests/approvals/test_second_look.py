"""Which changes widen access to production, so that they take two, and which never wait."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission
from django.db import transaction

from approvals import administration, delegating, grants, proposals
from approvals.administration import PolicyDraft
from approvals.delegating import Lending
from approvals.errors import Proposed
from approvals.models import AccessLevel, Policy, Proposal, Target
from approvals.policy import AppliesTo
from audit import clock
from debugflow.accounts import powers
from tests.world import HOUR, World, owe_review, publish, save_level, stage

Act = Callable[[World], Any]


def as_admin(world: World, wanted: Any, change: Callable[[], Any]) -> None:
    """What the admin's pages for people and groups do."""
    by = world.ada
    with proposals.proposing(by=by), transaction.atomic(), proposals.watched(wanted, by=by):
        change()


def person(who: str, change: Callable[[World, Any], Any]) -> Act:
    def act(world: World) -> None:
        user = world.people[who]

        def saved() -> None:
            change(world, user)
            user.save()

        as_admin(world, powers.account(user), saved)

    return act


def group(name: str, change: Callable[[World, Group], Any]) -> Act:
    def act(world: World) -> None:
        one = world.groups[name]

        def saved() -> None:
            change(world, one)
            one.save()

        as_admin(world, powers.group(one), saved)

    return act


def level(which: str = "read-write", **changes: Any) -> Act:
    def act(world: World) -> None:
        found = AccessLevel.objects.get(name=which)
        for name, value in changes.items():
            setattr(found, name, value)
        administration.save_level(found, by=world.ada)

    return act


def target(**changes: Any) -> Act:
    def act(world: World) -> None:
        found = Target.objects.get(pk=world.target.pk)
        for name, value in changes.items():
            setattr(found, name, value)
        administration.save_target(found, by=world.ada, clear_secrets={})

    return act


def policy(which: str = "Production", **changes: Any) -> Act:
    def act(world: World) -> None:
        found = Policy.objects.get(name=which)
        for name, value in changes.items():
            setattr(found, name, value)
        administration.change_policy(found, by=world.ada)

    return act


def holders(permission: str, *groups: str, people: tuple[str, ...] = ()) -> Act:
    def act(world: World) -> None:
        obj = world.target if permission == "own_target" else world.read
        chosen = {
            "groups": [world.groups[name] for name in groups],
            "people": [world.people[name] for name in people],
        }
        administration.change_holders(obj, {permission: chosen}, by=world.ada)

    return act


def joins(name: str) -> Callable[[World, Any], Any]:
    return lambda world, user: user.groups.add(world.groups[name])


def leaves(name: str) -> Callable[[World, Any], Any]:
    return lambda world, user: user.groups.remove(world.groups[name])


def sets(**fields: Any) -> Callable[[World, Any], Any]:
    return lambda world, one: vars(one).update(fields)


def may(codename: str) -> Callable[[World, Any], Any]:
    def give(world: World, one: Any) -> None:
        given = getattr(one, "user_permissions", None) or one.permissions
        given.add(Permission.objects.get(codename=codename))

    return give


def both(*acts: Callable[[World, Any], Any]) -> Callable[[World, Any], Any]:
    return lambda world, one: [act(world, one) for act in acts]


def publishing(*groups: str, **draft: Any) -> Act:
    return lambda world: publish(world, stage(world, "Any", *groups), **draft)


WIDENS: dict[str, tuple[Act, str]] = {
    "publishing for production": (
        publishing("dba"),
        "by Production v2, then Lax v1; until now by Production v1, then Lax v1",
    ),
    "publishing for anywhere": (
        publishing("dba", applies_to=AppliesTo(environments=["production", "staging"])),
        "Production v2",
    ),
    "a new group may decide": (publishing("owners"), "members of owners decide about"),
    "a new group may open without approval": (
        lambda world: publish(
            world, emergency_groups=[world.groups["nobody"]], emergency_duration=HOUR
        ),
        "members of nobody may open production without approval",
    ),
    "production goes on to the next policy": (
        lambda world: publish(world, applies_to=AppliesTo(environments=["staging"])),
        "governed by Lax v1; until now by Production v1, then Lax v1",
    ),
    "a policy before others is switched off": (policy(enabled=False), "governed by Lax v1"),
    "policies change places": (policy(rank=99), "governed by Lax v1, then Production v1"),
    "somebody may decide": (person("mallory", joins("dba")), "is in dba, whose members decide"),
    "somebody may ask": (
        person("mallory", joins("developers")),
        "whose members may ask for read-only on orders",
    ),
    "somebody owns a target": (person("mallory", joins("owners")), "own orders"),
    "in one group less, in another more": (
        person("bob", both(leaves("dba"), joins("security"))),
        "bob is in security",
    ),
    "somebody leaves a group with rules of its own": (
        person("amir", leaves("developers")),
        "Who leaves developers asks for production under another policy",
    ),
    "an account is switched on": (person("gone", sets(is_active=True)), "gone can sign in"),
    "a superuser": (person("mallory", sets(is_superuser=True)), "as a superuser"),
    "somebody may enter the admin": (person("mallory", sets(is_staff=True)), "enter the admin"),
    "somebody may change policies": (
        person("mallory", may("change_policy")),
        "mallory may change policy in the admin",
    ),
    "a group may change policies": (
        group("nobody", may("change_policy")),
        "members of nobody may change policy",
    ),
    "a level lasts longer": (level(max_duration=5 * HOUR), "up to 5 h instead of 4 h"),
    "a level counts as less risky": (level(risk="low"), "low risk instead of medium"),
    "a level counts as riskier": (
        level("read-only", risk="medium"),
        "medium risk instead of low",
    ),
    "a level gives other rights": (level(rights={"level": "read-only"}), "are others"),
    "a level comes before others": (level(rank=0), "rank among the levels is 0"),
    "a level changes both ways": (
        level(max_duration=5 * HOUR, risk="medium", description="Less."),
        "up to 5 h",
    ),
    "a new level": (
        lambda world: save_level(world, name="all", rights={"level": "read-only"}, rank=7),
        "all on orders: it can be asked for, for up to 4 h at low risk (may read)",
    ),
    "a level is switched on": (
        lambda world: (level(enabled=False)(world), level(enabled=True)(world)),
        "read-write on orders: it can be asked for",
    ),
    "a target is switched on": (
        lambda world: (target(enabled=False)(world), target(enabled=True)(world)),
        "read-write on orders: it can be asked for",
    ),
    "a target is no production any more": (target(environment="staging"), "no production any more"),
    "a target is somewhere else": (target(config={"name": "billing"}), "orders is elsewhere"),
    "the same target under another name": (
        lambda world: administration.save_target(
            Target(
                name="copy", kind="memory", environment="staging", config=dict(world.target.config)
            ),
            by=world.ada,
            clear_secrets={},
        ),
        "copy is not called production, and is where orders is",
    ),
    "staging becomes production": (
        lambda world: becomes_production(world),
        "all on trial: it can be asked for",
    ),
    "another group may ask": (
        holders("request_accesslevel", "developers", "nobody"),
        "members of nobody may ask for read-only on orders",
    ),
    "one person may ask": (
        holders("request_accesslevel", "developers", people=("mallory",)),
        "The person mallory may ask for read-only",
    ),
    "another group owns a target": (holders("own_target", "owners", "dba"), "of dba own orders"),
    "an admin lends somebody's votes": (
        lambda world: delegating.delegate(world.bob.pk, by=world.ada, lending=lent("mallory")),
        "mallory may vote for bob until 20",
    ),
    "a group with rules of its own is deleted": (
        lambda world: as_admin(
            world, powers.group_gone(world.groups["night"]), world.groups["night"].delete
        ),
        "Who leaves night asks for production under another policy",
    ),
}
"""What takes two, and words of what the second person is told of it."""

NEVER_WAITS: dict[str, Act] = {
    "publishing for staging alone": lambda world: publish(
        world,
        policy=Policy.objects.create(name="Trial", rank=1),
        applies_to=AppliesTo(environments=["staging"]),
    ),
    "the last policy is switched off": policy("Lax", enabled=False),
    "a policy's name": policy(name="Production reads"),
    "a new policy without a version": lambda world: administration.change_policy(
        Policy(name="Next", rank=3), by=world.ada
    ),
    "somebody leaves a group": person("bob", leaves("dba")),
    "somebody joins a group of no weight": person("mallory", joins("nobody")),
    "an account is switched off": person("bob", sets(is_active=False)),
    "one who is switched off joins": person("gone", joins("dba")),
    "no superuser any more": person("adam", sets(is_superuser=False)),
    "one may look at records": person("mallory", may("view_grant")),
    "another name": person("bob", sets(first_name="Robert", email="bob@example.org")),
    "a group's name": group("dba", sets(name="database")),
    "a level lasts less": level(max_duration=HOUR),
    "a level is switched off": level(enabled=False),
    "a level is described": level(description="Careful."),
    "a level that is off lasts longer": lambda world: (
        level(enabled=False)(world),
        level(enabled=False, max_duration=5 * HOUR)(world),
    ),
    "a target is switched off": target(enabled=False),
    "a target is described": target(description="Careful."),
    "a new target without levels": lambda world: administration.save_target(
        Target(name="new", kind="memory", environment="production", config={"name": "new"}),
        by=world.ada,
        clear_secrets={"password": "admin"},
    ),
    "a level on staging": lambda world: save_level(
        world, target=staging(world), name="all", rights={"level": "read-only"}, rank=1
    ),
    "nobody may ask any more": holders("request_accesslevel"),
    "somebody lends their own votes": lambda world: delegating.delegate(
        world.bob.pk, by=world.bob, lending=lent("mallory")
    ),
    "a level is deleted": lambda world: administration.delete(world.read, by=world.ada),
}


def lent(to: str) -> Lending:
    return Lending(delegate=to, ends_at=clock.now() + timedelta(days=1))


def staging(world: World) -> Target:
    made = Target(name="trial", kind="memory", environment="staging", config={"name": "orders2"})
    return administration.save_target(made, by=world.ada, clear_secrets={})


def becomes_production(world: World) -> None:
    made = staging(world)
    save_level(world, target=made, name="all", rights={"level": "read-only"}, rank=1)
    made.environment = "production"
    administration.save_target(made, by=world.ada, clear_secrets={})


@pytest.fixture
def two(world: World, settings: Any) -> World:
    """A second admin, a lax policy below the other, and one for developers of its own on top."""
    users = type(world.ada).objects
    world.people["adam"] = users.create_superuser("adam", "adam@example.com", "a long password")
    world.people["gone"] = users.create_user("gone", "gone@example.com", is_active=False)
    world.groups["night"] = Group.objects.create(name="night")
    world.groups["night"].user_set.add(world.amir)
    lax = Policy.objects.create(name="Lax", rank=20)
    publish(world, stage(world, "Any", "dba"), policy=lax)
    settings.FOUR_EYES = True
    return world


def rules_of_their_own(world: World, settings: Any) -> None:
    """Developers and the night shift ask under stricter rules than everybody else."""
    settings.FOUR_EYES = False
    groups = [world.groups["developers"].pk, world.groups["night"].pk]
    publish(world, applies_to=AppliesTo(requester_groups=groups))
    settings.FOUR_EYES = True


@pytest.mark.parametrize("name", NEVER_WAITS)
def test_what_does_not_is_done_at_once(two: World, name: str):
    NEVER_WAITS[name](two)
    assert not Proposal.objects.exists()


def told(act: Callable[[], Any]) -> dict[str, str]:
    """What whoever agrees reads of how things are to be."""
    with pytest.raises(Proposed) as raised:
        act()
    found = Proposal.objects.get(pk=raised.value.proposal_id)
    return {what: after for what, _, after in found.differences}


def test_all_that_a_version_says_is_told(two: World):
    first = stage(
        two,
        "Any",
        "dba",
        deny_quorum=2,
        deadline=5 * HOUR,
        remind_every=HOUR,
        max_reminders=3,
        escalate_after=2 * HOUR,
        escalation_group=two.groups["security"],
        fallback_group=two.groups["owners"],
    )
    emergency: dict[str, Any] = {
        "emergency_groups": [two.groups["dba"]],
        "emergency_duration": HOUR,
        "emergency_tells": two.groups["owners"],
    }
    extensions: dict[str, Any] = {
        "extensions_most": 1,
        "extension_max": 1800,
        "max_total": 10 * HOUR,
        "extension_window": 900,
        "bridge": 300,
    }
    more: dict[str, Any] = {
        "ticket_required": True,
        "reason_hint": "Why now?",
        "activation_ttl": 2 * HOUR,
    }
    looked_at: dict[str, Any] = {"review_all": True, "review_within": 3 * HOUR}
    rows = told(lambda: publish(two, first, **emergency, **extensions, **more, **looked_at))
    assert rows["Stage 1"] == (
        "Any: 1 in all, 1 of dba; if too few can act, owners; after 2 h also security; "
        "2 to deny; expires after 5 h; reminded every 1 h, 3 times at most"
    )
    expected = {
        "Told of an emergency": "owners",
        "Looked back at": "every access",
        "Looked back at within": "3 h",
        "A ticket is needed": "yes",
        "What a reason should say": "Why now?",
        "Opened within": "2 h",
        "One extension adds": "30 min",
        "Extended in its last": "15 min",
        "Goes on while undecided": "5 min",
        "Requests that wait": "Keep the version they were asked under (0 waiting)",
    }
    assert expected.items() <= rows.items()


def test_so_is_what_becomes_of_requests_that_wait(two: World):
    """alice's, which bob has approved, would be approved by that alone."""
    request = two.submit()
    two.vote(request, "bob")
    draft = PolicyDraft(
        applies_to=AppliesTo(), max_duration=8 * HOUR, stages=[stage(two, "Any", "dba")]
    )
    base = two.policy.versions.get()

    def becomes(pending: str) -> str:
        how = {"based_on": base, "by": two.ada, "pending": pending}
        act = partial(administration.publish, two.policy, draft, **how)
        return told(act)["Requests that wait"]

    assert becomes("keep") == "Keep the version they were asked under (1 waiting)"
    assert becomes("cancel") == "Cancel them (1 waiting)"
    assert becomes("re_evaluate") == (
        f"Weigh them anew; votes that still fit stay (1 waiting); request {request.pk} goes under "
        "Production v2, with 1 of 1 vote, and is approved by them"
    )


@pytest.mark.parametrize("still", ["may be extended", "is to be looked back at"])
def test_a_group_counts_while_access_goes_by_a_version_that_names_it(
    two: World, settings: Any, still: str
):
    """Also when another version is in force by now, and nothing is undecided."""
    settings.FOUR_EYES = False
    extending: dict[str, Any] = {}
    if still == "may be extended":
        lengths = {"extension_max": HOUR, "max_total": 9 * HOUR, "extension_window": HOUR}
        extending = {"extensions_most": 1, **lengths}
    first = stage(two, "Database", "dba", fallback_group=two.groups["nobody"])
    publish(two, first, stage(two, "Security", "security"), **extending)
    grant = two.approved()
    publish(two)
    settings.FOUR_EYES = True
    joining = person("mallory", joins("nobody"))
    if not extending:
        joining(two)  # of no weight yet
        two.mallory.groups.clear()
        grants.release(grant.pk, by=two.alice)
        owe_review(grant)
    with pytest.raises(Proposed):
        joining(two)


def test_without_four_eyes_nothing_waits(two: World, settings: Any):
    settings.FOUR_EYES = False
    for name in ("a level lasts longer", "somebody may decide", "an admin lends somebody's votes"):
        WIDENS[name][0](two)
    assert not Proposal.objects.exists()
