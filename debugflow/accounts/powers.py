"""Changes of accounts and groups that may take a second person, and how they are carried out.

What widens access is in `approvals.second_look`, and what becomes of it in `approvals.proposals`;
the pages are in `admin`.
"""

from __future__ import annotations

from typing import Any, Final

from django.contrib.auth.models import Group, Permission
from django.core.exceptions import ValidationError
from django.db import transaction

from approvals import proposals, second_look
from approvals.carrying_out import found
from approvals.errors import Invalid
from approvals.proposals import SUPERUSER, Change, Wanted
from approvals.second_look import Gain
from approvals.tokens import account_subject
from approvals.transition import actor
from audit import log
from audit.log import Subject
from debugflow.accounts import changing
from debugflow.accounts.models import User

ACCOUNT: Final = "account.change"
PASSWORD: Final = "account.password"  # noqa: S105 - the name of a change
GROUP: Final = "group.change"
GROUP_GONE: Final = "group.delete"
FIELDS: Final = (
    "username",
    "first_name",
    "last_name",
    "email",
    "time_zone",
    "is_active",
    "is_staff",
    "is_superuser",
)

Data = dict[str, Any]


def account(user: User) -> Wanted:
    """A change of what an account is and may; a password is no part of it."""
    stored = user.pk
    return Wanted(
        change=ACCOUNT,
        obj=user,
        summary=f"{'Change' if stored else 'Add'} the account {user}",
        arguments=lambda: {"id": stored, **_account(user)},
        subject=lambda: account_subject(user.pk),
    )


def _account(user: User) -> Data:
    return {
        "fields": {name: getattr(user, name) for name in FIELDS},
        "groups": sorted(user.groups.values_list("pk", flat=True)),
        "permissions": sorted(user.user_permissions.values_list("pk", flat=True)),
    }


def _change_account(arguments: Data, by: User) -> None:
    user = found(User, arguments["id"]) if arguments["id"] else User(password="!")  # noqa: S106
    before = user.username
    with transaction.atomic(), log.batch(), proposals.watched(account(user), by=by):
        for name, value in arguments["fields"].items():
            setattr(user, name, value)
        _clean(user, "password")
        user.save()
        user.groups.set([found(Group, pk) for pk in arguments["groups"]])
        user.user_permissions.set([found(Permission, pk) for pk in arguments["permissions"]])
        if before and before != user.username:
            changing.tell("account.renamed", user, by=by, before=before)
        changing.tell("account.changed" if arguments["id"] else "account.created", user, by=by)


def _clean(obj: User | Group, *left_out: str) -> None:
    try:
        obj.full_clean(exclude=left_out)
    except ValidationError as error:
        raise Invalid(fields=error.message_dict) from None


def reset(user: User) -> Wanted:
    """Leave to set somebody else's password, once, for whoever proposes it."""
    can = ", ".join(second_look.powers_of(user))
    text = f"Whoever proposes this can sign in as {user}, who {can}."
    return Wanted(
        change=PASSWORD,
        obj=user,
        summary=f"Set a new password for {user}",
        arguments=lambda: {"id": user.pk},
        subject=lambda: account_subject(user.pk),
        also=(Gain(text, frozenset({user.pk})),),
    )


def _allow_reset(arguments: Data, by: User) -> None:
    with transaction.atomic(), proposals.watched(reset(found(User, arguments["id"])), by=by):
        pass  # what comes of it is the proposal itself: see `require_two`


def reset_takes_two(user: User, *, by: User) -> bool:
    """Whether setting this password is to be agreed to first, and is not yet."""
    if user.pk == by.pk or not proposals.in_force() or not second_look.powers_of(user):
        return False
    return not proposals.leaves(PASSWORD, {"id": user.pk}, by).exists()


def require_two(user: User, *, by: User) -> None:
    """In the transaction of a new password: use up the leave for it.

    Raises NeedsTwo where there has to be one and is none.
    """
    if user.pk == by.pk or not second_look.powers_of(user):
        return
    if not proposals.use_leave(PASSWORD, {"id": user.pk}, by):
        with proposals.watched(reset(user), by=by):
            pass


def group(one: Group) -> Wanted:
    stored = one.pk
    return Wanted(
        change=GROUP,
        obj=one,
        summary=f"{'Change' if stored else 'Add'} the group {one}",
        arguments=lambda: {
            "id": stored,
            "name": one.name,
            "permissions": sorted(one.permissions.values_list("pk", flat=True)),
        },
        subject=lambda: group_subject(one),
    )


def _change_group(arguments: Data, by: User) -> None:
    one = found(Group, arguments["id"]) if arguments["id"] else Group()
    with transaction.atomic(), log.batch(), proposals.watched(group(one), by=by):
        one.name = arguments["name"]
        _clean(one)
        one.save()
        one.permissions.set([found(Permission, pk) for pk in arguments["permissions"]])
        tell_group("group.changed" if arguments["id"] else "group.created", one, by=by)


def group_gone(one: Group) -> Wanted:
    stored, subject = one.pk, group_subject(one)
    return Wanted(
        change=GROUP_GONE,
        obj=one,
        summary=f"Delete the group {one}",
        arguments=lambda: {"id": stored},
        subject=lambda: subject,
    )


def _delete_group(arguments: Data, by: User) -> None:
    one = found(Group, arguments["id"])
    with transaction.atomic(), log.batch(), proposals.watched(group_gone(one), by=by):
        tell_group("group.deleted", one, by=by)
        one.delete()


def group_subject(one: Group) -> Subject:
    return Subject("group", str(one.pk), one.name, f"group:{one.pk}")


def tell_group(action: str, one: Group, *, by: User) -> None:
    """An Event about a group. In the transaction of the change."""
    permissions = sorted(one.permissions.values_list("codename", flat=True))
    log.record(action, actor=actor(by), subject=group_subject(one), permissions=permissions)


for _change in (
    Change(ACCOUNT, SUPERUSER, _change_account, proposing="accounts.change_user"),
    Change(PASSWORD, SUPERUSER, _allow_reset),
    Change(GROUP, SUPERUSER, _change_group, proposing="auth.change_group"),
    Change(GROUP_GONE, SUPERUSER, _delete_group, proposing="auth.delete_group"),
):
    proposals.register(_change)
