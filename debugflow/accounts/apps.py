from django.apps import AppConfig


class AccountsConfig(AppConfig):
    name = "debugflow.accounts"
    label = "accounts"

    def ready(self) -> None:
        from debugflow.accounts import browsers  # noqa: F401  (listens by being imported)
