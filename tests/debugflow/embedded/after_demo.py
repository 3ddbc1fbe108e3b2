"""What `make demo ONCE=1` has told, and what it has left: no program, and no secret in a log.

    python -m tests.debugflow.embedded.after_demo FILE   # what it printed

Played once more within the tests, the story would take them a minute. Fails with the first thing
that is wrong.
"""

import sys
from pathlib import Path

from debugflow.embedded.state import state_dir
from debugflow.embedded.story import cast
from tests.debugflow.embedded.leftovers import secrets_below, still_running

MEASURED = (
    "last approval → first query answered",
    "end of the time → session closed",
    "end of the time → new sign-in refused",
    "end of the time → account verified gone",
    "release → session closed",
    "owner's revoke → running query dead",
    "emergency → first query answered",
    "review → session closed",
    "worker and broker dead: end → session closed",
    "after the restart: last approval → first query",
)
SHOWN = (
    "the clock reminds",
    "asks the owners as well",
    "dan approves for carol",
    "his session goes on as it was",
    "Still to be decided: erik asks",
)
SECRETS = 7  # at least: of the servers' accounts, the broker and the application


def look(told: str, place: Path) -> None:
    """Raises AssertionError with what is wrong."""
    assert told.rstrip().endswith("Every step held."), "it did not come to its end"
    assert "✗" not in told, "a step did not hold"
    people = cast.PEOPLE.keys() - {cast.ADMIN}
    missing = [words for words in (*people, *MEASURED, *SHOWN) if words not in told]
    assert missing == [], f"it did not tell of {missing}"
    assert still_running(place) == []
    logs = [log.read_text(errors="replace") for log in place.rglob("*.log")]
    assert any("Task approvals.tasks.open_grant" in log for log in logs), "no worker has a log"
    secrets = secrets_below(place)
    assert len(secrets) >= SECRETS, "its secrets are not where they were"
    assert not [secret for secret in secrets if any(secret in text for text in (*logs, told))]


if __name__ == "__main__":
    look(Path(sys.argv[1]).read_text(encoding="utf-8"), state_dir())
    sys.stdout.write("It told everything, and left nothing behind.\n")
