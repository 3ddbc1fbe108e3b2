"""The steps of the first set-up: admin, groups, target, level, policy. Each may be taken again.

What exists stays as it is, and is said to. Everything goes through the verbs that the admin site
uses, so that it is refused for the same reasons and told to the audit log. Who is asked for what,
on which terminal, is the command's affair.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import Group
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import transaction

from approvals import administration, holders, targets
from approvals.administration import PolicyDraft, StageDraft
from approvals.errors import Invalid, ProvisionError
from approvals.models import AccessLevel, Policy, Reach, Target
from approvals.policy import AppliesTo
from audit import log
from audit.log import SYSTEM, Actor, Subject
from debugflow.accounts import changing
from debugflow.accounts.models import User

RANKS_APART = 10  # room for policies that are to be asked before


@dataclass(frozen=True, kw_only=True)
class Made:
    """What a step leaves: the object, and whether it was there before."""

    what: Any
    existed: bool

    def __str__(self) -> str:
        kind = self.what._meta.verbose_name
        return f"{kind} {self.what}: {'exists already' if self.existed else 'made'}"


def existing_admin(name: str) -> User | None:
    """The admin of that name, None if there is nobody. Raises Invalid for somebody who is none."""
    user = User.objects.filter(username=name).first()
    if user is not None and not (user.is_active and user.is_superuser):
        raise Invalid(f"{name} exists and is no active superuser. Choose another name.")
    return user


def admin(name: str, *, email: str, password: str) -> Made:
    """A superuser who can sign in. Raises Invalid for a name, address or password of no use."""
    if (there := existing_admin(name)) is not None:
        return Made(what=there, existed=True)
    user = User(username=name, email=email, is_staff=True, is_superuser=True)
    try:
        user.full_clean(exclude=["password"])
        validate_password(password, user)
    except ValidationError as error:
        raise Invalid(" ".join(error.messages)) from None
    user.set_password(password)
    with transaction.atomic():
        user.save()
        changing.tell("account.created", user, by=SYSTEM)
    return Made(what=user, existed=False)


@transaction.atomic
def group(name: str, *, by: User) -> Made:
    """A group without people and without permissions. Raises Invalid for a name that cannot be."""
    there = Group.objects.filter(name=name).first()
    if there is not None:
        return Made(what=there, existed=True)
    made = Group(name=name)
    try:
        made.full_clean()
    except ValidationError as error:
        raise Invalid(" ".join(error.messages)) from None
    made.save()
    subject = Subject("group", str(made.pk), name, f"group:{made.pk}")
    log.record("group.created", actor=Actor.of(by), subject=subject, permissions=[])
    return Made(what=made, existed=False)


def target(wanted: Target, *, clear: Mapping[str, str], owners: Group, by: User) -> Made:
    """The target of that name, owned by `owners` as well.

    One that exists and does not sign in any more gets the secrets in `clear`, if they do. Raises
    Invalid, WrongState, NotAllowed, as `administration.save_target` does.
    """
    there = Target.objects.filter(name=wanted.name).first()
    existed = there is not None
    if there is None or (clear and not _signs_in(there)):
        there = administration.save_target(there or wanted, by=by, clear_secrets=clear)
    _let_hold(there, "own_target", owners, by=by)
    return Made(what=there, existed=existed)


def _signs_in(there: Target) -> bool:
    try:
        targets.provisioner(there).signs_in()
    except ProvisionError:
        return False
    return True


def differences(wanted: Target, there: Target) -> list[str]:
    """In what an existing target is not what was asked for, by name."""
    fields = [n for n in ("kind", "environment") if getattr(wanted, n) != getattr(there, n)]
    configured = [n for n, value in wanted.config.items() if there.config.get(n) != value]
    return [*fields, *configured]


def level(wanted: AccessLevel, *, askers: Group, by: User) -> Made:
    """The target's level of that name, with `askers` allowed to ask for it.

    Raises Invalid with every problem of the rights, ProvisionError if the target cannot be asked.
    """
    there = AccessLevel.objects.filter(target=wanted.target, name=wanted.name).first()
    existed = there is not None
    if there is None:
        wanted.reach = Reach.DIRECT
        ranks = wanted.target.levels.values_list("rank", flat=True)
        wanted.rank = max(ranks, default=0) + 1
        there = administration.save_level(wanted, by=by)
    _let_hold(there, "request_accesslevel", askers, by=by)
    return Made(what=there, existed=existed)


def policy(name: str, *, covers: AccessLevel, approvers: Group, approvals: int, by: User) -> Made:
    """A published policy of one stage, for all of the environment that the level's target is in.

    Raises Invalid for one that could not work.
    """
    there = Policy.objects.filter(name=name).first()
    if there is not None and there.current is not None:
        return Made(what=there, existed=True)
    if there is None:
        ranks = Policy.objects.values_list("rank", flat=True)
        rank = max(ranks, default=0) + RANKS_APART
        there = administration.change_policy(Policy(name=name, rank=rank), by=by)
    draft = PolicyDraft(
        applies_to=AppliesTo(environments=[covers.target.environment]),
        stages=[StageDraft(name="Approval", groups={approvers: approvals}, total=approvals)],
        max_duration=covers.max_duration,
    )
    administration.publish(there, draft, based_on=None, by=by)
    return Made(what=there, existed=False)


def _let_hold(obj: Target | AccessLevel, permission: str, who: Group, *, by: User) -> None:
    """Add one group to those that hold it; nobody loses it."""
    held = holders.held(obj, permission, "groups")
    if who.pk not in held:
        groups = [*Group.objects.filter(pk__in=held), who]
        administration.change_holders(obj, {permission: {"groups": groups}}, by=by)
