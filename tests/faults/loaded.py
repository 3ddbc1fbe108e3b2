"""What the process that fault tests fork off has loaded: the product, on its own settings."""

from __future__ import annotations

import os

import django

os.environ["DJANGO_SETTINGS_MODULE"] = "debugflow.settings"
django.setup()

from tests.faults import work  # noqa: E402, F401 - imported so that no child has to
