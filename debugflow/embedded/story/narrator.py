"""Says what happens, as it happens, with the time it took. What happens is told in `acts`."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TextIO

from debugflow.embedded.story.checks import expect_between

EARLY = 0.1  # seconds: the two clocks that are compared are read by different programs


@dataclass
class Step:
    """One line of the story. `outcome` is what came of it."""

    text: str
    outcome: str = ""


@dataclass(frozen=True)
class Measured:
    what: str
    seconds: float
    at_most: float


class Narrator:
    """Writes the story, and keeps what was measured for the table at its end."""

    def __init__(self, out: TextIO) -> None:
        self.measured: list[Measured] = []
        self._out = out
        self._began = time.monotonic()

    def line(self, text: str = "") -> None:
        self._out.write(f"{text}\n")
        self._out.flush()

    def scene(self, title: str) -> None:
        self.line(f"\n{title}")

    @contextmanager
    def step(self, text: str) -> Iterator[Step]:
        """Print a line when the step has held, and how long it took; a failed one is named too."""
        step, began = Step(text), time.monotonic()
        try:
            yield step
        except Exception:
            self._tell("✗", step, time.monotonic() - began)
            raise
        self._tell("✓", step, time.monotonic() - began)

    def measure(self, what: str, seconds: float, *, at_most: float) -> str:
        """Keep a measured time and return it in words.

        Raises StoryFailed for one that is too long, or before its beginning.
        """
        expect_between(what, seconds, at_least=-EARLY, at_most=at_most)
        self.measured.append(Measured(what, seconds, at_most))
        return in_words(seconds)

    def table(self, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print rows under their heads, each column as wide as it must be."""
        widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
        for row in (heads, ["─" * width for width in widths], *rows):
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
            self.line("  " + "  ".join(cells).rstrip())

    def measured_table(self) -> None:
        rows = [(m.what, in_words(m.seconds), f"{m.at_most:g} s") for m in self.measured]
        self.table(("what was measured", "took", "at most"), rows)

    def _tell(self, mark: str, step: Step, took: float) -> None:
        outcome = f" → {step.outcome}" if step.outcome else ""
        elapsed = time.monotonic() - self._began
        self.line(f"{elapsed:6.1f} s {mark} {step.text}{outcome}  ({in_words(took)})")


def in_words(seconds: float) -> str:
    """`41 ms` or `2.31 s`."""
    return f"{seconds * 1000:.0f} ms" if abs(seconds) < 1 else f"{seconds:.2f} s"
