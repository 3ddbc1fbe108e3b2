"""A stand-in of Slack: real HTTP, as strict as its documentation, and signing what it sends.

A call that Slack would refuse, or take other than it was meant, is a violation: leaving the context
fails with all of them. What a person would see is in `messages`; what they press is sent, signed by
Slack's own library, to wherever the test says.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any, Final
from urllib.parse import parse_qs, urlencode

from slack_sdk.signature import SignatureVerifier

TOKEN: Final = "xoxb-1111111111-abcdefghijklmnop"
SECRET: Final = "0123456789abcdef0123456789abcdef"
TEAM: Final = "T0DEBUGFLOW"
BOT: Final = "U0BOTBOTB"
CONTROL: Final = re.compile(r"[<>]|&(?!amp;|lt;|gt;)")

MESSAGE: Final = {"channel": str, "text": str, "blocks": list, "parse": str, "link_names": bool}
# The fields of each method that debugflow uses, with those that must be there first.
METHODS: Final[dict[str, tuple[set[str], dict[str, type]]]] = {
    "auth.test": (set(), {}),
    "conversations.open": ({"users"}, {"users": str}),
    "chat.postMessage": (
        {"channel", "text"},
        {**MESSAGE, "mrkdwn": bool, "unfurl_links": bool, "unfurl_media": bool},
    ),
    "chat.update": ({"channel", "ts", "text"}, {**MESSAGE, "ts": str}),
    "chat.postEphemeral": ({"channel", "user", "text"}, {**MESSAGE, "user": str}),
    "views.open": ({"trigger_id", "view"}, {"trigger_id": str, "view": dict}),
}


class Violation(Exception):
    """Something that Slack documents otherwise."""


@dataclass
class Standin:
    """The workspace. `failing` makes the next calls of a method fail, once each, in this way."""

    port: int = 0
    members: set[str] = field(default_factory=set)
    messages: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    whispers: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    views: list[dict[str, Any]] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    updates: int = 0
    violations: list[str] = field(default_factory=list)
    failing: dict[str, list[tuple[int, dict[str, str], dict[str, Any]]]] = field(
        default_factory=dict
    )
    dead: str = ""  # the error that every call gets
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))
    _triggers: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/"

    def fail(self, method: str, error: str, *, status: int = 200, **headers: str) -> None:
        answer = (status, headers, {"ok": False, "error": error})
        self.failing.setdefault(method, []).append(answer)

    def to(self, member: str) -> list[dict[str, Any]]:
        """What the app wrote to a member, oldest first, as it reads now."""
        return [said for (where, _), said in self.messages.items() if where == _direct(member)]

    # What it is called with.

    def answer(self, method: str, headers: Any, body: bytes) -> tuple[int, dict[str, str], Any]:
        with self._lock:
            self.calls.append(method)
            try:
                fields = _fields(method, headers, body)
            except Violation as violation:
                self.violations.append(f"{method}: {violation}")
                return 200, {}, {"ok": False, "error": "invalid_arguments"}
            if headers.get("Authorization") != f"Bearer {TOKEN}":
                return 200, {}, {"ok": False, "error": "invalid_auth"}
            if self.dead:
                return 200, {}, {"ok": False, "error": self.dead}
            if self.failing.get(method):
                return self.failing[method].pop(0)
            return 200, {}, getattr(self, f"_{method.replace('.', '_')}")(fields)

    def _auth_test(self, fields: dict[str, Any]) -> dict[str, Any]:
        return {"ok": True, "team": "Acme", "team_id": TEAM, "user": "debugflow", "user_id": BOT}

    def _conversations_open(self, fields: dict[str, Any]) -> dict[str, Any]:
        if fields["users"] not in self.members:
            return {"ok": False, "error": "user_not_found"}
        return {"ok": True, "channel": {"id": _direct(fields["users"])}}

    def _chat_postMessage(self, fields: dict[str, Any]) -> dict[str, Any]:
        if fields["channel"] not in {_direct(one) for one in self.members}:
            return {"ok": False, "error": "channel_not_found"}
        ts = f"{int(time.time())}.{next(self._numbers):06}"
        self.messages[fields["channel"], ts] = fields
        return {"ok": True, "channel": fields["channel"], "ts": ts, "message": fields}

    def _chat_update(self, fields: dict[str, Any]) -> dict[str, Any]:
        place = fields["channel"], fields["ts"]
        if place not in self.messages:
            return {"ok": False, "error": "message_not_found"}
        self.updates += 1
        self.messages[place] = fields
        return {"ok": True, "channel": place[0], "ts": place[1], "text": fields["text"]}

    def _chat_postEphemeral(self, fields: dict[str, Any]) -> dict[str, Any]:
        self.whispers.append((fields["channel"], fields["user"], fields))
        return {"ok": True, "message_ts": "1.000001"}

    def _views_open(self, fields: dict[str, Any]) -> dict[str, Any]:
        made = self._triggers.pop(fields["trigger_id"], 0.0)
        if time.monotonic() - made > 3:
            return {"ok": False, "error": "expired_trigger_id"}
        self.views.append(fields["view"])
        return {"ok": True, "view": {"id": "V1", **fields["view"]}}

    # What it sends.

    def press(
        self, member: str, button: str, *, number: int = -1, team: str = TEAM, **changed: Any
    ) -> dict[str, Any]:
        """A member presses a button of a message to them; the payload that Slack makes of it."""
        places = [place for place in self.messages if place[0] == _direct(member)]
        channel, ts = places[number]
        message = self.messages[channel, ts]
        elements = [e for block in message["blocks"] for e in block.get("elements", ())]
        [pressed] = [e for e in elements if e.get("action_id") == button]
        action = {"type": "button", "block_id": "b1", "action_ts": ts, **pressed, **changed}
        return {
            "type": "block_actions",
            "user": {"id": member, "username": "somebody", "team_id": team},
            "api_app_id": "A1",
            "token": "verification-tokens-are-deprecated",
            "container": {"type": "message", "message_ts": ts, "channel_id": channel},
            "trigger_id": self._trigger(),
            "team": {"id": team, "domain": "acme"},
            "enterprise": None,
            "is_enterprise_install": False,
            "channel": {"id": channel, "name": "directmessage"},
            "message": {"type": "message", "ts": ts, **message},
            "state": {"values": {}},
            "response_url": "https://hooks.slack.com/actions/1/2/3",
            "actions": [action],
        }

    def submit(self, member: str, reason: str | None) -> dict[str, Any]:
        """A member sends the modal that was opened last."""
        view = self.views[-1]
        typed = {"type": "plain_text_input", "value": reason}
        return {
            "type": "view_submission",
            "team": {"id": TEAM, "domain": "acme"},
            "user": {"id": member, "username": "somebody", "team_id": TEAM},
            "api_app_id": "A1",
            "token": "verification-tokens-are-deprecated",
            "trigger_id": self._trigger(),
            "view": {"id": "V1", **view, "state": {"values": {"reason": {"reason": typed}}}},
            "response_urls": [],
        }

    def _trigger(self) -> str:
        name = f"trigger.{next(self._numbers)}"
        self._triggers[name] = time.monotonic()
        return name


def signed(payload: dict[str, Any], **how: Any) -> tuple[bytes, dict[str, str]]:
    """The bytes that Slack would send, and their headers."""
    return sign(urlencode({"payload": json.dumps(payload)}).encode(), **how)


def sign(
    body: bytes, *, secret: str = SECRET, at: float | None = None
) -> tuple[bytes, dict[str, str]]:
    """Signed by Slack's own library."""
    stamp = str(int(time.time() if at is None else at))
    signature = SignatureVerifier(secret).generate_signature(timestamp=stamp, body=body)
    return body, {"X-Slack-Request-Timestamp": stamp, "X-Slack-Signature": str(signature)}


