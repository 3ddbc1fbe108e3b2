"""People, in the admin. Groups are Django's own page; what people may do in requests is theirs.

Accounts are never deleted, since votes, grants and events name them: they are switched off.
"""

from __future__ import annotations

import zoneinfo
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.forms import UserChangeForm
from django.http import HttpRequest

from debugflow.accounts.models import User

if TYPE_CHECKING:
    ChangeForm = UserChangeForm[User]
    Admin = DjangoUserAdmin[User]
else:
    ChangeForm = UserChangeForm
    Admin = DjangoUserAdmin

admin.site.site_header = admin.site.site_title = "debugflow"
admin.site.index_title = "Set-up and records"

POWERS = ("is_staff", "is_superuser", "user_permissions")


class PersonForm(ChangeForm):
    """Django's form, with a time zone that exists."""

    def clean_time_zone(self) -> str:
        name: str = self.cleaned_data["time_zone"]
        if name not in zoneinfo.available_timezones():
            raise forms.ValidationError("There is no such time zone. Write it as Europe/Berlin.")
        return name


@admin.register(User)
class UserAdmin(Admin):
    """Whoever is no superuser changes no superuser and hands out no power of their own making."""

    form = PersonForm
    actions = None
    list_display = ["username", "email", "first_name", "last_name", "is_active", "is_staff"]
    list_filter = ["is_active", "is_staff", "is_superuser", "groups"]
    fieldsets = [*(DjangoUserAdmin.fieldsets or ()), ("Reading", {"fields": ["time_zone"]})]

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        allowed = super().has_change_permission(request, obj)
        return allowed and (obj is None or not obj.is_superuser or _is_superuser(request))

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        fields = super().get_readonly_fields(request, obj)
        return fields if _is_superuser(request) else [*fields, *POWERS]


def _is_superuser(request: HttpRequest) -> bool:
    return request.user.is_active and request.user.is_superuser
