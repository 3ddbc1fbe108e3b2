"""The steps of people who ask, and of people who decide.

What is arranged around them meanwhile is in `arranging`; how a step is made and judged, in
`watched`.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import partial
from itertools import islice

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from approvals import policy, workflow
from approvals.models import AccessRequest
from approvals.states import RequestState as R
from approvals.states import StageState as S
from audit import clock
from debugflow.accounts.models import User
from tests.faults.course import Course, Row
from tests.faults.reducing import Reducing
from tests.faults.witness import moment
from tests.world import HOUR

people = st.integers(0, 10**6)  # which of them, counted round
OTHERS = 3  # people whose buttons are looked at beside those of whoever acts


class Asking(Reducing):
    """Mostly somebody whose act would be allowed, and often anybody."""

    def somebody(self, number: int, able: Iterable[int] = ()) -> User:
        """As a web request would load them."""
        everyone = sorted(person.pk for person in self.world.people.values())
        pool = sorted(able) if number % 4 else []
        chosen = (pool or everyone)[number // 4 % len(pool or everyone)]
        return User.objects.get(pk=chosen)

    def everyone(self) -> list[int]:
        return [person.pk for person in self.world.people.values()]

    def pick(self, among: Iterable[Course], number: int) -> Course:
        found = sorted(among, key=lambda one: one.pk)
        return found[number % len(found)]

    @rule(
        who=people,
        write=st.booleans(),
        seconds=st.sampled_from((HOUR, 600, 4 * HOUR, 5 * HOUR)),
        later=st.sampled_from((None, None, None, 5, 900, 86400)),
    )
    def ask(self, who: int, write: bool, seconds: int, later: int | None) -> None:
        self.submit(who, write, seconds, later)

    def submit(self, who: int, write: bool, seconds: int = HOUR, later: int | None = None) -> None:
        level = (self.world.write if write else self.world.read).pk
        developers = self.book.members[self.book.groups["developers"]]
        by = self.somebody(who, developers & self.book.active)
        starts_at = clock.now() + timedelta(seconds=later) if later else None
        wish = self.world.wish(duration=seconds, starts_at=starts_at)
        against = self.book.against_asking(by.pk, level, seconds, self.undecided())
        submit = partial(workflow.submit, level, by=by, wish=wish)
        if self.do("submit", submit, against=against, by=by):
            course = self.record.courses[max(self.record.courses)]
            assert course.row["policy_version_id"] == max(self.book.wordings)
            self.asked_whom_it_must(course)

    def asked_whom_it_must(self, course: Course) -> None:
        """The round has the stages of the version it is pinned to, and asks those it means now."""
        self.book.frozen[course.pk] = self.book.scope_of(course.row["level_id"])
        wording = self.book.wordings[course.row["policy_version_id"]]
        for row, (name, minima, total, quorum, deadline) in zip(
            course.round(), wording, strict=True
        ):
            assert (row["name"], row["total"], row["deny_quorum"]) == (name, total, quorum)
            assert row["minima"] == {self.book.groups[one]: least for one, least in minima.items()}
            assert row["deadline"] == deadline
            assert course.drawn(row) == self.book.drawn(minima, course.barred)

    def asked(self, which: int) -> Course | None:
        """One that is undecided, asked for now if there was none; None if that is refused."""
        if not self.undecided():
            self.submit(which | 1, bool(which & 2))
        return self.pick(self.undecided(), which) if self.undecided() else None

    @rule(who=people, which=people)
    def approve(self, who: int, which: int) -> None:
        if course := self.asked(which):
            self.vote(course, who | 1, "approve")

    @precondition(lambda self: self.undecided())
    @rule(who=people, which=people)
    def approve_to_the_end(self, who: int, which: int) -> None:
        """As long as there is somebody who may."""
        course = self.pick(self.undecided(), which)
        while self.able_to_vote(course, who, "approve"):
            self.vote(course, who | 1, "approve")

    @rule(
        who=people,
        which=people,
        decision=st.sampled_from(("approve", "deny")),
        shown=st.sampled_from(("now", "before they voted", "before it changed")),
    )
    def vote_anywhere(self, who: int, which: int, decision: str, shown: str) -> None:
        if not (course := self.mostly_undecided(which)):
            return
        if shown == "before it changed":
            self.vote_on_another_scope(course, who, decision)
        else:
            self.vote(course, who, decision, late=shown != "now")

    @rule(which=people, decision=st.sampled_from(("approve", "deny")))
    def all_vote(self, which: int, decision: str) -> None:
        """Everybody, one after the other, as far as it goes."""
        course = self.asked(which)
        for number in range(len(self.everyone())):
            if course and course.undecided:
                self.vote(course, 4 * (which + number), decision)

    def mostly_undecided(self, which: int) -> Course | None:
        if which % 4 or not self.record.courses:
            return self.asked(which // 4)
        return self.pick(self.record.courses.values(), which // 4)

    def vote_on_another_scope(
        self, course: Course, who: int, decision: str, *, seen: str = "0" * 64
    ) -> None:
        by = self.somebody(who)
        vote = partial(
            workflow.vote,
            course.pk,
            by=by,
            decision=decision,
            scope_hash=seen,
            comment="So be it.",
        )
        self.do("vote on another scope", vote, against={"scope_changed"}, by=by)

    def vote(self, course: Course, who: int, decision: str, *, late: bool = False) -> None:
        by = self.somebody(who, self.able_to_vote(course, who, decision))
        against = self.book.against_voting(course, by.pk, decision, clock.now())
        if who // 4 % 2:
            self.buttons_agree(course, by)
        stage = course.open_stage()
        named = "" if against else self.named(course, by.pk, decision)
        said = course.given(stage) if stage else {}
        voted = by.pk in said or by.pk in said.values()
        if late and voted:  # a form that was shown before they voted
            against = against | {"voted_already"}
        less = self.less(course, who, decision)
        vote = partial(
            workflow.vote,
            course.pk,
            by=by,
            decision=decision,
            scope_hash=course.row["scope_hash"],
            comment="So be it.",
            replaces=0 if late and voted else None,
            on_behalf_of=named,
            less=less,
        )
        if self.do(f"vote {decision}", vote, against=against, by=by):
            self.left_what_it_must(course, less)
            if course.votes[max(course.votes)]["on_behalf_of_id"]:
                self.seen["vote for another"] += 1
            self.decided_as_it_must(course, stage)

    def named(self, course: Course, person: int, decision: str) -> str:
        """For whom somebody says to vote, which they have to where it could be for several."""
        weighed = self.book.voices(course, person, decision, clock.now())
        able = [one for one, against in weighed.items() if not against]
        return "" if len(able) == 1 else str(User.objects.get(pk=able[0]))

    def able_to_vote(self, course: Course, who: int, decision: str) -> list[int]:
        """The first who may and has not done so, counted round from `who`; now and then rather one
        who may for another only."""
        everyone, now, stage = self.everyone(), clock.now(), course.open_stage()
        votes = course.live_votes(stage) if stage else []
        said = {vote["voter_id"]: vote["decision"] for vote in votes}
        turned = everyone[who % len(everyone) :] + everyone[: who % len(everyone)]
        able = (
            one
            for one in turned
            if said.get(one) != decision
            and not self.book.against_voting(course, one, decision, now)
        )
        if who % 3:
            return list(islice(able, 1))
        found = list(able)
        return [one for one in found if self._only_for_another(course, one, decision)] or found[:1]

    def _only_for_another(self, course: Course, person: int, decision: str) -> bool:
        weighed = self.book.voices(course, person, decision, clock.now())
        return weighed.get(person, {"not_eligible"}) != set()

    def buttons_agree(self, course: Course, by: User) -> None:
        """Buttons and queue are as foretold, for them and some others."""
        request = AccessRequest.objects.select_related(
            "requester", "beneficiary", "level", "target", "policy_version__policy"
        ).get(pk=course.pk)
        chain = policy.load_chain(request)
        others = User.objects.exclude(pk=by.pk).order_by("pk")
        first = by.pk * len(self.record.courses) % len(self.everyone())
        against: set[str] = set()
        for person in [*others[first : first + OTHERS], by]:
            told = policy.permitted_actions(request, chain, person)
            for decision in ("deny", "approve"):
                against = self.book.against_voting(course, person.pk, decision, chain.now)
                self.agrees(f"{decision} {course.pk} by {person}", told[decision], against)
        queued = AccessRequest.objects.all().waiting_for(by).filter(pk=course.pk).exists()
        voted = not self.unheard(course, by.pk, chain.now)
        assert queued or against or voted, f"{course.pk} is missing in {by}'s queue"
        denies = self.book.against_voting(course, by.pk, "deny", chain.now)
        assert not (queued and denies), f"{course.pk} is in {by}'s queue for nothing"

    def unheard(self, course: Course, person: int, now: datetime) -> bool:
        """Whether there is a vote that somebody could approve with, neither they nor whose it is
        having voted in this round."""
        heard = {
            one for stage in course.round() for pair in course.given(stage).items() for one in pair
        }
        weighed = self.book.voices(course, person, "approve", now)
        able = {one for one, against in weighed.items() if not against}
        return person not in heard and bool(able - heard)

    def decided_as_it_must(self, course: Course, stage: Row | None) -> None:
        """The stage that was voted in is as the oracle says, and the request with it."""
        assert stage is not None
        index = [one["id"] for one in course.round()].index(stage["id"])
        row = course.round()[index]
        assert row["state"] == self.book.becomes(course, index)
        last = index + 1 == len(course.round())
        approved = row["state"] == S.PASSED and last
        denied = row["state"] == S.DENIED
        expected = R.APPROVED if approved else R.DENIED if denied else R.PENDING
        assert course.row["state"] == expected
        if course.row["extends_id"]:
            wanted = moment(course.row["starts_at"]), course.least()["duration"]
            assert approved == self.book.intends(course.row["extends_id"], *wanted)
        else:
            assert bool(course.grant) == approved
            if approved:
                self.opens_the_least(course)
        if row["state"] == S.PASSED:  # of those who left, no approval counts any more
            said = course.counting(row)
            gone = said.keys() - self.book.still(course, row).keys()
            assert all(said[person] == "deny" for person in gone)

    @rule(who=people, which=people)
    def cancel(self, who: int, which: int) -> None:
        if not (course := self.mostly_undecided(which)):
            return
        by = self.somebody(who, {course.row["requester_id"]})
        against = set() if by.pk == course.row["requester_id"] else {"not_yours"}
        against |= set() if course.undecided else {"wrong_state"}
        self.do("cancel", partial(workflow.cancel, course.pk, by=by), against=against, by=by)