@contextmanager
def slack_server() -> Iterator[Standin]:
    standin = Standin()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, headers, answer = standin.answer(
                self.path.removeprefix("/api/"), self.headers, body
            )
            told = json.dumps(answer).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Type", "application/json; charset=utf-8")
            self.send_header("Content-Length", str(len(told)))
            self.end_headers()
            self.wfile.write(told)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    standin.port = server.server_address[1]
    running = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    running.start()
    try:
        yield standin
    finally:
        server.shutdown()
        server.server_close()
        running.join(10)
    assert standin.violations == []


def _direct(member: str) -> str:
    return f"D{member[1:]}"


# The documentation of each method, block and element, as far as debugflow uses them.


def _fields(method: str, headers: Any, body: bytes) -> dict[str, Any]:
    _require(method in METHODS, "there is no such method")
    needed, known = METHODS[method]
    kind = str(headers.get("Content-Type") or "").replace(" ", "").lower()
    if kind.startswith("application/json"):
        _require("charset=utf-8" in kind, "JSON without charset=utf-8 is warned about")
        fields: dict[str, Any] = json.loads(body)
    else:
        _require(not body or kind == "application/x-www-form-urlencoded", f"sent as {kind}")
        fields = {name: values[0] for name, values in parse_qs(body.decode()).items()}
    _require("token" not in fields, "a token belongs in the header")
    _exactly(fields, needed, set(known) - needed, method)
    for name, value in fields.items():
        _require(isinstance(value, known[name]), f"{name} is no {known[name].__name__}")
    if "text" in fields:
        _text(fields["text"], 4000)
    if "blocks" in fields:
        _blocks(fields["blocks"], 50)
    if method in ("chat.postMessage", "chat.postEphemeral", "chat.update"):
        _require(fields.get("parse") == "none", "names and channels would be linked")
        _require(fields.get("link_names") is False, "@channel would call everybody")
    if method == "chat.postMessage":
        _require(fields.get("unfurl_links") is False, "links would be fetched")
        _require(fields.get("mrkdwn") is False, "the text would be formatted")
    if method == "views.open":
        _view(fields["view"])
    return fields


