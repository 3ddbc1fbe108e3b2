"""Verbs, run again with the arguments they were proposed with (see `proposals`).

Each raises what its verb raises, and WrongState where what it names is gone.
"""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.db import models

from approvals import administration, delegating, proposals
from approvals.administration import PolicyDraft, StageDraft
from approvals.as_data import STAGE_GROUPS, Data
from approvals.delegating import Lending
from approvals.errors import WrongState
from approvals.models import AccessLevel, Delegation, Policy, PolicyVersion, Target
from approvals.notify.slack import workspace
from approvals.policy import AppliesTo
from approvals.proposals import Change

if TYPE_CHECKING:
    from approvals.people import Person

Known = TypeVar("Known", bound=models.Model)


def found(model: type[Known], pk: int) -> Known:
    """Raises WrongState, code `gone`."""
    there = model._default_manager.filter(pk=pk).first()
    if there is None:
        raise WrongState("What it was about is not there any more.", code="gone")
    return there


def _filled(model: type[Known], arguments: Data) -> Known:
    obj = found(model, arguments["id"]) if arguments["id"] else model()
    for name, value in arguments["values"].items():
        setattr(obj, name, value)
    return obj


def _save_target(arguments: Data, by: Person) -> Target:
    return administration.save_target(_filled(Target, arguments), by=by, clear_secrets={})


def _save_level(arguments: Data, by: Person) -> AccessLevel:
    found(Target, arguments["values"]["target_id"])
    return administration.save_level(_filled(AccessLevel, arguments), by=by)


def _change_policy(arguments: Data, by: Person) -> Policy:
    return administration.change_policy(_filled(Policy, arguments), by=by)


def _publish(arguments: Data, by: Person) -> PolicyVersion:
    policy = found(Policy, arguments["id"])
    base = policy.versions.filter(number=arguments["based_on"]).first()
    draft, pending = _draft(arguments["draft"]), arguments["pending"]
    return administration.publish(policy, draft, based_on=base, by=by, pending=pending)


def _draft(data: Data) -> PolicyDraft:
    told = data["emergency_tells"]
    made = {
        "applies_to": AppliesTo.model_validate(data["applies_to"]),
        "stages": [_stage(stage) for stage in data["stages"]],
        "emergency_groups": [found(Group, pk) for pk in data["emergency_groups"]],
        "emergency_tells": found(Group, told) if told else None,
    }
    return PolicyDraft(**{**data, **made})


def _stage(data: Data) -> StageDraft:
    groups = {found(Group, pk): minimum for pk, minimum in data["groups"]}
    later = {name: found(Group, data[name]) if data[name] else None for name in STAGE_GROUPS}
    return StageDraft(**{**data, "groups": groups, **later})


def _change_holders(model: type[Target | AccessLevel], arguments: Data, by: Person) -> None:
    kinds: dict[str, type[models.Model]] = {"groups": Group, "people": get_user_model()}
    wanted: Any = {
        permission: {who: [found(kinds[who], pk) for pk in ids] for who, ids in chosen.items()}
        for permission, chosen in arguments["wanted"].items()
    }
    administration.change_holders(found(model, arguments["id"]), wanted, by=by)


def _lend(arguments: Data, by: Person) -> Delegation:
    people = get_user_model()
    person, to = (found(people, arguments[name]) for name in ("person", "delegate"))
    start = arguments["starts_at"]
    lending = Lending(
        delegate=to.get_username(),
        starts_at=datetime.fromisoformat(start) if start else None,
        ends_at=datetime.fromisoformat(arguments["ends_at"]),
        note=arguments["note"],
    )
    return delegating.delegate(person.pk, by=by, lending=lending)


CHANGES: Final = (
    Change("target.save", "approvals.change_target", _save_target, "approvals.add_target"),
    Change("level.save", "approvals.change_accesslevel", _save_level, "approvals.add_accesslevel"),
    Change("policy.change", "approvals.change_policy", _change_policy, "approvals.add_policy"),
    Change("policy.publish", "approvals.change_policy", _publish),
    Change("target.holders", "approvals.change_target", partial(_change_holders, Target)),
    Change(
        "accesslevel.holders",
        "approvals.change_accesslevel",
        partial(_change_holders, AccessLevel),
    ),
    Change("delegation.make", "approvals.change_policy", _lend),
    Change(
        workspace.SET_UP,
        "approvals.change_slackworkspace",
        workspace.allow,
        "approvals.add_slackworkspace",
    ),
)

for _change in CHANGES:
    proposals.register(_change)
