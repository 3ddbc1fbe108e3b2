"""The chain's arithmetic: stories first, then a brute-force oracle and properties, then speed.

The cast: alice asks; bob, dave and erin are DBAs; carol is a DBA and in security; frank is in
security; mallory is in nothing that matters.
"""

from __future__ import annotations

import ast
import random
import sys
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from approvals import chain
from approvals.chain import (
    Allowed,
    AlreadyCounted,
    NeededLater,
    NotEligible,
    StageRule,
    StageState,
    Verdict,
    WrongStage,
    open_stage,
    outcome,
    simulate,
    vote_effect,
)
from tests.approvals import chain_oracle as oracle

ALICE, BOB, CAROL, DAVE, ERIN, FRANK, MALLORY = range(1, 8)

ONE_DBA = StageRule(groups={"dba": 1}, total=1)
TWO_DBAS = StageRule(groups={"dba": 2}, total=2)
ONE_SECURITY = StageRule(groups={"security": 1}, total=1)
ONE_OF_EACH = StageRule(groups={"dba": 1, "security": 1}, total=2)


@dataclass(frozen=True, kw_only=True)
class Person:
    """Somebody who might be drawn for a stage, with every group they are a member of."""

    id: int
    groups: frozenset[str]


def draw(
    rule: StageRule, people: Iterable[Person], *, barred: Collection[int]
) -> dict[int, frozenset[str]]:
    """A stage's candidates among `people`, each with their groups that it asks for."""
    names = rule.groups.keys()
    return {
        person.id: person.groups & names
        for person in people
        if person.id not in barred and not names.isdisjoint(person.groups)
    }


def in_groups(**members: str) -> list[Person]:
    """Spell people out: `in_groups(bob="dba", carol="dba security")`."""
    ids = {"alice": ALICE, "bob": BOB, "carol": CAROL, "dave": DAVE, "erin": ERIN, "frank": FRANK}
    return [
        Person(id=ids[name], groups=frozenset(groups.split())) for name, groups in members.items()
    ]


def submitted(rules: Sequence[StageRule], people: Iterable[Person]) -> list[StageState]:
    """Return the chain as alice submits it."""
    drawn = list(people)
    return [StageState(rule=rule, candidates=draw(rule, drawn, barred={ALICE})) for rule in rules]


def approved(stages: Sequence[StageState], index: int, *voters: int) -> list[StageState]:
    """Return the chain with these approvals added to one stage, and passed if that fills it."""
    changed = list(stages)
    changed[index] = replace(stages[index], approvals=stages[index].approvals | set(voters))
    filled = outcome(changed, index).verdict is Verdict.FILLED
    changed[index] = replace(changed[index], passed=filled)
    return changed


def denied(stages: Sequence[StageState], index: int, *voters: int) -> list[StageState]:
    changed = list(stages)
    changed[index] = replace(stages[index], denials=stages[index].denials | set(voters))
    return changed


def left(stages: Sequence[StageState], *people: int) -> list[StageState]:
    """Return the chain after these people have left all their groups."""
    return [
        replace(
            stage, candidates={p: held for p, held in stage.candidates.items() if p not in people}
        )
        for stage in stages
    ]


def verdict(stages: Sequence[StageState], index: int = 0) -> Verdict:
    return outcome(stages, index).verdict


def in_words(missing: Iterable[object]) -> str:
    return ", ".join(str(part) for part in missing)


class TestSlots:
    def test_minima_come_first_and_free_slots_fill_up_the_total(self):
        rule = StageRule(groups={"dba": 1, "security": 0}, total=3)

        anybody = frozenset({"dba", "security"})
        assert rule.slots == (frozenset({"dba"}), anybody, anybody)

    def test_a_total_below_the_minima_takes_no_slot_away(self):
        assert len(StageRule(groups={"dba": 2, "security": 1}, total=1).slots) == 3

    @pytest.mark.parametrize(
        "rule", [StageRule(groups={}, total=2), StageRule(groups={"dba": 0}, total=0)]
    )
    def test_a_rule_that_asks_for_nobody_has_no_slot(self, rule: StageRule):
        assert rule.slots == ()

    def test_a_negative_minimum_and_a_quorum_of_none_are_refused(self):
        with pytest.raises(ValueError, match="minimum"):
            StageRule(groups={"dba": -1}, total=1)
        with pytest.raises(ValueError, match="quorum"):
            StageRule(groups={"dba": 1}, total=1, deny_quorum=0)

    def test_nobody_has_two_latest_votes(self):
        with pytest.raises(ValueError, match="latest vote"):
            StageState(
                rule=ONE_DBA, candidates={}, approvals=frozenset({BOB}), denials=frozenset({BOB})
            )


