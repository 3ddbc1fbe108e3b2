"""The ways a verb says no. A class's docstring is its default message.

Each has its HTTP status here, once, for pages and API alike.
"""

from __future__ import annotations

import inspect
from typing import Any, ClassVar


class DebugflowError(Exception):
    """Something did not work."""

    default_code: ClassVar[str] = "error"
    status: ClassVar[int] = 500

    def __init__(self, message: str = "", *, code: str = "", **details: Any) -> None:
        self.message = message or inspect.cleandoc(type(self).__doc__ or "")
        self.code = code or self.default_code
        self.details = details
        super().__init__(self.message)


class NotAllowed(DebugflowError):
    """You may not do this."""

    default_code = "not_allowed"
    status = 403


class WrongState(DebugflowError):
    """Someone else has already moved this on. Reload the page to see where it stands."""

    default_code = "wrong_state"
    status = 409


class Invalid(DebugflowError):
    """What was sent cannot be used."""

    default_code = "invalid"
    status = 422

    def __init__(
        self,
        message: str = "",
        *,
        code: str = "",
        fields: dict[str, list[str]] | None = None,
        **details: Any,
    ) -> None:
        self.fields = fields or {}
        super().__init__(message, code=code, **details)


class ProvisionError(DebugflowError):
    """The target did not do what was asked of it."""

    default_code = "target_failed"
    status = 502

    def __init__(
        self, message: str = "", *, code: str = "", permanent: bool = False, **details: Any
    ) -> None:
        self.permanent = permanent
        super().__init__(message, code=code, **details)


class Proposed(Exception):
    """No error: what was asked for widens access, and is written down until somebody else agrees.

    No verb's caller takes it for a refusal, which is why it is none of the errors above.
    """

    def __init__(self, proposal_id: int, summary: str) -> None:
        self.proposal_id = proposal_id
        super().__init__(summary)


class Fenced(ProvisionError):
    """This attempt has lost its lease or its grant has moved on. What it did is rolled back."""

    default_code = "fenced"