def _view(view: dict[str, Any]) -> None:
    needed = {"type", "title", "blocks"}
    _exactly(view, needed, {"submit", "close", "private_metadata", "callback_id"}, "view")
    _require(view["type"] == "modal", "no modal")
    for name in ("title", "submit", "close"):
        if name in view:
            _plain(view[name], 24)
    _length(view.get("private_metadata", ""), 3000)
    _length(view.get("callback_id", ""), 255)
    _blocks(view["blocks"], 100)
    has_input = any(block["type"] == "input" for block in view["blocks"])
    _require(not has_input or "submit" in view, "an input needs a submit button")


def _blocks(blocks: list[Any], most: int) -> None:
    _require(1 <= len(blocks) <= most, f"{len(blocks)} blocks")
    ids = [one["block_id"] for one in blocks if "block_id" in one]
    _require(len(ids) == len(set(ids)), "block_id twice")
    for block in blocks:
        match block.get("type"):
            case "header":
                _exactly(block, {"type", "text"}, {"block_id"}, "header")
                _plain(block["text"], 150)
            case "section":
                _exactly(block, {"type"}, {"text", "fields", "block_id"}, "section")
                _require("text" in block or "fields" in block, "an empty section")
                if "text" in block:
                    _plain(block["text"], 3000)
                _require(len(block.get("fields", [])) <= 10, "more than 10 fields")
                for one in block.get("fields", []):
                    _plain(one, 2000, breaks=True)
            case "context":
                _exactly(block, {"type", "elements"}, {"block_id"}, "context")
                _require(1 <= len(block["elements"]) <= 10, "elements of a context")
                for one in block["elements"]:
                    _plain(one, 3000)
            case "actions":
                _exactly(block, {"type", "elements"}, {"block_id"}, "actions")
                _require(1 <= len(block["elements"]) <= 25, "elements of actions")
                names = [one["action_id"] for one in block["elements"]]
                _require(len(names) == len(set(names)), "action_id twice")
                for one in block["elements"]:
                    _button(one)
            case "input":
                _exactly(block, {"type", "label", "element"}, {"block_id"}, "input")
                _length(block.get("block_id", ""), 255)
                _plain(block["label"], 2000)
                _input(block["element"])
            case other:
                raise Violation(f"a block of type {other}")


def _button(button: dict[str, Any]) -> None:
    known = {"url", "value", "style", "confirm", "accessibility_label"}
    _exactly(button, {"type", "text", "action_id"}, known, "button")
    _require(button["type"] == "button", "no button")
    _plain(button["text"], 75)
    _length(button["action_id"], 255)
    _length(button.get("url", ""), 3000)
    _length(button.get("value", ""), 2000)
    _require(button.get("style") in (None, "primary", "danger"), "style")
    if "confirm" in button:
        confirm = button["confirm"]
        _exactly(confirm, {"title", "text", "confirm", "deny"}, {"style"}, "confirm")
        for name, most in (("title", 100), ("text", 300), ("confirm", 30), ("deny", 30)):
            _plain(confirm[name], most)


def _input(element: dict[str, Any]) -> None:
    known = {"initial_value", "multiline", "min_length", "max_length", "focus_on_load"}
    _exactly(element, {"type", "action_id"}, known, "plain_text_input")
    _require(element["type"] == "plain_text_input", "no input")
    _require(1 <= element.get("max_length", 1) <= 3000, "max_length")


def _plain(text: dict[str, Any], most: int, *, breaks: bool = False) -> None:
    _exactly(text, {"type", "text"}, {"emoji"}, "text")
    _require(text["type"] == "plain_text", "text that people wrote could format")
    _require(text.get("emoji") is False, "colons would become pictures")
    _text(text["text"], most, breaks=breaks)


def _text(text: str, most: int, *, breaks: bool = False) -> None:
    _require(1 <= len(text) <= most, f"{len(text)} characters of {most}")
    _require(not CONTROL.search(text), f"a control character is not escaped: {text!r}")
    _require("\n" not in text.replace("\n", " ", int(breaks)), f"it breaks the line: {text!r}")


def _length(text: str, most: int) -> None:
    _require(len(text) <= most, f"{len(text)} characters of {most}")


def _exactly(thing: dict[str, Any], needed: set[str], known: set[str], what: str) -> None:
    _require(needed <= thing.keys(), f"{what} lacks {sorted(needed - thing.keys())}")
    _require(thing.keys() <= needed | known, f"{what}: {sorted(thing.keys() - needed - known)}?")


def _require(held: bool, why: str) -> None:
    if not held:
        raise Violation(why)