class TestCanItBeFilled:
    def test_no_stage_and_a_stage_without_slots_are_never_fillable_nor_filled(self):
        nobody_asked = submitted([ONE_DBA, StageRule(groups={}, total=0)], in_groups(bob="dba"))

        assert not simulate([]).fillable
        assert outcome([], 0).verdict is Verdict.UNFILLABLE
        assert simulate(nobody_asked) == chain.ChainOutcome(fillable=False, stage=1)
        assert verdict(nobody_asked, 1) is Verdict.UNFILLABLE
        passed = [replace(nobody_asked[1], passed=True)]
        assert verdict(passed) is Verdict.UNFILLABLE

    def test_carol_in_both_groups_cannot_fill_two_slots(self):
        alone = submitted([ONE_OF_EACH], in_groups(carol="dba security"))
        with_bob = submitted([ONE_OF_EACH], in_groups(carol="dba security", bob="dba"))

        assert in_words(simulate(alone).missing) == "1 of dba or security"
        assert simulate(with_bob).fillable

    def test_nor_two_stages_and_the_reason_names_the_stage_that_takes_her(self):
        stages = submitted([ONE_DBA, ONE_SECURITY], in_groups(carol="dba security"))

        found = simulate(stages)

        assert (found.fillable, found.stage) == (False, 1)
        assert in_words(found.missing) == "1 of security"
        assert found.shares_people_with == (0,)

    def test_the_first_stage_that_lacks_people_is_named_with_how_many(self):
        three = StageRule(groups={"dba": 1, "security": 2}, total=4)
        stages = submitted([ONE_DBA, three, ONE_SECURITY], in_groups(bob="dba", frank="security"))

        found = simulate(stages)

        assert found.stage == 1
        assert in_words(found.missing) == "1 of dba, 1 of security, 1 of dba or security"
        assert found.shares_people_with == (0,)

    def test_alice_does_not_count_for_her_own_request(self):
        stages = submitted([ONE_DBA], in_groups(alice="dba"))

        assert in_words(simulate(stages).missing) == "1 of dba"
        assert simulate(stages).shares_people_with == ()

    def test_a_chain_that_has_passed_everywhere_stays_fillable_when_all_have_left(self):
        stages = approved(submitted([ONE_DBA], in_groups(bob="dba")), 0, BOB)

        assert simulate(left(stages, BOB)).fillable

    def test_a_vote_given_binds_its_author_to_that_stage(self):
        stages = submitted([TWO_DBAS, ONE_SECURITY], in_groups(bob="dba", carol="dba security"))
        short = approved(stages, 0, CAROL)

        assert simulate(short).stage == 1
        assert simulate(short).shares_people_with == ()

    def test_bob_who_denied_may_still_change_his_mind(self):
        rule = StageRule(groups={"dba": 1}, total=1, deny_quorum=2)
        stages = denied(submitted([rule], in_groups(bob="dba", dave="dba")), 0, BOB)

        assert simulate(left(stages, DAVE)).fillable
        assert vote_effect(stages, 0, BOB) == Allowed(fills=True)


