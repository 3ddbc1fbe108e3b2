"""`make faults`: the whole campaigns, on servers of their own, with a table of results.

    python -m tests.faults.campaign [NAME…] [--scale 0.05] [--seed N]

A campaign is a function registered by its name: a place, a scale and a random source go in, rows
come out. Writes faults.json; exits with 1 when a row breaks its limit. Bounded parts of the same
functions run as tests. What a campaign does lives in a module of its own, named in MODULES.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import django

if TYPE_CHECKING:
    from debugflow.embedded.production import Production
    from tests.conftest import Control
    from tests.faults.place import Place

OUTPUT = Path("faults.json")
MODULES = (
    "tests.faults.kills",
    "tests.faults.broker",
    "tests.faults.database",
    "tests.faults.target",
    "tests.faults.dying",
    "tests.faults.crowded",
    "tests.faults.partition",
    "tests.faults.machine",
    "tests.faults.hindsight",
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a result: of `runs` things looked at, `bad` were not as they must be.

    `worst` is the worst figure met, in `unit`, and `limit` what it must not exceed; either may be
    absent. `note` tells what the figures do not.
    """

    what: str
    runs: int
    bad: int = 0
    worst: float | None = None
    limit: float | None = None
    unit: str = ""
    note: str = ""

    @property
    def broken(self) -> bool:
        over = self.worst is not None and self.limit is not None and self.worst > self.limit
        return bool(self.bad or over or not self.runs)


def seconds(what: str, seen: Sequence[float], limit: float, *, bad: int = 0) -> Row:
    """A row of seconds that none of those seen may exceed; `bad` counts what was bad otherwise."""
    late = sum(one > limit for one in seen)
    worst = max(seen, default=None)
    return Row(what=what, runs=len(seen), bad=bad + late, worst=worst, limit=limit, unit="s")


def counted(what: str, runs: int, wrong: Sequence[str]) -> Row:
    """A row of things looked at, of which `wrong` tells one each."""
    return Row(what=what, runs=runs, bad=len(wrong), note="; ".join(wrong[:3]))


def broken(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.broken]


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a campaign is told: how much of its full size to do, and where its chances come from."""

    place: Place
    scale: float
    seed: int

    @property
    def bounded(self) -> bool:
        """Whether it is less than the whole, as a test runs it: then time is saved too."""
        return self.scale < 1

    def times(self, full: int) -> int:
        """That many at this scale, at least one."""
        return max(1, round(full * self.scale))

    def chances(self, what: str) -> random.Random:
        """A random source for one part of a campaign, the same for the same seed."""
        return random.Random(f"{self.seed} {what}")


Campaign = Callable[[Run], list[Row]]
CAMPAIGNS: dict[str, Campaign] = {}


def campaign(name: str) -> Callable[[Campaign], Campaign]:
    """Register a campaign under its name."""

    def register(function: Campaign) -> Campaign:
        CAMPAIGNS[name] = function
        return function

    return register


@contextmanager
def _servers() -> Iterator[tuple[Control, Production]]:
    from debugflow.embedded.postgres import EmbeddedPostgres
    from debugflow.embedded.state import scratch
    from tests.conftest import UNSAFE_BUT_FAST, Control
    from tests.faults.place import production_in

    with (
        scratch() as directory,
        EmbeddedPostgres(directory / "control", settings=UNSAFE_BUT_FAST) as postgres,
        production_in(directory / "production") as production,
    ):
        control = Control(postgres)
        control.make_template()
        yield control, production


@contextmanager
def _place(control: Control, production: Production) -> Iterator[Place]:
    """A fresh database for one campaign."""
    from debugflow.embedded.runtime import APP
    from tests.conftest import DATABASE
    from tests.faults import children
    from tests.faults.place import make_place

    control.fresh_database()
    control.point_django_at(DATABASE, APP)
    made = make_place(control, production)
    children.prepare({**made.environment, "LOG_LEVEL": "ERROR"})
    try:
        yield made
    finally:
        made.leave()


def _arguments(told: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.campaign")
    parser.add_argument("names", nargs="*", choices=[[], *CAMPAIGNS], default=[])
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    return parser.parse_args(told)


def main(told: Sequence[str] | None = None) -> int:
    """Run the campaigns named, or all; 1 if a row of any is broken."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    django.setup()
    for module in MODULES:
        importlib.import_module(module)
    chosen = _arguments(told)
    results: dict[str, list[Row]] = {}
    with _servers() as (control, production):
        for name in chosen.names or CAMPAIGNS:
            began = time.monotonic()
            with _place(control, production) as place:
                run = Run(place=place, scale=chosen.scale, seed=chosen.seed)
                results[name] = CAMPAIGNS[name](run)
            _print(name, results[name], chosen, time.monotonic() - began)
    _write(results, chosen)
    return int(any(broken(rows) for rows in results.values()))


def _print(name: str, rows: Sequence[Row], chosen: argparse.Namespace, took: float) -> None:
    out = sys.stdout.write
    out(f"\n{name}  (scale {chosen.scale:g}, seed {chosen.seed}, {took:.0f} s)\n")
    out(f"{'what':<58}{'runs':>7}{'bad':>6}{'worst':>10}{'limit':>9}\n")
    for row in rows:
        worst, limit = (_figure(value, row.unit) for value in (row.worst, row.limit))
        mark = "  BROKEN" if row.broken else ""
        out(f"{row.what:<58}{row.runs:>7,}{row.bad:>6,}{worst:>10}{limit:>9}{mark}\n")
        if row.note:
            out(f"    {row.note}\n")
    sys.stdout.flush()


def _figure(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:.2f} {unit}".strip()


def _write(results: dict[str, list[Row]], chosen: argparse.Namespace) -> None:
    told = {
        name: [{**asdict(row), "broken": row.broken} for row in results[name]] for name in results
    }
    content = {"scale": chosen.scale, "seed": chosen.seed, "campaigns": told}
    OUTPUT.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    # As this module and not as `__main__`, where nothing would be registered.
    from tests.faults.campaign import main as run_campaigns

    sys.exit(run_campaigns())
