"""What this process counted since it started: attempts by outcome, and how long things took.

Plain numbers under plain names, so that those of many processes add up by name. Who keeps them is
`heartbeats`; how they are shown is not decided here.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_left
from collections import defaultdict
from typing import Final

# Upper bounds in seconds. Revocation is promised within 2 s, and at worst 5 s.
BUCKETS: Final = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
LABELS: Final = (*(f"{bound:g}" for bound in BUCKETS), "+Inf")
STEPS: Final = ("open", "extend", "cut", "clean")
# `fenced`: done on the target, and somebody else had the grant by then.
OUTCOMES: Final = ("ok", "failed", "fenced")
LATENESS: Final = "lateness"  # from the moment access was to end until nobody was in
OPENING: Final = "opening"  # from the approval, or the wanted start, until it was usable

_counts: defaultdict[str, float] = defaultdict(float)
_lock = threading.Lock()


def step(kind: str, outcome: str) -> None:
    """Count one attempt at `open`, `extend`, `cut` or `clean`."""
    with _lock:
        _counts[step_name(kind, outcome)] += 1


def took(what: str, seconds: float) -> None:
    """Count one duration of `LATENESS` or `OPENING`, in the bucket that it falls into."""
    with _lock:
        _counts[bucket_name(what, LABELS[bisect_left(BUCKETS, seconds)])] += 1
        _counts[sum_name(what)] += seconds


def counted() -> dict[str, float]:
    """Everything so far, by name."""
    with _lock:
        return dict(_counts)


def step_name(kind: str, outcome: str) -> str:
    return f"step:{kind}:{outcome}"


def bucket_name(what: str, bound: str) -> str:
    """Of the durations above the next lower bound, up to this one: not cumulative."""
    return f"{what}:{bound}"


def sum_name(what: str) -> str:
    return f"{what}:sum"


def _forget() -> None:
    """A forked child has counted nothing yet, and may have inherited a lock that is held."""
    global _lock
    _lock = threading.Lock()
    _counts.clear()


os.register_at_fork(after_in_child=_forget)
