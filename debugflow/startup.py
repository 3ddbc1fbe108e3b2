"""Refuse to run on unsafe settings: for the processes that Django runs no checks for."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from django.conf import settings
from django.core.checks import ERROR, CheckMessage, run_checks
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connections


def refuse_unsafe() -> None:
    """Raise ImproperlyConfigured, naming each error, where a system check finds one.

    The deployment checks are left out in the demo and under DEBUG, which are what they forbid.
    Those two are for one's own machine: debugflow.E005, which is asked always, refuses them where
    ALLOWED_HOSTS names any other. Which address the server listens on is not looked at.
    """
    _refuse_migrator()
    with ThreadPoolExecutor(max_workers=1) as beside:
        # The web server imports us inside its event loop, where Django lets nobody ask a database.
        found = beside.submit(_findings).result()
    errors = [str(message) for message in found if message.level >= ERROR]
    if errors:
        raise ImproperlyConfigured("debugflow does not start like this:\n" + "\n".join(errors))


def _refuse_migrator() -> None:
    """The checks of the login spare whoever has this variable, which leads to the owner."""
    if settings.MIGRATIONS_DATABASE_URL:
        raise ImproperlyConfigured(
            "MIGRATIONS_DATABASE_URL is set, and only `migrate` may have it: whoever reads it here "
            "would own the tables. Unset it for web, workers and sweepers."
        )


def _findings() -> list[CheckMessage]:
    at_home = settings.DEMO or settings.DEBUG
    try:
        return run_checks(include_deployment_checks=not at_home, databases=["default"])
    except DatabaseError as error:
        raise ImproperlyConfigured(
            f"debugflow could not look at its database, so it does not start: {error}"
        ) from error
    finally:
        connections.close_all()
