"""Django's migrate, as the migrator: the application's own login may not change tables."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.commands.migrate import Command as Migrate
from django.db import connections

from debugflow import env


class Command(Migrate):
    def handle(self, *args: Any, **options: Any) -> None:
        if settings.MIGRATIONS_DATABASE_URL:
            connection = connections["default"]
            connection.close()
            password = env.text("DEBUGFLOW_MIGRATOR_PASSWORD", "")
            url = env.database("MIGRATIONS_DATABASE_URL", password=password)
            connection.settings_dict.update(url)
        super().handle(*args, **options)
