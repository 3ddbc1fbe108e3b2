"""The kill campaign: workers die by SIGKILL at random while thousands of grants come and go.

Looks at the target (a holder's socket, a new sign-in, what is left there) and at the ledger.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from math import inf
from pathlib import Path
from statistics import quantiles

from django.db import connection
from django.db.models import Min, Q, QuerySet
from django.db.models.functions import Coalesce

from approvals.leases import LEASE
from approvals.models import Grant, Step, StepKind
from approvals.states import GrantState
from audit import clock
from audit.models import Event
from debugflow.embedded.state import scratch
from debugflow.embedded.valkey import EmbeddedValkey
from tests.faults.campaign import Row, Run, campaign
from tests.faults.fleet import Fleet, forked, installed
from tests.faults.histories import all_breaches
from tests.faults.holders import MAKERS, PAUSE, Holders, Plans, Session, make, on_thread
from tests.faults.place import ask_one_person

WORKERS = 4
LATE = 5.0  # seconds after its end that an access may live
ORPHANED = 90.0  # seconds after the last end that something may be left on the target
LASTS, BOUNDED_LASTS = (10, 20), (4, 8)  # seconds, of a grant
# Of all that is made and ended. The rest waits for the leases of openers that were killed.
LAST_KILL = 0.95
GAP = 0.1  # seconds, the mean of what is added before a kill, so that no two runs are alike
OPENS_WITHIN = 10  # seconds that a living worker needs, at most
EARLY = 0.2  # seconds before its end at which a closed session was closed too early
STILL = 1.0  # seconds without a change after which nothing is being worked on


@dataclass(frozen=True)
class Size:
    """What one campaign does at its full scale."""

    grants: int
    kills: int


@campaign("kills")
def kills(run: Run) -> list[Row]:
    """Four sweepers, forked, so that the next one is there at once and dies as soon."""
    return _killed(run, forked(WORKERS), Size(grants=5000, kills=1000))


@campaign("kills-installed")
def kills_installed(run: Run) -> list[Row]:
    """Two `manage.py sweep` and two Celery workers on a real broker: a second to come back."""
    with scratch() as directory, EmbeddedValkey(Path(directory) / "valkey") as valkey:
        environment = {**run.place.environment, "REDIS_URL": valkey.url, "LOG_LEVEL": "ERROR"}
        return _killed(run, installed(environment), Size(grants=200, kills=40))


def _killed(run: Run, workers: Fleet, size: Size) -> list[Row]:
    ask_one_person(run.place)
    lasts = BOUNDED_LASTS if run.bounded else LASTS
    plans = Plans(run.times(size.grants), lasts)
    with workers:
        holders = Holders(run.place, run.chances("holders"))
        makers = [
            on_thread(partial(make, run.place, plans, who, run.chances(who))) for who in MAKERS
        ]
        _strike(workers, plans, run.times(size.kills), run.chances("kills"))
        for maker in makers:
            maker.join()
        left_after = _wait(run, holders)
    return _rows(run, workers, holders.sessions, left_after)


def _strike(workers: Fleet, plans: Plans, kills: int, chances: random.Random) -> None:
    """Spread the kills evenly over the making and the ending of grants, at random moments."""
    for number in range(kills):
        while _progress(plans) < (number + chances.random()) / kills * LAST_KILL:
            time.sleep(PAUSE)
        time.sleep(chances.expovariate(1 / GAP))
        workers.strike(chances)


def _progress(plans: Plans) -> float:
    over = Grant.objects.filter(Q(state=GrantState.ENDED) | Q(cut_at__isnull=False)).count()
    return (plans.made + over) / (2 * plans.grants)


def _wait(run: Run, holders: Holders) -> float:
    """See all to its end; the seconds from the last end of a grant until nothing was left."""
    if run.bounded:
        _until(lambda: not _open().exists())
        holders.leave()
        _until(Haste().all_ended)
    else:
        _until(lambda: not Grant.objects.not_ended().exists())
        holders.leave()
    _until(lambda: not run.place.leftovers(), within=1)
    ends = [grant.meant_to_end_at or grant.approved_at for grant in Grant.objects.all()]
    return (clock.now() - max(ends)).total_seconds()


def _open() -> QuerySet[Grant]:
    """Grants that may be in use, or are being opened or waiting for that: not by the dead."""
    usable = Q(state=GrantState.ACTIVE) | Q(state=GrantState.REVOKING, cut_at__isnull=True)
    lately = clock.DbNow() + timedelta(seconds=LEASE[StepKind.OPEN] - OPENS_WITHIN)
    opening = Q(state=GrantState.SCHEDULED) | Q(
        state=GrantState.PROVISIONING, lease_until__gt=lately
    )
    return Grant.objects.filter(usable | opening)


class Haste:
    """Moves the database's clock to when next something is due, where nothing else goes on.

    What the dead had begun waits for leases of 45 and 60 s, which a bounded run does not wait out.
    """

    def __init__(self) -> None:
        self._seen: object = None
        self._since = time.monotonic()

    def all_ended(self) -> bool:
        rows = list(Grant.objects.not_ended().values_list("id", "state", "lease", "attempts"))
        if rows != self._seen:
            self._seen, self._since = rows, time.monotonic()
        elif rows and time.monotonic() > self._since + STILL:
            self._move_on()
        return not rows

    def _move_on(self) -> None:
        waits = Coalesce("lease_until", "next_try_at", "expires_at")
        wanted = Grant.objects.not_ended().aggregate(first=Min(waits))["first"]
        ahead = max(0.0, (wanted - clock.now()).total_seconds()) if wanted else 0.0
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE audit_clock SET shift = shift + make_interval(secs => %s)", [ahead]
            )
        self._since = time.monotonic()


def _until(check: Callable[[], bool], *, within: float = ORPHANED + 30) -> None:
    """Wait for it, and go on without it if it takes too long: the rows tell of it then."""
    deadline = time.monotonic() + within
    while not check() and time.monotonic() < deadline:
        time.sleep(PAUSE)


def _rows(run: Run, workers: Fleet, sessions: Sequence[Session], left_after: float) -> list[Row]:
    made = list(Grant.objects.all())
    left = run.place.leftovers()
    return [
        Row(what="workers killed by SIGKILL and replaced", runs=workers.killed, note=_told(made)),
        _ledger(made),
        *_at_the_target(sessions),
        Row(
            what="left on the target after the last end",
            runs=len(made),
            bad=len(left),
            worst=left_after,
            limit=ORPHANED,
            unit="s",
            note=", ".join(left[:5]),
        ),
        _counted("grants whose history is not a legal one", made, all_breaches(made)),
        _counted("grants active twice", made, _twice()),
    ]


def _told(made: Sequence[Grant]) -> str:
    reasons = Counter(grant.end_reason or grant.state for grant in made)
    return "grants: " + ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))


def _ledger(made: Sequence[Grant]) -> Row:
    """How late grants that began to open were cut."""
    begun = [grant for grant in made if grant.meant_to_end_at]
    return _late("grants cut after their end (ledger)", _cuts(begun), note=_attempts())


def _cuts(begun: Sequence[Grant]) -> list[float]:
    """Seconds from end to cut, without end for one that was never cut."""
    return [_seconds(one, one.cut_at.timestamp() if one.cut_at else inf) for one in begun]


def _seconds(grant: Grant, moment: float) -> float:
    assert grant.meant_to_end_at
    return moment - grant.meant_to_end_at.timestamp()


def _attempts() -> str:
    """How often one cut, or one clean-up, had to be begun."""
    tried = {
        kind: Counter(Step.objects.filter(kind=kind).values_list("attempts", flat=True))
        for kind in (StepKind.OPEN, StepKind.CUT, StepKind.CLEAN)
    }
    return "attempts: " + "; ".join(
        f"{kind} " + ", ".join(f"{times}×{count}" for times, count in sorted(found.items()))
        for kind, found in tried.items()
    )


def _at_the_target(sessions: Sequence[Session]) -> list[Row]:
    for session in sessions:
        session.grant.refresh_from_db()
    closed = [_seconds(one.grant, one.closed or inf) for one in sessions]
    refused = [_seconds(one.grant, one.refused or inf) for one in sessions]
    early = sum(seconds < -EARLY for seconds in closed)
    return [
        _late("live sessions closed after their end (target)", closed),
        _late("new sign-ins refused after their end (target)", refused),
        Row(what="live sessions closed before their end", runs=len(sessions), bad=early),
    ]


def _late(what: str, seconds: Sequence[float], *, note: str = "") -> Row:
    late = sum(one > LATE for one in seconds)
    if len(seconds) > 1:
        cuts = quantiles(seconds, n=100, method="inclusive")
        note = f"p50 {cuts[49]:.2f} s, p99 {cuts[98]:.2f} s" + (f"; {note}" if note else "")
    worst = max(seconds, default=None)
    return Row(what=what, runs=len(seconds), bad=late, worst=worst, limit=LATE, unit="s", note=note)


def _counted(what: str, made: Sequence[Grant], wrong: Sequence[str]) -> Row:
    return Row(what=what, runs=len(made), bad=len(wrong), note="; ".join(wrong[:3]))


def _twice() -> list[str]:
    told = Counter(Event.objects.filter(action="grant.active").values_list("subject_id", flat=True))
    return [f"grant {pk}" for pk, times in told.items() if times > 1]
