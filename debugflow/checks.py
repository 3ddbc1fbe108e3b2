"""System checks: unsafe combinations of settings, and a database that gives us too much."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, register
from django.db import connections

from approvals.secrets import HOW_TO_MAKE_A_KEY

DEMO_MARK = "demo-"


@register(Tags.security, deploy=True)
def production_is_not_the_demo(**kwargs: Any) -> list[CheckMessage]:
    """Refuse what is fine on one's own machine and nowhere else."""
    found: list[CheckMessage] = []
    if settings.DEBUG:
        found.append(Error("DEBUG is on.", hint="Unset DEBUG.", id="debugflow.E001"))
    if settings.DEMO:
        found.append(Error("Demo mode is on.", hint="Unset DEBUGFLOW_DEMO.", id="debugflow.E002"))
    if settings.SECRET_KEY.startswith(DEMO_MARK) or len(settings.SECRET_KEY) < 50:
        hint = "Set SECRET_KEY to 50 or more random characters."
        found.append(Error("SECRET_KEY can be guessed.", hint=hint, id="debugflow.E003"))
    if not settings.SECURE:
        hint = "Serve it behind TLS and unset DEBUGFLOW_SECURE."
        found.append(Error("Cookies would travel in clear.", hint=hint, id="debugflow.E004"))
    return found


@register(Tags.security)
def demo_stays_at_home(**kwargs: Any) -> list[CheckMessage]:
    """Demo sign-ins are printed on a terminal and DEBUG tells all: on this machine only."""
    at_home = all(_is_local(host) for host in settings.ALLOWED_HOSTS)
    if (settings.DEMO or settings.DEBUG) and not at_home:
        hint = "Unset DEBUGFLOW_DEMO and DEBUG, or leave ALLOWED_HOSTS at its default."
        return [Error("The demo would be reachable.", hint=hint, id="debugflow.E005")]
    return []


def _is_local(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


@register(Tags.security)
def secrets_can_be_sealed(**kwargs: Any) -> list[CheckMessage]:
    from approvals import secrets

    try:
        secrets.unseal(
            secrets.seal("", table="check", key="", field=""), table="check", key="", field=""
        )
    except Exception as error:  # noqa: BLE001  (whatever is wrong with the keys is the answer)
        return [Error(str(error), hint=HOW_TO_MAKE_A_KEY, id="debugflow.E006")]
    return []


@register(Tags.database)
def login_is_no_owner(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """The application's login may not become the tables' owner: Events rest on that."""
    if "default" not in (databases or ()) or _is_migrator():
        return []
    with connections["default"].cursor() as cursor:
        cursor.execute(
            "SELECT r.rolsuper OR r.rolcreaterole OR r.rolbypassrls,"
            " EXISTS (SELECT FROM pg_auth_members m WHERE m.member = r.oid),"
            " EXISTS (SELECT FROM pg_class c WHERE c.relowner = r.oid AND c.relpersistence <> 't')"
            " FROM pg_roles r WHERE r.rolname = session_user"
        )
        powerful, member, owner = cursor.fetchone()
    hint = "Connect as the application's own login; `manage.py prepare_database` makes it."
    wrong = [
        (powerful, "The application's database login is a superuser or manages roles."),
        (member, "The application's database login is a member of another role."),
        (owner, "The application's database login owns tables."),
    ]
    return [Error(text, hint=hint, id="debugflow.E007") for bad, text in wrong if bad]


@register(Tags.database, deploy=True)
def clock_is_straight(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """A shifted clock is for tests; here it would end access at the wrong time."""
    if "default" not in (databases or ()) or _is_migrator():
        return []
    with connections["default"].cursor() as cursor:
        cursor.execute("SELECT to_regclass('audit_clock') IS NOT NULL")
        if not cursor.fetchone()[0]:
            return []
        cursor.execute(
            "SELECT shift <> '0' OR has_table_privilege(session_user, 'audit_clock', 'UPDATE')"
            " FROM audit_clock"
        )
        if not cursor.fetchone()[0]:
            return []
    hint = "As the owner: UPDATE audit_clock SET shift = '0', and revoke UPDATE on it."
    return [Error("The clock is shifted, or may be.", hint=hint, id="debugflow.E008")]


def _is_migrator() -> bool:
    return bool(settings.MIGRATIONS_DATABASE_URL)
