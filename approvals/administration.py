"""The verbs of those who set things up: targets, levels, policies. Nothing is saved around them.

Each asks for the model's own permission (add, change or delete), and records what it refuses. What
widens access to production takes two (`proposals`): then they raise Proposed.
What is not built yet is refused here with a reason, since a setting nobody reads fails open.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from django.conf import settings
from django.contrib.auth.models import Group
from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.db.models import Q

from approvals import as_data, holders, proposals, provisioning, republishing, rounds, targets
from approvals.errors import Invalid, NotAllowed, ProvisionError, WrongState
from approvals.lengths import lasting
from approvals.models import (
    AccessLevel,
    AccessRequest,
    Environment,
    ExtensionApproval,
    Grant,
    Policy,
    PolicyVersion,
    Reach,
    Risk,
    Stage,
    StageGroup,
    Target,
    Vote,
)
from approvals.policy import AppliesTo
from approvals.proposals import Wanted
from approvals.provisioning.base import Provisioner, parsed
from approvals.republishing import Fate, Pending
from approvals.states import UNDECIDED
from approvals.transition import actor
from audit import clock, log
from audit.log import Subject

if TYPE_CHECKING:
    from approvals.people import Person

NOT_BUILT = {
    "gateway": "There is no gateway yet, so nothing would record its sessions. Choose direct.",
    "high": "High risk needs the gateway, and there is none yet. Choose low or medium.",
    "second_factor": "There is no second factor yet, so nobody could give one. Leave it off.",
}
REMIND_LEAST = 60  # seconds between two reminders
REMIND_MOST = 50
# What Events say of each besides.
TARGET_TOLD = ("address", "enabled", "environment", "labels")
LEVEL_TOLD = ("rights", "summary", "risk", "reach", "rank", "max_duration", "enabled")
EXTENSIONS = (
    "extensions_most",
    "extension_max",
    "max_total",
    "extension_approval",
    "extension_window",
    "bridge",
)
VERSION_TOLD = (
    "applies_to",
    "max_duration",
    "pending_ttl",
    "activation_ttl",
    "emergency_groups",
    "emergency_duration",
    "review_within",
    "review_all",
    *EXTENSIONS,
    "allow_delegation",
)

T = TypeVar("T")
P = ParamSpec("P")
SetUp = TypeVar("SetUp", bound="Target | AccessLevel | Policy")


def _verb(function: Callable[Concatenate[SetUp, P], T]) -> Callable[Concatenate[SetUp, P], T]:
    """Make a function of an object a verb: its refusals are recorded after its roll-back.

    Where four eyes are needed, it raises Proposed, and what it was to do is written down.
    """

    @functools.wraps(function)
    def run(obj: SetUp, /, *args: P.args, **kwargs: P.kwargs) -> T:
        by: Any = kwargs["by"]
        try:
            with proposals.proposing(by=by):
                return function(obj, *args, **kwargs)
        except (NotAllowed, WrongState, Invalid) as error:
            log.record_refusal(
                "administration.refused",
                actor=actor(by),
                subject=_stored_subject(obj),
                code=error.code,
            )
            raise

    return run


def _stored_subject(obj: Target | AccessLevel | Policy) -> Subject:
    """As it is stored: what was to become of it was refused."""
    stored = type(obj)._default_manager.filter(pk=obj.pk).first()
    if stored is not None:
        return stored.audit_subject()
    return Subject(str(obj._meta.model_name), "", f"a new {obj._meta.verbose_name}")


def _authorize(by: Person, verb: str, obj: Target | AccessLevel | Policy) -> None:
    """Raise NotAllowed for whoever may not `verb` (add, change, delete) such an object."""
    if not by.has_perm(f"approvals.{verb}_{obj._meta.model_name}"):
        raise NotAllowed(f"You may not {verb} {obj._meta.verbose_name_plural}.", code="not_admin")


@_verb
def save_target(target: Target, *, by: Person, clear_secrets: Mapping[str, str]) -> Target:
    """Save a new or changed target; `clear_secrets` replaces those it names.

    Raises NotAllowed; Invalid for a configuration that its kind does not take, or a secret in
    place of another that does not sign in; WrongState for a change that would keep access that has
    not ended from being taken away. A change of address clears the stored secrets, so that they
    are never sent somewhere else.
    """
    stored = Target.objects.filter(pk=target.pk).first()
    _authorize(by, "change" if stored else "add", target)
    kind = provisioning.get(target.kind)
    target.config = parsed(kind.Config, target.config).model_dump(mode="json")
    target.address = kind.address(target.config)
    _clean(target)
    _refuse_unverified(target, kind)
    if unknown := clear_secrets.keys() - set(kind.secrets):
        raise Invalid(f"This kind has no secret called {', '.join(sorted(unknown))}.")
    # The target is asked before its row is locked: it may take its time to answer.
    tried = _replaces(stored, target, clear_secrets)
    if stored is not None and tried:
        _refuse_unless_it_signs_in(target, stored, clear_secrets)
    wanted = Wanted(
        change="target.save",
        obj=target,
        summary=f"{'Change' if stored else 'Add'} the target {target.name}",
        arguments=lambda: as_data.target(target, stored, clear_secrets),
        subject=target.audit_subject,
    )
    with transaction.atomic(), log.batch(), proposals.watched(wanted, by=by):
        before = Target.objects.select_for_update(no_key=True).filter(pk=target.pk).first()
        if _replaces(before, target, clear_secrets) and not tried:
            raise WrongState
        return _store_target(target, before, by=by, clear_secrets=clear_secrets)


def _store_target(
    target: Target, before: Target | None, *, by: Person, clear_secrets: Mapping[str, str]
) -> Target:
    """The part under the lock of `before`, the row as it is stored."""
    now = clock.now()
    moved = before is not None and bool(_moves(before, target))
    if before is not None:
        _refuse_while_open(before, target)
    target.secrets = {} if moved or before is None else before.secrets
    target.created_at = before.created_at if before else now
    target.save()
    _seal(target, clear_secrets)
    log.record(
        "target.changed" if before else "target.created",
        actor=actor(by),
        subject=target,
        at=now,
        secrets_replaced=sorted(clear_secrets),
        secrets_cleared=moved,
        **{name: getattr(target, name) for name in TARGET_TOLD},
    )
    if before is not None:
        _rescope(AccessRequest.objects.filter(target=target), by=by)
    return target


def _seal(target: Target, clear_secrets: Mapping[str, str]) -> None:
    """Sealed for its id, which a new target has only once it is saved."""
    if clear_secrets:
        sealed = {name: targets.seal(target, name, text) for name, text in clear_secrets.items()}
        target.secrets = {**target.secrets, **sealed}
        target.save(update_fields=["secrets"])


def _clean(obj: Target | AccessLevel) -> None:
    try:
        obj.full_clean(validate_constraints=True)
    except ValidationError as error:
        raise Invalid(fields=error.message_dict) from None


def _refuse_unverified(target: Target, kind: type[Provisioner]) -> None:
    """Production is not opened where another system could stand in its place.

    Switching such a target off is never refused.
    """
    allowed = getattr(settings, "ALLOW_UNVERIFIED_TARGETS", False)
    if target.environment != Environment.PRODUCTION or not target.enabled or allowed:
        return
    if why := kind.unverified(target.config):
        raise Invalid(
            f"{why}. Production is not opened without (DEBUGFLOW_ALLOW_UNVERIFIED_TARGETS=True "
            "would allow it for every target).",
            code="unverified",
        )


def _moves(before: Target, after: Target) -> list[str]:
    """What makes the stored secret go to another place, or over another channel, by name."""
    columns = [n for n in ("kind", "trust_anchor") if getattr(before, n) != getattr(after, n)]
    return [*_differing(before, after, provisioning.get(before.kind).address_fields), *columns]


def _differing(before: Target, after: Target, names: Sequence[str]) -> list[str]:
    return [name for name in names if before.config.get(name) != after.config.get(name)]


def _refuse_while_open(before: Target, after: Target) -> None:
    hindering = provisioning.get(before.kind).hindering(before.config, after.config)
    changed = [*_moves(before, after), *hindering]
    count = Grant.objects.not_ended().filter(target=before).count() if changed else 0
    if count:
        raise WrongState(
            f"{count} grants on {before} have not ended, and changing {', '.join(changed)} would "
            "keep them from being taken away. Revoke them first, then change it.",
            code="grants_open",
            fields=changed,
        )


def _replaces(before: Target | None, after: Target, clear: Mapping[str, str]) -> bool:
    """Whether a secret in `clear` would take the place of one that is stored for this address."""
    if before is None or not before.secrets.keys() & clear.keys():
        return False
    return not _moves(before, after)


def _refuse_unless_it_signs_in(target: Target, stored: Target, clear: Mapping[str, str]) -> None:
    target.secrets = stored.secrets
    try:
        targets.provisioner(target, clear).signs_in()
    except ProvisionError as error:
        why = (
            f"The new {' and '.join(sorted(clear))} did not sign in, so the old one stays and "
            f"nothing was saved. {error.message} Mend that, then save again."
        )
        fields = {name: [why] for name in sorted(clear)}
        raise Invalid(why, code="no_sign_in", fields=fields) from None


@_verb
def save_level(level: AccessLevel, *, by: Person) -> AccessLevel:
    """Save a new or changed level after checking its rights on the target.

    Raises NotAllowed; Invalid, with every problem of the rights in words; ProvisionError if the
    target cannot be asked. Pending requests whose scope this changes begin their chain anew.
    """
    known = AccessLevel.objects.filter(pk=level.pk).exists()
    stored = level.pk if known else None
    _authorize(by, "change" if known else "add", level)
    _refuse_unbuilt_level(level)
    # The target is asked before any row is locked: it may take its time to answer.
    provisioner = targets.provisioner(level.target)
    level.rights = parsed(provisioner.Rights, level.rights).model_dump(mode="json")
    level.summary = list(provisioner.summarise(level.rights))
    wanted = Wanted(
        change="level.save",
        obj=level,
        summary=f"{'Change' if known else 'Add'} the level {level}",
        arguments=lambda: as_data.level(level, stored),
        subject=level.audit_subject,
    )
    with transaction.atomic(), log.batch(), proposals.watched(wanted, by=by):
        return _store_level(level, by=by)


def _store_level(level: AccessLevel, *, by: Person) -> AccessLevel:
    """The part under the locks of its target and of the row as it is stored."""
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
        **{name: getattr(level, name) for name in LEVEL_TOLD},
    )
    if before is not None:
        _rescope(AccessRequest.objects.filter(level=level), by=by)
        _void_stale(level, by=by)
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
            rounds.rescope(request, by=by, now=clock.now())


def _void_stale(level: AccessLevel, *, by: Person) -> None:
    """Void what was approved with less where this level is what was left, or what was asked: its
    rank says whether the other is lower. The target's lock is held, as above."""
    given = Vote.objects.counting().filter(reduced_level__isnull=False)
    either = Q(reduced_level=level) | Q(stage__request__level=level)
    keys = given.filter(either).order_by().values("stage__request")
    requests = AccessRequest.objects.filter(pk__in=keys).undecided().order_by("pk")
    for pk in requests.values_list("pk", flat=True):
        request = AccessRequest.objects.locked(pk)
        if request.state in UNDECIDED:
            rounds.void_stale(request, by=by, now=clock.now())


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
    remind_every: int | None = None
    max_reminders: int | None = None
    escalate_after: int | None = None
    escalation_group: Group | None = None


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
    emergency_groups: Sequence[Group] = ()
    emergency_duration: int | None = None
    emergency_tells: Group | None = None
    review_within: int = 86400
    review_all: bool = False
    extensions_most: int = 0
    extension_max: int = 0
    max_total: int = 0
    extension_approval: str = ExtensionApproval.CHAIN
    extension_window: int = 0
    bridge: int = 0
    allow_delegation: bool = True


