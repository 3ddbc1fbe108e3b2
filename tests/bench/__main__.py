"""`make bench`: real servers and processes, a table, and bench.json.

Nothing here is asserted; a figure that has a baseline is given as a ratio to what the same run
measured of the ground, since ratios travel between machines and absolute numbers do not.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from pathlib import Path

import django

from debugflow.embedded.installation import DEMO, Installation
from debugflow.embedded.state import scratch
from tests.bench.mail import MailServer

OUTPUT = Path("bench.json")
# Room for two hundred holders at once, and for each of them a probe.
TARGET_SETTINGS = {"max_connections": "500"}


@dataclass(frozen=True)
class Figure:
    """One row: a value, and the ground it is compared with where there is one."""

    name: str
    value: float
    unit: str
    baseline: float | None = None

    @property
    def ratio(self) -> float | None:
        return None if not self.baseline else self.value / self.baseline

    def row(self) -> dict[str, object]:
        return {**asdict(self), "ratio": self.ratio}


def main() -> int:
    with scratch() as directory:
        mail = MailServer()
        site = Installation(
            directory,
            port=0,
            out=sys.stderr,
            target_settings=TARGET_SETTINGS,
            told=mail.environment,
        )
        try:
            site.start()
            os.environ |= site.runtime.environment() | DEMO | {"LOG_LEVEL": "ERROR"}
            os.environ["DJANGO_SETTINGS_MODULE"] = "debugflow.settings"
            django.setup()
            figures = _measure(site, mail)
        finally:
            site.stop()
            mail.stop()
    OUTPUT.write_text(json.dumps([figure.row() for figure in figures], indent=2) + "\n")
    _table(figures)
    return 0


def _measure(site: Installation, mail: MailServer) -> list[Figure]:
    # Django's models can be imported only now that it is set up.
    from tests.bench import access, api, cycles, endings, growth, notices, queue, votes

    parts: dict[str, Callable[[], list[Figure]]] = {
        "votes": lambda: votes.measure(Figure),
        "access": lambda: access.measure(Figure),
        "endings": lambda: endings.measure(site, Figure),
        "cycles": lambda: cycles.measure(site, Figure),
        "notices": lambda: notices.measure(mail, Figure),
        "growth": lambda: growth.measure(site, Figure),  # these come last: they fill the database
        "queue": lambda: queue.measure(site, Figure),
        "api": lambda: api.measure(site, Figure),
    }
    return [figure for name, part in parts.items() if name in wanted(parts) for figure in part()]


def wanted(parts: Collection[str]) -> list[str]:
    """The parts named on the command line, or all of them."""
    named = sys.argv[1:] or list(parts)
    if unknown := set(named) - set(parts):
        raise SystemExit(f"There is no part {sorted(unknown)}; there are {sorted(parts)}.")
    return named


def _table(figures: list[Figure]) -> None:
    out = sys.stdout.write
    out(f"{'figure':<36}{'value':>12}  {'unit':<10}{'baseline':>12}{'ratio':>8}\n")
    for figure in figures:
        baseline = "" if figure.baseline is None else f"{figure.baseline:,.1f}"
        ratio = "" if figure.ratio is None else f"{figure.ratio:.3f}"
        out(f"{figure.name:<36}{figure.value:>12,.3f}  {figure.unit:<10}{baseline:>12}{ratio:>8}\n")
    out(f"written to {OUTPUT}\n")


if __name__ == "__main__":
    sys.exit(main())
