"""The steps of longer access: asked for near the end, decided by the usual steps, carried out late.

What of it is allowed is foretold in `book`; whether an end moved lawfully, told in `lawful`.
"""

from __future__ import annotations

from functools import partial

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from approvals import extending, grants, workflow
from approvals.models import Grant
from approvals.states import GrantState
from approvals.states import RequestState as R
from approvals.states import StageState as S
from audit import clock
from tests.faults.asking import people
from tests.faults.book import BRIDGE, EXTENSION_MAX, WINDOW, WORDINGS
from tests.faults.course import Course
from tests.faults.troubling import EVENTS, Troubling
from tests.faults.witness import moment
from tests.world import HOUR

G = GrantState
SECONDS = (BRIDGE, BRIDGE + 1, HOUR, EXTENSION_MAX, EXTENSION_MAX + 1)
EXTENDING = ("extend", "commit")


class Longer(Troubling):
    """What a holder does who needs more time, and a worker who gives it."""

    @precondition(lambda self: self.grants(G.ACTIVE))
    @rule(who=people, which=people, seconds=st.sampled_from(SECONDS), early=st.booleans())
    def ask_longer(self, who: int, which: int, seconds: int, early: bool) -> None:
        course = self.chosen(which, G.ACTIVE)
        if not early:
            self.come_near_its_end(course)
        self.longer(course, who, seconds)

    def come_near_its_end(self, course: Course) -> None:
        end = moment((course.grant or {})["expires_at"])
        if end is not None and (left := (end - clock.now()).total_seconds()) > WINDOW:
            self.forward(left - WINDOW)

    def longer(self, course: Course, who: int, seconds: int) -> Course | None:
        """Ask for so much more of it; the request, if that was done."""
        grant, now = course.grant or {}, clock.now()
        by = self.somebody(who, {grant["beneficiary_id"]})
        against = self.book.against_extending(course, by.pk, seconds, now, self.undecided())
        told = grants.permitted_actions(Grant.objects.get(pk=grant["id"]), by, now)
        shown = against - {"invalid", "unfillable"}
        self.agrees(f"extend {grant['id']} by {by}", told["extend"], shown)
        wish = self.world.wish(duration=seconds)
        ask = partial(workflow.ask_longer, grant["id"], by=by, wish=wish)
        if not self.do("ask for longer", ask, against=against, by=by):
            return None
        asked = self.record.courses[max(self.record.courses)]
        self.book.frozen[asked.pk] = self.book.scope_of(grant["level_id"])
        self.asks_whom_it_must(asked, course)
        return asked

    def asks_whom_it_must(self, asked: Course, course: Course) -> None:
        grant = course.grant or {}
        assert (asked.row["extends_id"], asked.row["kind"]) == (grant["id"], "extension")
        assert moment(asked.row["starts_at"]) == moment(grant["expires_at"])
        states, version = [one["state"] for one in asked.round()], asked.row["policy_version_id"]
        skipped = len(states) - len(self.book.asks_for_longer(version))
        assert states[:skipped] == [S.SKIPPED] * skipped
        assert states[skipped : skipped + 1] == [S.OPEN] * (skipped < len(states))
        at_once = skipped == len(states)
        assert asked.row["state"] == (R.APPROVED if at_once else R.PENDING)
        assert self.is_extending(grant["id"]) == at_once

    def is_extending(self, pk: int) -> bool:
        row = self.grant(pk)
        end, until = moment(row["expires_at"]), moment(row["extended_until"])
        return end is not None and until is not None and until > end

    def extendable(self, which: int) -> Course | None:
        """One that is open under a policy which allows more of it, made now if there was none."""
        if not self._extendable():
            self.server.mend()
            self.repair()
            if max(self.book.wordings) not in self.book.longer:
                self.publish(WORDINGS[0], 86400)
            self.submit(which | 1, False)
            if self.undecided():
                self.approve_to_the_end(which, which)
            for grant in self.grants(G.SCHEDULED):
                self.open(self.record.of_grant(grant["id"]))
        found = self._extendable()
        return found[which % len(found)] if found else None

    def _extendable(self) -> list[Course]:
        courses = [self.record.of_grant(row["id"]) for row in self.grants(G.ACTIVE)]
        return [one for one in courses if one.row["policy_version_id"] in self.book.longer]

    @rule(who=people, which=people, carried_out=st.booleans(), late=st.sampled_from((0, 0, HOUR)))
    def go_on(self, who: int, which: int, carried_out: bool, late: int) -> None:
        """As a whole: asked for in time, agreed to, and carried out, if nothing is in the way."""
        if course := self.extendable(which):
            self.agree_to_more(course, who)
            if late:
                self.forward(late)
            if carried_out:
                self.carry_out(course)

    def agree_to_more(self, course: Course, who: int) -> None:
        self.come_near_its_end(course)
        asked = self.longer(course, 1, HOUR)
        while asked and asked.undecided and self.able_to_vote(asked, who, "approve"):
            self.vote(asked, who | 1, "approve")

    @precondition(lambda self: self.grants(G.ACTIVE))
    @rule(which=people)
    def extend_one(self, which: int) -> None:
        self.carry_out(self.chosen(which, G.ACTIVE))

    def carry_out(self, course: Course) -> None:
        """It moves exactly if that was agreed to, it goes on, and it is what was approved."""
        self.seen["steps"] += 1
        pk, now = (course.grant or {})["id"], clock.now()
        before = self.grant(pk)
        due = self.is_extending(pk) and not self.waits(before, now) and before["next_try_at"]
        foretold = due and self.may_go_on(course, now)
        ailing = self.server.ails or pk in self.spoilt
        extending.extend_grant(pk, worker="worker")
        self.look()
        if not ailing:
            end = before["extended_until"] if foretold else before["expires_at"]
            assert self.grant(pk)["expires_at"] == end
            self.seen["extended" if foretold else "not extended"] += 1

    def may_go_on(self, course: Course, now: object) -> bool:
        grant = course.grant or {}
        level, end = grant["level_id"], moment(grant["expires_at"])
        sound = self.book.approved(course) == self.book.scope_of(level)
        as_there = self.book.stored[level] == self.book.there[level]
        here = grant["beneficiary_id"] in self.book.active
        is_on = self.book.on["target"] and self.book.level_on[level]
        goes_on = grant["state"] == G.ACTIVE and end is not None and end > now  # type: ignore[operator]
        return bool(goes_on and sound and as_there and here and is_on)

    @rule(who=people, instant=st.sampled_from(EXTENDING), event=st.sampled_from(EVENTS))
    def interrupt_an_extension(self, who: int, instant: str, event: str) -> None:
        """A worker extends one, and what happens while it is at the target."""
        if not (course := self.extendable(who)):
            return
        self.agree_to_more(course, who)
        if (grant := course.grant) and grant["state"] == G.ACTIVE:
            self.interrupted(instant, event, grant, partial(extending.extend_grant, grant["id"]))