@_verb
@transaction.atomic
def publish(
    policy: Policy,
    draft: PolicyDraft,
    *,
    based_on: PolicyVersion | None,
    by: Person,
    pending: str = Pending.KEEP,
) -> PolicyVersion:
    """Make `draft` the policy's next version, in force from now on for new requests.

    `pending` says what becomes of the undecided ones, by default nothing. `based_on` is the version
    that the draft was made from, None if there was none. Raises NotAllowed; WrongState, code
    `newer_version`, if another has been published since; Invalid for what could not work.
    """
    fates: list[Fate] = []
    wanted = Wanted(
        change="policy.publish",
        obj=policy,
        summary=f"Publish version {based_on.number + 1 if based_on else 1} of the policy {policy}",
        arguments=lambda: as_data.publication(policy, draft, based_on, pending),
        subject=policy.audit_subject,
        besides=lambda: republishing.outlook(policy, pending, fates),
    )
    with proposals.watched(wanted, by=by):
        version = _publish(policy, draft, based_on=based_on, by=by)
        with log.batch():
            fates += republishing.settle(policy, pending, by=by)
    return version


@_verb
@transaction.atomic
def rehearse(
    policy: Policy,
    draft: PolicyDraft,
    *,
    based_on: PolicyVersion | None,
    by: Person,
    look: Callable[[PolicyVersion], T],
) -> T:
    """What `look` sees right after `publish`, all of which is then taken back."""
    seen = look(_publish(policy, draft, based_on=based_on, by=by))
    transaction.set_rollback(True)
    return seen


