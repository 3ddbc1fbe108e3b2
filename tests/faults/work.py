"""What a forked process of ours does: sweep, or make one attempt that stops or dies at an instant.

Runs in the child only (`children`). The instants are patched into the child's own modules; the
product knows nothing of them.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from approvals import closing, extending, leases, opening
from approvals.models import StepKind
from approvals.provisioning.postgresql import PostgreSQL, clean, cut, roles, together
from approvals.provisioning.postgresql import opening as opening_many
from approvals.sweeper import Sweeper
from tests.faults.children import outlive_nobody


@dataclass(frozen=True)
class Instant:
    """Right before, or right after, the first call of a function."""

    where: Any
    name: str
    after: bool


def before(where: Any, name: str) -> Instant:
    return Instant(where, name, after=False)


def after(where: Any, name: str) -> Instant:
    return Instant(where, name, after=True)


# Every boundary at which an attempt has told one side something and not yet the other.
INSTANTS: dict[str, dict[str, Instant]] = {
    "open": {
        "claiming": after(leases, "pick"),
        "claimed": before(opening, "_open"),
        "connected": before(roles, "limit"),
        "role made": before(roles, "membership"),
        "member of the level": before(opening.LeaseFence, "now"),
        "before the fence": before(opening.LeaseFence, "hold"),
        "in the fence": after(opening, "_held"),
        "before COMMIT": after(opening.LeaseFence, "hold"),
        "after COMMIT": before(opening, "_activate"),
        "activating": before(leases, "let_go"),
        "activated": after(opening, "_activate"),
    },
    "open many": {
        "claimed": before(PostgreSQL, "open_many"),
        "connected": before(opening_many, "limit"),
        "roles made": after(opening_many, "_send"),
        "before the fence": before(opening.LeasesFence, "hold_many"),
        "in the fence": after(opening, "_held"),
        "before COMMIT": after(opening.LeasesFence, "hold_many"),
        "after COMMIT": before(opening, "_activate"),
        "activating": before(opening, "move_all"),
        "activated": after(opening, "_activate"),
    },
    "extend": {
        "claiming": after(leases, "pick"),
        "claimed": before(PostgreSQL, "extend"),
        "connected": before(roles, "limit"),
        "before the fence": after(roles, "_set_expiry"),
        "in the fence": after(extending, "_held"),
        "before COMMIT": after(extending.LeaseFence, "hold"),
        "after COMMIT": after(PostgreSQL, "extend"),
        "moving the end": before(leases, "let_go"),
        "moved": after(extending, "_extended"),
    },
    "cut": {
        "claiming": after(leases, "pick"),
        "claimed": before(PostgreSQL, "cut"),
        "openers ended": after(cut, "_end_openers"),
        "sign-in blocked": after(cut, "_try_nologin"),
        "sessions ended": after(cut, "terminate_all"),
        "before writing it down": before(closing, "_cut"),
        "writing it down": before(leases, "free_at"),
        "written down": after(closing, "_cut"),
    },
    "cut many": {
        "claimed": before(PostgreSQL, "cut_many"),
        "openers ended": after(together, "_ended_openers"),
        "sign-in blocked": after(together, "_close_all"),
        "sessions ended": after(together, "_end_sessions"),
        "memberships withdrawn": after(together, "withdraw"),
        "before writing it down": before(closing, "_cut"),
        "writing it down": before(leases, "free_at"),
        "written down": after(closing, "_cut"),
    },
    "clean": {
        "claiming": after(leases, "pick"),
        "claimed": before(PostgreSQL, "clean"),
        "member of a role": after(clean, "become_member"),
        "one database of two emptied": after(clean, "_empty"),
        "both emptied": before(clean, "_drop"),
        "role dropped": after(PostgreSQL, "clean"),
        "read back": before(closing, "_ended"),
        "saying ended": before(closing, "move_all"),
        "said": after(closing, "_ended"),
    },
    "clean many": {
        "claimed": before(PostgreSQL, "clean_many"),
        "before dropping": before(together, "_drop_bare"),
        "roles dropped": after(together, "_drop_bare"),
        "read back": before(closing, "_ended"),
        "saying ended": before(closing, "move_all"),
        "said": after(closing, "_ended"),
    },
}
# There it holds the grant's row in our own database.
LOCKED = {
    ("open", "claiming"),
    ("cut", "claiming"),
    ("clean", "claiming"),
    ("open", "in the fence"),
    ("open", "activating"),
    ("open many", "in the fence"),
    ("open many", "activating"),
    ("extend", "claiming"),
    ("extend", "in the fence"),
    ("extend", "moving the end"),
    ("cut", "writing it down"),
    ("cut many", "writing it down"),
    ("clean", "saying ended"),
    ("clean many", "saying ended"),
}


def attempt(verb: str, grant: Any, number: int, instant: str, reached: Connection) -> None:
    """Make one attempt at a grant, or at many of them together, and send ourselves the signal
    `number` at the instant."""
    interrupt(INSTANTS[verb][instant], number, lambda: reached.send(instant))
    ATTEMPTS[verb](grant)


def interrupt(at: Instant, number: int, tell: Callable[[], None]) -> None:
    original: Callable[..., Any] = getattr(at.where, at.name)
    once = iter([True])

    def strike() -> None:
        if next(once, False):
            tell()
            os.kill(os.getpid(), number)

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        if not at.after:
            strike()
        result = original(*args, **kwargs)
        if at.after:
            strike()
        return result

    setattr(at.where, at.name, interrupted)


def _open(grant: int) -> None:
    opening.run_all(_due(opening.claim(worker="doomed", only=grant)))


def _open_many(made: list[int]) -> None:
    claimed = [job for pk in made for job in opening.claim(worker="doomed", only=pk)]
    opening.run_all(_due(claimed))


def _cut(grant: int) -> None:
    closing.run_all(_due(closing.claim(StepKind.CUT, worker="doomed", only=grant)))


def _clean(grant: int) -> None:
    closing.run_all(_due(closing.claim(StepKind.CLEAN, worker="doomed", only=grant)))


def _close_many(kind: StepKind, made: list[int]) -> None:
    closing.run_all(
        _due([job for pk in made for job in closing.claim(kind, worker="doomed", only=pk)])
    )


def _due(jobs: list[Any]) -> list[Any]:
    if not jobs:
        raise SystemExit("nothing was due")
    return jobs


def _extend(grant: int) -> None:
    extending.run_all(_due(extending.claim(worker="doomed", only=grant)))


ATTEMPTS: dict[str, Callable[[Any], None]] = {
    "open": _open,
    "open many": _open_many,
    "extend": _extend,
    "cut": _cut,
    "cut many": partial(_close_many, StepKind.CUT),
    "clean": _clean,
    "clean many": partial(_close_many, StepKind.CLEAN),
}


def sweep(interval: float, reached: Connection) -> None:
    """Sweep until killed, as a worker does; it does not outlive whoever had it forked."""
    sweeper = Sweeper(interval=interval)
    threading.Thread(target=sweeper.run, name="sweeper", daemon=True).start()
    reached.send("sweeping")
    outlive_nobody()


def sweep_until(verb: str, instant: str, interval: float, reached: Connection) -> None:
    """Sweep until this process comes to the instant of an attempt; it is killed there."""
    interrupt(INSTANTS[verb][instant], signal.SIGKILL, lambda: reached.send(instant))
    sweep(interval, reached)
