"""Django's settings for the commands about the embedded servers: `demo`, `up` and `upgrade`.

There is no database and no secret yet when they begin, so `debugflow.settings` would refuse. Their
child processes get an environment and the real settings.
"""

from django.apps import AppConfig


class Commands(AppConfig):
    """The package for its commands alone: no model, no system check, no signal."""

    name = "debugflow"


INSTALLED_APPS = ["debugflow.embedded.bare.Commands"]
LOGGING_CONFIG = None
USE_TZ = True