class TestIsItFilled:
    def test_bob_alone_leaves_security_missing(self):
        stages = submitted([ONE_OF_EACH], in_groups(bob="dba", dave="dba", frank="security"))

        halfway = approved(stages, 0, BOB)

        assert verdict(halfway) is Verdict.OPEN
        assert in_words(outcome(halfway, 0).missing) == "1 of security"
        assert verdict(approved(halfway, 0, FRANK)) is Verdict.FILLED

    def test_carol_fills_one_slot_and_either_group_fills_the_other(self):
        team = in_groups(bob="dba", carol="dba security", frank="security")
        halfway = approved(submitted([ONE_OF_EACH], team), 0, CAROL)

        assert verdict(halfway) is Verdict.OPEN
        assert in_words(outcome(halfway, 0).missing) == "1 of dba or security"
        assert verdict(approved(halfway, 0, BOB)) is Verdict.FILLED
        assert verdict(approved(halfway, 0, FRANK)) is Verdict.FILLED

    def test_two_dbas_do_not_make_up_for_security(self):
        team = in_groups(bob="dba", dave="dba", frank="security")
        stages = approved(submitted([ONE_OF_EACH], team), 0, BOB, DAVE)

        assert verdict(stages) is Verdict.OPEN
        assert in_words(outcome(stages, 0).missing) == "1 of security"

    def test_a_free_slot_is_anybodys_but_a_minimum_is_not(self):
        rule = StageRule(groups={"dba": 1, "security": 0}, total=2)
        stages = submitted([rule], in_groups(bob="dba", carol="security", frank="security"))

        two_of_security = approved(stages, 0, CAROL, FRANK)

        assert in_words(outcome(two_of_security, 0).missing) == "1 of dba"
        assert verdict(approved(stages, 0, CAROL, BOB)) is Verdict.FILLED

    def test_mallory_whose_vote_slipped_in_fills_nothing(self):
        stages = submitted([ONE_DBA], in_groups(bob="dba"))

        assert verdict(approved(stages, 0, MALLORY)) is Verdict.OPEN

    def test_bob_who_left_an_open_stage_no_longer_counts_and_again_when_back(self):
        stages = approved(submitted([TWO_DBAS], in_groups(bob="dba", dave="dba")), 0, BOB)

        assert in_words(outcome(left(stages, BOB), 0).missing) == "2 of dba"
        assert in_words(outcome(stages, 0).missing) == "1 of dba"

    def test_votes_of_a_passed_stage_stand_when_their_author_leaves(self):
        stages = approved(submitted([ONE_DBA], in_groups(bob="dba")), 0, BOB)

        assert verdict(left(stages, BOB)) is Verdict.FILLED

    def test_an_approval_used_up_by_a_passed_stage_does_not_fill_another(self):
        stages = submitted([ONE_DBA, ONE_DBA], in_groups(bob="dba", dave="dba"))
        passed = approved(stages, 0, BOB)

        assert verdict(approved(passed, 1, BOB), 1) is Verdict.OPEN
        assert verdict(approved(left(passed, BOB), 1, DAVE), 1) is Verdict.FILLED

    def test_one_denial_ends_it_by_default_even_beside_enough_approvals(self):
        stages = submitted([ONE_DBA], in_groups(bob="dba", dave="dba"))
        both = denied(stages, 0, BOB)
        both[0] = replace(both[0], approvals=frozenset({DAVE}))

        assert verdict(both) is Verdict.DENIED

    def test_a_deny_quorum_of_two_takes_two_who_may(self):
        rule = StageRule(groups={"dba": 1}, total=1, deny_quorum=2)
        stages = submitted([rule], in_groups(bob="dba", dave="dba"))

        assert verdict(denied(stages, 0, BOB)) is Verdict.OPEN
        assert verdict(denied(stages, 0, BOB, MALLORY)) is Verdict.OPEN
        assert verdict(denied(stages, 0, BOB, DAVE)) is Verdict.DENIED
        assert verdict(left(denied(stages, 0, BOB, DAVE), DAVE)) is Verdict.OPEN

    def test_a_candidate_without_a_slot_may_still_deny(self):
        rule = StageRule(groups={"dba": 1, "security": 0}, total=1)
        stages = submitted([rule], in_groups(bob="dba", frank="security"))

        assert vote_effect(stages, 0, FRANK) == NotEligible()
        assert verdict(denied(stages, 0, FRANK)) is Verdict.DENIED

    def test_a_stage_that_does_not_exist_is_an_error(self):
        with pytest.raises(IndexError):
            outcome(submitted([ONE_DBA], in_groups(bob="dba")), 1)


