"""`make bench`: real servers and processes, a table, and bench.json.

Nothing here is asserted; a figure that has a baseline is given as a ratio to what the same run
measured of the ground, since ratios travel between machines and absolute numbers do not.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import django

from debugflow.embedded.installation import DEMO, Installation
from debugflow.embedded.state import scratch

OUTPUT = Path("bench.json")


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
        site = Installation(directory, port=0, out=sys.stderr)
        try:
            site.start()
            os.environ |= site.runtime.environment() | DEMO | {"LOG_LEVEL": "ERROR"}
            os.environ["DJANGO_SETTINGS_MODULE"] = "debugflow.settings"
            django.setup()
            figures = _measure(site)
        finally:
            site.stop()
    OUTPUT.write_text(json.dumps([figure.row() for figure in figures], indent=2) + "\n")
    _table(figures)
    return 0


def _measure(site: Installation) -> list[Figure]:
    # Django's models can be imported only now that it is set up.
    from tests.bench import access, votes

    return [*votes.measure(Figure), *access.measure(site, Figure)]


def _table(figures: list[Figure]) -> None:
    out = sys.stdout.write
    out(f"{'figure':<28}{'value':>12}  {'unit':<10}{'baseline':>12}{'ratio':>8}\n")
    for figure in figures:
        baseline = "" if figure.baseline is None else f"{figure.baseline:,.1f}"
        ratio = "" if figure.ratio is None else f"{figure.ratio:.3f}"
        out(f"{figure.name:<28}{figure.value:>12,.3f}  {figure.unit:<10}{baseline:>12}{ratio:>8}\n")
    out(f"written to {OUTPUT}\n")


if __name__ == "__main__":
    sys.exit(main())
