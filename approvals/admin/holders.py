"""Who holds which permission on one object: read, and replaced as a whole with its Event.

What the permissions mean is in `access`; the page that shows this form is in `targets`.
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.contrib.contenttypes.models import ContentType
from django.db import models, transaction
from django.db.models import Q
from guardian.models import GroupObjectPermission, UserObjectPermission
from guardian.shortcuts import assign_perm, remove_perm

from approvals.transition import actor
from audit import log

HOLDERS = {"groups": (GroupObjectPermission, "group"), "people": (UserObjectPermission, "user")}


def _rows(obj: models.Model, table: Any) -> Any:
    kind = ContentType.objects.get_for_model(obj)
    return table.objects.filter(content_type=kind, object_pk=str(obj.pk))


def held(obj: models.Model, permission: str, who: str) -> set[int]:
    """Ids of the groups or people (`who`) to whom `permission` on `obj` is assigned."""
    table, column = HOLDERS[who]
    rows = _rows(obj, table).filter(permission__codename=permission)
    return set(rows.values_list(column, flat=True))


def forget(obj: models.Model) -> None:
    """Take every permission on `obj` away; for one about to be deleted."""
    for table, _ in HOLDERS.values():
        _rows(obj, table).delete()


class HoldersForm(forms.Form):
    """For each permission the groups and the people who hold it on one object."""

    def __init__(self, data: Any = None, *, obj: Any, permissions: dict[str, str]) -> None:
        super().__init__(data)
        self.obj = obj
        self.permissions = permissions
        for permission, label in permissions.items():
            for who in HOLDERS:
                self.fields[f"{permission}_{who}"] = self._choice(permission, label, who)

    def _choice(self, permission: str, label: str, who: str) -> forms.Field:
        holders = held(self.obj, permission, who)
        return forms.ModelMultipleChoiceField(
            _choosable(who, holders),
            required=False,
            initial=sorted(holders),
            label=f"{label}: {who}",
            widget=forms.SelectMultiple(attrs={"size": 8}),
        )

    @transaction.atomic
    def save(self, *, by: Any) -> None:
        """Assign and take away what differs, with one Event that names every difference."""
        type(self.obj).objects.select_for_update().get(pk=self.obj.pk)
        given, taken = [], []
        for permission in self.permissions:
            for who in HOLDERS:
                more, fewer = self._replace(permission, who)
                given += more
                taken += fewer
        if given or taken:
            log.record(
                f"{self.obj._meta.model_name}.changed",
                actor=actor(by),
                subject=self.obj,
                permissions_given=given,
                permissions_taken=taken,
            )

    def _replace(self, permission: str, who: str) -> tuple[list[Any], list[Any]]:
        before = held(self.obj, permission, who)
        wanted = {holder.pk: holder for holder in self.cleaned_data[f"{permission}_{who}"]}
        taken = list(_all(who).filter(pk__in=before - wanted.keys()))
        given = [holder for pk, holder in wanted.items() if pk not in before]
        name = f"approvals.{permission}"
        for holder in given:
            assign_perm(name, holder, self.obj)
        for holder in taken:
            remove_perm(name, holder, self.obj)
        return _told(permission, who, given), _told(permission, who, taken)


def _all(who: str) -> Any:
    return Group.objects.all() if who == "groups" else get_user_model().objects.all()


def _choosable(who: str, holders: set[int]) -> Any:
    """All groups; active people, and the others who hold it, so that it can be taken from them."""
    if who == "groups":
        return Group.objects.order_by("name")
    return _all(who).filter(Q(is_active=True) | Q(pk__in=holders)).order_by("username")


def _told(permission: str, who: str, holders: list[Any]) -> list[dict[str, str]]:
    column = HOLDERS[who][1]
    return [{"permission": permission, column: str(one), "id": str(one.pk)} for one in holders]