class TestWhatAVoteWouldDo:
    def test_carol_is_needed_later_until_frank_joins_security(self):
        bob_and_carol = in_groups(bob="dba", carol="dba security")
        stages = submitted([ONE_DBA, ONE_SECURITY], bob_and_carol)
        joined = submitted([ONE_DBA, ONE_SECURITY], [*bob_and_carol, *in_groups(frank="security")])

        assert vote_effect(stages, 0, CAROL) == NeededLater(stage=1)
        assert vote_effect(stages, 0, BOB) == Allowed(fills=True)
        assert vote_effect(joined, 0, CAROL) == Allowed(fills=True)

    def test_the_stage_that_needs_her_is_named_even_beyond_the_next(self):
        rules = [ONE_DBA, ONE_DBA, ONE_SECURITY]
        stages = submitted(rules, in_groups(bob="dba", dave="dba", carol="dba security"))

        assert vote_effect(stages, 0, CAROL) == NeededLater(stage=2)

    def test_carol_is_not_saved_for_later_where_only_she_can_act_now(self):
        stages = submitted([ONE_DBA, ONE_SECURITY], in_groups(carol="dba security"))

        assert vote_effect(stages, 0, CAROL) == Allowed(fills=True)

    def test_a_chain_that_has_lost_people_does_not_lose_more(self):
        two_security = StageRule(groups={"security": 2}, total=2)
        stages = submitted([ONE_DBA, two_security], in_groups(bob="dba", carol="dba security"))

        assert not simulate(stages).fillable
        assert vote_effect(stages, 0, CAROL) == NeededLater(stage=1)

    def test_a_surplus_approval_is_allowed_but_fills_nothing(self):
        team = in_groups(bob="dba", dave="dba", frank="security")
        stages = approved(submitted([ONE_OF_EACH], team), 0, BOB)

        assert vote_effect(stages, 0, DAVE) == Allowed(fills=False)
        assert verdict(approved(left(stages, BOB), 0, DAVE, FRANK)) is Verdict.FILLED

    def test_a_surplus_approval_is_refused_where_it_would_use_up_carol(self):
        team = in_groups(bob="dba", carol="dba", frank="security", dave="dba")
        stages = approved(submitted([ONE_OF_EACH, TWO_DBAS], team), 0, BOB)

        assert vote_effect(stages, 0, CAROL) == NeededLater(stage=1)

    def test_bob_counts_once_in_the_stage_and_once_in_the_chain(self):
        stages = submitted([TWO_DBAS, ONE_DBA], in_groups(bob="dba", dave="dba", erin="dba"))
        halfway = approved(stages, 0, BOB)
        passed = approved(halfway, 0, DAVE)

        assert vote_effect(halfway, 0, BOB) == AlreadyCounted(stage=0)
        assert vote_effect(passed, 1, BOB) == AlreadyCounted(stage=0)
        assert vote_effect(passed, 1, ERIN) == Allowed(fills=True)

    def test_bob_who_only_denied_stage_one_may_approve_stage_two(self):
        rule = StageRule(groups={"dba": 1}, total=1, deny_quorum=2)
        stages = denied(submitted([rule, ONE_DBA], in_groups(bob="dba", dave="dba")), 0, BOB)

        assert vote_effect(approved(stages, 0, DAVE), 1, BOB) == Allowed(fills=True)

    def test_mallory_and_alice_are_not_eligible(self):
        stages = submitted([ONE_DBA], in_groups(alice="dba", bob="dba"))

        assert vote_effect(stages, 0, MALLORY) == NotEligible()
        assert vote_effect(stages, 0, ALICE) == NotEligible()

    def test_only_the_open_stage_takes_votes(self):
        stages = submitted([ONE_DBA, ONE_SECURITY], in_groups(bob="dba", frank="security"))
        first_passed = approved(stages, 0, BOB)
        all_passed = approved(first_passed, 1, FRANK)

        assert vote_effect(stages, 1, FRANK) == WrongStage(open=0)
        assert vote_effect(first_passed, 0, BOB) == WrongStage(open=1)
        assert vote_effect(all_passed, 1, FRANK) == WrongStage(open=None)
        assert vote_effect([], 0, BOB) == WrongStage(open=None)

    def test_carol_who_left_dba_after_it_passed_stays_used_up_for_security(self):
        team = in_groups(bob="dba", carol="dba security", frank="security")
        stages = approved(submitted([ONE_DBA, ONE_SECURITY], team), 0, CAROL)
        stages[0] = left(stages, CAROL)[0]

        assert vote_effect(stages, 1, CAROL) == AlreadyCounted(stage=0)
        assert verdict(approved(stages, 1, CAROL), 1) is Verdict.OPEN
        assert vote_effect(stages, 1, FRANK) == Allowed(fills=True)
        assert simulate(left(stages, FRANK)).stage == 1

    def test_a_voided_vote_frees_its_author_for_the_next_stage(self):
        two_ways = [TWO_DBAS, ONE_SECURITY]
        stages = submitted(two_ways, in_groups(bob="dba", dave="dba", carol="dba security"))
        carol_left_dba = approved(stages, 0, CAROL)
        carol_left_dba[0] = left(carol_left_dba, CAROL)[0]

        assert simulate(carol_left_dba).fillable


