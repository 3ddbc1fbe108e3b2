"""Who holds which permission on one object, as django-guardian stores it.

What the permissions mean is in `access`. Who may change them, and the Event that tells of it, is
in `administration`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.contrib.contenttypes.models import ContentType
from django.db import models
from guardian.models import GroupObjectPermission, UserObjectPermission
from guardian.shortcuts import assign_perm, remove_perm

HOLDERS = {"groups": (GroupObjectPermission, "group"), "people": (UserObjectPermission, "user")}

Told = list[dict[str, str]]


def held(obj: models.Model, permission: str, who: str) -> set[int]:
    """Ids of the groups or people (`who`) to whom `permission` on `obj` is assigned."""
    table, column = HOLDERS[who]
    rows = _rows(obj, table).filter(permission__codename=permission)
    return set(rows.values_list(column, flat=True))


def names(obj: models.Model, permission: str) -> list[str]:
    """Who holds it, groups first, each by name."""
    return [
        str(holder)
        for who in HOLDERS
        for holder in sorted(_all(who).filter(pk__in=held(obj, permission, who)), key=str)
    ]


def replace(
    obj: models.Model, permission: str, who: str, wanted: Iterable[Any]
) -> tuple[Told, Told]:
    """Let exactly `wanted` hold it; return whom it was given to and taken from, as text."""
    before = held(obj, permission, who)
    after = {holder.pk: holder for holder in wanted}
    given = [holder for pk, holder in after.items() if pk not in before]
    taken = list(_all(who).filter(pk__in=before - after.keys()))
    for holder in given:
        assign_perm(permission, holder, obj)
    for holder in taken:
        remove_perm(permission, holder, obj)
    return _told(permission, who, given), _told(permission, who, taken)


def forget(obj: models.Model) -> None:
    """Take every permission on `obj` away; for one about to be deleted."""
    for table, _ in HOLDERS.values():
        _rows(obj, table).delete()


def _rows(obj: models.Model, table: Any) -> Any:
    kind = ContentType.objects.get_for_model(obj)
    return table.objects.filter(content_type=kind, object_pk=str(obj.pk))


def _all(who: str) -> Any:
    return Group.objects.all() if who == "groups" else get_user_model().objects.all()


def _told(permission: str, who: str, holders: list[Any]) -> Told:
    column = HOLDERS[who][1]
    return [{"permission": permission, column: str(one), "id": str(one.pk)} for one in holders]
