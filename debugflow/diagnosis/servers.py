"""Is what debugflow runs on as it should be: database, broker, processes, clocks, mail."""

from __future__ import annotations

from typing import Any, Final

from celery import current_app
from django.conf import settings
from django.core import checks as system
from django.core.mail import get_connection
from django.db import DatabaseError
from django.db.models import QuerySet

from approvals import heartbeats, installation, queue
from approvals.models import Heartbeat
from approvals.notify.slack import workspace
from debugflow import measures
from debugflow.checks import SKEW_MOST
from debugflow.diagnosis.finding import Finding, some, well
from debugflow.health import BROKER_ERRORS, missing_migrations, sweepers_wanted
from debugflow.probes import hurried
from debugflow.wording import HOW_TO_START_ONE, NO_SWEEPER

WORKERS_ANSWER_WITHIN: Final = 1.0  # seconds
TOLD_BY_PROCESSES: Final = {"debugflow.W001", "debugflow.W009"}


def database() -> list[Finding]:
    try:
        with hurried() as connection:
            missing = missing_migrations(connection)
    except DatabaseError as error:
        fix = "Start PostgreSQL, or correct DATABASE_URL."
        return [Finding(False, f"The database does not answer: {str(error).strip()}", fix)]
    if missing:
        return [Finding(False, f"Not migrated: {some(missing)}.", "Run `manage.py migrate`.")]
    return [Finding(True, "The database answers and is migrated.")]


def settings_are_safe() -> list[Finding]:
    wrong = _told_by_checks(None)
    if settings.MIGRATIONS_DATABASE_URL:
        told = "MIGRATIONS_DATABASE_URL is set: whoever reads it here would own the tables."
        wrong.append(Finding(False, told, "Leave it to `migrate` alone."))
    return well("The settings are safe.", wrong)


def database_is_safe() -> list[Finding]:
    wrong = _told_by_checks(["default"])
    if installation.moved():
        told = "The database was restored: nothing is opened, and nothing unknown is removed."
        fix = "See docs/backup.md. `manage.py reconcile --restored --by NAME` ends that."
        wrong.append(Finding(False, told, fix))
    return well("The application may do no more in the database than it should.", wrong)


def _told_by_checks(databases: list[str] | None) -> list[Finding]:
    """What Django's system checks say, those for deployment where this is no one's own machine."""
    at_home = settings.DEMO or settings.DEBUG
    options: dict[str, Any] = {"include_deployment_checks": not at_home, "databases": databases}
    if databases:
        options["tags"] = [system.Tags.database]
    found = [m for m in system.run_checks(**options) if m.level >= system.WARNING]
    return [
        Finding(False, f"{message.msg} ({message.id})", message.hint or "")
        for message in found
        if message.id not in TOLD_BY_PROCESSES and not message.is_silenced()
    ]


def broker() -> list[Finding]:
    try:
        with queue.hurried() as connection:
            memory = connection.default_channel.client.info("memory")
            untaken = _untaken(connection)
    except BROKER_ERRORS as error:
        fix = "Start Redis or Valkey, or correct REDIS_URL. Access ends on time without it."
        return [Finding(False, f"The broker does not answer: {error}", fix)]
    wrong = [
        Finding(
            False,
            f"Nobody takes from the queue {name}.",
            f"Start a worker with --queues={name}. Sweepers do its work later meanwhile.",
        )
        for name in untaken
    ]
    if (evicts := memory.get("maxmemory_policy")) != "noeviction":
        fix = "Set maxmemory-policy noeviction: an evicted task is done only when a sweeper looks."
        wrong.append(Finding(False, f"The broker's maxmemory-policy is {evicts}.", fix))
    return well("The broker answers, keeps what it is given, and every queue is taken from.", wrong)


def _untaken(connection: Any) -> list[str]:
    """The queues that no worker says it takes from."""
    control: Any = current_app.control
    asked = control.mailbox(connection)
    # The application's own pool would wait for a broker for ever.
    asked.producer_pool = None
    answers = asked.multi_call("active_queues", timeout=WORKERS_ANSWER_WITHIN)
    taken = {each["name"] for answer in answers for queues in answer.values() for each in queues}
    return [name for name in measures.queues() if name not in taken]


def processes() -> list[Finding]:
    sweeping = heartbeats.sweeping()
    wanted = sweepers_wanted()
    found = []
    if (alive := sweeping.count()) < wanted:
        told = NO_SWEEPER if not alive else f"{alive} of at least {wanted} sweepers is alive."
        found.append(Finding(False, told, HOW_TO_START_ONE))
    served = set(heartbeats.serving().values_list("process", flat=True))
    for worker in sweeping.filter(is_worker=True).exclude(process__in=served):
        fix = "Restart it, if the broker answers; or all its threads are stuck at targets."
        found.append(Finding(False, f"No task comes through to {worker.name}.", fix))
    if not served:
        found.append(Finding(False, "No worker takes tasks from the broker.", "Start one."))
    return well(f"{alive} sweepers are alive, {len(served)} workers serve.", found)


def clocks() -> list[Finding]:
    wrong = [
        Finding(
            False,
            f"The clock of {process.name} is {process.skew_ms / 1000:+.1f} s from the database's.",
            "Mend the time synchronisation of that machine, or of the database's.",
        )
        for process in _skewed(heartbeats.sweeping())
    ]
    return well("The clocks agree.", wrong)


def _skewed(rows: QuerySet[Heartbeat]) -> list[Heartbeat]:
    return [row for row in rows if abs(row.skew_ms) > SKEW_MOST]


def mail() -> list[Finding]:
    if not settings.EMAIL_HOST:
        at_home = settings.DEMO or settings.DEBUG
        return [Finding(at_home, "No mail server is set: alarms reach nobody.", "Set EMAIL_HOST.")]
    try:
        with get_connection():
            return [Finding(True, "The mail server takes our sign-in.")]
    except OSError as error:  # smtplib's errors are such
        told = f"The mail server does not take us: {error}"
        return [Finding(False, told, "Correct EMAIL_HOST and what begins like it.")]


def slack() -> list[Finding]:
    """Nothing where it is not used."""
    if (row := workspace.current()) is None:
        return []
    if row.last_error:
        told = f"Slack takes nothing: {row.last_error}"
        return [Finding(False, told, "Enter a new token, in the admin site under Slack.")]
    return [Finding(True, f"Slack took what it was sent last, in {row.name}.")]
