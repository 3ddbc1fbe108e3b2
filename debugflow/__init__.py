"""debugflow, the assembled product: settings, URLs, Celery, and the one-command run-time."""

from debugflow.celery import app as celery_app

__all__ = ["celery_app"]
