"""The steps of what was approved: it is opened, used, taken away and swept.

What goes wrong meanwhile is in `troubling`; how a step is made and judged, in `watched`.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from approvals import grants, opening
from approvals.models import Grant
from approvals.states import EndReason, GrantState
from audit import clock
from tests import world
from tests.faults.arranging import Arranging
from tests.faults.asking import people
from tests.faults.course import Course, Row
from tests.faults.witness import moment

G = GrantState
SECONDS = (1, 31, 62, 130, 700, 3700, 14500)  # how far the clock may jump
ACTIONS = ("release", "revoke", "reveal", "try_again", "abandon")


class Giving(Arranging):
    """What its holder, its approvers, workers and sweepers do to a grant."""

    def chosen(self, which: int, *wanted: GrantState) -> Course:
        rows = self.grants(*wanted) or self.grants()
        return self.record.of_grant(rows[which % len(rows)]["id"])

    @precondition(lambda self: self.grants())
    @rule(who=people, which=people, action=st.sampled_from(ACTIONS))
    def act(self, who: int, which: int, action: str) -> None:
        wanted = (G.REVOKING,) if action in ("try_again", "abandon") else (G.ACTIVE,)
        self.act_on(self.chosen(which, *wanted), who, action)

    @precondition(lambda self: self.grants(G.ACTIVE))
    @rule(which=people)
    def take(self, which: int) -> None:
        """The holder looks at the password and signs in."""
        course = self.chosen(which, G.ACTIVE)
        grant = course.grant or {}
        self.act_on(course, 1, "reveal")
        if password := self.passwords.get(grant["id"]):
            with suppress(PermissionError):
                session = self.server.sign_in(f"dbgf_{grant['id']}", password)
                self.sessions.append((grant["id"], session))
                self.seen["signed in"] += 1

    def act_on(self, course: Course, who: int, action: str) -> None:
        now, pk = clock.now(), (course.grant or {})["id"]
        reasons = {
            one: self.book.against_acting(action, course, one, now) for one in self.everyone()
        }
        by = self.somebody(who, {one for one, against in reasons.items() if not against})
        told = grants.permitted_actions(Grant.objects.get(pk=pk), by, now)
        self.agrees(f"{action} {pk} by {by}", told[action], reasons[by.pk])
        more = {"reason": "It must end."} if action in ("revoke", "abandon") else {}
        waiting = self.book.abandoners(course) - {by.pk}
        results: list[object] = []
        verb = getattr(grants, action)
        if self.do(
            action,
            lambda: results.append(verb(pk, by=by, **more)),
            against=reasons[by.pk],
            by=by,
            changes=not self.book.changes_nothing(action, course, now),
        ):
            self.followed(course, action, results[0], bool(waiting))

    def followed(self, course: Course, action: str, result: object, not_alone: bool) -> None:
        grant = course.grant or {}
        match action:
            case "release" | "revoke":
                reason = EndReason.RELEASED if action == "release" else EndReason.REVOKED
                assert grant["state"] in (G.REVOKING, G.ENDED)
                assert grant["end_reason"] == reason
            case "reveal":
                assert isinstance(result, grants.Credential)
                self.passwords[grant["id"]] = result.password
            case "abandon":
                assert bool(grant["abandoned_at"]) == not_alone

    @rule(seconds=st.sampled_from(SECONDS))
    def pass_time(self, seconds: int) -> None:
        self.forward(seconds)

    @rule()
    def look_for_what_is_due(self) -> None:
        self.swept()

    def swept(self) -> None:
        """Requests whose time is over are closed; on a target that works nobody stays too long."""
        now = clock.now()
        over = {one.pk for one in self.undecided() if self.book.is_over(one, now)}
        assert world.over() == over
        ailing = self.server.ails
        self.sweep()
        self.look()
        assert not any(self.record.courses[pk].undecided for pk in over)
        for grant in self.grants(G.PROVISIONING, G.ACTIVE, G.REVOKING):
            if self.is_past(grant, now):
                assert grant["state"] == G.REVOKING, f"{grant['id']} goes on"
                assert grant["cut_at"] or ailing or self.waits(grant, now), f"{grant['id']} is open"

    def is_past(self, grant: Row, now: datetime) -> bool:
        end = moment(grant["expires_at"])
        is_gone = grant["beneficiary_id"] not in self.book.active
        return is_gone or (end is not None and end <= now)

    def waits(self, grant: Row, now: datetime) -> bool:
        """Whether somebody has it, or has just tried."""
        waits = moment(grant["lease_until"]), moment(grant["next_try_at"])
        return any(one is not None and one > now for one in waits)

    @precondition(lambda self: self.grants(G.SCHEDULED))
    @rule(which=people)
    def open_one(self, which: int) -> None:
        self.open(self.chosen(which, G.SCHEDULED))

    def open(self, course: Course) -> None:
        """It opens exactly if its people and its ground are there and it is what was approved."""
        self.seen["steps"] += 1
        pk, now = (course.grant or {})["id"], clock.now()
        foretold, ailing = self.foretold(course, now), self.server.ails
        opening.open_grant(pk, worker="worker")
        self.look()
        grant = self.grant(pk)
        if not ailing:
            assert (grant["state"], grant["end_code"]) == foretold
            self.seen[f"opened: {foretold[1] or foretold[0]}"] += 1

    def foretold(self, course: Course, now: datetime) -> tuple[GrantState, str]:
        grant = course.grant or {}
        opens, before = moment(grant["opens_at"]), moment(grant["activate_before"])
        lease = moment(grant["lease_until"])
        level, frozen = grant["level_id"], self.book.approved(course)
        if (opens and opens > now) or (lease and lease > now):
            return G.SCHEDULED, ""
        if grant["beneficiary_id"] not in self.book.active:
            return G.ENDED, "deactivated"
        if not (self.book.on["target"] and self.book.level_on[level]):
            return G.ENDED, "switched_off"
        if before and before <= now:
            return G.ENDED, "activation_ttl"
        if self.book.scope_of(level) != frozen:
            return G.ENDED, "scope_changed"
        if self.book.there[level] != frozen[1]:
            return G.REVOKING, "scope_changed"
        return G.ACTIVE, ""
