"""Six targets die together while they hold access that is due, beside one that lives.

Three refuse connections, three accept them and never answer. They are one server behind six
relays: what is tried is how our own threads and leases are shared out among them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack

from approvals.models import AccessLevel, Grant
from tests.faults.campaign import Row, Run, campaign, counted, seconds
from tests.faults.place import Place, ask_one_person, eventually
from tests.faults.proxy import Proxy
from tests.faults.target import (
    BACK,
    ENDED,
    LATE,
    approved,
    is_failing,
    level_at,
    sweepers,
    take_away,
)
from tests.faults.watch import Held, hold

DEAD = 6
EACH, BOUNDED_EACH = 20, 5  # grants that each of them holds
LIVE = 120  # grants of the living one
GAP = 0.25  # seconds between two of the living one's ends


@campaign("dying")
def dying(run: Run) -> list[Row]:
    """The living target's access is taken away bit by bit, from the moment the six are dead."""
    ask_one_person(run.place)
    with ExitStack() as running, sweepers(run.place):
        relay = run.place.production.server.port
        each = BOUNDED_EACH if run.bounded else EACH
        proxies = [running.enter_context(Proxy(relay)) for _ in range(DEAD)]
        levels = [_behind(run.place, proxy) for proxy in proxies]
        dead = _hold_all(run.place, levels * each)
        live = _hold_all(run.place, [run.place.level] * max(16, run.times(LIVE)))
        _die(proxies)
        for held in dead:
            take_away(run.place, held)
        late = _end_one_by_one(run.place, live)
        eventually(lambda: all(is_failing(held) for held in dead))
        told = [str(held.grant) for held in dead if not held.is_live()]
        for proxy in proxies:
            proxy.flow()
            proxy.listen()
        back = _over_after(time.time(), dead)
        eventually(lambda: not Grant.objects.not_ended().exists(), within=ENDED)
    return [
        seconds("access at the living target, over after its end", late, LATE),
        counted("access at the dead ones, failing and told so", len(dead), told),
        seconds("access at the dead ones, over after their return", back, BACK),
        counted("grants with nothing left on the target", len(dead + live), run.place.leftovers()),
    ]


def _behind(place: Place, proxy: Proxy) -> AccessLevel:
    return level_at(place, f"behind-{proxy.port}", {**place.production.config, "port": proxy.port})


def _hold_all(place: Place, levels: Sequence[AccessLevel]) -> list[Held]:
    made = [approved(place, level) for level in levels]
    return [hold(place, grant, port=place.production.server.port) for grant in made]


def _die(proxies: Sequence[Proxy]) -> None:
    for number, proxy in enumerate(proxies):
        if number % 2:
            proxy.refuse()
        else:
            proxy.stall()


def _end_one_by_one(place: Place, live: Sequence[Held]) -> list[float]:
    ends = []
    for held in live:
        ends.append(take_away(place, held))
        time.sleep(GAP)
    return [held.over() - since for held, since in zip(live, ends, strict=True)]


def _over_after(healed: float, dead: Sequence[Held]) -> list[float]:
    return [max(0.0, held.over() - healed) for held in dead]
