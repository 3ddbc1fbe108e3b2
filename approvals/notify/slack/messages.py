"""What is in a message of Slack's: blocks within its limits, and what people wrote as mere text.

Pure: what there is to say is given. Everything somebody wrote is plain text on one line with
Slack's three control characters escaped: it formats nothing, links nowhere and calls nobody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Any, Final

from django.core import signing

from approvals.errors import NotAllowed
from approvals.mails import one_line
from approvals.sentences import unspoofed

# Characters that Slack takes.
HEADER_MAX: Final = 150
SECTION_MAX: Final = 3000
FIELD_MAX: Final = 2000
FIELDS_MAX: Final = 10
BUTTON_MAX: Final = 75
CONFIRM_TITLE_MAX: Final = 100
CONFIRM_TEXT_MAX: Final = 300
VIEW_TITLE_MAX: Final = 24
TEXT_MAX: Final = 4000
LISTED: Final = 30  # notices that a digest names; the others are a number

APPROVE: Final = "approve"
DENY: Final = "deny"
OPEN: Final = "open"
REASON: Final = "reason"
SALT: Final = "approvals.notify.slack.messages"

Block = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Message:
    """`text` is what notifications and screen readers say."""

    text: str
    blocks: list[Block]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What one person decides with a button: what they were shown, so that a later state refuses.

    `whose` is the id of whose vote it is, their own or one that was lent to them, `outcome` the
    hash of what the approvals so far would open. It is signed by us: whoever could sign calls like
    Slack could still not make up a button.
    """

    person: int
    request: int
    stage: int
    whose: int
    scope_hash: str
    outcome: str
    replaces: int

    def packed(self) -> str:
        return signing.dumps(asdict(self), salt=SALT)

    @classmethod
    def unpacked(cls, text: str, *, of: int) -> Choice:
        """Raises NotAllowed for what was never packed here for the person with this id."""
        try:
            choice = cls(**signing.loads(text, salt=SALT))
        except (signing.BadSignature, TypeError):
            raise _not_theirs() from None
        if choice.person != of:
            raise _not_theirs()
        return choice


def _not_theirs() -> NotAllowed:
    told = "This button is damaged, or was made for somebody else. Open the request, decide there."
    return NotAllowed(told, code="slack_button")


@dataclass(frozen=True, kw_only=True)
class Told:
    """What one message says. `facts` are names with their values, `choice` what can be decided,
    and `confirm` what one is asked before approving."""

    headline: str
    facts: Sequence[tuple[str, str]] = ()
    quote: str = ""
    below: str = ""
    link: str = ""
    choice: Choice | None = None
    confirm: str = ""


def harmless(text: str, most: int) -> str:
    """Other people's text: one line, escaped, at most so long and never cut inside an escape."""
    line = one_line(unspoofed(text))
    whole = escape(line, quote=False)
    if len(whole) <= most:
        return whole
    kept, room = [], most - 1
    for letter in line:
        safe = escape(letter, quote=False)
        if len(safe) > room:
            break
        kept.append(safe)
        room -= len(safe)
    return "".join(kept) + "…"


def plain(text: str, most: int) -> Block:
    return {"type": "plain_text", "text": harmless(text, most), "emoji": False}


def message(told: Told) -> Message:
    """One thing told, with buttons where it can be decided."""
    blocks: list[Block] = [{"type": "header", "text": plain(told.headline, HEADER_MAX)}]
    if told.facts:
        blocks.append({"type": "section", "fields": [_fact(*one) for one in told.facts]})
    if told.quote:
        blocks.append(_section(f"“{told.quote}”"))
    if told.below:
        blocks.append({"type": "context", "elements": [plain(told.below, SECTION_MAX)]})
    if buttons := [*_deciding(told), *_opening(told.link)]:
        blocks.append({"type": "actions", "elements": buttons})
    said = f"{told.headline}. {told.below}" if told.below else f"{told.headline}."
    return Message(text=harmless(said, TEXT_MAX), blocks=blocks)


def digest(sentences: Sequence[str], link: str) -> Message:
    """The notices of a day."""
    head = f"{len(sentences)} things to know of"
    blocks: list[Block] = [{"type": "header", "text": plain(head, HEADER_MAX)}]
    blocks += [_section(sentence) for sentence in sentences[:LISTED]]
    if (more := len(sentences) - LISTED) > 0:
        blocks.append(_section(f"And {more} more."))
    if link:
        blocks.append({"type": "actions", "elements": list(_opening(link, "Open your inbox"))})
    return Message(text=harmless(head, TEXT_MAX), blocks=blocks)


def note(text: str, link: str = "") -> Message:
    """A sentence or two of ours."""
    blocks = [_section(text)]
    if link:
        blocks.append({"type": "actions", "elements": list(_opening(link, "Open it"))})
    return Message(text=harmless(text, TEXT_MAX), blocks=blocks)


def denial(headline: str, packed: str, most: int) -> Mapping[str, Any]:
    """The modal that demands why. `packed` comes back with what was typed."""
    field_ = {
        "type": "plain_text_input",
        "action_id": REASON,
        "multiline": True,
        "max_length": most,
        "focus_on_load": True,
    }
    return {
        "type": "modal",
        "callback_id": DENY,
        "private_metadata": packed,
        "title": plain("Deny it", VIEW_TITLE_MAX),
        "submit": plain("Deny", VIEW_TITLE_MAX),
        "close": plain("Back", VIEW_TITLE_MAX),
        "blocks": [
            _section(headline),
            {
                "type": "input",
                "block_id": REASON,
                "label": plain("Why, so that they know what to do instead", 2000),
                "element": field_,
            },
        ],
    }


def _section(text: str) -> Block:
    return {"type": "section", "text": plain(text, SECTION_MAX)}


def _fact(name: str, value: str) -> Block:
    """The name above its value. The line break is ours: the value has none."""
    shown = harmless(value, FIELD_MAX - len(name) - 1)
    return {"type": "plain_text", "text": f"{name}\n{shown}", "emoji": False}


def _deciding(told: Told) -> list[Block]:
    if told.choice is None:
        return []
    packed = told.choice.packed()
    approve = {
        "type": "button",
        "action_id": APPROVE,
        "text": plain("Approve", BUTTON_MAX),
        "style": "primary",
        "value": packed,
        "confirm": {
            "title": plain("Approve it?", CONFIRM_TITLE_MAX),
            "text": plain(told.confirm or told.headline, CONFIRM_TEXT_MAX),
            "confirm": plain("Approve", 30),
            "deny": plain("Back", 30),
        },
    }
    deny = {
        "type": "button",
        "action_id": DENY,
        "text": plain("Deny…", BUTTON_MAX),
        "style": "danger",
        "value": packed,
    }
    return [approve, deny]


def _opening(link: str, label: str = "Open it") -> list[Block]:
    if not link:
        return []
    text = plain(label, BUTTON_MAX)
    return [{"type": "button", "action_id": OPEN, "text": text, "url": link}]
