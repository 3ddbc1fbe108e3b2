"""What a failing PostgreSQL says, as a `ProvisionError`: cleaned of secrets, with what to do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import psycopg

from approvals.errors import ProvisionError

LONGEST = 400
"""Characters kept of a message. The target is not trusted to be brief."""

PERMANENT_CLASSES = frozenset({"0A", "22", "23", "28", "2B", "3D", "3F", "42"})
"""SQLSTATE classes that a retry does not mend: features, data, rights, names (PostgreSQL manual,
appendix A). All others (08, 40, 53, 55, 57, 58, XX, none at all) may pass by themselves."""

PASSING = frozenset({"23505", "42710"})
"""Two openers of one account raced; the loser finds the winner's role when it tries again."""

FIXES = {
    "42501": "The admin account lacks a right: run “test connection” for the statement that helps.",
    "2BP01": "Someone gave the account rights or objects that only they can take back.",
    "53300": "The server has no connection free.",
    "57014": "It took too long, perhaps waiting for a lock.",
    "55P03": "It took too long, perhaps waiting for a lock.",
    "28000": "Check the admin account and pg_hba.conf.",
    "28P01": "Check the admin account's password.",
}
UNREACHABLE = "Check that the server runs and that its address and TLS settings are right."


@contextmanager
def translated(secrets: Iterable[str]) -> Iterator[None]:
    """Turn errors of the driver into `ProvisionError` without any of `secrets` in them."""
    try:
        yield
    except psycopg.Error as error:
        # Without the cause: its text and its frames may show what was cleaned away here.
        raise provision_error(error, secrets) from None
    except UnicodeError:
        raise ProvisionError(
            "The target sent text that is not in its own encoding.", code="target_failed"
        ) from None


def provision_error(error: psycopg.Error, secrets: Iterable[str]) -> ProvisionError:
    """Return what `error` means to us; permanent when trying again cannot help."""
    state = error.sqlstate or ""
    said = cleaned(". ".join(_said(error)), secrets)
    fix = FIXES.get(state) or ("" if state else UNREACHABLE)
    return ProvisionError(
        f"The target said: {said}. {fix}".strip(),
        code="target_failed" if state else "unreachable",
        permanent=state[:2] in PERMANENT_CLASSES and state not in PASSING,
        sqlstate=state,
    )


def _said(error: psycopg.Error) -> list[str]:
    parts = [error.diag.message_primary, error.diag.message_detail]
    return [part for part in parts if part] or [str(error)]


def cleaned(text: str, secrets: Iterable[str]) -> str:
    """Return `text` on one line, without control characters or secrets, and not too long."""
    for secret in secrets:
        text = text.replace(secret, "…") if secret else text
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line.rstrip(".") if len(line) <= LONGEST else line[: LONGEST - 1] + "…"
