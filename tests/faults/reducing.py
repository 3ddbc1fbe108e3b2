"""What approvers leave of what was asked for, and what becomes of it when that level changes.

There are two levels: the lower one can only be `read`. What was frozen of it for each vote is in
the book (`left`), as it is for requests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from approvals.models import AccessLevel
from approvals.narrowing import Less, Lower
from approvals.states import StageState as S
from debugflow.accounts.models import User
from tests.approvals import chain_oracle
from tests.faults.book import BRIDGE
from tests.faults.course import Course, Row
from tests.faults.watched import Watched

ALL, SHORTER, LOWER, BOTH = range(4)


class Reducing(Watched):
    """Now and then somebody approves less than was asked, where that can be given."""

    def choosing(self, wanted: int, who: int) -> int:
        """The same number, as of somebody who leaves that."""
        return who // 128 * 128 + wanted * 16 + who % 16

    def less(self, course: Course, who: int, decision: str) -> Less | None:
        wanted = who // 16 % 8 if decision == "approve" else ALL
        seconds = self._shorter(course) if wanted in (SHORTER, BOTH) else None
        level = self._lower(course) if wanted in (LOWER, BOTH) else None
        if level is not None:
            return Less(duration=seconds, level=level.pk, level_hash=Lower(level).hash)
        return Less(duration=seconds) if seconds else None

    def _shorter(self, course: Course) -> int | None:
        """Half of it; of longer access, more than is bridged by itself."""
        row = course.row
        half = max(row["duration"] // 2, BRIDGE + 1 if row["extends_id"] else 1)
        return half if half < row["duration"] else None

    def _lower(self, course: Course) -> AccessLevel | None:
        """The other level, where nobody else would decide about it than decides about this."""
        row, read = course.row, self.world.read.pk
        fits = row["level_id"] == self.world.write.pk and row["extends_id"] is None
        asks = self.book.is_in(row["beneficiary_id"], "developers") and self.book.level_on[read]
        if not (fits and asks and row["policy_version_id"] == max(self.book.wordings)):
            return None
        return AccessLevel.objects.select_related("target").get(pk=read)

    def left_what_it_must(self, course: Course, less: Less | None) -> None:
        """The vote that was just given keeps what was approved, and nothing else."""
        vote = course.votes[max(course.votes)]
        kept = vote["reduced_duration"], vote["reduced_level_id"]
        assert kept == ((less.duration, less.level) if less else (None, None))
        if less and less.level:
            self.book.left[vote["id"]] = self.book.scope_of(less.level)
        if less:
            self.seen["approve with less"] += 1

    def opens_the_least(self, course: Course) -> None:
        """What was approved is what all who counted have left of it."""
        grant, least = course.grant or {}, course.least()
        assert {name: grant[name] for name in least} == least
        if least["level_id"] != course.row["level_id"]:
            self.seen["approved for a lower level"] += 1

    def given_for(self, level: int) -> Mapping[int, list[Row]]:
        """By the request, the approvals that count and leave this level of it."""
        given = {
            course.pk: [one for one in course.approvals() if one["reduced_level_id"] == level]
            for course in self.undecided()
        }
        return {pk: votes for pk, votes in given.items() if votes}

    def voided_what_it_must(
        self, given: Mapping[int, list[Row]], rounds: Mapping[int, int], by: User
    ) -> None:
        """Approvals of a lower level that is another now, or off, are void; so are all, where a
        stage had passed by one of them, or whoever changed it had voted or was needed."""
        for course in map(self.record.courses.__getitem__, given):
            stale = [one for one in given[course.pk] if self.is_stale(one)]
            for vote in given[course.pk]:
                why = course.votes[vote["id"]]["void_reason"]
                assert (why == "reduced_level_changed") == (vote in stale)
            then = self._before_it_began_anew(course, rounds[course.pk])
            passed = {one["id"] for one in then.round() if one["state"] == S.PASSED}
            fillable = chain_oracle.fillable(self.book.states(then))
            stands = fillable and by.pk not in self._heard(then)
            anew = bool(stale and (not stands or passed & {one["stage_id"] for one in stale}))
            assert course.row["round"] == rounds[course.pk] + anew
            if stale:
                assert course.row["last_edited_by_id"] == by.pk
                self.seen["began anew" if anew else "went on without it"] += 1

    def _before_it_began_anew(self, course: Course, number: int) -> Course:
        """With the votes that counted until then, in the round that it was in."""
        votes = {
            pk: {**vote, "voided_at": None} if vote["void_reason"] == "begun_anew" else vote
            for pk, vote in course.votes.items()
        }
        return replace(course, row={**course.row, "round": number}, votes=votes)

    def _heard(self, course: Course) -> set[int]:
        given = [course.given(stage) for stage in course.round()]
        return {person for votes in given for pair in votes.items() for person in pair}

    def is_stale(self, vote: Row) -> bool:
        level = vote["reduced_level_id"]
        changed = self.book.left[vote["id"]] != self.book.scope_of(level)
        return changed or not self.book.level_on[level]
