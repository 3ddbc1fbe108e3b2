"""System checks: unsafe combinations of settings, and a database that gives us too much."""

from __future__ import annotations

import base64
import ipaddress
import time
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from approvals.secrets import HOW_TO_MAKE_A_KEY
from debugflow.middleware import trusted_proxies
from debugflow.wording import HOW_TO_START_ONE, NO_SWEEPER, ONE_WIDENS

DEMO_MARK = "demo-"
SKEW_MOST: Final = 2000  # milliseconds: beyond it, whoever looks at two clocks sees two orders
SWEEPERS_LEAST: Final = 2  # law 5: one may die, and access still ends on time
SWEEP_INTERVAL_MOST: Final = 1.0  # seconds
TOKEN_LEAST: Final = 32  # characters
# 32 random bytes have some 30 different ones; fewer than this one in 10**15 times.
KEY_BYTES_LEAST: Final = 16
DATABASE_TLS: Final = {"require", "verify-ca", "verify-full"}


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


@register(Tags.database)
def clocks_agree(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """This machine's clock against the database's own: pages, certificates and logs go by both."""
    from approvals.heartbeats import skew_ms

    if "default" not in (databases or ()):
        return []
    with connections["default"].cursor() as cursor:
        sent = time.time()
        cursor.execute("SELECT clock_timestamp()")
        read = cursor.fetchone()[0].timestamp()
        skew = skew_ms(sent, read, time.time())
    if abs(skew) <= SKEW_MOST:
        return []
    text = f"This machine's clock and the database's are {abs(skew) / 1000:.1f} s apart."
    hint = "Let both follow a time server (NTP), then start again."
    return [Error(text, hint=hint, id="debugflow.E009")]


@register(Tags.security, deploy=True)
def keys_are_random(**kwargs: Any) -> list[CheckMessage]:
    """A key that was typed or copied from an example opens every stored secret to a guess."""
    if not any(_is_guessable(key) for key in settings.ENCRYPTION_KEYS):
        return []
    text = "A key of DEBUGFLOW_ENCRYPTION_KEYS can be guessed."
    return [Error(text, hint=HOW_TO_MAKE_A_KEY, id="debugflow.E010")]


def _is_guessable(key: str) -> bool:
    try:
        raw = base64.urlsafe_b64decode(key)
    except ValueError:
        return False  # no key at all, which is debugflow.E006
    return len(set(raw)) < KEY_BYTES_LEAST or raw.startswith(DEMO_MARK.rstrip("-").encode())


@register(Tags.security)
def proxies_are_some(**kwargs: Any) -> list[CheckMessage]:
    """Where every address is a trusted proxy, everybody chooses the address they are logged by."""
    try:
        networks = trusted_proxies(settings.TRUSTED_PROXIES)
    except ImproperlyConfigured as error:
        return [Error(str(error), id="debugflow.E011")]
    for version in (4, 6):
        same = [n for n in networks if n.version == version]
        # Two halves are the whole as well.
        if any(n.prefixlen == 0 for n in ipaddress.collapse_addresses(same)):  # type: ignore[type-var]
            text = f"TRUSTED_PROXIES trusts every IPv{version} address."
            hint = "Name the networks of the TLS proxy only."
            return [Error(text, hint=hint, id="debugflow.E011")]
    return []


@register(Tags.security)
def mail_has_one_kind_of_tls(**kwargs: Any) -> list[CheckMessage]:
    if not (settings.EMAIL_USE_TLS and settings.EMAIL_USE_SSL):
        return []
    hint = "EMAIL_USE_SSL for TLS from the start (mostly port 465), EMAIL_USE_TLS for STARTTLS."
    return [Error("Both kinds of TLS are on for mail.", hint=hint, id="debugflow.E012")]


@register(Tags.database, deploy=True)
def sweepers_are_alive(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """One at the least, and a second so that one may die; any number may run.

    Warnings: as errors they would keep the first one from starting. Nothing is said before there
    was a sweeper or a grant, when there can be none, and none is missed.
    """
    from approvals import heartbeats
    from approvals.models import Grant, Heartbeat

    if "default" not in (databases or ()) or _is_migrator() or not _has_table(Heartbeat):
        return []
    alive = heartbeats.sweeping().using("default").count()
    begun = any(model.objects.using("default").exists() for model in (Heartbeat, Grant))
    if alive >= SWEEPERS_LEAST or not begun:
        return []
    if not alive:
        return [Warning(NO_SWEEPER, hint=HOW_TO_START_ONE, id="debugflow.W009")]
    text = f"{alive} of at least {SWEEPERS_LEAST} sweepers is alive: if it dies, none is left."
    hint = "Start a second worker, best on another machine."
    return [Warning(text, hint=hint, id="debugflow.W001")]


def _has_table(model: Any) -> bool:
    with connections["default"].cursor() as cursor:
        cursor.execute("SELECT to_regclass(%s) IS NOT NULL", [model._meta.db_table])
        return bool(cursor.fetchone()[0])


@register(Tags.security, deploy=True)
def two_are_needed(**kwargs: Any) -> list[CheckMessage]:
    """Whoever sets things up alone could give themselves anything in production."""
    if settings.FOUR_EYES:
        return []
    hint = "Unset DEBUGFLOW_FOUR_EYES, and see docs/four-eyes.md."
    return [Warning(ONE_WIDENS, hint=hint, id="debugflow.W010")]


@register(Tags.security, deploy=True)
def people_can_be_told(**kwargs: Any) -> list[CheckMessage]:
    """Alarms are mails with links in them."""
    found: list[CheckMessage] = []
    if not settings.EMAIL_HOST:
        text, hint = "Nobody would be told of an alarm.", "Set EMAIL_HOST, and see docs/alarms.md."
        found.append(Warning(text, hint=hint, id="debugflow.W002"))
    elif not (settings.EMAIL_USE_TLS or settings.EMAIL_USE_SSL or _is_local(settings.EMAIL_HOST)):
        text, hint = (
            "Mails would travel in clear.",
            "Set EMAIL_USE_TLS=True, or EMAIL_USE_SSL=True.",
        )
        found.append(Warning(text, hint=hint, id="debugflow.W008"))
    site = urlsplit(settings.SITE_URL)
    if site.scheme != "https" or not site.hostname:
        text = "Mails would have no links that are safe to follow."
        hint = "Set DEBUGFLOW_SITE_URL to where people reach the site, with https://."
        found.append(Warning(text, hint=hint, id="debugflow.W003"))
    return found


@register(Tags.security, deploy=True)
def servers_are_closed(**kwargs: Any) -> list[CheckMessage]:
    """Who else could speak to our own servers, or listen."""
    found: list[CheckMessage] = []
    broker = urlsplit(settings.REDIS_URL)
    if not broker.password and not _is_local(broker.hostname or "localhost"):
        text = "The broker takes orders from whoever reaches it, such as to end our workers."
        hint = "Give it a password (requirepass) and put that into REDIS_URL or REDIS_PASSWORD."
        found.append(Warning(text, hint=hint, id="debugflow.W004"))
    database: dict[str, Any] = settings.DATABASES["default"]
    host = str(database["HOST"] or "localhost")
    encrypted = database["OPTIONS"].get("sslmode") in DATABASE_TLS
    if not (encrypted or host.startswith("/") or _is_local(host)):
        text = "The connection to our own database may be read on its way."
        hint = "Add ?sslmode=verify-full to DATABASE_URL, unless the network between is your own."
        found.append(Warning(text, hint=hint, id="debugflow.W005"))
    return found


@register(Tags.security, deploy=True)
def figures_are_sound(**kwargs: Any) -> list[CheckMessage]:
    found: list[CheckMessage] = []
    if settings.SWEEP_INTERVAL > SWEEP_INTERVAL_MOST:
        text, hint = "Access would end late.", "Set DEBUGFLOW_SWEEP_INTERVAL_MS to 1000 or less."
        found.append(Warning(text, hint=hint, id="debugflow.W006"))
    if 0 < len(settings.METRICS_TOKEN) < TOKEN_LEAST:
        hint = f"Set DEBUGFLOW_METRICS_TOKEN to {TOKEN_LEAST} or more random characters."
        found.append(Warning("The metrics' token can be guessed.", hint=hint, id="debugflow.W007"))
    return found


def _is_migrator() -> bool:
    return bool(settings.MIGRATIONS_DATABASE_URL)
