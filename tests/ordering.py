"""Which test runs when, where several processes share them; not a test.

Each process begins with a contiguous share and, when it is through, takes from the end of another's
(pytest-xdist's work stealing). So every share gets its part of those that take long, early enough
that none is begun last, and apart from each other, since they measure times of their own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import pytest

EARLY = 0.6  # of a share, in which its long tests are
# They share an installation, which is made once: in one process, and with none of another package
# between them.
TOGETHER = "tests/browser/"


def spread(
    items: Sequence[pytest.Item], workers: int, is_long: Callable[[pytest.Item], bool]
) -> list[pytest.Item]:
    """The same tests in the order to share them out. Those of a file that take long stay together,
    for they share fixtures."""
    files: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        if is_long(item):
            files[item.nodeid.partition("::")[0]].append(item)
    together = [one for file, tests in files.items() if file.startswith(TOGETHER) for one in tests]
    apart = [tests for file, tests in files.items() if not file.startswith(TOGETHER)]
    groups: list[list[list[pytest.Item]]] = [[] for _ in range(workers)]
    if together:
        groups[0].append(together)
    for number, tests in enumerate(apart):
        groups[1 + number % (workers - 1) if workers > 1 else 0].append(tests)
    short = [item for item in items if not is_long(item)]
    ordered: list[pytest.Item] = []
    for number, share in enumerate(groups):
        room = len(items) // workers - sum(map(len, share))
        mine = short if number == workers - 1 else short[: max(0, room)]
        short = short[len(mine) :]
        ordered += _mixed(share, mine)
    return ordered


def _mixed(groups: list[list[pytest.Item]], short: list[pytest.Item]) -> list[pytest.Item]:
    """The groups with as many short tests between each two, and the rest at the end."""
    gap = int(EARLY * len(short)) // max(1, len(groups))
    mixed: list[pytest.Item] = []
    for number, group in enumerate(groups):
        mixed += [*group, *short[number * gap : (number + 1) * gap]]
    return mixed + short[len(groups) * gap :]