class TestOnBehalfOfAnother:
    """erin votes for bob, who is away: the slot is bob's, and both are used up."""

    def lent(self, rules: Sequence[StageRule], **people: str) -> list[StageState]:
        stages = submitted(rules, in_groups(**people))
        stages[0] = replace(stages[0], approvals=frozenset({BOB}), cast_by={BOB: ERIN})
        return stages

    def test_the_slot_is_the_principals_and_the_delegate_need_not_be_a_candidate(self):
        stages = self.lent([ONE_DBA], bob="dba", dave="dba")

        assert verdict(stages) is Verdict.FILLED
        assert vote_effect(submitted([ONE_DBA], in_groups(bob="dba")), 0, BOB, cast_by=ERIN) == (
            Allowed(fills=True)
        )

    def test_both_are_used_up_for_the_whole_chain(self):
        stages = self.lent([ONE_DBA, ONE_DBA], bob="dba", erin="dba", dave="dba")
        passed = approved(stages, 0)

        assert passed[0].passed
        assert vote_effect(passed, 1, BOB) == AlreadyCounted(stage=0)
        assert vote_effect(passed, 1, ERIN) == AlreadyCounted(stage=0)
        assert vote_effect(passed, 1, DAVE, cast_by=ERIN) == AlreadyCounted(stage=0)
        assert vote_effect(passed, 1, DAVE) == Allowed(fills=True)
        assert verdict(approved(passed, 1, ERIN), 1) is Verdict.OPEN
        assert not simulate(left(passed, DAVE)).fillable

    def test_erin_cannot_fill_one_slot_for_bob_and_one_of_her_own(self):
        stages = self.lent([TWO_DBAS], bob="dba", erin="dba", dave="dba")

        assert vote_effect(stages, 0, ERIN) == AlreadyCounted(stage=0)
        assert vote_effect(stages, 0, DAVE, cast_by=ERIN) == AlreadyCounted(stage=0)
        assert verdict(approved(stages, 0, ERIN)) is Verdict.OPEN
        assert verdict(approved(stages, 0, DAVE)) is Verdict.FILLED

    def test_erins_own_vote_comes_before_the_one_she_gave_for_bob(self):
        stages = self.lent([ONE_OF_EACH], bob="dba", erin="security")

        assert in_words(outcome(approved(stages, 0, ERIN), 0).missing) == "1 of dba"

    def test_erin_is_not_lent_away_while_her_own_vote_is_needed(self):
        two = submitted([TWO_DBAS], in_groups(bob="dba", erin="dba"))
        chained = submitted([ONE_DBA, ONE_SECURITY], in_groups(bob="dba", erin="security"))

        assert vote_effect(two, 0, BOB, cast_by=ERIN) == NeededLater(stage=0)
        assert vote_effect(chained, 0, BOB, cast_by=ERIN) == NeededLater(stage=1)

    def test_a_denial_given_for_bob_uses_up_both_until_it_is_replaced(self):
        rule = StageRule(groups={"dba": 1}, total=1, deny_quorum=2)
        team = in_groups(bob="dba", dave="dba", erin="security", frank="security")
        stages = denied(submitted([rule, ONE_SECURITY], team), 0, BOB)
        stages[0] = replace(stages[0], cast_by={BOB: ERIN})
        passed = approved(stages, 0, DAVE)

        assert vote_effect(passed, 1, ERIN) == AlreadyCounted(stage=0)
        assert vote_effect(passed, 1, FRANK) == Allowed(fills=True)
        assert vote_effect(stages, 0, BOB) == Allowed(fills=True)
        assert not simulate(left(stages, DAVE)).fillable


