"""Lives of steps in any order, and the campaign of fifty thousand of these steps.

The single steps are in `asking`, `arranging`, `giving` and `troubling`. Here are those that bring
about what would come to pass too seldom by itself: that something changes just after it was looked
at, or is too late.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Collection, Iterator
from datetime import datetime
from typing import cast

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.database import DirectoryBasedExampleDatabase, ExampleDatabase
from hypothesis.stateful import initialize, precondition, rule, run_state_machine_as_test

from approvals.states import GrantState
from audit import clock
from tests.faults.asking import people
from tests.faults.book import WORDINGS, Wording
from tests.faults.campaign import Row, Run, campaign
from tests.faults.course import Course
from tests.faults.course import Row as Fields
from tests.faults.ground import STANDING_STILL, Ground
from tests.faults.longer import Longer
from tests.faults.reducing import LOWER
from tests.faults.witness import moment
from tests.world import HOUR

G = GrantState
STEPS = 50  # of one life, each of them one or more verbs
FULL = 550  # lives: fifty thousand steps
KEPT = ".hypothesis/examples"
JUST = (-0.001, 0.0, 1.0)  # seconds after a deadline
CHANGES = ("nothing", "drifted", "saved", "switched off", "left", "late")


class Life(Longer):
    """All the steps."""

    @initialize(
        opened=st.integers(0, 2),
        pending=st.booleans(),
        who=people,
        wording=st.sampled_from((None, *WORDINGS)),
    )
    def begin(self, opened: int, pending: bool, who: int, wording: Wording | None) -> None:
        """Some have access already, and somebody has asked."""
        for number in range(opened):
            self.submit(4 * number + 1, False)
            self.approve_to_the_end(who, 0)
            for grant in self.grants(G.SCHEDULED):
                self.open(self.record.of_grant(grant["id"]))
        if wording:
            self.publish(wording, HOUR)
        if pending:
            self.submit(1, True)

    def teardown(self) -> None:
        """Unless it has failed already, see it to its end."""
        if sys.exc_info()[0] is None:
            self.see_to_the_end()

    def half_decided(self, who: int) -> Course | None:
        """A request that somebody has approved and that is not decided."""
        self.asked(who)
        for course in self.undecided():
            if not any(course.counting(stage) for stage in course.round()):
                self.vote(course, who | 1, "approve")
            if course.undecided and any(course.counting(stage) for stage in course.round()):
                return course
        return None

    @rule(who=people, words=st.integers(0, 3), again=st.booleans())
    def change_what_was_voted_on(self, who: int, words: int, again: bool) -> None:
        """The votes are void, and whoever has the page open still votes on what is no more."""
        if course := self.half_decided(who):
            seen = course.row["scope_hash"]
            write = course.row["level_id"] == self.world.write.pk
            self.drift(write, words)
            self.save_level(write, who)
            if course.row["scope_hash"] != seen:
                self.vote_on_another_scope(course, who, "approve", seen=seen)
            if again and course.undecided:
                self.approve_to_the_end(who, sorted(self.record.courses).index(course.pk))

    @rule(who=people, words=st.integers(0, 3), alone=st.booleans(), on=st.booleans())
    def change_what_was_left(self, who: int, words: int, alone: bool, on: bool) -> None:
        """Somebody approved the lower level instead, and it changes before all have decided."""
        self.repair()
        self.publish(WORDINGS[4 if alone else 1], 86400)
        self.submit(1, True)
        for course in self.undecided():
            if self.able_to_vote(course, who, "approve"):
                self.vote(course, self.choosing(LOWER, who | 1), "approve")
        self.drift(False, words)
        self.save_level(False, 1, on=on)
        self.repair()

    @rule(who=people, quits=st.booleans(), returns=st.booleans())
    def leave_after_voting(self, who: int, quits: bool, returns: bool) -> None:
        """The vote of whoever left does not count, until they are back."""
        if course := self.half_decided(who):
            stages = [stage for stage in course.round() if course.counting(stage)]
            voters = sorted(course.counting(stages[-1]))
            voter = voters[who % len(voters)]
            self.leave(voter, () if quits else self.asked_groups(stages[-1]))
            self.vote(course, who | 1, "approve")
            if returns:
                self.repair()
            while course.undecided and self.able_to_vote(course, who, "approve"):
                self.vote(course, who | 1, "approve")

    def asked_groups(self, stage: Fields) -> list[str]:
        return [name for name, key in self.book.groups.items() if key in stage["minima"]]

    @rule(who=people, change=st.sampled_from(CHANGES))
    def open_after_a_change(self, who: int, change: str) -> None:
        if not self.to_be_opened(who) or not self.grants(G.SCHEDULED):
            return
        course = self.chosen(who, G.SCHEDULED)
        write = course.row["level_id"] == self.world.write.pk
        match change:
            case "drifted" | "saved":
                self.drift(write, who % 5)
                if change == "saved":
                    self.save_level(write, 1)
            case "switched off":
                self.save_level(write, 1, on=False)
            case "left":
                self.activate(course.row["beneficiary_id"], False)
            case "late":
                self.forward(HOUR)
        self.open(course)
        self.repair()

    @precondition(lambda self: self.grants(G.ACTIVE))
    @rule(which=people)
    def dismiss(self, which: int) -> None:
        """Whoever is deactivated has nothing open any more once a sweeper has looked."""
        self.activate(self.chosen(which, G.ACTIVE).row["beneficiary_id"], False)
        self.swept()
        self.repair()

    @precondition(lambda self: self.record.courses)
    @rule(which=people, by=st.sampled_from(JUST), who=people)
    def come_just_before_or_after(self, which: int, by: float, who: int) -> None:
        """To whatever ends, or begins, by itself: one who acts right then."""
        now = clock.now()
        coming = sorted((one for one in self.deadlines() if one[0] > now), key=lambda one: one[0])
        if not coming:
            return
        when, course = coming[which % len(coming)]
        self.forward((when - now).total_seconds() + by)
        self.seen["just in time or too late"] += 1
        if course.undecided:
            self.vote(course, who | 1, "approve")
            return
        state = (course.grant or {})["state"]
        if state == G.SCHEDULED:
            self.open(course)
        elif state == G.ACTIVE:
            self.act_on(course, 1, "reveal")
        else:
            self.act_on(course, who, "try_again")
        self.swept()

    def deadlines(self) -> Iterator[tuple[datetime, Course]]:
        for course in self.record.courses.values():
            stage, grant = course.open_stage(), course.grant or {}
            told = [course.row["pending_until"]]
            told += [stage["deadline_at"], stage["nudge_at"]] if stage else []
            if not course.undecided:
                names = ("opens_at", "activate_before", "open_before", "expires_at", "lease_until")
                told = [grant[name] for name in names if grant and grant["state"] != G.ENDED]
            yield from ((when, course) for when in map(moment, told) if when)


PHASES = (Phase.generate, Phase.shrink)


def live(
    ground: Ground,
    *,
    lives: int,
    chance: int,
    seen: Counter[str],
    phases: Collection[Phase] = PHASES,
    kept: ExampleDatabase | None = None,
) -> None:
    """Live so many lives. Raises what one that failed raised, its steps in the notes; these are as
    few as can be if `phases` has that in it. In `kept` a failure is remembered for the next time.
    """
    told = settings(
        phases=phases,
        database=kept,
        max_examples=lives,
        stateful_step_count=STEPS,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    life = seed(chance)(lambda: Life(ground, seen))
    run_state_machine_as_test(cast("type[Life]", life), settings=told)


@campaign("machine")
def machine(run: Run) -> list[Row]:
    """Fifty thousand steps, those first with which it failed the last time."""
    ground, seen, wrong = Ground(run.place.control, STANDING_STILL), Counter[str](), ""
    phases, kept = (Phase.reuse, *PHASES), DirectoryBasedExampleDatabase(KEPT)
    lives = run.times(FULL)
    try:
        live(ground, lives=lives, chance=run.seed, seen=seen, phases=phases, kept=kept)
    except Exception as error:  # noqa: BLE001 - whatever a step met with is what is looked for
        wrong = "\n".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())])
    what = "steps of the state machine"
    return [Row(what=what, runs=seen["steps"], bad=bool(wrong), note=wrong or f"{lives} lives")]
