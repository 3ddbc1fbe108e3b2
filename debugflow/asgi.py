"""The web process."""

import os

from django.core.asgi import get_asgi_application

from debugflow.bodies import limited

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "debugflow.settings")

application = limited(get_asgi_application())

from debugflow.startup import refuse_unsafe  # noqa: E402  (apps have to be ready)

refuse_unsafe()
