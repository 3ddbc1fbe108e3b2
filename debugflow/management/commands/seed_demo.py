"""Writes the demonstration's people, target, levels and policy, by the verbs. May be run again.

Nothing here is for a real installation: the passwords are printed on a terminal.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote, urlsplit

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import Group
from django.core.management.base import BaseCommand, CommandError
from guardian.shortcuts import assign_perm

from approvals import administration
from approvals.administration import PolicyDraft, StageDraft
from approvals.models import AccessLevel, ExtensionApproval, Policy, Reach, Risk, Target
from approvals.models.targets import Environment
from approvals.policy import AppliesTo
from debugflow import env
from debugflow.accounts.models import User
from debugflow.embedded.production import READ_ONLY as READ_ONLY_ROLE
from debugflow.embedded.production import READ_WRITE as READ_WRITE_ROLE
from debugflow.embedded.story import cast

HOUR = 3600


class Command(BaseCommand):
    """The target comes from the environment, since command lines are everybody's to read."""

    help = (
        "Write the demonstration's people, target and policy. The target is the PostgreSQL of "
        "DEBUGFLOW_DEMO_TARGET_URL. Refused unless DEBUGFLOW_DEMO is on. May be run again."
    )

    def handle(self, **_: object) -> None:
        if not settings.DEMO:
            raise CommandError("Set DEBUGFLOW_DEMO=True; these sign-ins are known to everybody.")
        groups = _people()
        ada = get_user_model().objects.get(username=cast.ADMIN)
        target = _target(env.text("DEBUGFLOW_DEMO_TARGET_URL"), by=ada)
        assign_perm("approvals.own_target", groups["owners"], target)
        for level in _levels(target, by=ada):
            assign_perm("approvals.request_accesslevel", groups["developers"], level)
        _policy(groups, by=ada)
        self.stdout.write(f"{len(cast.PEOPLE)} people, {target} and “{cast.POLICY}” are there.")


def _people() -> dict[str, Group]:
    """Everybody, with the one password, in their groups. Somebody who exists keeps theirs."""
    users, hashed = get_user_model().objects, make_password(cast.PASSWORD)
    for name in cast.PEOPLE:
        admin = name == cast.ADMIN
        fields = {"email": f"{name}@example.com", "password": hashed}
        rights = {"is_staff": admin, "is_superuser": admin}
        users.get_or_create(username=name, defaults={**fields, **rights})
    groups = {}
    for name, members in cast.MEMBERS.items():
        groups[name], _ = Group.objects.get_or_create(name=name)
        groups[name].user_set.add(*users.filter(username__in=members))
    return groups


def _target(url: str, *, by: User) -> Target:
    """The target at `url`. One at the same address is left as it is."""
    where = urlsplit(url)
    config: dict[str, Any] = {
        "host": where.hostname,
        "port": where.port,
        "database": where.path.strip("/"),
        "user": unquote(where.username or ""),
        "sslmode": "disable",
    }
    target = Target.objects.filter(name=cast.TARGET).first()
    if target is not None and config.items() <= target.config.items():
        return target
    target = target or Target(name=cast.TARGET, kind="postgresql", labels={"team": "shop"})
    target.description = "The shop's orders, customers and payments."
    target.environment, target.config = Environment.PRODUCTION, config
    secrets = {"password": unquote(where.password or "")}
    return administration.save_target(target, by=by, clear_secrets=secrets)


def _levels(target: Target, *, by: User) -> list[AccessLevel]:
    """Both levels; each is checked on the target when it is saved."""
    wanted = [
        AccessLevel(
            target=target,
            name=cast.READ_ONLY,
            description="Read every table.",
            rights=dict(READ_ONLY_ROLE),
            risk=Risk.LOW,
            reach=Reach.DIRECT,
            rank=1,
            max_duration=4 * HOUR,
        ),
        AccessLevel(
            target=target,
            name=cast.READ_WRITE,
            description="Read every table, change orders and payments.",
            rights=dict(READ_WRITE_ROLE),
            risk=Risk.MEDIUM,
            reach=Reach.DIRECT,
            rank=2,
            max_duration=HOUR,
        ),
    ]
    there = {level.name: level for level in target.levels.all()}
    return [there.get(w.name) or administration.save_level(w, by=by) for w in wanted]


def _policy(groups: dict[str, Group], *, by: User) -> None:
    """One of dba, then one of security, for whatever is asked for in production, and the latter
    alone for longer access; whoever is on call opens for a quarter of an hour in an emergency."""
    policy = Policy.objects.filter(name=cast.POLICY).first()
    if policy is None:
        policy = administration.change_policy(Policy(name=cast.POLICY, rank=10), by=by)
    if policy.current is not None:
        return
    stages = [
        StageDraft(
            name="Database",
            groups={groups["dba"]: 1},
            total=1,
            remind_every=cast.REMIND_AFTER,
            max_reminders=3,
            escalate_after=cast.ESCALATE_AFTER,
            escalation_group=groups["owners"],
        ),
        StageDraft(name="Security", groups={groups["security"]: 1}, total=1),
    ]
    draft = PolicyDraft(
        applies_to=AppliesTo(environments=[Environment.PRODUCTION]),
        stages=stages,
        max_duration=4 * HOUR,
        emergency_groups=[groups["oncall"]],
        emergency_duration=HOUR // 4,
        emergency_tells=groups["security"],
        extensions_most=2,
        extension_max=HOUR,
        max_total=8 * HOUR,
        extension_window=HOUR // 2,
        extension_approval=ExtensionApproval.LAST,
        reason_hint="What is broken, and what do you mean to look at?",
    )
    administration.publish(policy, draft, based_on=None, by=by)
