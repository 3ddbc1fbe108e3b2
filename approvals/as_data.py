"""The arguments of the set-up's verbs as plain data, to be kept until somebody agrees to them.

No secret is among them. They are made arguments again, and carried out, in `carrying_out`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

from django.db import models

from approvals.errors import Invalid

if TYPE_CHECKING:
    from approvals.administration import PolicyDraft, StageDraft
    from approvals.models import AccessLevel, Policy, PolicyVersion, Target

TARGET: Final = (
    "name",
    "description",
    "kind",
    "environment",
    "labels",
    "config",
    "trust_anchor",
    "enabled",
)
LEVEL: Final = (
    "target_id",
    "name",
    "description",
    "rights",
    "risk",
    "max_duration",
    "reach",
    "rank",
    "enabled",
)
POLICY: Final = ("name", "rank", "enabled")
STAGE_GROUPS: Final = ("fallback_group", "escalation_group")

Data = dict[str, Any]


def target(target: Target, stored: Target | None, clear_secrets: Mapping[str, str]) -> Data:
    """Raises Invalid where a secret would have to be kept until somebody agrees."""
    if clear_secrets:
        raise Invalid(
            "This takes a second person, and a secret is not kept until then. Leave it empty, and "
            "type it once somebody has agreed.",
            code="secret_in_proposal",
        )
    return {"id": stored.pk if stored else None, "values": _plain(target, TARGET)}


def level(level: AccessLevel, stored: int | None) -> Data:
    return {"id": stored, "values": _plain(level, LEVEL)}


def policy(policy: Policy, stored: int | None) -> Data:
    return {"id": stored, "values": _plain(policy, POLICY)}


def _plain(obj: models.Model, names: Sequence[str]) -> Data:
    """These fields as JSON has them: the plain text of an enumeration's member, too."""
    values = {name: getattr(obj, name) for name in names}
    return {n: str(value) if isinstance(value, str) else value for n, value in values.items()}


def publication(
    policy: Policy, draft: PolicyDraft, based_on: PolicyVersion | None, pending: str
) -> Data:
    return {
        "id": policy.pk,
        "draft": _draft(draft),
        "based_on": based_on.number if based_on else 0,
        "pending": str(pending),
    }


def _draft(draft: PolicyDraft) -> Data:
    told = draft.emergency_tells
    return {
        **{one.name: getattr(draft, one.name) for one in fields(draft)},
        "applies_to": draft.applies_to.model_dump(),
        "stages": [_stage(stage) for stage in draft.stages],
        "emergency_groups": [group.pk for group in draft.emergency_groups],
        "emergency_tells": told.pk if told else None,
        "extension_approval": str(draft.extension_approval),
    }


def _stage(stage: StageDraft) -> Data:
    later = {name: getattr(stage, name) for name in STAGE_GROUPS}
    return {
        **{one.name: getattr(stage, one.name) for one in fields(stage)},
        "groups": [[group.pk, minimum] for group, minimum in stage.groups.items()],
        **{name: group.pk if group else None for name, group in later.items()},
    }


def holders(obj: models.Model, wanted: Mapping[str, Mapping[str, Sequence[Any]]]) -> Data:
    """By permission, and `groups` or `people`: their ids."""
    chosen = {
        permission: {who: sorted(one.pk for one in people) for who, people in found.items()}
        for permission, found in wanted.items()
    }
    return {"id": obj.pk, "wanted": chosen}
