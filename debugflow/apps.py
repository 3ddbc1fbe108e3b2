from django.apps import AppConfig


class DebugflowConfig(AppConfig):
    name = "debugflow"

    def ready(self) -> None:
        from debugflow import checks, signals  # noqa: F401  (registered by being imported)
