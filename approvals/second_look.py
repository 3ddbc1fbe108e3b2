"""What people could do in production, read off one object that is about to change.

Looked at before and after, what is more afterwards is what the change would widen: so whatever
page or verb makes it, and in whichever order, it is noticed. Reads only. What becomes of a change
that widens is in `proposals`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from django.db.models import F, Model, Q, QuerySet

from approvals import provisioning
from approvals.holders import HOLDERS
from approvals.lengths import lasting
from approvals.models import (
    AccessLevel,
    AccessRequest,
    Environment,
    Grant,
    Policy,
    PolicyVersion,
    Reach,
    Review,
    SlackWorkspace,
    Target,
)
from approvals.policy import AppliesTo

if TYPE_CHECKING:
    from approvals.people import Person

DECIDES: Final = "decide about requests for production"
OPENS: Final = "may open production without approval in an emergency"
LOOKS_BACK: Final = "are told of emergencies in production, and may look back at them"
ASKS_UNDER: Final = "ask for production under a policy of their own"
MAY: Final = {
    "request_accesslevel": "may ask for {}",
    "own_target": "own {}",
    "watch_target": "may watch and end sessions on {}",
    "audit_target": "may read recordings of {}",
}
YES_NO: Final = {True: "yes", False: "no"}


@dataclass(frozen=True)
class Gain:
    """Something that people can do, in words, and who of them that are active."""

    text: str
    people: frozenset[int] = frozenset()


@dataclass(frozen=True)
class LevelLook:
    """A level as far as it matters; `in_force` if it can be asked for in production."""

    name: str
    in_force: bool
    rights: dict[str, Any]
    summary: tuple[str, ...]
    risk: str
    max_duration: int
    reach: str
    rank: int
    askers: frozenset[int]


@dataclass(frozen=True)
class Look:
    """One object as it is at some moment.

    `values` is what it is, as plain data; `told` the same for people. `routes` are the versions of
    policies that govern production, by their ids, in the order in which they are tried. `powers`
    are by what tells them apart. `falling` are people whom nothing but a group keeps from another
    policy's rules.
    """

    values: dict[str, Any] = field(default_factory=dict)
    told: Mapping[str, str] = field(default_factory=dict)
    routes: Mapping[int, str] = field(default_factory=dict)
    powers: Mapping[str, Gain] = field(default_factory=dict)
    levels: Mapping[int, LevelLook] = field(default_factory=dict)
    production: str = ""  # the name of the target that is production, or nothing
    place: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    falling: Mapping[str, frozenset[int]] = field(default_factory=dict)
    active: frozenset[int] = frozenset()


def gains(before: Look, after: Look) -> list[Gain]:
    """What is more afterwards; nothing for a change that narrows, or does neither."""
    return [
        *_rerouted(before, after),
        *(gain for key, gain in after.powers.items() if key not in before.powers),
        *_of_place(before, after),
        *(
            gain
            for pk, level in after.levels.items()
            for gain in _of_level(before.levels.get(pk), level)
        ),
        *_fallen(before, after),
    ]


def _rerouted(before: Look, after: Look) -> Iterator[Gain]:
    """The last policies may go: what they governed is refused then. Whatever else moves may let a
    request come under another policy than before."""
    left = list(after.routes)
    if left != list(before.routes)[: len(left)]:
        now, was = (", then ".join(one.routes.values()) or "nothing" for one in (after, before))
        yield Gain(f"Requests for production are governed by {now}; until now by {was}.")


def _of_place(before: Look, after: Look) -> Iterator[Gain]:
    askers = _union(level.askers for level in before.levels.values())
    if before.production and not after.production:
        told = f"{before.production} is no production any more: what protects that no longer holds."
        yield Gain(told, askers)
    if not before.production or not any(level.in_force for level in after.levels.values()):
        return
    for name in sorted(after.place.keys() | before.place.keys()):
        was, now = before.place.get(name, ""), after.place.get(name, "")
        if was != now:
            yield Gain(f"{after.production} is elsewhere: its {name} is {now or 'empty'}.", askers)
    if before.labels != after.labels:
        yield Gain(f"{after.production} may come under other policies: its labels change.", askers)


def _of_level(before: LevelLook | None, after: LevelLook) -> Iterator[Gain]:
    if not after.in_force:
        return
    told = list(_wider(before, after)) if before and before.in_force else [_offered(after)]
    for text in told:
        yield Gain(f"{after.name}: {text}.", after.askers)


def _offered(level: LevelLook) -> str:
    return (
        f"it can be asked for, for up to {lasting(level.max_duration)} at {level.risk} risk "
        f"({'; '.join(level.summary) or 'no rights'})"
    )


def _wider(before: LevelLook, after: LevelLook) -> Iterator[str]:
    if after.rights != before.rights:
        yield "its rights on the target are others"
    if more := [line for line in after.summary if line not in before.summary]:
        yield f"its holder can do more ({'; '.join(more)})"
    if after.max_duration > before.max_duration:
        yield (
            f"it lasts up to {lasting(after.max_duration)} instead of "
            f"{lasting(before.max_duration)}"
        )
    if after.risk != before.risk:  # a higher one may come under a policy that asks fewer people
        yield f"it counts as {after.risk} risk instead of {before.risk}"
    if after.reach != before.reach and after.reach == Reach.DIRECT:
        yield "it is reached directly, so nothing records it"
    if after.rank != before.rank:
        yield f"its rank among the levels is {after.rank} instead of {before.rank}"


def _fallen(before: Look, after: Look) -> Iterator[Gain]:
    """Whoever leaves a group that kept them under a policy of its own."""
    for group, people in before.falling.items():
        left = (people & after.active) - after.falling.get(group, frozenset())
        if left:
            told = f"Who leaves {group} asks for production under another policy."
            yield Gain(told, left)


def look(obj: Model) -> Look:
    """How the object is stored now: empty for what is not stored."""
    stored = type(obj)._default_manager.filter(pk=obj.pk).first() if obj.pk else None
    rules = Rules.read()
    if stored is None:
        return Look(routes=rules.routes, powers=_no_news(obj, rules), active=_active_if(obj, rules))
    match stored:
        case Policy():
            return _policy(stored, rules)
        case Target():
            return _target(stored, rules)
        case AccessLevel():
            return _level(stored, rules)
        case Group():
            return _group(stored, rules)
        case SlackWorkspace():
            return Look(values={"team": stored.team_id, "enabled": stored.enabled})
    return _person(stored, rules)


def _no_news(new: Model, rules: Rules) -> dict[str, Gain]:
    """What comes with anything new: the roles by other policies; an account, which alone opens
    nothing."""
    if isinstance(new, get_user_model()):
        return {"active": Gain("")}
    return _role_powers(rules) if isinstance(new, Policy) else {}


def powers_of(person: Person) -> list[str]:
    """What this person can do in production or to the set-up, in words, once they are active."""
    groups, given = list(person.groups.order_by("name")), list(person.user_permissions.all())
    found = _powers(person, groups, given, Rules.read())
    return [text for key, text in found if key != "active"]


@dataclass(frozen=True)
class Rules:
    """What governs production: policies in their order, and what members of groups do there."""

    routes: Mapping[int, str]
    roles: Mapping[int, frozenset[str]]
    falling: frozenset[int]  # groups without which another policy governs what one asks for

    @classmethod
    def read(cls) -> Rules:
        """Of the policies in force, and of the versions by which something still goes."""
        versions = [version for version in _in_force() if _governs(version)]
        roles: dict[int, set[str]] = {}
        for version in [*versions, *_pinned()]:
            for group, role in _roles(version):
                roles.setdefault(group, set()).add(role)
        falling = (_applies_to(version).requester_groups for version in versions[:-1])
        return cls(
            routes={version.pk: str(version) for version in versions},
            roles={group: frozenset(found) for group, found in roles.items()},
            falling=frozenset(group for groups in falling for group in groups),
        )


def _in_force() -> QuerySet[PolicyVersion]:
    current = PolicyVersion.objects.filter(policy__enabled=True, policy__current=F("pk"))
    return _whole(current).order_by("policy__rank")


def _pinned() -> QuerySet[PolicyVersion]:
    """Of what is undecided; of access that can be extended, or is looked back at when it ends; and
    of what is to be looked back at. Who does that is who is in their groups then."""
    at = {"target__environment": Environment.PRODUCTION}
    undecided = AccessRequest.objects.undecided().filter(**at)
    goes_on = Q(request__policy_version__extensions_most__gt=0)
    looked_at = Q(request__policy_version__review_all=True)
    open_ = Grant.objects.not_ended().filter(goes_on | looked_at, **at)
    reviews = Review.objects.open().filter(grant__target__environment=Environment.PRODUCTION)
    return _whole(
        PolicyVersion.objects.filter(
            Q(pk__in=undecided.values("policy_version"))
            | Q(pk__in=open_.values("request__policy_version"))
            | Q(pk__in=reviews.values("grant__request__policy_version"))
        )
    )


def _whole(versions: QuerySet[PolicyVersion]) -> QuerySet[PolicyVersion]:
    return versions.select_related("policy").prefetch_related("stages__stage_groups__group")


def _applies_to(version: PolicyVersion) -> AppliesTo:
    return AppliesTo.model_validate(version.applies_to)


def _governs(version: PolicyVersion) -> bool:
    """Whether it can govern anything in production, whatever the labels are."""
    wanted = _applies_to(version)
    if wanted.environments and Environment.PRODUCTION not in wanted.environments:
        return False
    return not wanted.levels or _production_levels().filter(pk__in=wanted.levels).exists()


def _production_levels() -> QuerySet[AccessLevel]:
    levels = AccessLevel.objects.filter(target__environment=Environment.PRODUCTION)
    return levels.select_related("target")


def _roles(version: PolicyVersion) -> Iterator[tuple[int, str]]:
    for stage in version.stages.all():
        asked = [row.group_id for row in stage.stage_groups.all()]
        later = [stage.fallback_group_id, stage.escalation_group_id]
        yield from ((group, DECIDES) for group in [*asked, *later] if group)
    yield from ((group, OPENS) for group in version.emergency_groups)
    if version.emergency_tells_id:
        yield version.emergency_tells_id, LOOKS_BACK
    yield from ((group, ASKS_UNDER) for group in _applies_to(version).requester_groups)


def _policy(policy: Policy, rules: Rules) -> Look:
    version = policy.current
    values = {
        "name": policy.name,
        "rank": policy.rank,
        "enabled": policy.enabled,
        "version": version.number if version else 0,
    }
    told = {
        "Name": policy.name,
        "Rank": str(policy.rank),
        "In force": YES_NO[policy.enabled],
        **(_version_told(version) if version else {}),
    }
    return Look(values=values, told=told, routes=rules.routes, powers=_role_powers(rules))


def _role_powers(rules: Rules) -> dict[str, Gain]:
    """What members of groups do by all policies: a new one gives nothing to whom another has."""
    groups = Group.objects.in_bulk(list(rules.roles))
    return {
        f"role:{pk}:{role}": Gain(f"The members of {group} {role}.", _members(group))
        for pk, group in sorted(groups.items())
        for role in sorted(rules.roles[pk])
    }


def _version_told(version: PolicyVersion) -> dict[str, str]:
    """What a version says, a line for each thing."""
    whole = _whole(PolicyVersion.objects.filter(pk=version.pk)).get()
    wanted = _applies_to(whole)
    named = {group.pk: group.name for group in Group.objects.all()}
    emergency = ", ".join(named.get(pk, f"group {pk}") for pk in whole.emergency_groups)
    lengths = {
        "An access lasts": whole.max_duration,
        "Decided within": whole.pending_ttl,
        "An emergency lasts": whole.emergency_duration,
        "Extended in all to": whole.max_total if whole.extensions_most else None,
        "Goes on while undecided": whole.bridge or None,
        "Opened within": whole.activation_ttl,
        "One extension adds": whole.extension_max if whole.extensions_most else None,
        "Extended in its last": whole.extension_window if whole.extensions_most else None,
        "Looked back at within": whole.review_within,
    }
    return {
        "Version": str(whole.number),
        "Environments": ", ".join(wanted.environments) or "any",
        "Labels": _pairs(wanted.labels) or "any",
        "Risks": ", ".join(wanted.risks) or "any",
        "Levels": ", ".join(map(str, AccessLevel.objects.filter(pk__in=wanted.levels))) or "any",
        "Who asks": ", ".join(named.get(pk, f"group {pk}") for pk in wanted.requester_groups)
        or "anybody who may",
        **{f"Stage {stage.order + 1}": _stage_told(stage) for stage in whole.stages.all()},
        "Opens in an emergency": emergency or "nobody",
        "Extensions": f"{whole.extensions_most}, asking {whole.get_extension_approval_display()}"
        if whole.extensions_most
        else "none",
        "Votes may be lent": YES_NO[whole.allow_delegation],
        "Told of an emergency": str(whole.emergency_tells or "nobody else"),
        "Looked back at": "every access" if whole.review_all else "emergencies",
        "A ticket is needed": YES_NO[whole.ticket_required],
        "What a reason should say": whole.reason_hint,
        **{what: lasting(length) for what, length in lengths.items() if length},
    }


def _stage_told(stage: Any) -> str:
    groups = ", ".join(f"{row.minimum} of {row.group}" for row in stage.stage_groups.all())
    later = []
    if stage.fallback_group:
        later.append(f"if too few can act, {stage.fallback_group}")
    if stage.escalation_group:
        later.append(f"after {lasting(stage.escalate_after)} also {stage.escalation_group}")
    return "; ".join([f"{stage.name}: {stage.total} in all, {groups}", *later, *_clocks(stage)])


def _clocks(stage: Any) -> Iterator[str]:
    """What becomes of a stage as time passes, and how many denials end it."""
    yield f"{stage.deny_quorum} to deny"
    if stage.deadline:
        yield f"expires after {lasting(stage.deadline)}"
    if stage.remind_every:
        most = stage.max_reminders
        times = f", {most} times at most" if most else ""
        yield f"reminded every {lasting(stage.remind_every)}{times}"


def _target(target: Target, rules: Rules) -> Look:
    levels = list(AccessLevel.objects.filter(target=target).select_related("target"))
    is_production = target.environment == Environment.PRODUCTION
    config = {name: str(value) for name, value in sorted(target.config.items())}
    names = provisioning.get(target.kind).address_fields
    place = {name: config.get(name, "") for name in names}
    values = {
        "name": target.name,
        "description": target.description,
        "kind": target.kind,
        "environment": target.environment,
        "labels": target.labels,
        "config": target.config,
        "trust_anchor": target.trust_anchor,
        "enabled": target.enabled,
    }
    told = {
        "Name": target.name,
        "Description": target.description,
        "Environment": str(target.get_environment_display()),
        "Labels": _pairs(target.labels) or "none",
        "Enabled": YES_NO[target.enabled],
        "Trust anchor": target.trust_anchor or "none",
        **{name.replace("_", " ").capitalize(): value for name, value in config.items()},
        **_holders_told(target),
    }
    return Look(
        values=values,
        told=told,
        routes=rules.routes,
        powers={**_held_on([target, *levels]), **_twins(target)},
        levels={level.pk: _level_look(level) for level in levels},
        production=target.name if is_production else "",
        place={**place, "trust anchor": target.trust_anchor},
        labels=target.labels,
    )


def _twins(target: Target) -> dict[str, Gain]:
    """What is production may not be had under another name that says it is none."""
    if target.environment == Environment.PRODUCTION or not target.enabled:
        return {}
    twins = Target.objects.filter(
        environment=Environment.PRODUCTION, kind=target.kind, address=target.address
    )
    return {
        f"twin:{twin.pk}": Gain(
            f"{target.name} is not called production, and is where {twin.name} is, which is."
        )
        for twin in twins.exclude(pk=target.pk)
    }


def _level(level: AccessLevel, rules: Rules) -> Look:
    values = {
        "target": level.target_id,
        "address": level.target.address,
        "name": level.name,
        "description": level.description,
        "rights": level.rights,
        "summary": level.summary,
        "risk": level.risk,
        "max_duration": level.max_duration,
        "reach": level.reach,
        "rank": level.rank,
        "enabled": level.enabled,
    }
    told = {
        "Name": level.name,
        "Description": level.description,
        "Target": f"{level.target} ({level.target.address})",
        "Rights": _pairs(level.rights),
        "What its holder can do": "; ".join(level.summary) or "nothing",
        "Risk": str(level.get_risk_display()),
        "Lasts at most": lasting(level.max_duration),
        "Reach": str(level.get_reach_display()),
        "Rank": str(level.rank),
        "Enabled": YES_NO[level.enabled],
        **_holders_told(level),
    }
    return Look(
        values=values,
        told=told,
        routes=rules.routes,
        powers=_held_on([level]),
        levels={level.pk: _level_look(level)},
    )


def _level_look(level: AccessLevel) -> LevelLook:
    target = level.target
    is_production = target.environment == Environment.PRODUCTION
    rows = _rows("groups", [level]), _rows("people", [level])
    asks = [holder for found in rows for _, codename, holder in found if codename in MAY]
    return LevelLook(
        name=str(level),
        in_force=is_production and level.enabled and target.enabled,
        rights=level.rights,
        summary=tuple(level.summary),
        risk=level.risk,
        max_duration=level.max_duration,
        reach=level.reach,
        rank=level.rank,
        askers=_union(_members(holder) for holder in asks),
    )


Object = Target | AccessLevel


def _rows(who: str, objects: Iterable[Object], **which: Any) -> Iterator[tuple[Object, str, Any]]:
    """Of these objects: each with a permission on it and the group or person who holds it."""
    table: Any
    table, column = HOLDERS[who]
    known = {(one._meta.model_name, str(one.pk)): one for one in objects}
    kinds = {kind for kind, _ in known}
    rows = table.objects.filter(
        content_type__app_label="approvals",
        content_type__model__in=kinds,
        object_pk__in={pk for _, pk in known},
        **which,
    )
    for row in rows.select_related("permission", "content_type", column).order_by("pk"):
        found = known.get((row.content_type.model, row.object_pk))
        if found is not None:
            yield found, row.permission.codename, getattr(row, column)


def _held_on(objects: Iterable[Object]) -> dict[str, Gain]:
    """Who holds what on those of these objects that are production, by a key for each."""
    objects = [one for one in objects if _is_production(one)]
    return {
        f"{who}:{holder.pk}:{codename}:{one._meta.model_name}:{one.pk}": Gain(
            f"{_subject(holder)} {_may(codename, one)}.", _members(holder)
        )
        for who in HOLDERS
        for one, codename, holder in _rows(who, objects)
    }


def _is_production(obj: Object) -> bool:
    target = obj.target if isinstance(obj, AccessLevel) else obj
    return target.environment == Environment.PRODUCTION


def _may(codename: str, obj: Object) -> str:
    return MAY.get(codename, f"{codename} {{}}").format(obj)


def _subject(holder: Any) -> str:
    return f"The members of {holder}" if isinstance(holder, Group) else f"The person {holder}"


def _holders_told(obj: Object) -> dict[str, str]:
    held: dict[str, list[str]] = {}
    for who in HOLDERS:
        for _, codename, holder in _rows(who, [obj]):
            held.setdefault(codename, []).append(str(holder))
    labels = dict(obj._meta.permissions)
    return {str(labels.get(name, name)): ", ".join(found) for name, found in sorted(held.items())}


def _production() -> list[Object]:
    targets = Target.objects.filter(environment=Environment.PRODUCTION)
    return [*targets, *_production_levels()]


def _group(group: Group, rules: Rules) -> Look:
    given = list(group.permissions.select_related("content_type"))
    people = _members(group)
    values = {"name": group.name, "permissions": sorted(one.pk for one in given)}
    told = {"Name": group.name, "Permissions": _names(given) or "none"}
    return Look(
        values=values,
        told=told,
        routes=rules.routes,
        powers={
            f"permission:{one.pk}": Gain(f"The members of {group} {_allowed(one)}.", people)
            for one in given
            if _changes(one)
        },
        falling={group.name: people} if group.pk in rules.falling else {},
        active=people,
    )


def _person(person: Any, rules: Rules) -> Look:
    groups = list(person.groups.order_by("name"))
    given = list(person.user_permissions.select_related("content_type"))
    values = {
        "username": person.username,
        "written": [person.first_name, person.last_name, person.email, person.time_zone],
        "active": person.is_active,
        "staff": person.is_staff,
        "superuser": person.is_superuser,
        "groups": [group.pk for group in groups],
        "permissions": sorted(one.pk for one in given),
    }
    told = {
        "Name": person.username,
        "Is called": person.get_full_name(),
        "Address": person.email,
        "Active": YES_NO[person.is_active],
        "Enters the admin": YES_NO[person.is_staff],
        "Superuser": YES_NO[person.is_superuser],
        "Groups": ", ".join(group.name for group in groups) or "none",
        "Permissions": _names(given) or "none",
    }
    me = frozenset({person.pk} if person.is_active else ())
    powers = dict(_powers(person, groups, given, rules)) if person.is_active else {}
    return Look(
        values=values,
        told=told,
        routes=rules.routes,
        powers={key: Gain(f"{person} {text}.", me) for key, text in powers.items()},
        falling={group.name: me for group in groups if group.pk in rules.falling},
        active=me,
    )


def _powers(
    person: Person, groups: list[Group], given: list[Permission], rules: Rules
) -> Iterator[tuple[str, str]]:
    """What an active person can do, each by its key."""
    yield "active", "can sign in"
    if person.is_superuser:
        yield "superuser", "may change everything, as a superuser"
    if person.is_staff:
        yield "staff", "may enter the admin"
    yield from ((f"permission:{one.pk}", _allowed(one)) for one in given if _changes(one))
    objects = _production()
    for group in groups:
        for what in sorted(_weights(group, objects, rules)):
            yield f"group:{group.pk}:{what}", f"is in {group}, whose members {what}"
    for one, codename, _ in _rows("people", objects, user=person):
        yield f"holds:{codename}:{one._meta.model_name}:{one.pk}", _may_singular(codename, one)


def _weights(group: Group, objects: list[Object], rules: Rules) -> set[str]:
    """What being in this group is worth, in words; nothing if nothing in production."""
    held = {_may(codename, one) for one, codename, _ in _rows("groups", objects, group=group)}
    given = {_allowed(one) for one in group.permissions.all() if _changes(one)}
    return {*rules.roles.get(group.pk, ()), *held, *given}


def _may_singular(codename: str, obj: Object) -> str:
    return _may(codename, obj).replace("own ", "owns ", 1)


def _changes(permission: Permission) -> bool:
    """To look at records is no way into production."""
    return not permission.codename.startswith("view_")


def _allowed(permission: Permission) -> str:
    return f"may {permission.name.removeprefix('Can ')} in the admin"


def _names(permissions: Iterable[Permission]) -> str:
    return ", ".join(sorted(one.name for one in permissions))


def _members(holder: Any) -> frozenset[int]:
    """The active people that a group, or a person, stands for."""
    if isinstance(holder, Group):
        people = holder.user_set.filter(is_active=True)
        return frozenset(people.values_list("pk", flat=True))
    return frozenset({holder.pk} if holder.is_active else ())


def _active_if(gone: Model, rules: Rules) -> frozenset[int]:
    """Of a group that is not there any more: whoever was in it may still ask."""
    if not isinstance(gone, Group) or not rules.falling:
        return frozenset()
    people = get_user_model()._default_manager.filter(Q(is_active=True))
    return frozenset(people.values_list("pk", flat=True))


def _union(found: Iterable[frozenset[int]]) -> frozenset[int]:
    return frozenset().union(*found)


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in sorted(values.items()))
