from django.apps import AppConfig


class DebugflowConfig(AppConfig):
    name = "debugflow"

    def ready(self) -> None:
        # Registered by being imported.
        from debugflow import checks, signals, telling  # noqa: F401