GROUPS = ("dba", "ops", "security")
PEOPLE = range(BOB, MALLORY)


@st.composite
def rules(draw_: st.DrawFn, *, at_least: int, at_most: int) -> StageRule:
    """Build a rule with so many slots."""
    minima, left_over = {}, at_most
    for name in draw_(st.lists(st.sampled_from(GROUPS), min_size=1, unique=True)):
        minima[name] = draw_(st.integers(0, min(2, left_over)))
        left_over -= minima[name]
    total = draw_(st.integers(at_least, at_most))
    return StageRule(groups=minima, total=total, deny_quorum=draw_(st.integers(1, 2)))


@st.composite
def fresh_chains(draw_: st.DrawFn, *, fillable: bool = False) -> list[StageState]:
    """Build chains of one to three stages with at most five slots, and five people at random.

    In a fillable one each slot has somebody of its own who could fill it, among their other uses.
    """
    count, asked, slots = draw_(st.integers(1, 3)), list[StageRule](), list[frozenset[str]]()
    for behind in reversed(range(count)):
        most = min(3, 5 - len(slots) - behind)
        asked.append(draw_(rules(at_least=1 if fillable else 0, at_most=most)))
        slots += asked[-1].slots
    memberships = [draw_(st.frozensets(st.sampled_from(GROUPS))) for _ in PEOPLE]
    if fillable:
        for number, slot in enumerate(slots):
            memberships[number] |= {draw_(st.sampled_from(sorted(slot)))}
    ids = draw_(st.permutations(PEOPLE))
    people = [Person(id=n, groups=held) for n, held in zip(ids, memberships, strict=True)]
    return submitted(asked, people)


@st.composite
def chains(draw_: st.DrawFn, *, fillable: bool = False, ended: bool = True) -> list[StageState]:
    """Build chains some way on, with votes from anybody: leavers, repeaters, delegates.

    `fillable` holds before the votes; unless `ended`, some stage is open.
    """
    stages = draw_(fresh_chains(fillable=fillable))
    passed = draw_(st.integers(0, len(stages) if ended else len(stages) - 1))
    some = st.frozensets(st.sampled_from(PEOPLE), max_size=3)
    for index in range(min(passed + 1, len(stages))):
        approvals = draw_(some)
        lenders = draw_(st.sets(st.sampled_from(sorted(approvals)))) if approvals else set()
        casters = {person: draw_(st.integers(BOB, MALLORY + 1)) for person in lenders}
        stages[index] = replace(
            stages[index],
            approvals=approvals,
            denials=draw_(some) - approvals,
            cast_by={person: caster for person, caster in casters.items() if caster != person},
            passed=index < passed,
        )
    return stages


def described(effect: chain.VoteEffect) -> tuple[str, int | bool | None]:
    match effect:
        case Allowed(fills=fills):
            return "allowed", fills
        case NotEligible():
            return effect.reason, None
        case WrongStage(open=stage):
            return effect.reason, stage
        case NeededLater(stage=stage) | AlreadyCounted(stage=stage):
            return effect.reason, stage


