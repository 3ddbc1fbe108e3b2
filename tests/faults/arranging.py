"""What is arranged around those who ask: who is there, and what policy, levels and target are.

Each is written into the book, from which what must follow is foretold.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import timedelta
from functools import partial
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from approvals import administration, delegating, escalation
from approvals.delegating import Lending
from approvals.models import AccessLevel, Delegation, ExtensionApproval, Policy, Target
from approvals.states import GrantState, RequestState
from approvals.states import StageState as S
from audit import clock
from debugflow.accounts.models import User
from tests.faults.asking import Asking, people
from tests.faults.book import LONGER, WORDINGS, Lent, Wording
from tests.faults.ground import ESCALATE, REMIND, publish_wording
from tests.world import HOUR

ADDRESSES = ("orders", "orders", "elsewhere")
NOT_ENDED = frozenset(GrantState) - {GrantState.ENDED}
rarely_off = st.sampled_from((True, True, False))


class Arranging(Asking):
    """The steps of administrators, and of people who come and go."""

    @rule(who=people, on=rarely_off)
    def deactivate_or_not(self, who: int, on: bool) -> None:
        self.activate(self.somebody(who).pk, on)

    def activate(self, person: int, on: bool) -> None:
        self.seen["steps"] += 1
        User.objects.filter(pk=person).update(is_active=on)
        (self.book.active.add if on else self.book.active.discard)(person)

    @rule(who=people, group=st.sampled_from(("developers", "dba", "security", "owners")))
    def join_or_leave(self, who: int, group: str) -> None:
        person = self.somebody(who, self.book.members[self.book.groups[group]]).pk
        self.belong(person, group, not self.book.is_in(person, group))

    def belong(self, person: int, group: str, to: bool) -> None:
        self.seen["steps"] += 1
        members = self.book.members[self.book.groups[group]]
        if to:
            self.world.groups[group].user_set.add(person)
            members.add(person)
        else:
            self.world.groups[group].user_set.remove(person)
            members.discard(person)

    def leave(self, person: int, groups: Collection[str]) -> None:
        """Whoever leaves no group leaves altogether."""
        for name in groups:
            self.belong(person, name, False)
        if not groups:
            self.activate(person, False)

    @rule()
    def repair(self) -> None:
        """Whoever left comes back, and all is on: else a life runs out of what can be done."""
        self.seen["steps"] += 1
        User.objects.filter(is_active=False).update(is_active=True)
        self.book.active = set(self.everyone())
        for name, group in self.world.groups.items():
            group.user_set.add(*self.began_with[name])
            self.book.members[self.book.groups[name]] |= self.began_with[name]
        for one in (self.world.target, self.world.policy, self.world.read, self.world.write):
            type(one).objects.filter(pk=one.pk, enabled=False).update(enabled=True)
        self.book.on = dict.fromkeys(self.book.on, True)
        self.book.level_on = dict.fromkeys(self.book.level_on, True)

    @rule(
        wording=st.sampled_from(WORDINGS),
        pending_ttl=st.sampled_from((3600, 86400)),
        approval=st.sampled_from(ExtensionApproval.values),
    )
    def publish(
        self, wording: Wording, pending_ttl: int, approval: str = ExtensionApproval.LAST
    ) -> None:
        self.seen["steps"] += 1
        longer = {**LONGER, "extension_approval": approval}
        version = publish_wording(self.world, wording, pending_ttl=pending_ttl, **longer)
        self.book.wordings[version.pk] = wording
        self.book.longer[version.pk] = approval

    @rule(what=st.sampled_from(("target", "policy", "read", "write")), on=rarely_off, who=people)
    def switch(self, what: str, on: bool, who: int) -> None:
        if what in ("read", "write"):
            self.save_level(what == "write", who, on=on)
            return
        by = self.somebody(who, {self.world.ada.pk})
        change = self.switching(what, on, by)
        if self.do(f"switch a {what}", change, against=self.not_admin(by), by=by):
            self.book.on[what] = on

    def switching(self, what: str, on: bool, by: User) -> Callable[[], Any]:
        if what == "policy":
            chosen = Policy.objects.get(pk=self.world.policy.pk)
            chosen.enabled = on
            return partial(administration.change_policy, chosen, by=by)
        target = Target.objects.get(pk=self.world.target.pk)
        target.enabled = on
        return partial(administration.save_target, target, by=by, clear_secrets={})

    def not_admin(self, by: User) -> set[str]:
        return set() if by.is_superuser and by.is_active else {"not_admin"}

    @rule(write=st.booleans(), words=st.integers(0, 3))
    def drift(self, write: bool, words: int) -> None:
        """Somebody changes on the target what a level may do; nobody has looked yet."""
        self.seen["steps"] += 1
        level = self.world.write if write else self.world.read
        self.book.there[level.pk] = (f"may read {words}",)
        self.server.levels[level.name] = self.book.there[level.pk]

    @rule(which=people, words=st.integers(0, 3), who=people)
    def drift_and_save(self, which: int, words: int, who: int) -> None:
        if course := self.asked(which):
            write = course.row["level_id"] == self.world.write.pk
            self.drift(write, words)
            self.save_level(write, who)

    def save_level(self, write: bool, who: int, *, on: bool | None = None) -> None:
        key = (self.world.write if write else self.world.read).pk
        level = AccessLevel.objects.select_related("target").get(pk=key)
        level.enabled = level.enabled if on is None else on
        by = self.somebody(who, {self.world.ada.pk})
        rounds, given = self.rounds(key), self.given_for(key)
        others = self.rounds(*self.book.stored)
        save = partial(administration.save_level, level, by=by)
        if self.do("save a level", save, against=self.not_admin(by), by=by):
            self.book.level_on[key], self.book.stored[key] = level.enabled, self.book.there[key]
            self.asked_anew(rounds, by)
            self.voided_what_it_must(given, others, by)

    @rule(name=st.sampled_from(ADDRESSES), who=people)
    def move_target(self, name: str, who: int) -> None:
        """It answers at another address from now on; refused while anything is open there."""
        target = Target.objects.get(pk=self.world.target.pk)
        moves, target.config = target.config != {"name": name}, {"name": name}
        by = self.somebody(who, {self.world.ada.pk})
        against = self.not_admin(by)
        if not against and moves and self.grants(*NOT_ENDED):
            against = {"grants_open"}
        self.server.answer_as(name)
        rounds = self.rounds(*self.book.stored)
        secrets = {"password": "admin"} if moves else {}
        save = partial(administration.save_target, target, by=by, clear_secrets=secrets)
        if self.do("move a target", save, against=against, by=by):
            self.book.address = name
            self.asked_anew(rounds, by)

    def rounds(self, *levels: int) -> Mapping[int, int]:
        """In which round each request is that asks for one of these and is undecided."""
        asked = [one for one in self.undecided() if one.row["level_id"] in levels]
        return {one.pk: one.row["round"] for one in asked}

    def asked_anew(self, rounds: Mapping[int, int], by: User) -> None:
        """What is pending under another scope than that of its level has begun its chain anew."""
        for course in map(self.record.courses.__getitem__, rounds):
            anew = self.book.frozen[course.pk] != self.book.scope_of(course.row["level_id"])
            assert course.row["round"] == rounds[course.pk] + anew
            if anew and course.undecided:
                assert course.row["last_edited_by_id"] == by.pk
                assert not any(course.counting(stage) for stage in course.stages.values())
                self.asked_whom_it_must(course)

    @rule(which=people, who=people)
    def redraw(self, which: int, who: int) -> None:
        """Today's members are asked, in what has not passed; whoever voted stays."""
        if not (course := self.asked(which)):
            return
        by = self.somebody(who, {self.world.ada.pk})
        against = self.not_admin(by)
        if by.pk in (course.row["requester_id"], course.row["beneficiary_id"]):
            against.add("self_redraw")
        if course.row["state"] != RequestState.PENDING or self.book.is_over(course, clock.now()):
            against.add("wrong_state")
        going_on = [stage for stage in course.round() if stage["state"] in (S.WAITING, S.OPEN)]
        redraw = partial(escalation.redraw, course.pk, by=by)
        if self.do("redraw", redraw, against=against, by=by):
            for stage in (course.stages[one["id"]] for one in going_on):
                others = set(course.drawn(stage)) - course.counting(stage).keys()
                assert others == self.book.asked_today(course, stage)

    @rule(
        who=people,
        to=people,
        later=st.sampled_from((0, 0, 600)),
        seconds=st.sampled_from((300, HOUR, 86400)),
    )
    def lend(self, who: int, to: int, later: int, seconds: int) -> None:
        """Somebody who is asked, mostly, has another vote for them."""
        groups = (self.book.groups[name] for name in ("dba", "security"))
        asked = set().union(*(self.book.members[key] for key in groups))
        by, delegate, now = self.somebody(who, asked), self.somebody(4 * to), clock.now()
        starts_at = now + timedelta(seconds=later)
        lent = Lent(by.pk, delegate.pk, starts_at, starts_at + timedelta(seconds=seconds))
        lending = Lending(
            delegate=delegate.username, starts_at=lent.starts_at, ends_at=lent.ends_at
        )
        lend = partial(delegating.delegate, by.pk, by=by, lending=lending)
        if self.do("lend", lend, against=self.book.against_lending(lent, now), by=by):
            self.book.lent[Delegation.objects.latest("pk").pk] = lent

    @precondition(lambda self: self.book.lent)
    @rule(which=people, who=people)
    def end_lending(self, which: int, who: int) -> None:
        pk = sorted(self.book.lent)[which % len(self.book.lent)]
        lent = self.book.lent[pk]
        by = self.somebody(who, {lent.person, lent.delegate})
        against = {"wrong_state"} if lent.ends_at <= clock.now() else set()
        if by.pk not in (lent.person, lent.delegate) and self.not_admin(by):
            against.add("not_yours")
        end = partial(delegating.end_delegation, pk, by=by)
        if self.do("end a lending", end, against=against, by=by):
            del self.book.lent[pk]

    @rule(
        which=people,
        seconds=st.sampled_from((REMIND, ESCALATE)),
        leave=st.booleans(),
        returns=st.booleans(),
    )
    def let_wait(self, which: int, seconds: int, leave: bool, returns: bool) -> None:
        """Time passes over what is open; all whom it could ask may have left, and come back."""
        course = self.asked(which)
        if course and leave:
            for name in ("dba", "security", "owners"):
                for person in sorted(self.book.members[self.book.groups[name]]):
                    self.belong(person, name, False)
        self.forward(seconds)
        self.sweep()
        if leave and returns:
            self.repair()
            self.sweep()

    @rule(who=people)
    def delete(self, who: int) -> None:
        """Nothing that others refer to goes away; what nobody refers to does."""
        by = self.somebody(who, {self.world.ada.pk})
        against = self.not_admin(by)
        if any(one.row["level_id"] == self.world.read.pk for one in self.record.courses.values()):
            level = AccessLevel.objects.get(pk=self.world.read.pk)
            delete = partial(administration.delete, level, by=by)
            self.do("delete a level", delete, against=against or {"in_use"}, by=by)
        spare, _ = Policy.objects.get_or_create(name="Spare", rank=99)
        delete = partial(administration.delete, spare, by=by)
        self.do("delete a policy", delete, against=against, by=by)
