"""What goes wrong at targets and workers, and that it is put right.

A target ails, somebody meddles with it, a worker stops in the midst of a step or comes too late.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from math import inf

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from approvals import closing, extending, grants, leases, opening, reconciler
from approvals.errors import NotAllowed, ProvisionError, WrongState
from approvals.models import StepKind
from approvals.states import GrantState
from audit import clock
from debugflow.accounts.models import User
from tests.faults.asking import people
from tests.faults.course import Row
from tests.faults.giving import Giving
from tests.faults.ground import Crash, room
from tests.faults.witness import moment

G = GrantState
OPENING, CLOSING = ("open", "commit", "committed"), ("cut", "clean", "observe")
LONGER = ("extend",)
TOGETHER = ("open_many", "commit", "committed")
INSTANTS = (*OPENING, *CLOSING, *LONGER)
EVENTS = ("crash", "revoked", "overtaken", "over", "left", "woken", "nothing")
STRANGERS = ("dbgf_9001", "dbgf_9002")
GRACE = timedelta(seconds=120)  # that an unknown account is only watched
STUCK = 31  # seconds of failing after which a grant may be abandoned


class Troubling(Giving):
    """The steps of targets that fail, and of workers that crash, sleep or overtake one another."""

    @rule(verb=st.sampled_from(INSTANTS), times=st.integers(0, 4), permanent=st.booleans())
    def ail_or_mend(self, verb: str, times: int, permanent: bool) -> None:
        if times:
            self.ail(verb, times, permanent)
        else:
            self.server.mend()

    def ail(self, verb: str, times: int, permanent: bool) -> None:
        self.seen["steps"] += 1
        error = ProvisionError("It does not answer.", code="unreachable", permanent=permanent)
        self.server.fail_next(verb, error, times=times)

    @precondition(lambda self: self.grants(G.ACTIVE))
    @rule(which=people, gone=st.booleans())
    def meddle(self, which: int, gone: bool) -> None:
        """Somebody on the target drops or locks an account of ours."""
        pk = (self.chosen(which, G.ACTIVE).grant or {})["id"]
        self.spoilt.add(pk)
        if gone:
            self.server.accounts.pop(f"dbgf_{pk}", None)
        elif account := self.server.accounts.get(f"dbgf_{pk}"):
            account.can_sign_in = False

    @rule(name=st.sampled_from(STRANGERS))
    def stranger(self, name: str) -> None:
        """An account under a name of ours that no grant knows."""
        if name not in self.server.accounts:
            self.server.add_stranger(name, "x", until=clock.now() + timedelta(days=9))

    @precondition(lambda self: self.grants(G.ACTIVE) or self.strangers())
    @rule()
    def compare(self) -> None:
        """The reconciler ends nothing that is as it should be, and removes none at first sight."""
        now = clock.now()
        sound = [grant["id"] for grant in self.grants(G.ACTIVE) if self.is_sound(grant, now)]
        unknown = self.strangers()
        self.reconcile()
        self.look()
        assert all(self.grant(pk)["state"] == G.ACTIVE for pk in sound)
        for name in unknown - self.server.accounts.keys():
            assert now - self.watched_since.get(name, now) >= GRACE, f"{name} was removed at once"
            del self.watched_since[name]
            self.seen["removed"] += 1
        for name in unknown & self.server.accounts.keys():
            self.watched_since.setdefault(name, now)

    def strangers(self) -> set[str]:
        return {name for name in STRANGERS if name in self.server.accounts}

    def is_sound(self, grant: Row, now: datetime) -> bool:
        end = moment(grant["expires_at"])
        return grant["id"] not in self.spoilt and end is not None and end > now

    def reconcile(self) -> None:
        self.seen["steps"] += 1
        for job in reconciler.claim_now(self.world.target.pk, worker="reconciler"):
            reconciler.run(job)

    @rule(who=people, verb=st.sampled_from(CLOSING), askers=st.integers(0, 3), leaves=st.booleans())
    def jam(self, who: int, verb: str, askers: int, leaves: bool) -> None:
        """One that should end cannot be ended, and some ask for it to be given up."""
        if not (at := self.to_be_closed(who)):
            return
        course = self.record.of_grant(at["id"])
        self.ail(verb, 20, False)
        self.swept()
        if askers:
            self.forward(STUCK)
            self.swept()
        for number in range(askers):
            self.act_on(course, 4 * (who + number) + 1, "abandon")
            if leaves and course.abandoners:
                self.leave(sorted(course.abandoners)[0], ["owners"] if who % 2 else [])
        self.server.mend()

    @rule(who=people, instant=st.sampled_from(OPENING), event=st.sampled_from(EVENTS))
    def interrupt_an_opening(self, who: int, instant: str, event: str) -> None:
        """A worker opens one, and what happens while it is at the target."""
        if at := self.to_be_opened(who):
            self.interrupted(instant, event, at, partial(opening.open_grant, at["id"]))

    @rule(who=people, instant=st.sampled_from(TOGETHER), event=st.sampled_from(EVENTS))
    def interrupt_openings(self, who: int, instant: str, event: str) -> None:
        """The same with two that are opened at once."""
        for number in (who, who ^ 2):
            self.submit(number | 1, bool(number & 2))
            if self.undecided():
                self.approve_to_the_end(who, number)
        if at := self.grants(G.SCHEDULED):
            self.interrupted(instant, event, at[who % len(at)], open_all)

    @rule(who=people, instant=st.sampled_from(CLOSING), event=st.sampled_from(EVENTS))
    def interrupt_a_closing(self, who: int, instant: str, event: str) -> None:
        if at := self.to_be_closed(who):
            self.interrupted(instant, event, at, partial(closing.close_grant, at["id"]))

    def interrupted(self, instant: str, event: str, at: Row, work: Callable[..., object]) -> None:
        self.seen["steps"] += 1
        self.server.mend()
        self.server.then[instant] = partial(self.happens, event, at)
        with suppress(Crash):
            work(worker="worker")
        if instant not in self.server.then:
            self.seen[f"{event} at {instant}"] += 1
        self.server.then.clear()

    def to_be_opened(self, who: int) -> Row | None:
        if not self.grants(G.SCHEDULED, G.PROVISIONING):
            self.submit(who | 1, bool(who & 2))
            if self.undecided():
                self.approve_to_the_end(who, who)
        return next(iter(self.grants(G.SCHEDULED, G.PROVISIONING)), None)

    def to_be_closed(self, who: int) -> Row | None:
        if not self.grants(G.ACTIVE, G.REVOKING):
            self.server.mend()
            self.to_be_opened(who)
            if self.grants(G.SCHEDULED):
                self.open_one(who)
        if self.grants(G.ACTIVE) and not self.grants(G.REVOKING):
            self.act_on(self.chosen(who, G.ACTIVE), 1, "release")
        return next(iter(self.grants(G.REVOKING)), None)

    def happens(self, event: str, grant: Row) -> None:
        match event:
            case "crash":
                raise Crash
            case "revoked":
                with suppress(NotAllowed, WrongState):
                    holder = User.objects.get(pk=grant["beneficiary_id"])
                    grants.release(grant["id"], by=holder)
                closing.close_grant(grant["id"], worker="another")
            case "overtaken":
                self.forward(leases.LEASE[StepKind.CLEAN] + 1)
                self.sweep()
            case "over":
                self.forward(4 * 3600 + 61)
                self.sweep()
            case "left":
                self.activate(grant["beneficiary_id"], False)
                self.sweep()
            case "woken" if self.jobs:
                self.wake_up(len(self.jobs) - 1)

    @rule(who=people, kind=st.sampled_from(StepKind))
    def fall_asleep(self, who: int, kind: StepKind) -> None:
        """Whoever claims it stops there, for now or for ever."""
        if kind == StepKind.OPEN:
            self.to_be_opened(who)
            claimed = opening.claim(worker="asleep", room=room())
            self.jobs += [(opening, job) for job in claimed]
        elif kind == StepKind.EXTEND:
            claimed = extending.claim(worker="asleep", room=room())
            self.jobs += [(extending, job) for job in claimed]
        else:
            self.to_be_closed(who)
            held = closing.claim(kind, worker="asleep", room=room())
            self.jobs += [(closing, job) for job in held]

    @precondition(lambda self: self.jobs)
    @rule(which=people)
    def wake_up(self, which: int) -> None:
        """One that was asleep goes on, however late it is."""
        module, job = self.jobs.pop(which % len(self.jobs))
        module.run_all([replace(job, until=inf)])  # it had looked at its own clock just before
        self.seen.update(("steps", "woken up"))


def open_all(worker: str) -> None:
    if jobs := opening.claim(worker=worker, room=room()):
        opening.run_all(jobs)