def _publish(
    policy: Policy, draft: PolicyDraft, *, based_on: PolicyVersion | None, by: Person
) -> PolicyVersion:
    _authorize(by, "change", policy)
    with log.batch():
        policy = Policy.objects.select_for_update().get(pk=policy.pk)
        now = clock.now()
        _refuse_stale(policy, based_on)
        if problems := _problems(draft):
            raise Invalid(" ".join(problems), code="unpublishable")
        version = policy.current = _write_version(policy, draft, by=by, now=now)
        policy.save(update_fields=["current"])
        log.record(
            "policy.published",
            actor=actor(by),
            subject=policy,
            at=now,
            policy_version=str(version),
            stages=[_told(stage) for stage in draft.stages],
            **{name: getattr(version, name) for name in VERSION_TOLD},
        )
        return version


def _refuse_stale(policy: Policy, based_on: PolicyVersion | None) -> None:
    if policy.current != based_on:
        raise WrongState(
            f"Version {policy.current.number if policy.current else 0} was published "
            "meanwhile. Look at it, then begin again from it.",
            code="newer_version",
        )


def _write_version(
    policy: Policy, draft: PolicyDraft, *, by: Person, now: datetime
) -> PolicyVersion:
    """Published last: from then on neither it nor a stage of it can be changed."""
    version = PolicyVersion.objects.create(
        policy=policy,
        number=policy.versions.count() + 1,
        applies_to=draft.applies_to.model_dump(),
        reason_hint=draft.reason_hint,
        ticket_required=draft.ticket_required,
        allow_delegation=draft.allow_delegation,
        max_duration=draft.max_duration,
        pending_ttl=draft.pending_ttl,
        activation_ttl=draft.activation_ttl,
        emergency_groups=[group.pk for group in draft.emergency_groups],
        emergency_duration=draft.emergency_duration,
        emergency_tells=draft.emergency_tells,
        review_within=draft.review_within,
        review_all=draft.review_all,
        published_by=by,
        **{name: getattr(draft, name) for name in EXTENSIONS},
    )
    for order, stage in enumerate(draft.stages):
        _write_stage(version, order, stage)
    version.published_at = now
    version.save(update_fields=["published_at"])
    return version


