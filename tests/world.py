"""The cast and the place of most stories, built through the verbs.

alice and amir develop and may ask; bob and dan are dba, carol and chen security; dora is both.
olga owns the target. mallory may nothing. ada administers. Target `orders` is kept in memory,
its policy asks one of dba, then one of security.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.db import transaction
from django.test import override_settings
from guardian.shortcuts import assign_perm

from approvals import administration, emergency, overdue, reviews, workflow
from approvals.administration import PolicyDraft, StageDraft
from approvals.errors import Proposed
from approvals.models import (
    AccessLevel,
    AccessRequest,
    FourEyes,
    Grant,
    Policy,
    Proposal,
    Review,
    Target,
)
from approvals.policy import AppliesTo
from approvals.provisioning.memory import MemoryServer
from approvals.wishes import Wish
from audit import clock

MEMBERS = {
    "developers": ("alice", "amir"),
    "dba": ("bob", "dan", "dora"),
    "security": ("carol", "chen", "dora"),
    "owners": ("olga",),
    "nobody": (),
}
HOUR = 3600


@dataclass
class World:
    people: dict[str, Any] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    target: Target = field(init=False)
    read: AccessLevel = field(init=False)
    write: AccessLevel = field(init=False)
    policy: Policy = field(init=False)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["people"][name]
        except KeyError:
            raise AttributeError(name) from None

    @property
    def server(self) -> MemoryServer:
        return MemoryServer.named("orders")

    def wish(self, **changes: Any) -> Wish:
        return Wish(**{"duration": HOUR, "reason": "Orders hang since 10:40.", **changes})

    def submit(self, who: str = "alice", level: AccessLevel | None = None, **wish: Any) -> Any:
        chosen = level or self.read
        return workflow.submit(chosen.pk, by=self.people[who], wish=self.wish(**wish))

    def vote(self, request: AccessRequest, who: str, decision: str = "approve", **more: Any) -> Any:
        request.refresh_from_db()
        words = {"scope_hash": request.scope_hash, "comment": "Looks right.", **more}
        return workflow.vote(request.pk, by=self.people[who], decision=decision, **words)

    def approved(self, who: str = "alice", **wish: Any) -> Any:
        """A grant as two approvals leave it: scheduled."""
        request = self.submit(who, **wish)
        self.vote(request, "bob")
        self.vote(request, "carol")
        return Grant.objects.get(request=request)


def build() -> World:
    MemoryServer.forget_all()
    world = World()
    users = get_user_model().objects
    names = sorted({name for members in MEMBERS.values() for name in members} | {"mallory"})
    for name in names:
        world.people[name] = users.create_user(name, f"{name}@example.com", "a long password")
    world.people["ada"] = users.create_superuser("ada", "ada@example.com", "a long password")
    for name, members in MEMBERS.items():
        world.groups[name] = Group.objects.create(name=name)
        world.groups[name].user_set.set([world.people[member] for member in members])
    _place(world)
    return world


def prepare_server(world: World) -> None:
    world.server.levels |= {"read-write": ("may read", "may write")}


def _place(world: World) -> None:
    ada = world.people["ada"]
    prepare_server(world)
    target = Target(
        name="orders", kind="memory", environment="production", config={"name": "orders"}
    )
    world.target = administration.save_target(target, by=ada, clear_secrets={"password": "admin"})
    world.read = save_level(world, name="read-only", rank=1)
    world.write = save_level(world, name="read-write", rank=2, risk="medium")
    for level in (world.read, world.write):
        assign_perm("approvals.request_accesslevel", world.groups["developers"], level)
    assign_perm("approvals.own_target", world.groups["owners"], world.target)
    world.policy = Policy.objects.create(name="Production", rank=10)
    publish(world)


def save_level(world: World, **fields: Any) -> AccessLevel:
    values = {"target": world.target, "risk": "low", "max_duration": 4 * HOUR, **fields}
    level = AccessLevel(**{"rights": {"level": values["name"]}, **values})
    return administration.save_level(level, by=world.people["ada"])


def publish(world: World, *stages: StageDraft, policy: Policy | None = None, **draft: Any) -> Any:
    stages = stages or (stage(world, "Database", "dba"), stage(world, "Security", "security"))
    values: dict[str, Any] = {"applies_to": AppliesTo(), "max_duration": 8 * HOUR, **draft}
    wording = PolicyDraft(stages=stages, **values)
    chosen = policy or world.policy
    newest = chosen.versions.order_by("number").last()
    return administration.publish(chosen, wording, based_on=newest, by=world.people["ada"])


def stage(world: World, name: str, *groups: str, minimum: int = 1, **fields: Any) -> StageDraft:
    minima = {world.groups[group]: minimum for group in groups}
    return StageDraft(**{"name": name, "groups": minima, "total": sum(minima.values()), **fields})


def propose(world: World) -> Proposal:
    """What ada could not do alone, where it takes two: to let one more group ask for read-only."""
    FourEyes.objects.create(pk=1, since=clock.now())
    groups = [world.groups[name] for name in ("developers", "nobody")]
    wanted = {"request_accesslevel": {"groups": groups}}
    try:
        with override_settings(FOUR_EYES=True):
            administration.change_holders(world.read, wanted, by=world.people["ada"])
    except Proposed as proposed:
        return Proposal.objects.get(pk=proposed.proposal_id)
    raise AssertionError("it was done at once")


def owe_review(grant: Grant) -> Review:
    """What a policy that asks for a look back at every access would have made."""
    with transaction.atomic():
        reviews.open_for([grant], emergency=False, now=clock.now())
    return Review.objects.get(grant=grant)


def in_an_emergency(world: World) -> Grant:
    """alice, who is on call, has opened read-only on orders; mallory is in the group it tells."""
    oncall, watch = (Group.objects.create(name=name) for name in ("oncall", "watch"))
    oncall.user_set.add(world.alice)
    watch.user_set.add(world.mallory)
    publish(world, emergency_groups=[oncall], emergency_duration=HOUR // 2, emergency_tells=watch)
    wish = {"reason": "Payments are down.", "confirmation": "orders"}
    request = emergency.break_glass(world.read.pk, by=world.alice, proven=True, **wish)
    return Grant.objects.select_related("review").get(request=request)


def over() -> set[int]:
    """Ids of the undecided requests that a sweeper would close now."""
    return overdue.late(1000) | overdue.groundless(1000)
