"""Calls of Slack's API: each once, within bounds of time. What Slack refuses is told in words.

What is said to whom, and what a refusal means for it, is not decided here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any, Final

from django.conf import settings
from django.views.decorators.debug import sensitive_variables
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError, SlackClientError
from slack_sdk.web import SlackResponse

from approvals.mails import one_line
from approvals.notify.slack.messages import Message

WITHIN: Final = 5.0  # seconds that Slack may keep us waiting for anything
RATE_LIMITED: Final = "ratelimited"
UNANSWERED: Final = "unanswered"
WAIT: Final = 30.0  # seconds, where Slack does not say how long
WAIT_MOST: Final = 3600.0
# The token is of no use: whatever is sent with it fails likewise.
ILL: Final = frozenset(
    {
        "account_inactive",
        "access_denied",
        "invalid_auth",
        "missing_scope",
        "no_permission",
        "not_allowed_token_type",
        "not_authed",
        "org_login_required",
        "team_access_not_granted",
        "token_expired",
        "token_revoked",
    }
)
# There is nobody there, and never will be.
GONE: Final = frozenset(
    {
        "cannot_dm_bot",
        "channel_not_found",
        "is_archived",
        "messages_tab_disabled",
        "not_in_channel",
        "user_disabled",
        "user_not_found",
        "user_not_visible",
        "users_not_found",
    }
)
# The message is there no more, or takes no change.
UNCHANGEABLE: Final = frozenset(
    {"cant_update_message", "edit_window_closed", "message_not_found", "is_inactive"}
)

# The library tells bodies to a logger that is at DEBUG, whatever its handlers take: a code that
# proves whose account it is would be among them.
_silent = logging.getLogger(f"{__name__}.library")
_silent.setLevel(logging.CRITICAL)


class SlackRefused(Exception):
    """Slack did not do it. `code` is Slack's own word, `wait` the seconds until it may be asked."""

    def __init__(self, code: str, *, wait: float = 0.0) -> None:
        self.code = code
        self.wait = wait
        super().__init__(f"Slack says {code}.")

    @property
    def ill(self) -> bool:
        return self.code in ILL

    @property
    def gone(self) -> bool:
        return self.code in GONE


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Whom a bot's token belongs to, as Slack says."""

    team_id: str
    team: str
    bot_user: str


class Slack:
    """Slack, called with one bot's token. Everything raises SlackRefused."""

    @sensitive_variables()
    def __init__(self, token: str, *, within: float = WITHIN) -> None:
        self._client = WebClient(
            token,
            base_url=settings.SLACK_API_URL,
            timeout=within,  # type: ignore[arg-type]  # handed to a socket, which takes fractions
            retry_handlers=[],  # the outbox tries again
            logger=_silent,
        )

    def whoami(self) -> Identity:
        said = self._asked(self._client.auth_test)
        return Identity(team_id=said["team_id"], team=said["team"], bot_user=said["user_id"])

    def open_direct(self, member: str) -> str:
        """The conversation with a member; opened, if there is none yet."""
        return str(self._asked(self._client.conversations_open, users=member)["channel"]["id"])

    def post(self, channel: str, message: Message) -> str:
        """Say it; returns the name of the message in its channel."""
        said = self._asked(
            self._client.chat_postMessage,
            channel=channel,
            text=message.text,
            blocks=message.blocks,
            mrkdwn=False,
            parse="none",
            link_names=False,
            unfurl_links=False,
            unfurl_media=False,
        )
        return str(said["ts"])

    def update(self, channel: str, ts: str, message: Message) -> None:
        """Say this in place of what was said."""
        self._asked(
            self._client.chat_update,
            channel=channel,
            ts=ts,
            text=message.text,
            blocks=message.blocks,
            parse="none",
            link_names=False,
        )

    def whisper(self, channel: str, member: str, message: Message) -> None:
        """Say it to one member only, until they reload."""
        self._asked(
            self._client.chat_postEphemeral,
            channel=channel,
            user=member,
            text=message.text,
            blocks=message.blocks,
            parse="none",
            link_names=False,
        )

    def ask(self, trigger: str, view: Mapping[str, Any]) -> None:
        """Open a modal for whoever clicked."""
        self._asked(self._client.views_open, trigger_id=trigger, view=dict(view))

    def _asked(self, method: Callable[..., SlackResponse], **fields: Any) -> dict[str, Any]:
        try:
            answer = method(**fields).data
        except SlackApiError as error:
            refused = _refusal(error.response)
        except (SlackClientError, HTTPException, OSError, ValueError) as error:
            refused = SlackRefused(f"{UNANSWERED}: {type(error).__name__}")
        else:
            if isinstance(answer, dict):
                return answer
            refused = SlackRefused("invalid_answer")
        # Out here, so that it has no cause: the library's error holds the call with its token.
        raise refused


def _refusal(answer: SlackResponse) -> SlackRefused:
    if answer.status_code == 429:
        return SlackRefused(RATE_LIMITED, wait=_seconds(answer.headers.get("Retry-After")))
    if answer.status_code >= 500:
        return SlackRefused(f"{UNANSWERED}: HTTP {answer.status_code}")
    code = answer.data.get("error") if isinstance(answer.data, dict) else None
    if code == RATE_LIMITED or code == "rate_limited":
        return SlackRefused(RATE_LIMITED, wait=WAIT)
    return SlackRefused(one_line(str(code or "nothing"))[:100])


def _seconds(given: str | None) -> float:
    text = str(given or "")
    return min(float(text), WAIT_MOST) if text.isascii() and text.isdigit() else WAIT
