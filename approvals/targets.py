"""From a target's row to the provisioner that can act on it, with its secrets unsealed."""

from __future__ import annotations

from collections.abc import Mapping

from approvals import provisioning, secrets
from approvals.errors import ProvisionError
from approvals.models import Target
from approvals.provisioning.base import Provisioner
from approvals.secrets import SecretUnreadable


def provisioner(target: Target, clear: Mapping[str, str] | None = None) -> Provisioner:
    """The target's, with its stored secrets, those named in `clear` in their place.

    Raises Invalid if the kind is unknown or the configuration does not fit it; ProvisionError,
    code `secret_unreadable`, for a secret that no key in use reads. It may pass: a lost key can be
    brought back.
    """
    kind = provisioning.get(target.kind)
    given = dict(clear or {})
    stored = {name: _unsealed(target, name) for name in target.secrets.keys() - given.keys()}
    return kind(target.config, stored | given, target.trust_anchor)


def _unsealed(target: Target, name: str) -> str:
    sealed = target.secrets[name]
    try:
        return secrets.unseal(sealed, table="target", key=str(target.pk), field=name)
    except SecretUnreadable as error:
        raise ProvisionError(
            f"The stored {name} of {target} cannot be read: {error} Bring back the key that "
            "DEBUGFLOW_ENCRYPTION_KEYS lost, or enter the secret again.",
            code="secret_unreadable",
        ) from error


def seal(target: Target, name: str, clear: str) -> str:
    return secrets.seal(clear, table="target", key=str(target.pk), field=name)
