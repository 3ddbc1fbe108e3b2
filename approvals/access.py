"""Object permissions, read in one way: assigned on the object, to the person or a group of theirs.

`has_perm` is never asked for these, since it says yes to every superuser; a superuser holds none
that was not assigned. Lists and checks use the same querysets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from django.contrib.auth import get_user_model
from django.db.models import Q, QuerySet
from guardian.shortcuts import get_objects_for_user, get_users_with_perms

from approvals.models import AccessLevel, AccessRequest, Grant, Target, Vote
from approvals.models.requests import lent_to
from approvals.states import RequestState
from audit import clock

if TYPE_CHECKING:
    from approvals.people import Person


def requestable_levels(user: Person) -> QuerySet[AccessLevel]:
    """The levels this person may ask for, switched-off ones and their targets left out."""
    return _levels(user).filter(enabled=True, target__enabled=True)


def switched_off_levels(user: Person) -> QuerySet[AccessLevel]:
    """The levels this person could ask for if they, or their targets, were not switched off."""
    return _levels(user).exclude(enabled=True, target__enabled=True)


def _levels(user: Person) -> QuerySet[AccessLevel]:
    levels: QuerySet[AccessLevel] = get_objects_for_user(
        user,
        "request_accesslevel",
        AccessLevel,
        with_superuser=False,
        accept_global_perms=False,
    )
    return levels.select_related("target")


def _targets(user: Person, permission: str) -> QuerySet[Target]:
    targets: QuerySet[Target] = get_objects_for_user(
        user,
        permission,
        Target,
        with_superuser=False,
        accept_global_perms=False,
    )
    return targets


def owned_targets(user: Person) -> QuerySet[Target]:
    return _targets(user, "own_target")


def owners(target: Target) -> QuerySet[Person]:
    """Whoever is active and owns this target, by an assignment to them or to a group of theirs."""
    people = get_users_with_perms(target, only_with_perms_in=["own_target"], with_superusers=False)
    return cast("QuerySet[Person]", people).filter(is_active=True).order_by("pk")


def administrators() -> QuerySet[Person]:
    """Whoever is active and may change targets: superusers, and staff holding that permission."""
    return at_the_desk_with("approvals.change_target")


def at_the_desk_with(permission: str) -> QuerySet[Person]:
    """Whoever is active and has this permission: superusers, and staff."""
    people: QuerySet[Person] = get_user_model()._default_manager.with_perm(
        permission, backend="django.contrib.auth.backends.ModelBackend"
    )
    return people.filter(Q(is_superuser=True) | Q(is_staff=True)).order_by("pk")


def administers(person: Person) -> bool:
    """Whether this is one of the `administrators`."""
    return _is_at_the_desk_with(person, "approvals.change_target")


def _is_at_the_desk_with(person: Person, permission: str) -> bool:
    return (person.is_superuser or person.is_staff) and person.has_perm(permission)


def policy_admins() -> QuerySet[Person]:
    """Whoever is active and may change policies: superusers, and staff holding that permission."""
    return at_the_desk_with("approvals.change_policy")


def sets_policies(person: Person) -> bool:
    """Whether this is one of the `policy_admins`."""
    return _is_at_the_desk_with(person, "approvals.change_policy")


def audited_targets(user: Person) -> QuerySet[Target]:
    return _targets(user, "audit_target")


def visible_targets(user: Person) -> QuerySet[Target]:
    """Targets this person may ask for a level of, owns or audits; all of them for policy staff."""
    if user.has_perm("approvals.view_target"):
        return Target.objects.all()
    return Target.objects.filter(
        Q(pk__in=requestable_levels(user).values("target"))
        | Q(pk__in=owned_targets(user).values("pk"))
        | Q(pk__in=audited_targets(user).values("pk"))
    )


def visible_requests(user: Person) -> QuerySet[AccessRequest]:
    """One's own, those made for one or that one was asked about, those on one's targets; and where
    somebody is asked for whom one may vote, or for whom one has."""
    if user.has_perm("approvals.view_accessrequest"):
        return AccessRequest.objects.all()
    emergencies = AccessRequest.objects.filter(
        state=RequestState.BYPASSED, policy_version__emergency_tells__in=user.groups.all()
    )
    return AccessRequest.objects.filter(
        Q(requester=user)
        | Q(pk__in=emergencies.values("pk"))
        | Q(pk__in=_to_look_back_at(user).values("pk"))
        | Q(beneficiary=user)
        | Q(pk__in=user.candidacies.values("stage__request"))
        | Q(pk__in=lent_to(user))
        | Q(pk__in=Vote.objects.filter(voter=user).order_by().values("stage__request"))
        | Q(target__in=owned_targets(user).values("pk"))
        | Q(target__in=audited_targets(user).values("pk"))
    )


def _to_look_back_at(user: Person) -> QuerySet[AccessRequest]:
    """What administrators are asked to look back at once nobody has done so in time."""
    if not administers(user):
        return AccessRequest.objects.none()
    return AccessRequest.objects.filter(
        grant__review__reviewed_at__isnull=True, grant__review__due_at__lte=clock.DbNow()
    )


def visible_grants(user: Person) -> QuerySet[Grant]:
    """The grants of the requests one may see, and those that one was asked to extend; to
    administrators, who get their alarms, all."""
    if administers(user):
        return Grant.objects.all()
    asked = AccessRequest.objects.filter(
        extends__isnull=False, pk__in=user.candidacies.values("stage__request")
    )
    return Grant.objects.filter(
        Q(request__in=visible_requests(user).values("pk")) | Q(pk__in=asked.values("extends"))
    )
