"""The audit app's entry in INSTALLED_APPS."""

from django.apps import AppConfig


class AuditConfig(AppConfig):
    """Append-only Events and the database's clock."""

    name = "audit"
    label = "audit"
    verbose_name = "audit log"
    default_auto_field = "django.db.models.BigAutoField"
