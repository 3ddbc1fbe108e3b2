"""Every address that this site answers, each with the object that stands behind it in a test."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from guardian.shortcuts import assign_perm

from approvals import closing, delegating, emergency, grants, opening, tokens
from approvals.delegating import Lending
from approvals.errors import ProvisionError
from approvals.models import (
    AccessRequest,
    ApiToken,
    Delegation,
    Delivery,
    Grant,
    Notice,
    Proposal,
    RequestStage,
    Review,
    SlackAccount,
    SlackWorkspace,
    Step,
    Vote,
    WebhookEndpoint,
)
from approvals.notify import endpoints, expanding, inbox
from approvals.notify.slack import workspace
from approvals.notify.slack.client import Identity
from approvals.tokens import TokenWish
from audit.clock import now as clock_now
from audit.models import Event
from debugflow import health
from tests.conftest import Clock
from tests.world import HOUR, World, propose, publish

PLACE = re.compile(r"<(?:\w+:)?(\w+)>")
# Patterns that are regular expressions, by how the table calls them.
EXPRESSIONS = {
    r"/admin/^(?P<app_label>approvals|audit|accounts|auth)/$": "/admin/<app>/",
    r"/admin/(?P<url>.*)$": "/admin/<anything>",
    "/api/v1/": "/api/v1/<anything>",
}
SEES_RECORDS = (
    *("accessrequest", "requeststage", "vote", "delegation", "grant", "step", "review"),
    *("notice", "delivery", "event", "proposal"),
)
SETS_UP = ("target", "accesslevel", "policy", "webhookendpoint", "slackworkspace", "slackaccount")
PASSWORD = "a long password"
BOT_TOKEN = "xoxb-1234567890"
# Access may be extended from its beginning on.
LONGER: dict[str, Any] = {
    "extensions_most": 2,
    "extension_max": HOUR,
    "max_total": 12 * HOUR,
    "extension_window": 8 * HOUR,
}


def routes() -> list[str]:
    """Every address as the table writes it, such as `/requests/<pk>/vote/`."""
    found = [EXPRESSIONS.get(raw, PLACE.sub(r"<\1>", raw)) for raw in _patterns(get_resolver())]
    return [*dict.fromkeys(found), *health.PATHS]


def _patterns(resolver: URLResolver, prefix: str = "/") -> Iterator[str]:
    for entry in resolver.url_patterns:
        address = prefix + str(entry.pattern)
        if isinstance(entry, URLResolver):
            yield from _patterns(entry, address)
        else:
            assert isinstance(entry, URLPattern)
            yield address


@dataclass
class Place:
    """A world in which there is something behind every address, and a person in every role.

    alice has one request that waits for bob's vote, one access that is open and one that cannot be
    closed, and nobody has looked back at her emergency yet; all have been told. The auditor reads
    records and recordings; the administrator sets up what can be asked.
    """

    world: World
    waiting: AccessRequest
    grant: Grant
    stuck: Grant
    token: ApiToken
    review: Review
    delegation: Delegation
    told: Delivery

    def address(self, route: str) -> str:
        """Where a browser would go for `route`."""
        return PLACE.sub(lambda found: self._behind(route, found[1]), route)

    def _behind(self, route: str, name: str) -> str:
        match name:
            case "pk":
                return str(self._numbers(route)[route.removeprefix("/api/v1").split("/")[1]])
            case "signed":
                return inbox.sign(inbox.entries(self.world.bob).latest("pk").pk)
            case "id" | "object_id":
                return str(self._objects()[route.split("/")[3]])
            case "content_type_id":
                return str(ContentType.objects.get_for_model(self.world.target).pk)
            case "app":
                return "approvals"
            case "anything":
                return "no/such/thing"
        raise AssertionError(f"{route}: what stands for <{name}>?")

    def _numbers(self, route: str) -> dict[str, int]:
        """The objects of the site and the API, by the first word of the address."""
        world = self.world
        failing = route.endswith(("/try-again/", "/abandon/"))
        return {
            "ask": world.read.pk,
            "requests": self.waiting.pk,
            "grants": self.stuck.pk if failing else self.grant.pk,
            "targets": world.target.pk,
            "levels": world.read.pk,
            "reviews": self.review.pk,
            "tokens": self.token.pk,
            "settings": self.delegation.pk if "/delegations/" in route else self.token.pk,
            "delegations": self.delegation.pk,
            "inbox": self.told.pk,
            "proposals": Proposal.objects.latest("pk").pk,
        }

    def _objects(self) -> dict[str, int]:
        """The admin's objects, by the name of their model."""
        world = self.world
        newest = {
            "requeststage": RequestStage,
            "vote": Vote,
            "delegation": Delegation,
            "step": Step,
            "review": Review,
            "notice": Notice,
            "proposal": Proposal,
            "delivery": Delivery,
            "event": Event,
        }
        return {
            "target": world.target.pk,
            "accesslevel": world.read.pk,
            "policy": world.policy.pk,
            "webhookendpoint": WebhookEndpoint.objects.get().pk,
            "slackworkspace": SlackWorkspace.objects.get().pk,
            "slackaccount": SlackAccount.objects.get().pk,
            "accessrequest": self.waiting.pk,
            "grant": self.grant.pk,
            "user": world.bob.pk,
            "group": world.groups["dba"].pk,
            "<content_type_id>": world.target.pk,
            **{name: model._default_manager.latest("pk").pk for name, model in newest.items()},
        }

    def body(self, route: str) -> dict[str, Any]:
        """What a POST has to say to be understood, where it has to say anything."""
        wish = {"duration": 3600, "reason": "Orders hang since 10:40."}
        vote = {"decision": "approve", "scope_hash": self.waiting.scope_hash}
        reason = {"reason": "Not needed any more."}
        emergency = {
            "reason": "Payments are down.",
            "confirmation": self.world.target.name,
            "password": PASSWORD,
        }
        match route.split("/")[-2:]:
            case ["vote", ""]:
                return vote
            case ["send-back", ""]:
                return {"scope_hash": self.waiting.scope_hash, "comment": "Shorter, please."}
            case ["edit", ""]:
                return {**wish, "duration": 900, "scope_hash": self.waiting.scope_hash}
            case ["comment" | "comments", ""]:
                return {"comment": "Which replica?"}
            case ["revoke", ""] | ["abandon", ""]:
                return reason
            case ["extend", ""]:
                return wish
            case ["agree" | "deny", ""]:
                return {"digest": Proposal.objects.latest("pk").digest, "note": "No."}
        match route:
            case "/ask/<pk>/emergency/":
                return emergency
            case "/api/v1/requests/emergency/":
                return {**emergency, "level": self.world.write.pk}
            case "/reviews/<pk>/" | "/api/v1/reviews/<pk>/":
                return {"outcome": "justified", "note": "Needed."}
            case "/ask/<pk>/" | "/ask/<pk>/preview/":
                return wish
            case "/api/v1/requests/" | "/api/v1/requests/preview/":
                return {**wish, "level": self.world.write.pk}
            case "/queue/decide/":
                return {**vote, "chosen": f"{self.waiting.pk}:{self.waiting.scope_hash}"}
            case "/settings/time-zone/":
                return {"time_zone": "Europe/Berlin"}
            case "/api/v1/tokens/" | "/settings/tokens/":
                return {"name": "a script", "scopes": ["read"], "days": 7}
            case "/api/v1/delegations/" | "/settings/delegations/":
                ends_at = clock_now() + timedelta(days=1)
                return {
                    "delegate": self.world.chen.username,
                    "ends_at": f"{ends_at:%Y-%m-%dT%H:%M:%SZ}",
                }
            case "/inbox/read/" | "/api/v1/inbox/read/":
                return {"until": self.told.pk}
            case "/sign-in/" | "/admin/login/" | "/api/v1/session/":
                return {"username": "alice", "password": PASSWORD}
        return {}

    def send(self, client: Client, method: str, route: str, **more: Any) -> Any:
        """The answer to one request; whatever it changed is undone."""
        body, address = self.body(route), self.address(route)
        kind: dict[str, Any] = {}
        if route.startswith("/api/"):
            body, kind = json.dumps(body), {"content_type": "application/json"}  # type: ignore[assignment]
        with undone():
            if method in ("GET", "HEAD", "OPTIONS"):
                return client.generic(method, address, **more)
            if method == "POST":
                return client.post(address, body, **kind, **more)
            return client.generic(method, address, "{}", "application/json", **more)