class TestAgainstBruteForce:
    @pytest.mark.slow
    @given(chains())
    def test_simulate(self, stages: list[StageState]):
        found = simulate(stages)

        assert found.fillable == oracle.fillable(stages)
        if not found.fillable and all(stage.rule.slots for stage in stages):
            empty, fewest = oracle.best_fill(stages)
            assert sum(empty) == fewest
            assert found.stage == next(at for at, count in enumerate(empty) if count)
            assert sum(part.count for part in found.missing) == empty[found.stage]

    @pytest.mark.slow
    @given(chains(), st.integers(0, 2))
    def test_outcome(self, stages: list[StageState], index: int):
        assume(index < len(stages))
        stage, found = stages[index], outcome(stages, index)

        if not oracle.slots_of(stage):
            assert found.verdict is Verdict.UNFILLABLE
        elif stage.passed:
            assert found.verdict is Verdict.FILLED
        elif oracle.denied(stage):
            assert found.verdict is Verdict.DENIED
        else:
            empty = oracle.empty_slots(stages, index)
            assert found.verdict is (Verdict.OPEN if empty else Verdict.FILLED)
            assert sum(part.count for part in found.missing) == empty

    @pytest.mark.slow
    @given(
        chains(),
        st.integers(0, 2),
        st.sampled_from(PEOPLE),
        st.integers(BOB, MALLORY + 1),
        st.booleans(),
    )
    @settings(max_examples=300, deadline=None)
    def test_vote_effect(
        self, stages: list[StageState], ahead: int, voter: int, other: int, lent: bool
    ):
        now_open = open_stage(stages)
        index = now_open if now_open is not None and ahead else ahead
        assume(index < len(stages))
        caster = other if lent else voter

        found = vote_effect(stages, index, voter, cast_by=caster if lent else None)

        assert described(found) == oracle.judge(stages, index, voter, caster)

    @pytest.mark.slow
    @given(chains(ended=False), st.sampled_from(GROUPS))
    def test_the_groups_named_as_missing_are_exactly_those_whose_newcomer_would_help(
        self, stages: list[StageState], group: str
    ):
        index = open_stage(stages)
        assert index is not None
        found, stage, newcomer = outcome(stages, index), stages[index], 99
        assume(found.verdict is Verdict.OPEN)

        joined = list(stages)
        joined[index] = replace(
            stage,
            candidates={**stage.candidates, newcomer: frozenset({group})},
            approvals=stage.approvals | {newcomer},
        )

        helped = oracle.empty_slots(joined, index) < oracle.empty_slots(stages, index)
        assert helped == any(group in part.groups for part in found.missing)


def test_an_approval_that_somebody_used_up_gave_for_another_uses_up_nobody():
    """bob approved in person and, with the same voice, for carol: she may still fill a slot."""
    rule = StageRule(groups={"dba": 0}, total=1)
    seen = {CAROL: frozenset({"dba"})}
    both = frozenset({BOB, CAROL})
    stages = [
        StageState(rule=rule, candidates=seen, approvals=both, cast_by={CAROL: BOB}, passed=True),
        StageState(rule=rule, candidates=seen, approvals=both),
    ]
    assert oracle.counted_approvals(stages) == [{BOB}, {CAROL}]
    assert outcome(stages, 1).verdict is Verdict.FILLED