def _problems(draft: PolicyDraft) -> list[str]:
    found = []
    if not draft.stages:
        found.append("A policy needs at least one stage; without one nobody would be asked.")
    if min(draft.max_duration, draft.pending_ttl, draft.activation_ttl) <= 0:
        found.append("Durations are at least one second.")
    found += _emergency_problems(draft)
    found += _extension_problems(draft)
    for stage in draft.stages:
        problems = _stage_problems(stage)
        if stage.escalate_after and stage.escalate_after >= draft.pending_ttl:
            problems.append("the request would be over before it escalates.")
        found += [f"Stage “{stage.name}”: {problem}" for problem in problems]
    return found


def _emergency_problems(draft: PolicyDraft) -> list[str]:
    found = []
    lasts = draft.emergency_duration
    if draft.emergency_groups and not lasts:
        found.append("Say how long an emergency lasts.")
    if lasts is not None and not draft.emergency_groups:
        found.append("Name the groups that may open without approval; without one it is nobody.")
    if lasts is not None and not 0 < lasts <= draft.max_duration:
        found.append("An emergency lasts at least a second, and no longer than other access.")
    if draft.review_within <= 0:
        found.append("Whoever looks back needs at least a second for it.")
    return found


def _extension_problems(draft: PolicyDraft) -> list[str]:
    bounds = (draft.extension_max, draft.max_total, draft.extension_window, draft.bridge)
    if min(draft.extensions_most, *bounds) < 0:
        return ["What it allows of longer access cannot be below 0."]
    if not draft.extensions_most:
        return []
    found = []
    if draft.extension_approval not in ExtensionApproval.values:
        found.append("Longer access asks the whole chain, the last stage, or nobody.")
    if not (draft.extension_max and draft.extension_window):
        found.append("Longer access needs a length, and a time before the end to ask for it.")
    if draft.max_total < draft.max_duration:
        found.append("With extensions an access may last no shorter than it may without.")
    if draft.bridge >= draft.extension_max:
        found.append("What is bridged while a decision is out is less than one extension.")
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
    return [*found, *_reminder_problems(stage), *_escalation_problems(stage)]


