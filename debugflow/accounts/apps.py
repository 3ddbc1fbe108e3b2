from django.apps import AppConfig


class AccountsConfig(AppConfig):
    name = "debugflow.accounts"
    label = "accounts"

    def ready(self) -> None:
        # They listen, and register what can be proposed, by being imported.
        from debugflow.accounts import browsers, powers  # noqa: F401
