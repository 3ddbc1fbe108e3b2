"""The form for who holds which permission on one object; `change_holders` saves it.

What the permissions mean is in `access`; the page that shows this form is in `targets`.
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.db.models import Q

from approvals import administration
from approvals.admin.look import Several
from approvals.holders import HOLDERS, held


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
            widget=Several(),
        )

    def save(self, *, by: Any) -> None:
        """Raises what `change_holders` raises."""
        chosen = {
            permission: {who: list(self.cleaned_data[f"{permission}_{who}"]) for who in HOLDERS}
            for permission in self.permissions
        }
        administration.change_holders(self.obj, chosen, by=by)


def _choosable(who: str, holders: set[int]) -> Any:
    """All groups; active people, and the others who hold it, so that it can be taken from them."""
    if who == "groups":
        return Group.objects.order_by("name")
    people = get_user_model().objects
    return people.filter(Q(is_active=True) | Q(pk__in=holders)).order_by("username")