@contextmanager
def undone() -> Iterator[None]:
    """Rolls back, and lets verbs that insist on a transaction of their own have it inside."""
    block = transaction.atomic()
    block._from_testcase = True  # type: ignore[attr-defined]  # as Django's own test cases do it
    with block:
        yield
        transaction.set_rollback(True)


def settle(world: World, clock: Clock) -> Place:
    """The place of the table: see `Place`."""
    _appoint(world, "auditor", *(f"view_{name}" for name in SEES_RECORDS))
    assign_perm("approvals.audit_target", world.people["auditor"], world.target)
    rights = [f"{verb}_{name}" for verb in ("add", "change", "delete", "view") for name in SETS_UP]
    _appoint(world, "administrator", *rights)
    oncall = [world.groups["developers"]]
    publish(world, emergency_groups=oncall, emergency_duration=HOUR // 2, **LONGER)
    stuck = _stuck(world, clock)
    grant = _opened(world, level=world.write)
    wish = TokenWish(name="nightly", scopes=["read"], days=7)
    token = tokens.make(world.alice.pk, by=world.alice, wish=wish).row
    review = _looked_back_at(world)
    lending = Lending(delegate=world.chen.username, ends_at=clock_now() + timedelta(hours=1))
    delegation = delegating.delegate(world.alice.pk, by=world.alice, lending=lending)
    hears = endpoints.Wish(name="chat", url="https://chat.example.com/", facts=["asked"])
    endpoints.save(0, by=world.ada, wish=hears)
    in_slack(world)
    waiting = world.submit()
    propose(world)
    expanding.expand_due()
    told = inbox.entries(world.alice).latest("pk")
    return Place(world, waiting, grant, stuck, token, review, delegation, told)


def in_slack(world: World) -> None:
    """The workspace is set up, and alice has said which account there is hers."""
    wish = workspace.Wish(bot_token=BOT_TOKEN, signing_secret="0" * 32)
    found = Identity(team_id="T0", team="Acme", bot_user="U0")
    workspace.save(1, by=world.ada, wish=wish, identity=found)
    SlackAccount.objects.create(
        person=world.alice, team_id="T0", member_id="U0ALICE", connected_at=clock_now()
    )


def _opened(world: World, **wish: Any) -> Grant:
    grant: Grant = world.approved(**wish)
    opening.open_grant(grant.pk, worker="w1")
    grant.refresh_from_db()
    return grant


def _looked_back_at(world: World) -> Review:
    """What alice owes for an emergency whose access has ended."""
    wish = {"reason": "Orders hang, and nobody answers.", "confirmation": world.target.name}
    request: Any = emergency.break_glass(world.read.pk, by=world.alice, proven=True, **wish)
    grants.release(request.grant.pk, by=world.alice)
    return Review.objects.get()


def _stuck(world: World, clock: Clock) -> Grant:
    grant = _opened(world)
    world.server.fail_next("cut", ProvisionError(), times=2)
    grants.revoke(grant.pk, by=world.bob, reason="Enough.")
    closing.close_grant(grant.pk, worker="w1")
    clock.forward(31)
    closing.close_grant(grant.pk, worker="w1")
    grant.refresh_from_db()
    return grant


def _appoint(world: World, name: str, *permissions: str) -> None:
    people = type(world.ada).objects
    person = people.create_user(name, f"{name}@example.com", PASSWORD, is_staff=True)
    person.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    world.people[name] = person


def signed_in(place: Place, who: str) -> Client:
    """`who`'s browser; `nobody` has not signed in. Errors are answers and not exceptions."""
    client = Client(raise_request_exception=False)
    if who != "nobody":
        client.force_login(place.world.people[who])
    return client
