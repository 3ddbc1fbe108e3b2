"""How the story is held to its word: what must be, what is, and the difference as an error."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

POLL = 0.025  # seconds between two looks


class StoryFailed(Exception):
    """A step of the story did not go as it must."""

    def __init__(self, what: str, *, expected: object, got: object) -> None:
        self.what, self.expected, self.got = what, expected, got
        super().__init__(f"{what}\n  expected: {expected}\n  got:      {got}")


def expect(what: str, *, expected: object, got: object) -> None:
    """Raises StoryFailed unless the two are equal."""
    if expected != got:
        raise StoryFailed(what, expected=expected, got=got)


def expect_between(what: str, seconds: float, *, at_least: float, at_most: float) -> None:
    """Raises StoryFailed unless a measured time lies within its bounds."""
    if not at_least <= seconds <= at_most:
        wanted = f"between {at_least:g} and {at_most:g} s"
        raise StoryFailed(what, expected=wanted, got=f"{seconds:.3f} s")


def wait_until(
    what: str, look: Callable[[], T], accept: Callable[[T], bool], *, within: float
) -> T:
    """Look until `accept` likes what it sees, and return that.

    Raises StoryFailed with the last sight after `within` seconds.
    """
    deadline = time.monotonic() + within
    while not accept(seen := look()):
        if time.monotonic() > deadline:
            raise StoryFailed(what, expected=f"to happen within {within:g} s", got=seen)
        time.sleep(POLL)
    return seen
