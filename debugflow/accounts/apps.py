from django.apps import AppConfig


class AccountsConfig(AppConfig):
    name = "debugflow.accounts"
    label = "accounts"
