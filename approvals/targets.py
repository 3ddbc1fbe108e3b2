"""From a target's row to the provisioner that can act on it, with its secrets unsealed."""

from __future__ import annotations

from approvals import provisioning, secrets
from approvals.models import Target
from approvals.provisioning.base import Provisioner


def provisioner(target: Target) -> Provisioner:
    """Raises Invalid if the kind is unknown or the configuration does not fit it."""
    kind = provisioning.get(target.kind)
    clear = {
        name: secrets.unseal(sealed, table="target", key=str(target.pk), field=name)
        for name, sealed in target.secrets.items()
    }
    return kind(target.config, clear, target.trust_anchor)


def seal(target: Target, name: str, clear: str) -> str:
    return secrets.seal(clear, table="target", key=str(target.pk), field=name)
