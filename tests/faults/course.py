"""One request as the database witnessed it: its stages, candidates, votes and grant.

Facts, row by row, and nothing that the product computed from them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from approvals.chain import StageRule, StageState
from approvals.states import UNDECIDED
from approvals.states import StageState as S

Row = dict[str, Any]


def whose(vote: Mapping[str, Any]) -> int:
    """The id of the person whose vote it is."""
    return int(vote.get("on_behalf_of_id") or vote["voter_id"])


@dataclass
class Course:
    """One request as the witness has it: facts, and nothing computed."""

    row: Row
    stages: dict[int, Row] = field(default_factory=dict)
    candidates: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    votes: dict[int, Row] = field(default_factory=dict)
    grant: Row | None = None
    abandoners: dict[int, str] = field(default_factory=dict)  # person id -> when they asked
    nudges: set[tuple[int, str, int]] = field(default_factory=set)  # stage id, kind, number

    @property
    def pk(self) -> int:
        return int(self.row["id"])

    @property
    def undecided(self) -> bool:
        return self.row["state"] in UNDECIDED

    @property
    def barred(self) -> set[int]:
        return {self.row[f"{who}_id"] for who in ("requester", "beneficiary", "last_edited_by")}

    def round(self) -> list[Row]:
        """The stages of the present round, in their order."""
        now = [one for one in self.stages.values() if one["round"] == self.row["round"]]
        return sorted(now, key=lambda one: int(one["order"]))

    def open_stage(self) -> Row | None:
        return next((one for one in self.round() if one["state"] == S.OPEN), None)

    def drawn(
        self, stage: Mapping[str, Any], members: Mapping[str, set[int]] | None = None
    ) -> dict[int, frozenset[str]]:
        """Candidates of a stage, with the groups that they count as; those only who are `members`
        of the group that they were drawn by, where these are given."""
        held: dict[int, set[str]] = {}
        for person, group in self.candidates.get(stage["id"], ()):
            if members is not None and person not in members[str(group)]:
                continue
            counts_as = {str(group), *stage["stand_ins"].get(str(group), ())} & set(stage["minima"])
            held.setdefault(person, set()).update(counts_as)
        return {person: frozenset(groups) for person, groups in held.items()}

    def counting(self, stage: Mapping[str, Any]) -> dict[int, str]:
        """Whose vote counts in a stage, and what it says, whoever gave it."""
        return {whose(vote): vote["decision"] for vote in self.live_votes(stage)}

    def given(self, stage: Mapping[str, Any]) -> dict[int, int]:
        """Who gave the vote of whom, of those that count in a stage: by the id of whose it is."""
        return {whose(vote): vote["voter_id"] for vote in self.live_votes(stage)}

    def live_votes(self, stage: Mapping[str, Any]) -> list[Row]:
        return [
            vote
            for vote in self.votes.values()
            if vote["stage_id"] == stage["id"] and not (vote["replaced_at"] or vote["voided_at"])
        ]

    def approvals(self) -> list[Row]:
        """The approvals that count in the present round."""
        votes = [vote for stage in self.round() for vote in self.live_votes(stage)]
        return [vote for vote in votes if vote["decision"] == "approve"]

    def least(self) -> Row:
        """What these leave of what was asked for, where there is no more than one lower level."""
        votes = self.approvals()
        times = [vote["reduced_duration"] for vote in votes if vote["reduced_duration"]]
        levels = [vote["reduced_level_id"] for vote in votes if vote["reduced_level_id"]]
        return {
            "duration": min([self.row["duration"], *times]),
            "level_id": levels[0] if levels else self.row["level_id"],
        }

    def used_up(self, stage: Mapping[str, Any]) -> set[int]:
        """Whom the votes that count in a stage that has passed have used up."""
        given = self.given(stage)
        return {
            person
            for one, said in self.counting(stage).items()
            if said == "approve" or given[one] != one
            for person in (one, given[one])
        }

    def states(
        self,
        drawn: Sequence[Mapping[int, frozenset[str]]] | None = None,
        *,
        revoting: int | None = None,
        active: Collection[int] | None = None,
    ) -> list[StageState]:
        """The present round as the arithmetic is asked: with other candidates than those drawn,
        without the vote that somebody is about to replace, and, in what has not passed, without
        what was given by somebody who is not `active`, where these are given."""
        stages = self.round()
        people = drawn if drawn is not None else [self.drawn(stage) for stage in stages]
        return [
            self._state(stage, held, revoting, active)
            for stage, held in zip(stages, people, strict=True)
        ]

    def _state(
        self,
        stage: Row,
        held: Mapping[int, frozenset[str]],
        revoting: int | None,
        active: Collection[int] | None,
    ) -> StageState:
        given = self.given(stage)
        votes = {
            one: said
            for one, said in self.counting(stage).items()
            if active is None or stage["state"] == S.PASSED or given[one] in active
        }
        if revoting is not None and stage["state"] == S.OPEN:
            votes.pop(revoting, None)
        return StageState(
            rule=StageRule(
                groups=stage["minima"], total=stage["total"], deny_quorum=stage["deny_quorum"]
            ),
            candidates=held,
            approvals=frozenset(who for who, said in votes.items() if said == "approve"),
            denials=frozenset(who for who, said in votes.items() if said == "deny"),
            cast_by={one: given[one] for one in votes if given[one] != one},
            passed=stage["state"] in (S.PASSED, S.SKIPPED),
        )
