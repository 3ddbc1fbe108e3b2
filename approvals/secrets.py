"""Secrets at rest: sealed for one place (table, key, field) and readable nowhere else.

Which rows hold secrets, and who may see one, is not decided here.
"""

from __future__ import annotations

import json
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.views.decorators.debug import sensitive_variables

FORMAT = 1
"""The version of the envelope, its member `v`."""

HOW_TO_MAKE_A_KEY = (
    "DEBUGFLOW_ENCRYPTION_KEYS needs Fernet keys, newest first, with commas between. Make one: "
    'python -c "from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())"'
)


class SecretUnreadable(Exception):
    """A stored secret was changed, or none of the keys in use has encrypted it."""

    def __init__(self) -> None:
        super().__init__(type(self).__doc__)


class SecretMisplaced(SecretUnreadable):
    """A stored secret was moved: it was sealed for another table, row or field."""


@sensitive_variables()
def seal(clear: str, *, table: str, key: str, field: str) -> str:
    """Encrypt `clear` for one field of one row, under the newest key.

    The place goes inside the ciphertext, so that whoever can write rows cannot make one row use
    another's secret. Raises ImproperlyConfigured without a usable key.
    """
    envelope = {"v": FORMAT, "table": table, "key": key, "field": field, "clear": clear}
    return _box().encrypt(json.dumps(envelope).encode()).decode()


@sensitive_variables()
def unseal(cipher: str, *, table: str, key: str, field: str) -> str:
    """The text that was sealed for exactly this place.

    Raises SecretUnreadable, SecretMisplaced, and ImproperlyConfigured without a usable key.
    """
    envelope = _open(cipher)
    place = [envelope.get(name) for name in ("v", "table", "key", "field")]
    if place != [FORMAT, table, key, field]:
        raise SecretMisplaced
    return str(envelope["clear"])


def rotate(cipher: str) -> str:
    """The same secret for the same place, encrypted under the newest key.

    Raises SecretUnreadable, and ImproperlyConfigured without a usable key.
    """
    try:
        return _box().rotate(cipher.encode()).decode()
    except InvalidToken:
        raise SecretUnreadable from None


def is_current(cipher: str) -> bool:
    """Whether it is encrypted under the newest key, so that the older ones are not needed for it.

    Raises ImproperlyConfigured without a usable key.
    """
    _box()
    try:
        Fernet(settings.ENCRYPTION_KEYS[0]).decrypt(cipher.encode())
    except InvalidToken:
        return False
    return True


@sensitive_variables()
def _open(cipher: str) -> dict[str, Any]:
    try:
        envelope = json.loads(_box().decrypt(cipher.encode()))
    except (InvalidToken, ValueError):
        # Without its cause, which may quote the text.
        raise SecretUnreadable from None
    if not isinstance(envelope, dict):
        raise SecretUnreadable
    return envelope


def _box() -> MultiFernet:
    try:
        return MultiFernet([Fernet(key) for key in settings.ENCRYPTION_KEYS])
    except ValueError:
        # Both for no key at all and for one that is not 32 bytes of URL-safe base64.
        raise ImproperlyConfigured(HOW_TO_MAKE_A_KEY) from None
