"""A workspace that is set up, and people who have proved which Slack account is theirs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.test import Client
from django.urls import reverse

from approvals.models import SlackWorkspace
from approvals.notify import expanding, sending
from approvals.notify.slack import accounts, workspace
from approvals.notify.slack.workspace import Wish
from tests.approvals.notify.slack_server import SECRET, TOKEN, Standin, signed, slack_server
from tests.world import World

SITE = "https://debugflow.example.com"
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")


@contextmanager
def slack_for(settings: Any, monkeypatch: Any) -> Iterator[Standin]:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
    with slack_server() as standin:
        settings.SLACK_API_URL, settings.SITE_URL = standin.url, SITE
        yield standin


def set_up(world: World, **changes: str) -> SlackWorkspace:
    wish = Wish(**{"bot_token": TOKEN, "signing_secret": SECRET, **changes})  # type: ignore[arg-type]
    return workspace.save(
        1, by=world.ada, wish=wish, identity=workspace.identify(wish, by=world.ada)
    )


def member(who: str) -> str:
    return f"U0{who.upper():X<7}"


def connect(world: World, slack: Standin, *names: str) -> None:
    """As they do it themselves: say who they are in Slack, and type in what they read there."""
    for name in names:
        slack.members.add(member(name))
        accounts.send_code(world.people[name].pk, by=world.people[name], member_id=member(name))
        accounts.prove(world.people[name].pk, by=world.people[name], code=code(slack, name))
    slack.messages.clear()


def code(slack: Standin, name: str) -> str:
    """The code in the newest message to somebody."""
    found = re.search(r"\d{4} \d{4}", slack.to(member(name))[-1]["text"])
    assert found is not None
    return found[0]


def tell() -> int:
    """As a worker does it; how many messages Slack took."""
    expanding.expand_due()
    return sending.send_due("slack")


def call(payload: dict[str, Any], **how: Any) -> Any:
    """Slack calls the site with this, signed."""
    return deliver(*signed(payload, **how))


def deliver(body: bytes, headers: dict[str, str]) -> Any:
    return Client().post(
        reverse("slack"), body, content_type="application/x-www-form-urlencoded", headers=headers
    )


def buttons(message: dict[str, Any]) -> list[str]:
    found = [one for block in message["blocks"] for one in block.get("elements", ())]
    return [one["action_id"] for one in found if one["type"] == "button"]


def read(message: dict[str, Any]) -> str:
    """What somebody reads there, block after block."""
    return " | ".join(_texts(message["blocks"]))


def _texts(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("text"), str):
            yield part["text"]
        part = list(part.values())
    if isinstance(part, list):
        for one in part:
            yield from _texts(one)
