"""The product's own settings, on servers that conftest starts once pytest runs."""

import os

from cryptography.fernet import Fernet

os.environ |= {
    "SECRET_KEY": "tests-only-" + "0123456789" * 5,
    "DEBUGFLOW_ENCRYPTION_KEYS": Fernet.generate_key().decode(),
    "DATABASE_URL": "postgresql://debugflow_app@127.0.0.1:1/debugflow_test",
    "REDIS_URL": "redis://127.0.0.1:1/0",
    "DEBUGFLOW_SECURE": "False",
    "DEBUGFLOW_ALLOW_UNVERIFIED_TARGETS": "True",
    "DEBUGFLOW_FOUR_EYES": "False",
    "LOG_LEVEL": "WARNING",
}

from debugflow.settings import *  # noqa: F403
from debugflow.settings import DATABASES

# Tests drop and clone databases, which a pool's idle connections would forbid.
del DATABASES["default"]["OPTIONS"]["pool"]  # type: ignore[attr-defined]
WHITENOISE_AUTOREFRESH = True  # nothing is collected
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.InMemoryStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
