"""The verbs of those who set things up: targets, levels, policies. Nothing is saved around them.

What is not built yet is refused here with a reason, since a setting nobody reads fails open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.contrib.auth.models import Group
from django.core.exceptions import ValidationError
from django.db import transaction

from approvals import provisioning, targets, workflow
from approvals.errors import Invalid, ProvisionError, WrongState
from approvals.models import (
    AccessLevel,
    AccessRequest,
    Grant,
    Policy,
    PolicyVersion,
    Reach,
    Risk,
    Stage,
    StageGroup,
    Target,
)
from approvals.policy import AppliesTo
from approvals.provisioning.base import parsed
from approvals.secrets import SecretUnreadable
from approvals.states import UNDECIDED
from approvals.transition import actor
from audit import clock, log

if TYPE_CHECKING:
    from approvals.people import Person

NOT_BUILT = {
    "gateway": "There is no gateway yet, so nothing would record its sessions. Choose direct.",
    "high": "High risk needs the gateway, and there is none yet. Choose low or medium.",
    "second_factor": "There is no second factor yet, so nobody could give one. Leave it off.",
}


@transaction.atomic
def save_target(target: Target, *, by: Person, clear_secrets: Mapping[str, str]) -> Target:
    """Save a new or changed target; `clear_secrets` replaces those it names.

    Raises Invalid for a configuration that its kind does not take, or a secret that does not sign
    in; WrongState for a change of address while access to the old one has not ended. A change of
    address clears the stored secrets, so that they are never sent somewhere else.
    """
    with log.batch():
        before = Target.objects.select_for_update(no_key=True).filter(pk=target.pk).first()
        now = clock.now()
        kind = provisioning.get(target.kind)
        target.config = parsed(kind.Config, target.config).model_dump(mode="json")
        target.address = kind.address(target.config)
        _clean(target)
        moved = before is not None and _moved(before, target)
        if before is not None and (moved or before.kind != target.kind):
            _refuse_while_open(before)
        target.secrets = {} if moved or before is None else before.secrets
        target.created_at = before.created_at if before else now
        target.save()
        _seal_secrets(target, kind.secrets, clear_secrets, signs_in=before is not None)
        log.record(
            "target.changed" if before else "target.created",
            actor=actor(by),
            subject=target,
            at=now,
            address=target.address,
            enabled=target.enabled,
            environment=target.environment,
            labels=target.labels,
            secrets_replaced=sorted(clear_secrets),
            secrets_cleared=moved,
        )
        if before is not None:
            _rescope(AccessRequest.objects.filter(target=target), by=by)
        return target


def _clean(obj: Target | AccessLevel) -> None:
    try:
        obj.full_clean(validate_constraints=True)
    except ValidationError as error:
        raise Invalid(fields=error.message_dict) from None


def _moved(before: Target, after: Target) -> bool:
    """Whether the stored secret would go to another place, or over another channel."""
    names = provisioning.get(before.kind).address_fields
    same = all(before.config.get(name) == after.config.get(name) for name in names)
    return not same or before.kind != after.kind or before.trust_anchor != after.trust_anchor


def _refuse_while_open(target: Target) -> None:
    count = Grant.objects.not_ended().filter(target=target).count()
    if count:
        raise WrongState(
            f"{count} grants on {target} have not ended, and changing where it is would keep them "
            "from being taken away. Revoke them first, then change it.",
            code="grants_open",
        )


def _seal_secrets(
    target: Target, names: Sequence[str], clear: Mapping[str, str], *, signs_in: bool
) -> None:
    """Store new secrets; for a target in use only after they have signed in."""
    if unknown := clear.keys() - set(names):
        raise Invalid(f"This kind has no secret called {', '.join(sorted(unknown))}.")
    if not clear:
        return
    sealed = {name: targets.seal(target, name, value) for name, value in clear.items()}
    target.secrets = {**target.secrets, **sealed}
    if signs_in and Grant.objects.not_ended().filter(target=target).exists():
        failed = [f.what for f in targets.provisioner(target).test() if not f.ok]
        if failed:
            raise Invalid(f"The new secret was not stored: {'; '.join(failed)}.", code="no_sign_in")
    target.save(update_fields=["secrets"])


def save_level(level: AccessLevel, *, by: Person) -> AccessLevel:
    """Save a new or changed level after checking its rights on the target.

    Raises Invalid, with every problem of the rights in words, and ProvisionError if the target
    cannot be asked. Pending requests whose scope this changes begin their chain anew.
    """
    _refuse_unbuilt_level(level)
    # The target is asked before any row is locked: it may take its time to answer.
    provisioner = targets.provisioner(level.target)
    level.rights = parsed(provisioner.Rights, level.rights).model_dump(mode="json")
    level.summary = list(provisioner.summarise(level.rights))
    with transaction.atomic(), log.batch():
        level.target = Target.objects.select_for_update(no_key=True).get(pk=level.target_id)
        before = AccessLevel.objects.select_for_update(no_key=True).filter(pk=level.pk).first()
        level.summarised_at = now = clock.now()
        if before is not None and before.target_id != level.target_id:
            raise Invalid("A level stays with its target. Make a new one there.")
        _clean(level)
        level.save()
        log.record(
            "accesslevel.changed" if before else "accesslevel.created",
            actor=actor(by),
            subject=level,
            at=now,
            rights=level.rights,
            summary=level.summary,
            risk=level.risk,
            reach=level.reach,
            rank=level.rank,
            max_duration=level.max_duration,
            enabled=level.enabled,
        )
        if before is not None:
            _rescope(AccessRequest.objects.filter(level=level), by=by)
        return level


def _refuse_unbuilt_level(level: AccessLevel) -> None:
    fields = {}
    if level.reach == Reach.GATEWAY:
        fields["reach"] = [NOT_BUILT["gateway"]]
    if level.risk == Risk.HIGH:
        fields["risk"] = [NOT_BUILT["high"]]
    if fields:
        raise Invalid(fields=fields)


def _rescope(requests: Any, *, by: Person) -> None:
    """Freeze the scope of undecided requests anew. The level's or target's lock is held, so none
    can be submitted under the old one meanwhile."""
    for pk in requests.undecided().order_by("pk").values_list("pk", flat=True):
        request = AccessRequest.objects.locked(pk)
        if request.state in UNDECIDED:
            workflow.rescope(request, by=by, now=clock.now())


@dataclass(frozen=True, kw_only=True)
class StageDraft:
    """One stage as an admin writes it. Times are seconds; groups map to their minimum."""

    name: str
    groups: Mapping[Group, int]
    total: int
    deny_quorum: int = 1
    deadline: int | None = None
    fallback_group: Group | None = None
    needs_second_factor: bool = False


@dataclass(frozen=True, kw_only=True)
class PolicyDraft:
    """The wording of one version, as an admin writes it. Times are seconds."""

    applies_to: AppliesTo
    stages: Sequence[StageDraft]
    max_duration: int
    pending_ttl: int = 86400
    activation_ttl: int = 3600
    reason_hint: str = ""
    ticket_required: bool = False


@transaction.atomic
def publish(policy: Policy, draft: PolicyDraft, *, by: Person) -> PolicyVersion:
    """Make `draft` the policy's next version, in force from now on for new requests.

    Requests keep the version they were asked under. Raises Invalid for what could not work.
    """
    with log.batch():
        policy = Policy.objects.select_for_update().get(pk=policy.pk)
        now = clock.now()
        if problems := _problems(draft):
            raise Invalid(" ".join(problems), code="unpublishable")
        version = PolicyVersion.objects.create(
            policy=policy,
            number=policy.versions.count() + 1,
            applies_to=draft.applies_to.model_dump(),
            reason_hint=draft.reason_hint,
            ticket_required=draft.ticket_required,
            max_duration=draft.max_duration,
            pending_ttl=draft.pending_ttl,
            activation_ttl=draft.activation_ttl,
            published_by=by,
        )
        for order, stage in enumerate(draft.stages):
            _write_stage(version, order, stage)
        version.published_at = now
        version.save(update_fields=["published_at"])
        policy.current = version
        policy.save(update_fields=["current"])
        log.record(
            "policy.published",
            actor=actor(by),
            subject=policy,
            at=now,
            policy_version=str(version),
            applies_to=version.applies_to,
            max_duration=version.max_duration,
            pending_ttl=version.pending_ttl,
            activation_ttl=version.activation_ttl,
            stages=[_told(stage) for stage in draft.stages],
        )
        return version


def _problems(draft: PolicyDraft) -> list[str]:
    found = []
    if not draft.stages:
        found.append("A policy needs at least one stage; without one nobody would be asked.")
    if min(draft.max_duration, draft.pending_ttl, draft.activation_ttl) <= 0:
        found.append("Durations are at least one second.")
    for stage in draft.stages:
        found += [f"Stage “{stage.name}”: {problem}" for problem in _stage_problems(stage)]
    return found


def _stage_problems(stage: StageDraft) -> list[str]:
    found = []
    if not stage.name.strip():
        found.append("it needs a name.")
    if not stage.groups:
        found.append("it names no group, so it would ask nobody.")
    if any(minimum < 0 for minimum in stage.groups.values()):
        found.append("a group's minimum cannot be below 0.")
    if stage.total < 1 or stage.total < sum(stage.groups.values()):
        found.append("its total is at least 1 and at least the sum of the groups' minima.")
    if stage.deny_quorum < 1:
        found.append("a denial needs at least one person.")
    if stage.deadline is not None and stage.deadline <= 0:
        found.append("its deadline is at least one second.")
    if stage.needs_second_factor:
        found.append(NOT_BUILT["second_factor"])
    return found


def _write_stage(version: PolicyVersion, order: int, draft: StageDraft) -> None:
    stage = Stage.objects.create(
        version=version,
        order=order,
        name=draft.name,
        total=draft.total,
        deny_quorum=draft.deny_quorum,
        deadline=draft.deadline,
        fallback_group=draft.fallback_group,
        needs_second_factor=draft.needs_second_factor,
    )
    StageGroup.objects.bulk_create(
        StageGroup(stage=stage, group=group, minimum=minimum)
        for group, minimum in draft.groups.items()
    )


def _told(stage: StageDraft) -> dict[str, Any]:
    return {
        "name": stage.name,
        "groups": {group.name: minimum for group, minimum in stage.groups.items()},
        "total": stage.total,
        "deny_quorum": stage.deny_quorum,
        "deadline": stage.deadline,
        "fallback": stage.fallback_group.name if stage.fallback_group else "",
    }


@transaction.atomic
def change_policy(policy: Policy, *, by: Person) -> Policy:
    """Save a policy's name, rank and whether it is on; what it says changes by `publish` only."""
    with log.batch():
        now = clock.now()
        try:
            policy.full_clean()
        except ValidationError as error:
            raise Invalid(fields=error.message_dict) from None
        # Not `current`: whoever loaded the policy before a publication would undo it.
        policy.save(update_fields=None if policy._state.adding else ["name", "rank", "enabled"])
        log.record(
            "policy.changed",
            actor=actor(by),
            subject=policy,
            at=now,
            name=policy.name,
            rank=policy.rank,
            enabled=policy.enabled,
        )
        return policy


def check_target(target: Target) -> list[tuple[bool, str, str]]:
    """“Test connection”: rows of (fine, what was looked at, how to mend it). Changes nothing."""
    try:
        findings = targets.provisioner(target).test()
    except (Invalid, ProvisionError) as error:
        return [(False, error.message, "Save the target with a configuration its kind takes.")]
    except SecretUnreadable as error:
        fix = "Enter the secret again, or bring back the key that DEBUGFLOW_ENCRYPTION_KEYS lost."
        return [(False, str(error), fix)]
    return [(finding.ok, finding.what, finding.fix) for finding in findings]