def _reminder_problems(stage: StageDraft) -> Iterator[str]:
    if (stage.remind_every is None) != (stage.max_reminders is None):
        yield "reminders need both a time between them and how many there are at most."
    if stage.remind_every is not None and stage.remind_every < REMIND_LEAST:
        yield f"reminders are at least {lasting(REMIND_LEAST)} apart."
    if stage.max_reminders is not None and not 0 < stage.max_reminders <= REMIND_MOST:
        yield f"reminders are at least 1 and at most {REMIND_MOST}."


def _escalation_problems(stage: StageDraft) -> Iterator[str]:
    if (stage.escalate_after is None) != (stage.escalation_group is None):
        yield "escalation needs both a time and a group."
    if stage.escalate_after is not None and stage.escalate_after <= 0:
        yield "it escalates after one second at the earliest."
    if stage.escalate_after and stage.deadline and stage.escalate_after >= stage.deadline:
        yield "its deadline would come before it escalates."


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
        remind_every=draft.remind_every,
        max_reminders=draft.max_reminders,
        escalate_after=draft.escalate_after,
        escalation_group=draft.escalation_group,
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
        "remind_every": stage.remind_every,
        "max_reminders": stage.max_reminders,
        "escalate_after": stage.escalate_after,
        "escalation": stage.escalation_group.name if stage.escalation_group else "",
    }


