#!/usr/bin/env python
"""Django's command line."""

import os
import sys

from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line

# These are about the embedded servers: there is no environment yet to read settings from.
WITHOUT_ENVIRONMENT = ("demo", "up", "upgrade")

if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in WITHOUT_ENVIRONMENT:
        os.environ["DJANGO_SETTINGS_MODULE"] = "debugflow.embedded.bare"
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "debugflow.settings")
    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        sys.exit(f"The settings cannot be used: {error}")
