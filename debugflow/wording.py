"""What is said alike by system checks, health and the doctor."""

from __future__ import annotations

from typing import Final

from approvals.proposals import Standing

NO_SWEEPER: Final = "No sweeper is alive: no access is opened, and none is ended on time."
HOW_TO_START_ONE: Final = "Start a worker, or `manage.py sweep`, and a second one beside it."
ONE_WIDENS: Final = "One admin alone can widen access to production."
ONE_SUPERUSER: Final = {
    Standing.ALONE: "What widens access to production should take two people, and there is one "
    "superuser only: it is done at once, and the log says so. Add a second one.",
    Standing.STUCK: "What widens access to production takes two people, and there is one superuser "
    "only. Have a second one made on the server, with manage.py createsuperuser.",
}
"""What is wrong with four eyes, by how they stand; nothing where nothing is."""