@_verb
@transaction.atomic
def change_policy(policy: Policy, *, by: Person) -> Policy:
    """Save a policy's name, rank and whether it is on; what it says changes by `publish` only.

    Raises NotAllowed, and Invalid for a name or rank that cannot be.
    """
    stored = None if policy._state.adding else policy.pk
    _authorize(by, "change" if stored else "add", policy)
    wanted = Wanted(
        change="policy.change",
        obj=policy,
        summary=f"Change the policy {policy}",
        arguments=lambda: as_data.policy(policy, stored),
        subject=policy.audit_subject,
    )
    with log.batch(), proposals.watched(wanted, by=by):
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


IN_USE = (
    "{name} cannot be deleted: others refer to it, and what happened must stay readable. "
    "Switch it off instead."
)


@_verb
@transaction.atomic
def delete(obj: Target | AccessLevel | Policy, *, by: Person) -> None:
    """Delete what nothing refers to, with the permissions on it.

    The lock keeps others from beginning to refer to it. Raises NotAllowed; WrongState, code
    `in_use` or `gone`.
    """
    _authorize(by, "delete", obj)
    locked = type(obj)._default_manager.select_for_update().filter(pk=obj.pk).first()
    if locked is None:
        raise WrongState(code="gone")
    if in_use(locked):
        raise WrongState(IN_USE.format(name=locked), code="in_use")
    log.record(f"{obj._meta.model_name}.deleted", actor=actor(by), subject=locked)
    holders.forget(locked)
    locked.delete()


def in_use(obj: models.Model) -> bool:
    """Whether any row refers to `obj` that would not go with it.

    Asked one by one, since listing them may be endless.
    """
    relations = [
        field
        for field in obj._meta.get_fields(include_hidden=True)
        if field.auto_created
        and not field.concrete
        and (field.one_to_many or field.one_to_one)
        and field.on_delete is not models.CASCADE  # type: ignore[union-attr]
    ]
    return any(
        relation.related_model._base_manager.filter(**{relation.field.name: obj}).exists()  # type: ignore[union-attr]
        for relation in relations
    )


@_verb
@transaction.atomic
def change_holders(
    obj: Target | AccessLevel,
    wanted: Mapping[str, Mapping[str, Sequence[Group | Person]]],
    *,
    by: Person,
) -> None:
    """Let exactly those in `wanted` hold the permissions it names: `groups` and `people` of each.

    One Event names every difference. Raises NotAllowed; Invalid for a permission that is none of
    this object's.
    """
    _authorize(by, "change", obj)
    if unknown := wanted.keys() - dict(obj._meta.permissions).keys():
        raise Invalid(f"There is no permission {', '.join(sorted(unknown))} on {obj}.")
    change = Wanted(
        change=f"{obj._meta.model_name}.holders",
        obj=obj,
        summary=f"Change who may do what on {obj}",
        arguments=lambda: as_data.holders(obj, wanted),
        subject=obj.audit_subject,
    )
    with proposals.watched(change, by=by):
        _replace_holders(obj, wanted, by=by)


def _replace_holders(
    obj: Target | AccessLevel,
    wanted: Mapping[str, Mapping[str, Sequence[Group | Person]]],
    *,
    by: Person,
) -> None:
    type(obj)._default_manager.select_for_update(no_key=True).get(pk=obj.pk)
    given: list[dict[str, str]] = []
    taken: list[dict[str, str]] = []
    for permission, chosen in wanted.items():
        for who, people in chosen.items():
            more, fewer = holders.replace(obj, permission, who, people)
            given += more
            taken += fewer
    if given or taken:
        log.record("permissions.changed", actor=actor(by), subject=obj, given=given, taken=taken)


def check_target(target: Target) -> list[tuple[bool, str, str]]:
    """“Test connection”: rows of (fine, what was looked at, how to mend it). Changes nothing."""
    try:
        findings = targets.provisioner(target).test()
    except (Invalid, ProvisionError) as error:
        return [(False, error.message, "Mend what it says, then save the target.")]
    return [(finding.ok, finding.what, finding.fix) for finding in findings]
