"""Password verifiers: what a target is given in place of a password, so that its log has none."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from base64 import b64encode

ITERATIONS = 4096
"""PostgreSQL's own default (`scram_iterations`), and the least that RFC 7677 allows."""
SALT = 16
"""Bytes; what PostgreSQL uses (SCRAM_DEFAULT_SALT_LEN)."""


def verifier(password: str) -> str:
    """Return the SCRAM-SHA-256 verifier (RFC 5803, as PostgreSQL stores it) of a new password.

    libpq's own takes more than twice as long and lets no other thread run meanwhile. Raises
    ValueError unless it is printable ASCII, in which SASLprep (RFC 4013) changes nothing.
    """
    if not (password.isascii() and password.isprintable()):
        raise ValueError("a password that we make is printable ASCII")
    salt = secrets.token_bytes(SALT)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    told = f"{ITERATIONS}:{_text(salt)}${_text(stored)}:{_text(server)}"
    return f"SCRAM-SHA-256${told}"


def _text(value: bytes) -> str:
    return b64encode(value).decode()
