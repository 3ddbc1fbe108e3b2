from django.apps import AppConfig
from django.contrib.admin.apps import AdminConfig


class DebugflowConfig(AppConfig):
    name = "debugflow"

    def ready(self) -> None:
        # Registered by being imported.
        from debugflow import checks, signals, telling  # noqa: F401


class DeskConfig(AdminConfig):
    """Django's admin, with our site in place of its own."""

    default_site = "debugflow.desk.Desk"
