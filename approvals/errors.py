"""The ways a verb says no. A class's docstring is its default message.

Mapped to HTTP once, in `approvals/api/errors.py` and `approvals/middleware.py`:
NotAllowed 403, WrongState 409, Invalid 422, ProvisionError 502.
"""

from __future__ import annotations

import inspect
from typing import Any, ClassVar


class DebugflowError(Exception):
    """Something did not work."""

    default_code: ClassVar[str] = "error"

    def __init__(self, message: str = "", *, code: str = "", **details: Any) -> None:
        self.message = message or inspect.cleandoc(type(self).__doc__ or "")
        self.code = code or self.default_code
        self.details = details
        super().__init__(self.message)


class NotAllowed(DebugflowError):
    """You may not do this."""

    default_code = "not_allowed"


class WrongState(DebugflowError):
    """Someone else has already moved this on. Reload the page to see where it stands."""

    default_code = "wrong_state"


class Invalid(DebugflowError):
    """What was sent cannot be used."""

    default_code = "invalid"

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

    def __init__(
        self, message: str = "", *, code: str = "", permanent: bool = False, **details: Any
    ) -> None:
        self.permanent = permanent
        super().__init__(message, code=code, **details)


class Fenced(ProvisionError):
    """This attempt has lost its lease or its grant has moved on. What it did is rolled back."""

    default_code = "fenced"
