"""How one attempt at the target went wrong, in words that can be stored and shown."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import structlog

from approvals.errors import DebugflowError, Invalid, ProvisionError
from approvals.models import Grant, Step
from audit import log
from audit.log import SYSTEM

logger = structlog.get_logger(__name__)

ERROR_MAX = 500  # characters; `last_error` of grants and steps


@dataclass(frozen=True)
class Failure:
    """What is written down of an error, and whether trying again is of no use."""

    code: str
    message: str
    permanent: bool


def failure(error: Exception) -> Failure:
    """Tell an error of the target, or a defect of ours, which is told by its kind alone."""
    if isinstance(error, (ProvisionError, Invalid)):
        permanent = isinstance(error, Invalid) or error.permanent
        return Failure(error.code, _storable(error), permanent)
    logger.error("an attempt met with a defect", exc_info=error)
    text = f"Something unexpected ({type(error).__name__}); the worker's log tells more."
    return Failure("unexpected", text, permanent=False)


def _storable(error: DebugflowError) -> str:
    # A target's message is a stranger's text: PostgreSQL stores no NUL.
    return error.message.replace("\x00", "␀")[:ERROR_MAX]


def record(grant: Grant, step: Step, failed: Failure, *, now: datetime) -> None:
    """Put the failure on grant and step (the caller saves the grant) and, if new, into the log.

    An outage of hours is one line in the log, not one for every try.
    """
    if failed.message != grant.last_error:
        log.record(
            "grant.attempt_failed",
            actor=SYSTEM,
            subject=grant,
            at=now,
            step=str(step.kind),
            attempt=step.attempts,
            code=failed.code,
            error=failed.message,
        )
    step.last_error = grant.last_error = failed.message
    step.save(update_fields=["last_error"])