class TestLaws:
    @pytest.mark.slow
    @given(chains(ended=False))
    def test_never_filled_with_fewer_people_than_slots(self, stages: list[StageState]):
        index = open_stage(stages)
        assert index is not None
        # Nobody is used up in a stage without a place, which no policy may have.
        assume(all(oracle.slots_of(stage) for stage in stages[:index]))
        # An approval given on another's behalf by somebody used up counts for nobody, and uses up
        # nobody: whoever approved in person before is certain not to fill a slot here.
        before = stages[:index]
        used_before = set[int]().union(*(stage.approvals - set(stage.cast_by) for stage in before))
        people = stages[index].approvals - used_before

        if len(people) < max(1, len(oracle.slots_of(stages[index]))):
            assert outcome(stages, index).verdict is not Verdict.FILLED

    @pytest.mark.slow
    @given(chains(fillable=True), st.integers(0, 2), st.frozensets(st.sampled_from(GROUPS)))
    def test_one_more_candidate_never_makes_a_fillable_chain_unfillable(
        self, stages: list[StageState], index: int, groups: frozenset[str]
    ):
        assume(index < len(stages) and simulate(stages).fillable)
        joined = list(stages)
        joined[index] = replace(stages[index], candidates={**stages[index].candidates, 99: groups})

        assert simulate(joined).fillable

    @pytest.mark.slow
    @given(chains(ended=False))
    def test_taking_an_approval_away_never_fills(self, stages: list[StageState]):
        stages = [replace(stage, cast_by={}, denials=frozenset()) for stage in stages]
        index = open_stage(stages)
        assert index is not None
        assume(outcome(stages, index).verdict is not Verdict.FILLED)

        for voter in stages[index].approvals:
            fewer = list(stages)
            fewer[index] = replace(stages[index], approvals=stages[index].approvals - {voter})
            assert outcome(fewer, index).verdict is not Verdict.FILLED

    @pytest.mark.slow
    @given(chains(), st.permutations(PEOPLE))
    def test_neither_the_order_of_people_nor_their_ids_matter(
        self, stages: list[StageState], order: list[int]
    ):
        stages = [replace(stage, cast_by={}) for stage in stages]
        new_id: Mapping[int, int] = dict(zip(PEOPLE, order, strict=True))
        renamed = [
            replace(
                stage,
                candidates={
                    new_id[p]: held for p, held in reversed(list(stage.candidates.items()))
                },
                approvals=frozenset(new_id[p] for p in stage.approvals),
                denials=frozenset(new_id[p] for p in stage.denials),
            )
            for stage in stages
        ]

        assert simulate(renamed) == simulate(stages)
        for index in range(len(stages)):
            assert outcome(renamed, index) == outcome(stages, index)
            for person in PEOPLE:
                effect = vote_effect(stages, index, person)
                assert vote_effect(renamed, index, new_id[person]) == effect

    @pytest.mark.slow
    @given(fresh_chains(fillable=True), st.randoms(use_true_random=False))
    def test_whoever_votes_when_allowed_the_chain_never_gets_stuck_and_completes(
        self, stages: list[StageState], chance: random.Random
    ):
        assert simulate(stages).fillable
        votes = []
        while (index := open_stage(stages)) is not None:
            effects = {person: vote_effect(stages, index, person) for person in PEOPLE}
            assert Allowed(fills=True) in effects.values()
            voter = chance.choice([p for p, e in effects.items() if isinstance(e, Allowed)])
            stages = approved(stages, index, voter)
            votes.append(voter)
            assert simulate(stages).fillable

        assert len(votes) == len(set(votes)) >= sum(len(stage.rule.slots) for stage in stages)

    @pytest.mark.slow
    @given(fresh_chains(fillable=True), st.sampled_from(PEOPLE))
    def test_in_a_fillable_chain_needed_later_means_unfillable_afterwards_and_nothing_else(
        self, stages: list[StageState], voter: int
    ):
        assume(stages[0].admits(voter))
        after = list(stages)
        after[0] = replace(stages[0], approvals=frozenset({voter}))

        refused = isinstance(vote_effect(stages, 0, voter), NeededLater)

        assert refused == (not oracle.fillable(after))


class TestSpeedAndPurity:
    @pytest.mark.parametrize("security", [10, 4])
    def test_two_thousand_candidates_are_weighed_within_50_ms(self, security: int):
        rule = StageRule(groups={"dba": 3, "ops": 2, "security": 2}, total=10)
        big = [
            Person(
                id=n,
                groups=frozenset({"dba", "ops"} | ({"security"} if n < 100 + security else set())),
            )
            for n in range(100, 2100)
        ]
        stages = submitted([rule] * 5, big)
        times = []
        for _ in range(5):
            began = time.process_time()
            vote_effect(stages, 0, 1500)
            times.append(time.process_time() - began)

        assert simulate(stages).fillable is (security == 10)
        assert min(times) < 0.05

    def test_a_long_way_of_trades_needs_no_deep_stack(self):
        last = sys.getrecursionlimit() + 100
        row = StageRule(groups={f"g{n}": 1 for n in range(last + 1)}, total=last + 1)
        # Person n sits down at slot n, so that the last slot can only be filled if everybody
        # moves up by one and the one who fits slot 0 alone comes in at the other end.
        people = {n: frozenset({f"g{n}", f"g{n + 1}"}) for n in range(last)}

        short = StageState(rule=row, candidates=people)
        enough = StageState(rule=row, candidates={**people, last: frozenset({"g0"})})

        assert not simulate([short]).fillable
        assert simulate([enough]).fillable

    def test_the_module_imports_the_standard_library_only(self):
        tree = ast.parse(Path(chain.__file__).read_text())
        roots = {
            (node.module or "").split(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
        } | {
            alias.name.split(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, ast.Import)
            for alias in node.names
        }

        assert roots <= set(sys.stdlib_module_names) - {"time", "datetime", "random"}
