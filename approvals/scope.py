"""What exactly an approval is for: the frozen scope and its hash (RFC 8785, SHA-256).

The scope covers everything that decides what will run, and nothing that does not. Who asked is
not in it: it does not change what is opened. Nothing is saved here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import rfc8785

from audit.models import timestamp

if TYPE_CHECKING:
    from approvals.models import AccessLevel, AccessRequest, PolicyVersion
    from approvals.people import Person

Scope = dict[str, Any]


def freeze(
    *,
    beneficiary: Person,
    level: AccessLevel,
    duration: int,
    starts_at: datetime | None,
    reason: str,
    ticket: str,
    policy_version: PolicyVersion,
    extends: int | None = None,
) -> Scope:
    """The scope of a request as the level and its target stand now. `extends` is a grant's id."""
    return {
        **({} if extends is None else {"extends": extends}),
        "beneficiary": beneficiary.pk,
        "target": {
            "id": level.target.pk,
            "address": level.target.address,
            "trust_anchor": level.target.trust_anchor,
        },
        **of_level(level),
        "duration": duration,
        "start": timestamp(starts_at) if starts_at else None,
        "reason": reason,
        "ticket": ticket,
        "policy_version": policy_version.pk,
    }


def of_level(level: AccessLevel) -> Scope:
    """The part of a scope that tells what is opened, as the level stands now."""
    return {
        "level": {"id": level.pk, "rights": level.rights, "summary": level.summary},
        "reach": level.reach,
        "guardrails": level.guardrails,
    }


def narrowed(whole: Mapping[str, Any], *, duration: int, level: Mapping[str, Any]) -> Scope:
    """The same scope for `duration` seconds of a `level`, which is as `of_level` told it."""
    return {**whole, **{name: level[name] for name in OF_A_LEVEL}, "duration": duration}


OF_A_LEVEL = ("level", "reach", "guardrails")
"""What a scope has of its level."""


def of(
    request: AccessRequest, *, level: AccessLevel | None = None, duration: int | None = None
) -> Scope:
    """The scope this request would freeze if it were submitted now, or with less than it asks."""
    return freeze(
        beneficiary=request.beneficiary,
        level=level or request.level,
        duration=duration or request.duration,
        starts_at=request.starts_at,
        reason=request.reason,
        ticket=request.ticket,
        policy_version=request.policy_version,
        extends=request.extends_id,
    )


OF_ONE_REQUEST = ("duration", "start", "reason", "ticket", "extends")
"""What an extension has of its own. All else is as it was approved for the access it prolongs."""


def drift(granted: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """The dotted names of what an extension would open otherwise than the grant was approved."""
    before, now = (
        {name: value for name, value in one.items() if name not in OF_ONE_REQUEST}
        for one in (granted, asked)
    )
    return differences(before, now)


def digest(scope: Mapping[str, Any]) -> str:
    return hashlib.sha256(rfc8785.dumps(dict(scope))).hexdigest()


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The dotted names of what differs between two scopes, for people to read."""
    names: list[str] = []
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            names += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            names.append(f"{prefix}{key}")
    return names
