"""A worker's attempt at one grant that stops or dies at a named instant: a script for the tests.

    python -m tests.faults.work open|cut|clean GRANT SIGNAL INSTANT

The instants are the boundaries at which an attempt has told one side and not yet the other.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import django

os.environ["DJANGO_SETTINGS_MODULE"] = "debugflow.settings"
django.setup()

from approvals import closing, opening  # noqa: E402
from approvals.models import StepKind  # noqa: E402
from approvals.provisioning.postgresql import PostgreSQL  # noqa: E402

INSTANTS: dict[str, tuple[Any, str, bool]] = {
    "claimed": (opening, "_open", False),
    "before the fence": (opening.LeaseFence, "hold", False),
    "before COMMIT": (opening.LeaseFence, "hold", True),
    "after COMMIT": (opening, "_activate", False),
    "before the cut": (PostgreSQL, "cut", False),
    "after the cut": (PostgreSQL, "cut", True),
    "after the clean-up": (PostgreSQL, "clean", True),
    "before saying ended": (closing, "_ended", False),
}


def interrupt(number: int, where: Any, name: str, *, after: bool) -> None:
    """Send ourselves a signal right before, or right after, a function is called."""
    original: Callable[..., Any] = getattr(where, name)

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        if not after:
            os.kill(os.getpid(), number)
        result = original(*args, **kwargs)
        if after:
            os.kill(os.getpid(), number)
        return result

    setattr(where, name, interrupted)


def main(verb: str, grant: str, number: str, instant: str) -> None:
    where, name, after = INSTANTS[instant]
    interrupt(getattr(signal, number), where, name, after=after)
    if verb == "open":
        jobs: list[Any] = opening.claim(worker="doomed", only=int(grant))
        done: Callable[[list[Any]], bool] = opening.run_all
    else:
        jobs = closing.claim(StepKind(verb), worker="doomed", only=int(grant))
        done = closing.run_all
    if not jobs:
        raise SystemExit("nothing was due")
    done(jobs)


if __name__ == "__main__":
    main(*sys.argv[1:])
