"""What is said alike by system checks, health and the doctor."""

from __future__ import annotations

from typing import Final

NO_SWEEPER: Final = "No sweeper is alive: no access is opened, and none is ended on time."
HOW_TO_START_ONE: Final = "Start a worker, or `manage.py sweep`, and a second one beside it."
