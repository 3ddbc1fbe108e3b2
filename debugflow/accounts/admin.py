"""People and groups, in the admin; every change is told to the audit log.

Accounts are never deleted, since votes, grants and events name them: they are switched off.
"""

from __future__ import annotations

import zoneinfo
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.admin import ModelAdmin
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm
from unfold.widgets import UnfoldAdminSelect2MultipleWidget

from approvals import proposals, tokens
from approvals.models import ServiceAccount
from audit.actions import declare
from audit.log import Actor
from debugflow.accounts import changing, powers
from debugflow.accounts.models import User


class Found(ModelAdmin):  # type: ignore[misc]
    """Unfold's pages; what a person or group has several of is found by typing."""

    def formfield_for_manytomany(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        widget = UnfoldAdminSelect2MultipleWidget()
        field = super().formfield_for_manytomany(db_field, request, **{**kwargs, "widget": widget})
        # Both were set for a plain list.
        field.widget.attrs["class"] = widget.attrs["class"]
        field.help_text = db_field.help_text
        return field


if TYPE_CHECKING:
    from django.contrib.auth.forms import UserChangeForm as DjangoChangeForm

    ChangeForm = DjangoChangeForm[User]
    Admin = DjangoUserAdmin[User]
    GroupsAdmin = DjangoGroupAdmin
    GroupFields = forms.ModelForm[Group]
else:
    ChangeForm = UserChangeForm
    GroupFields = forms.ModelForm

    class Admin(DjangoUserAdmin, Found):
        """Django's pages for people in unfold's look."""

    class GroupsAdmin(DjangoGroupAdmin, Found):
        """The same for groups."""


MEMBERS_SHOWN = 50
RESET_TAKES_TWO = (
    "Somebody else has to agree to a new password here. Send the form to propose it: what you type "
    "now is not kept. Once they have agreed you have an hour to set it."
)
POWERS = ("is_staff", "is_superuser", "groups", "user_permissions")

declare(
    "account.password_reset",
    "account.renamed",
    "account.created",
    "account.changed",
    "group.created",
    "group.changed",
    "group.deleted",
)


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
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    actions = None
    filter_horizontal = ()
    list_display = ["username", "email", "belongs_to", "is_active", "is_staff"]
    list_filter = ["is_active", "is_staff", "is_superuser", "groups"]
    fieldsets = [*(DjangoUserAdmin.fieldsets or ()), ("Reading", {"fields": ["time_zone"]})]
    readonly_fields = ["last_login", "date_joined"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[User]:
        return super().get_queryset(request).prefetch_related("groups")

    @admin.display(description="Groups")
    def belongs_to(self, user: User) -> str:
        return ", ".join(sorted(group.name for group in user.groups.all()))

    def add_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        with _proposing(request):
            return super().add_view(request, *args, **kwargs)

    def change_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        with _proposing(request):
            return super().change_view(request, *args, **kwargs)

    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:
        """Nothing yet: an account is saved with its groups, to be looked at as a whole."""

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        obj = form.instance
        with proposals.watched(powers.account(obj), by=_person(request)):
            super().save_model(request, obj, form, change)
            super().save_related(request, form, formsets, change)
        if change and "username" in form.changed_data:
            changing.tell(
                "account.renamed", obj, by=_actor(request), before=form.initial["username"]
            )

    def log_addition(self, request: HttpRequest, obj: User, message: Any) -> Any:
        _tell("account.created", request, obj)
        return super().log_addition(request, obj, message)

    def log_change(self, request: HttpRequest, obj: User, message: Any) -> Any:
        """Of every change made here, a new password included: groups decide who may vote."""
        _tell("account.changed", request, obj)
        return super().log_change(request, obj, message)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        allowed = super().has_change_permission(request, obj)
        return allowed and (obj is None or not obj.is_superuser or _is_superuser(request))

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> Any:
        """For superusers: whoever sets an approver's password can vote as them.

        The account's tokens end with the old one, as its sessions do: whoever resets a password
        takes the account out of somebody's hands, or gives it back to someone who lost it.
        """
        if not _is_superuser(request) or _is_service(id):
            raise PermissionDenied
        with _proposing(request), transaction.atomic():
            before = self.get_object(request, unquote(id))
            if before is not None and powers.reset_takes_two(before, by=_person(request)):
                if request.method == "POST":
                    powers.require_two(before, by=_person(request))
                messages.info(request, RESET_TAKES_TWO)
            answer = super().user_change_password(request, id, form_url)
            if before is not None:
                _follow_reset(request, before)
        return answer

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        fields = super().get_readonly_fields(request, obj)
        if _is_superuser(request):
            return fields
        # The log names people by what they were called then: a new name is a new person to it.
        return [*fields, *POWERS, *(["username"] if obj else [])]


def _is_service(pk: str) -> bool:
    """Whether it is an account that only tokens act as, and so has no password."""
    number = unquote(pk)
    return number.isdecimal() and ServiceAccount.objects.filter(pk=int(number)).exists()


def _follow_reset(request: HttpRequest, before: User) -> None:
    """Tell of a new password, if there is one, and end the account's tokens."""
    if User.objects.get(pk=before.pk).password == before.password:
        return
    powers.require_two(before, by=_person(request))
    _tell("account.password_reset", request, before)
    tokens.revoke_all(before.pk, by=cast("User", request.user), because="account.password_reset")


@transaction.atomic
def _tell(action: str, request: HttpRequest, user: User) -> None:
    changing.tell(action, user, by=_actor(request))


admin.site.unregister(Group)


class GroupForm(GroupFields):
    """Django's form, with a name that reads as it is written: policies and stages show it."""

    def clean_name(self) -> str:
        name: str = self.cleaned_data["name"]
        if not name.isprintable():
            raise forms.ValidationError(
                "It holds characters that nobody sees, or that turn the others around."
            )
        return name


@admin.register(Group)
class GroupAdmin(GroupsAdmin):
    """Who is in a group is on each person's page. A group that carries permissions, and which,
    is for superusers: to be in it is to have them."""

    form = GroupForm
    actions = None
    filter_horizontal = ()
    readonly_fields = ["members"]

    @admin.display(description="Who is in it")
    def members(self, group: Group) -> str:
        """As many as fit; the rest are found among the people, by the filter for groups."""
        names = [str(one) for one in group.user_set.order_by("username")[: MEMBERS_SHOWN + 1]]
        more = group.user_set.count() - MEMBERS_SHOWN
        shown = ", ".join(names[:MEMBERS_SHOWN])
        return f"{shown} and {more} more" if more > 0 else shown or "nobody yet"

    def add_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        with _proposing(request):
            return super().add_view(request, *args, **kwargs)

    def change_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        with _proposing(request):
            return super().change_view(request, *args, **kwargs)

    def delete_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        with _proposing(request):
            return super().delete_view(request, *args, **kwargs)

    def save_model(self, request: HttpRequest, obj: Group, form: Any, change: bool) -> None:
        """Nothing yet: a group is saved with its permissions, to be looked at as a whole."""

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        with proposals.watched(powers.group(form.instance), by=_person(request)):
            super().save_model(request, form.instance, form, change)
            super().save_related(request, form, formsets, change)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_change_permission(request, obj) and _may_touch(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_delete_permission(request, obj) and _may_touch(request, obj)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        fields = super().get_readonly_fields(request, obj)
        return fields if _is_superuser(request) else [*fields, "permissions"]

    def log_addition(self, request: HttpRequest, obj: Group, message: Any) -> Any:
        _tell_group("group.created", request, obj)
        return super().log_addition(request, obj, message)

    def log_change(self, request: HttpRequest, obj: Group, message: Any) -> Any:
        _tell_group("group.changed", request, obj)
        return super().log_change(request, obj, message)

    def delete_model(self, request: HttpRequest, obj: Group) -> None:
        with proposals.watched(powers.group_gone(obj), by=_person(request)):
            _tell_group("group.deleted", request, obj)
            super().delete_model(request, obj)


@transaction.atomic
def _tell_group(action: str, request: HttpRequest, group: Group) -> None:
    powers.tell_group(action, group, by=_person(request))


@contextmanager
def _proposing(request: HttpRequest) -> Iterator[None]:
    """Around the page's transaction."""
    with proposals.proposing(by=_person(request)):
        yield


def _person(request: HttpRequest) -> User:
    if not request.user.is_authenticated:
        raise PermissionDenied
    return request.user


def _actor(request: HttpRequest) -> Actor:
    if not request.user.is_authenticated:
        raise PermissionDenied
    return Actor.of(request.user)


def _may_touch(request: HttpRequest, group: Group | None) -> bool:
    return _is_superuser(request) or group is None or not group.permissions.exists()


def _is_superuser(request: HttpRequest) -> bool:
    return request.user.is_active and request.user.is_superuser
