"""The sweeper: find what is due in the database, see that it is done, and never stop.

Needs PostgreSQL and the targets, nothing else. Any number may run; they are told apart by leases
and skipped locks only. It claims; threads do the work. Cuts have threads of their own, so that
they wait for nothing else; at most two of a kind at once per target, one for a target that is
failing, so that a dead one cannot hold up the others.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from itertools import groupby
from typing import Any

import structlog
from django.db import connections

from approvals import (
    alarms,
    answers,
    closing,
    comparison,
    delegating,
    escalation,
    extending,
    heartbeats,
    leases,
    opening,
    overdue,
    proposals,
    reconciler,
    reviews,
    untended,
    workflow,
)
from approvals.batches import Job
from approvals.crews import Chore, Crew
from approvals.models import StepKind
from approvals.notify import expanding, outbox, working
from approvals.presence import free_the_dead, presence
from audit import context

logger = structlog.get_logger(__name__)

THREADS_MOST = 64
COMPARISONS = 4  # targets compared with the ledger at once
ALARMS_EVERY = 5.0  # seconds; each is mailed within a minute
ANSWERS_EVERY = 60.0
PROPOSALS_EVERY = 60.0  # they last for days, and nobody can agree to a late one
REVIEWS_EVERY = 30.0  # they are due in hours
TOLD_AT_LEAST_EVERY = 10.0
ENDINGS_EVERY = 5.0  # of minutes that are left
FORGET_EVERY = 600.0
GROUNDS_EVERY = 5.0  # nothing can be done with such a request meanwhile; it only looks undecided
NUDGES_EVERY = 2.0
LEAVERS_EVERY = 5.0
# Grants of one target that a thread takes on at once, to be opened, cut or cleaned up together.
# Measured: of 25 each costs a quarter more, for the connections and the looks that all share; of 50
# an opening takes a fraction of a second, nearly all of it the target's work on the passwords.
TOGETHER = 50


class Sweeper:
    """One loop and its threads. `interval` is the seconds between two looks."""

    def __init__(
        self,
        *,
        interval: float = 0.5,
        threads: int = 16,
        name: str = "",
        heart: heartbeats.Heart | None = None,
    ) -> None:
        self.interval = interval
        self.threads = min(threads, THREADS_MOST)
        self.name = name or f"{socket.gethostname()}:{os.getpid()}"
        self.heart = heart or heartbeats.Heart()
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._rung = ""
        self._failing: set[int] = set()
        self._rest_after = 0.0
        self._cuts = Crew(self.threads, "cut", batch=TOGETHER)
        self._rest = Crew(self.threads, "sweep", batch=TOGETHER)
        self._comparisons = Crew(COMPARISONS, "compare", batch=1)
        told = f"sweep-{self.name}"
        self._chores: tuple[Chore, ...] = (
            Chore(expire_requests, every=self.interval, name=told),
            Chore(extending.bridge_due, every=self.interval, name=told),
            Chore(close_groundless, every=GROUNDS_EVERY, name=told),
            Chore(reviews.remind, every=REVIEWS_EVERY, name=told),
            Chore(nudge, every=NUDGES_EVERY, name=told),
            Chore(partial(notice_leavers, untended.Rounds()), every=LEAVERS_EVERY, name=told),
            Chore(alarms.keep, every=ALARMS_EVERY, name=told),
            Chore(alarms.mail_due, every=ALARMS_EVERY, name=told),
            Chore(delegating.keep, every=LEAVERS_EVERY, name=told),
            Chore(proposals.expire_due, every=PROPOSALS_EVERY, name=told),
            Chore(answers.forget_old, every=ANSWERS_EVERY, name=told),
            Chore(outbox.forget_old, every=FORGET_EVERY, name=told),
            Chore(outbox.note_endings, every=ENDINGS_EVERY, name=told),
        )
        # A net below the workers that have people told: it must not take time from a cut.
        self._tellers: tuple[Chore, ...] = (
            Chore(partial(expanding.expand_due, batches=1), every=self.interval, name=told),
            *(Chore(send, every=self.interval, name=told) for send in working.senders()),
        )
        self._tell_after = 0.0

    def run(self) -> None:
        """Sweep until `stop`. A database that is away is waited for."""
        _here.add(self)
        while not self._stopping.is_set():
            told, self._rung = self._rung or f"sweep-{self.name}", ""
            with context.bind(request_id=told):
                self._look(self._take_over)
                found = self.tick()
            if not found:
                self._wake.wait(self.interval)
            self._wake.clear()
        _here.discard(self)
        crews = (self._cuts, self._rest, self._comparisons)
        chores = (*self._chores, *self._tellers)
        for pool in [one.pool for one in crews] + [one.pool for one in chores]:
            pool.shutdown(wait=True)
        self._look(self._stop_beating)
        presence.leave()

    def wake(self, rung: str) -> None:
        """Look now, and not at the next interval; Events name `rung` as what caused them."""
        self._rung = rung
        self._wake.set()

    def stop(self) -> None:
        """Claim nothing more, hand back what is not begun; `run` returns when the rest has ended.

        Safe in a signal handler.
        """
        self._stopping.set()
        self._wake.set()

    def tick(self) -> int:
        """One look: claim what is due and hand it to the threads. Returns how much it claimed.

        Cuts come first: while there are more, the rest is looked for once an interval, and where a
        target has more cuts due than there is room for, nothing else is begun there.
        """
        claimed = self._look(self._begin_cuts)
        self._look(self._beat)
        if claimed and time.monotonic() < self._rest_after:
            return claimed
        self._rest_after = time.monotonic() + self.interval
        for chore in self._chores:
            chore.begin()
        self._have_told()
        return claimed + self._look(self._begin_others) + self._look(self._begin_comparisons)

    def _have_told(self) -> None:
        """While nothing else is to do, and now and then all the same."""
        idle = self._cuts.idle and self._rest.idle
        if idle or time.monotonic() >= self._tell_after:
            self._tell_after = time.monotonic() + TOLD_AT_LEAST_EVERY
            for chore in self._tellers:
                chore.begin()

    def _look(self, part: Callable[[], int]) -> int:
        """One part of a look. Whatever goes wrong in it stops neither the others nor the loop."""
        try:
            return part()
        except Exception:
            logger.exception("a part of the sweep failed", part=part.__name__)
            return 0
        finally:
            connections.close_all()

    def _take_over(self) -> int:
        """What the dead had begun is due now, and not after their leases."""
        presence.keep()
        return free_the_dead()

    def _begin_cuts(self) -> int:
        claimed = self._claim(self._cuts, self._claim_cuts, self._close)
        self.heart.looked()
        return claimed

    def _beat(self) -> int:
        """After the cuts of this look have gone to their threads, so that none waits for it."""
        self.heart.beat()
        return 0

    def _stop_beating(self) -> int:
        self.heart.stop()
        return 0

    def _begin_others(self) -> int:
        targets = closing.cuts_due().order_by("target").values_list("target", flat=True)
        cutting = frozenset(targets.distinct())
        cleanups = self._claim(self._rest, self._claim_cleanups, self._close, not_at=cutting)
        longer = self._claim(self._rest, self._claim_extensions, self._extend, not_at=cutting)
        opens = self._claim(self._rest, self._claim_opens, self._open, not_at=cutting)
        return cleanups + longer + opens

    def _begin_comparisons(self) -> int:
        return self._claim(self._comparisons, self._claim_comparisons, self._compare)

    def _claim(
        self,
        crew: Crew,
        claim: Callable[[leases.Room], list[Any]],
        work: Callable[[list[Any]], bool],
        not_at: frozenset[int] = frozenset(),
    ) -> int:
        room = crew.room(self._failing, not_at)
        if room.free <= 0:
            return 0
        jobs = claim(room)
        for target, batch in groupby(sorted(jobs, key=_target), key=_target):
            crew.took(target)
            try:
                crew.pool.submit(self._work, crew, work, target, list(batch))
            except RuntimeError:  # no thread is to be had: the lease runs out
                crew.landed(target)
                raise
        return len(jobs)

    def _claim_cuts(self, room: leases.Room) -> list[Job]:
        return closing.claim(StepKind.CUT, worker=self.name, room=room)

    def _claim_cleanups(self, room: leases.Room) -> list[Job]:
        return closing.claim(StepKind.CLEAN, worker=self.name, room=room)

    def _close(self, jobs: list[Job]) -> bool:
        return closing.run_all(jobs, stopping=self._stopping.is_set)

    def _claim_comparisons(self, room: leases.Room) -> list[comparison.Job]:
        return reconciler.claim(worker=self.name, most=room.free)

    def _compare(self, jobs: list[comparison.Job]) -> bool:
        return reconciler.run_all(jobs, stopping=self._stopping.is_set)

    def _claim_extensions(self, room: leases.Room) -> list[Job]:
        return extending.claim(worker=self.name, room=room)

    def _extend(self, jobs: list[Job]) -> bool:
        return extending.run_all(jobs, stopping=self._stopping.is_set)

    def _claim_opens(self, room: leases.Room) -> list[Job]:
        return opening.claim(worker=self.name, room=room)

    def _open(self, jobs: list[Job]) -> bool:
        return opening.run_all(jobs, stopping=self._stopping.is_set)

    def _work(
        self, crew: Crew, work: Callable[[list[Any]], bool], target: int, jobs: list[Any]
    ) -> None:
        succeeded = False
        try:
            with context.bind(request_id=f"sweep-{self.name}"):
                succeeded = work(jobs)
        except Exception:
            # Whatever it was, the lease runs out and the next look finds the row again.
            logger.exception("a sweep failed", target=target)
        finally:
            connections.close_all()
            crew.landed(target)
            if crew is not self._comparisons:  # they fail, and succeed, for reasons of their own
                (self._failing.discard if succeeded else self._failing.add)(target)
                self._wake.set()


_here: set[Sweeper] = set()


def wake(rung: str) -> bool:
    """Have the sweeper of this process look now; False if it has none that runs."""
    for sweeper in list(_here):
        sweeper.wake(rung)
    return bool(_here)


def _target(job: Any) -> int:
    return int(job.target_id)


def expire_requests(most: int = 100) -> int:
    """Close up to `most` undecided requests by each clock that has run out; returns how many."""
    return sum(_did(workflow.expire, pk) for pk in overdue.late(most))


def close_groundless(most: int = 1000) -> int:
    """Close up to `most` undecided requests that nobody can decide; returns how many."""
    return sum(_did(workflow.expire, pk) for pk in overdue.groundless(most))


def nudge(most: int = 100) -> int:
    """Remind and escalate where it is due, in up to `most` requests; returns in how many."""
    return sum(_did(escalation.tend, pk) for pk in untended.nudges(most))


def notice_leavers(rounds: untended.Rounds, most: int = 5000) -> int:
    """See after the next `most` open stages whose people came or went; returns how many."""
    return sum(_did(escalation.tend, pk) for pk in rounds.look(most))


def _did(verb: Callable[[int], object], pk: int) -> bool:
    try:
        return verb(pk) is not None
    except Exception:
        # One that cannot be seen to must not keep the others waiting.
        logger.exception("a request could not be seen to", request=pk, verb=verb.__name__)
        return False
