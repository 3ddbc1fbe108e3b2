"""Does what was set up make sense, and is what was opened being ended."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Final

from django.db.models import Q, QuerySet
from guardian.shortcuts import get_users_with_perms

from approvals import access, administration, lint, policy, proposals
from approvals import grants as verbs
from approvals import targets as unsealing
from approvals.errors import Invalid, ProvisionError
from approvals.models import AccessLevel, Alarm, Grant, Policy, Reconciliation, Target
from approvals.people import Person
from approvals.proposals import Standing
from approvals.secrets import SecretUnreadable
from debugflow.diagnosis.finding import Finding, some, well
from debugflow.probes import Probe
from debugflow.wording import ONE_SUPERUSER

TARGET_WITHIN: Final = 20.0  # seconds for all that one target is asked
AT_ONCE: Final = 16  # targets
PEOPLE_MOST: Final = 20  # of those who may ask for a level: enough to find one who is governed
CONSENT: Final = "Look at the target, then allow it on its page in the admin site."
MEND_POLICY: Final = "Or publish another version, on the policy's page in the admin site."
DIFFERS: Final = (
    "The target's page in the admin site tells all. Undo it there, or revoke the access."
)


def targets() -> Iterator[Finding]:
    """Each one that is switched on or has access open, asked as “test connection” asks."""
    used = Q(enabled=True) | Q(pk__in=Grant.objects.not_ended().values("target"))
    every = list(Target.objects.filter(used).order_by("name"))
    for start in range(0, len(every), AT_ONCE):
        some_of_them = every[start : start + AT_ONCE]
        asked = [
            Probe(partial(administration.check_target, target), within=TARGET_WITHIN).ask()
            for target in some_of_them
        ]
        for target, answer in zip(some_of_them, asked, strict=True):
            try:
                yield from _of_target(target, answer.answer())
            except TimeoutError:
                told = f"{target}: no answer within {TARGET_WITHIN:.0f} s."
                yield Finding(False, told, "See that it runs and can be reached from here.")


def _of_target(target: Target, rows: list[tuple[bool, str, str]]) -> list[Finding]:
    wrong = [Finding(False, f"{target}: {what}", fix) for ok, what, fix in rows if not ok]
    return well(f"{target}: debugflow can sign in and do its work.", wrong)


def secrets() -> list[Finding]:
    """Those of targets that are not asked, and of grants: `targets` tells of the others."""
    fix = "Bring back the key that DEBUGFLOW_ENCRYPTION_KEYS lost, or enter the secret again."
    off = Target.objects.filter(enabled=False).exclude(secrets={})
    unread = [target for target in off if not _is_readable(target)]
    wrong = [Finding(False, f"A secret of {target} cannot be read.", fix) for target in unread]
    lost = [grant for grant in Grant.objects.not_ended().exclude(secret="") if not _unseals(grant)]
    if lost:
        told = f"The passwords of {some(lost)} cannot be read."
        wrong.append(Finding(False, told, "Bring back the key, or revoke them."))
    return well("Every stored secret can be read.", wrong)


def _is_readable(target: Target) -> bool:
    try:
        unsealing.provisioner(target)
    except ProvisionError:
        return False
    except Invalid:
        return True  # its configuration is of another kind of trouble, and it is switched off
    return True


def _unseals(grant: Grant) -> bool:
    try:
        verbs.unsealed(grant)
    except SecretUnreadable:
        return False
    return True


def owners() -> list[Finding]:
    unowned = [
        target for target in Target.objects.filter(enabled=True) if not access.owners(target)
    ]
    wrong = [
        Finding(
            False,
            f"Nobody owns {target}: its alarms reach administrators only.",
            "Give somebody, or a group, the permission “own” on it.",
        )
        for target in unowned
    ]
    return well("Every target has an owner.", wrong)


def levels() -> list[Finding]:
    offered = AccessLevel.objects.filter(enabled=True, target__enabled=True)
    rows = offered.select_related("target").order_by("target__name", "rank")
    wrong = [finding for level in rows for finding in _of_level(level)]
    return well("Somebody may ask for every level, and a policy governs it.", wrong)


def _of_level(level: AccessLevel) -> Iterator[Finding]:
    name = f"{level.name} on {level.target.name}"
    people = list(_may_ask(level)[:PEOPLE_MOST])
    if not people:
        fix = "Give somebody, or a group, the permission “request” on it, or switch it off."
        yield Finding(False, f"Nobody may ask for {name}.", fix)
        return
    choices = [policy.choose(level, person) for person in people]
    if not any(choice.version for choice in choices):
        near = "; ".join(str(miss) for miss in choices[0].near_misses) or "there is none"
        fix = "Publish a policy that applies to it."
        yield Finding(False, f"No policy governs {name}, so nobody gets it ({near}).", fix)


def _may_ask(level: AccessLevel) -> QuerySet[Person]:
    people: Any = get_users_with_perms(
        level, only_with_perms_in=["request_accesslevel"], with_superusers=False
    )
    found: QuerySet[Person] = people.filter(is_active=True).order_by("pk")
    return found


def policies() -> list[Finding]:
    """Those that let nobody in; what is merely tight is told on their pages in the admin site."""
    wrong = [
        Finding(False, f"The policy {name}: {one.text}", one.fix or MEND_POLICY)
        for name, warned in _warned().items()
        for one in warned
        if one.code in lint.USELESS
    ]
    return well("Every policy governs something, and its stages can be filled.", wrong)


def _warned() -> dict[str, list[lint.Warned]]:
    found = lint.look()
    names = dict(Policy.objects.filter(pk__in=found).values_list("pk", "name"))
    return {names[pk]: warned for pk, warned in found.items()}


def second_person() -> list[Finding]:
    """Nothing where one is enough, which is for the system checks to tell."""
    standing = proposals.standing()
    if standing == Standing.OFF:
        return []
    told = ONE_SUPERUSER.get(standing)
    wrong = [Finding(False, told, "See docs/four-eyes.md.")] if told else []
    return well("What widens access to production takes two people, and there are two.", wrong)


def grants() -> list[Finding]:
    rows = Grant.objects.order_by("pk")
    page = "The page of each says why. Owners of the target can end the access there by hand."
    kinds = (
        ("past their end and not cut", rows.overdue(), page),
        ("whose ending keeps failing", rows.stuck(), page),
        ("given up and not ended", rows.abandoned(), "Somebody has to look at the target itself."),
    )
    wrong = [
        Finding(False, f"{len(found)} grants {what}: {some(found)}.", fix)
        for what, query, fix in kinds
        if (found := list(query))
    ]
    return well("No access is open past its end.", wrong)


def comparisons() -> list[Finding]:
    wrong = []
    for row in Reconciliation.objects.select_related("target").order_by("target__name"):
        if row.held_back_since:
            told = f"{row.target}: a clean-up waits for consent: {some(row.held_back)}."
            wrong.append(Finding(False, told, CONSENT))
        if row.last_error:
            told = f"{row.target} could not be compared with the ledger: {row.last_error}"
            wrong.append(
                Finding(
                    False, told, f"Mend that; `manage.py reconcile {row.target}` tries at once."
                )
            )
        if row.findings:
            told = f"{row.target} differs from the ledger: {some(row.findings)}"
            wrong.append(Finding(False, told, DIFFERS))
    return well("Nothing on the targets differs from the ledger.", wrong)


def alarms() -> list[Finding]:
    silent = Alarm.objects.filter(ended_at__isnull=True, failures__gt=0).exclude(last_error="")
    fix = "Mend the mail settings (EMAIL_HOST and its like), or the person's address."
    wrong = [
        Finding(False, f"A mail of the alarm “{alarm.text}” failed: {alarm.last_error}", fix)
        for alarm in silent.order_by("pk")
    ]
    return well("The mails of open alarms go out.", wrong)
