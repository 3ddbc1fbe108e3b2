"""The story itself, act by act. The words and the order are here; how it is done, in `access`."""

import signal
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

import psycopg

from debugflow.embedded.installation import Installation
from debugflow.embedded.production import CUSTOMERS, leftovers
from debugflow.embedded.story.access import (
    GONE_WITHIN,
    OPENS_WITHIN,
    Access,
    approve,
    ask,
    ballot,
    moment,
    take_up,
)
from debugflow.embedded.story.cast import (
    ADMIN,
    ESCALATE_AFTER,
    PASSWORD,
    PEOPLE,
    READ_ONLY,
    READ_WRITE,
    REMIND_AFTER,
    TARGET,
)
from debugflow.embedded.story.checks import StoryFailed, expect, wait_until
from debugflow.embedded.story.holder import SignIns
from debugflow.embedded.story.narrator import Narrator, in_words
from debugflow.embedded.story.people import Person

SHORT = 8  # seconds of access in the first act
FAULT = 10  # seconds of access in the act with the faults
BEFORE_THE_END = 2.0  # seconds from the faults to the end of the access
LONG = 900  # seconds of an access that ends early
CUT_WITHIN = 5.0  # seconds from the end, or from a release or revoke, to a closed session
WORKERS_BACK_WITHIN = 30.0  # seconds from starting broker and worker to both workers' answers
CLOCK_WITHIN = 20.0  # seconds from when a stage is due to be tended to its Event
TOLD_WITHIN = 15.0  # seconds from an Event to the inbox
QUEUE_TRIES = 12  # a sweeper that looks just then may be faster than the queue
OTHER_SCOPE = "0" * 64

SENTENCES = {
    "accessrequest.submitted": "{who} asked",
    "accessrequest.approved": "with {who}'s approval the chain was complete",
    "requeststage.open": "“{what}” was opened",
    "requeststage.passed": "“{what}” passed",
    "vote.cast": "{who} voted {decision} in “{stage}”",
    "vote.refused": "{who} was refused a vote: {code}",
    "reveal.refused": "{who} was refused the password: {code}",
    "grant.scheduled": "the access was scheduled",
    "grant.provisioning": "{worker} began to open it",
    "grant.active": "account {account} became usable",
    "grant.revealed": "{who} was shown the password",
    "grant.revoking": "its end was decided: {reason}",
    "grant.cut": "sign-in was closed and no session left, {late_ms} ms after its time",
    "grant.ended": "the target was read back: {account} is gone",
}


class Story:
    """The demonstration over one installation. Every act raises StoryFailed."""

    def __init__(self, site: Installation, narrator: Narrator) -> None:
        self.site, self.narrator = site, narrator
        self.people = {name: Person(name, site.url) for name in PEOPLE if name != ADMIN}
        self.levels: dict[str, dict[str, Any]] = {}
        self.accesses: list[Access] = []

    def tell(self) -> None:
        """All acts; the second and third are played while the first one's time runs."""
        with ExitStack() as stack:
            for person in self.people.values():
                stack.callback(person.close)
            self._sign_in()
            waiting = self._asked_in_vain()
            first = self._first_access()
            sign_ins = SignIns(first.credential, since=first.expires_at - 1).start()
            self._release()
            self._revoke()
            self._emergency()
            last = self._open_before_faults()
            self._first_ends(first, sign_ins)
            self._faults(last)
            self._recovery()
            self._chain_goes_on(waiting)
            self._told()
            self._nothing_left()
            self._trail(first)
            self.narrator.scene("What was measured")
            self.narrator.measured_table()

    def _sign_in(self) -> None:
        with self.narrator.step(f"{', '.join(self.people)} sign in") as step:
            with ThreadPoolExecutor() as pool:
                list(pool.map(Person.sign_in, self.people.values()))
            levels = self.people["alice"].get("levels/")["results"]
            self.levels = {level["name"]: level for level in levels}
            step.outcome = f"alice may ask for {' and '.join(sorted(self.levels))} on {TARGET}"

    def _first_access(self) -> Access:
        self.narrator.scene("1. alice needs to look at production, and two people have to agree")
        request = self._asked_first()
        self._refusals(request)
        access = self._approved_first(request)
        self._used(access)
        return access

    def _asked_first(self) -> dict[str, Any]:
        alice, level = self.people["alice"], self.levels[READ_ONLY]
        reason = "Orders 97 and 194 are stuck since this morning."
        with self.narrator.step(f"alice previews {READ_ONLY} on {TARGET} for {SHORT} s") as step:
            body = {"level": level["id"], "duration": SHORT, "reason": reason}
            preview = alice.post("requests/preview/", body)
            expect("an obstacle", expected=None, got=preview["problem"])
            step.outcome = "would ask " + ", then ".join(map(_stage_in_words, preview["stages"]))
        with self.narrator.step("alice asks") as step:
            request = ask(alice, level, duration=SHORT, reason=reason)
            expect("the request", expected="pending", got=request["state"])
            step.outcome = f"request {request['id']}, scope {request['scope_hash'][:12]}…"
        return request

    def _refusals(self, request: Mapping[str, Any]) -> None:
        vote = f"requests/{request['id']}/vote/"
        for name, what, body, status, code in (
            ("alice", "approves her own request", ballot(request), 403, "self_approval"),
            ("carol", "approves before it is her turn", ballot(request), 403, "wrong_stage"),
            (
                "bob",
                "approves something else than what was asked",
                ballot(request, scope_hash=OTHER_SCOPE),
                409,
                "scope_changed",
            ),
        ):
            with self.narrator.step(f"{name} {what}") as step:
                told = self.people[name].refused(vote, body, status=status, code=code)
                step.outcome = f"refused, {told}"
        with self.narrator.step("mallory looks for it") as step:
            step.outcome = self.people["mallory"].cannot_see(f"requests/{request['id']}/")

    def _approved_first(self, request: Mapping[str, Any]) -> Access:
        with self.narrator.step("dora approves for the dba") as step:
            told = approve(self.people["dora"], request)
            states = [stage["state"] for stage in told["stages"]]
            expect("the stages", expected=["passed", "open"], got=states)
            step.outcome = "Database passed, Security is open"
        with self.narrator.step("dora, who is in security too, approves again") as step:
            vote = f"requests/{request['id']}/vote/"
            refusal = self.people["dora"].refused(
                vote, ballot(request), status=403, code="already_counted"
            )
            step.outcome = f"refused, {refusal}"
        with self.narrator.step("carol approves for security, alice signs in") as step:
            access = self._let_in("carol", request)
            took = self.narrator.measure(
                "last approval → first query answered", access.to_usable, at_most=OPENS_WITHIN
            )
            step.outcome = f"account {access.account} answers {took} after the approval"
        return access

    def _let_in(
        self, last: str, request: Mapping[str, Any], *, query: LiteralString = "SELECT 1"
    ) -> Access:
        """`last` approves; the holder takes the access up."""
        approved_at = time.time()
        told = approve(self.people[last], request)
        expect("the request", expected="approved", got=told["state"])
        access = take_up(
            self.people[told["beneficiary"]["username"]],
            told,
            approved_at=approved_at,
            production=self.site.production,
            query=query,
        )
        self.accesses.append(access)
        return access

    def _used(self, access: Access) -> None:
        db = access.session.db
        with self.narrator.step("alice reveals the password a second time") as step:
            told = access.holder.refused(
                f"grants/{access.grant}/reveal/", {}, status=409, code="wrong_state"
            )
            step.outcome = f"refused, {told}"
        with self.narrator.step("she reads") as step:
            row = db.execute("SELECT count(*) FROM customers").fetchone()
            expect("customers", expected=(CUSTOMERS,), got=row)
            step.outcome = f"{CUSTOMERS} customers"
        for statement, what in (
            ("UPDATE orders SET status = 'paid' WHERE id = 97", "she writes"),
            ("SET ROLE orders_readonly", "she becomes the level's role, to outlive its revocation"),
        ):
            with self.narrator.step(what) as step:
                step.outcome = f"refused by PostgreSQL: {_refused_by_target(db, statement)}"

    def _opened(
        self,
        holder: str,
        level: str,
        *,
        duration: int,
        reason: str,
        query: LiteralString = "SELECT 1",
    ) -> Access:
        """An access as two approvals, bob's and carol's, leave it, taken up by its holder."""
        request = ask(self.people[holder], self.levels[level], duration=duration, reason=reason)
        approve(self.people["bob"], request)
        return self._let_in("carol", request, query=query)

    def _release(self) -> None:
        self.narrator.scene("2. Meanwhile: amir is done early and gives it back")
        with self.narrator.step(f"amir asks, bob and carol approve {READ_WRITE}") as step:
            access = self._opened("amir", READ_WRITE, duration=LONG, reason="Release order 97.")
            with access.session.db.cursor() as cursor:
                cursor.execute("UPDATE orders SET status = 'paid' WHERE id = 97")
                expect("orders mended", expected=1, got=cursor.rowcount)
            step.outcome = f"{access.account} mends order 97"
        with self.narrator.step("amir releases it while he is connected") as step:
            began = time.time()
            access.holder.post(f"grants/{access.grant}/release/")
            ended = access.session.ended_at(by=began + CUT_WITHIN)
            step.outcome = "his session was closed after " + self.narrator.measure(
                "release → session closed", ended - began, at_most=CUT_WITHIN
            )

    def _revoke(self) -> None:
        self.narrator.scene("3. Meanwhile: olga, who owns the target, cuts a long query")
        with self.narrator.step("alice is let in and starts a query of ten minutes") as step:
            access = self._opened(
                "alice",
                READ_WRITE,
                duration=LONG,
                reason="Compare payments.",
                query="SELECT pg_sleep(600)",
            )
            step.outcome = f"{access.account} runs"
        with self.narrator.step("dan, who did not decide about it, tries to revoke it") as step:
            step.outcome = self._stranger_revokes(access)
        with self.narrator.step("olga revokes it, saying why") as step:
            began = time.time()
            body = {"reason": "It slows the shop down."}
            self.people["olga"].post(f"grants/{access.grant}/revoke/", body)
            ended = access.session.ended_at(by=began + CUT_WITHIN)
            step.outcome = "the query died after " + self.narrator.measure(
                "owner's revoke → running query dead", ended - began, at_most=CUT_WITHIN
            )

    def _stranger_revokes(self, access: Access) -> str:
        told = self.people["dan"].refused(
            f"grants/{access.grant}/revoke/", {"reason": "Why not."}, status=403, code="not_yours"
        )
        return f"refused, {told}"

    def _emergency(self) -> None:
        self.narrator.scene("4. Meanwhile: nobody answers, and amir is on call")
        call = "requests/emergency/"
        body = {
            "level": self.levels[READ_ONLY]["id"],
            "reason": "Payments are down, and nobody of dba answers.",
            "confirmation": TARGET,
            "password": PASSWORD,
        }
        with self.narrator.step("alice, who is not on call, opens without approval") as step:
            told = self.people["alice"].refused(call, body, status=403, code="not_eligible")
            step.outcome = f"refused, {told}"
        with self.narrator.step("amir does, with his password") as step:
            access = self._opened_without_approval(body)
            took = self.narrator.measure(
                "emergency → first query answered", access.to_usable, at_most=OPENS_WITHIN
            )
            step.outcome = f"account {access.account} answers {took} later; it is no approval"
        with self.narrator.step("amir does so again before anybody has looked back at it") as step:
            told = self.people["amir"].refused(call, body, status=403, code="review_open")
            step.outcome = f"refused, {told}"
        with self.narrator.step("carol looks back at it and takes it away") as step:
            step.outcome = self._looked_back_at(access)

    def _opened_without_approval(self, body: Mapping[str, Any]) -> Access:
        amir, began = self.people["amir"], time.time()
        request = amir.post("requests/emergency/", dict(body), status=201)
        expect("the request", expected="bypassed", got=request["state"])
        access = take_up(amir, request, approved_at=began, production=self.site.production)
        self.accesses.append(access)
        return access

    def _looked_back_at(self, access: Access) -> str:
        carol = self.people["carol"]
        owed = carol.get("reviews/", awaiting_me="true")["results"]
        expect(
            "reviews that wait for carol", expected=[access.grant], got=[r["grant"] for r in owed]
        )
        began = time.time()
        found = {"outcome": "needs_action", "note": "The shop is up again.", "end_access": True}
        carol.post(f"reviews/{owed[0]['id']}/", found)
        ended = access.session.ended_at(by=began + CUT_WITHIN)
        took = self.narrator.measure("review → session closed", ended - began, at_most=CUT_WITHIN)
        return f"needs action; his session was closed after {took}"

    def _open_before_faults(self) -> Access:
        self.narrator.scene(f"5. amir has {FAULT} seconds; then things will break")
        with self.narrator.step(f"amir asks for {READ_ONLY}, bob and carol approve") as step:
            access = self._opened("amir", READ_ONLY, duration=FAULT, reason="Count orders.")
            step.outcome = f"{access.account} answers"
        return access

    def _first_ends(self, access: Access, sign_ins: SignIns) -> None:
        self.narrator.scene(f"   Back to alice: her {SHORT} seconds are over")
        by = access.expires_at + CUT_WITHIN
        with self.narrator.step("her open session") as step:
            late = access.session.ended_at(by=by) - access.expires_at
            step.outcome = "closed; after her time was up: " + self.narrator.measure(
                "end of the time → session closed", late, at_most=CUT_WITHIN
            )
        with self.narrator.step("her new sign-ins") as step:
            late = sign_ins.ended_at(by=by) - access.expires_at
            took = self.narrator.measure(
                "end of the time → new sign-in refused", late, at_most=CUT_WITHIN
            )
            step.outcome = f"refused after {took}: {sign_ins.refusal}"
        with self.narrator.step("her account on the target") as step:
            step.outcome = self._gone(access)

    def _gone(self, access: Access) -> str:
        """The account has ended by its time, as the API says and as the target shows."""
        ended = access.wait_until_ended(reason="expired")
        cut = moment(ended["cut_at"]) - access.expires_at
        gone = self.narrator.measure(
            "end of the time → account verified gone",
            moment(ended["ended_at"]) - access.expires_at,
            at_most=GONE_WITHIN,
        )
        left = leftovers(self.site.production, [access.account], [access.oid])
        expect(f"left of {access.account} on the target", expected=[], got=left)
        return f"role, sessions and memberships are gone; cut {in_words(cut)} late, gone {gone}"

    def _faults(self, access: Access) -> None:
        self.narrator.scene("   Back to amir: the worker that opens and the broker are killed")
        processes, valkey = self.site.processes, self.site.runtime.valkey
        with self.narrator.step("kill -9 of worker-a and of Valkey") as step:
            time.sleep(max(0.0, access.expires_at - BEFORE_THE_END - time.time()))
            processes.supervisor.kill("worker-a", signal.SIGKILL)
            valkey.kill()
            left = access.expires_at - time.time()
            step.outcome = f"{in_words(left)} before amir's time is up"
        with self.narrator.step("amir's open session") as step:
            late = access.session.ended_at(by=access.expires_at + CUT_WITHIN) - access.expires_at
            took = self.narrator.measure(
                "worker and broker dead: end → session closed", late, at_most=CUT_WITHIN
            )
            access.wait_until_ended(reason="expired")
            step.outcome = f"closed {took} after his time was up, by {_closer(access)}"

    def _recovery(self) -> None:
        self.narrator.scene("6. Both are started again")
        with self.narrator.step("Valkey and worker-a start") as step:
            began = time.time()
            self.site.runtime.valkey.start()
            self.site.processes.start_worker("worker-a")
            self.site.processes.wait_for_workers()
            step.outcome = "both workers answer after " + self.narrator.measure(
                "broker and worker started → both workers answer",
                time.time() - began,
                at_most=WORKERS_BACK_WITHIN,
            )
        with self.narrator.step("alice is let in once more") as step:
            access = self._opened_by_queue()
            took = self.narrator.measure(
                "after the restart: last approval → first query",
                access.to_usable,
                at_most=OPENS_WITHIN,
            )
            step.outcome = f"opened by a task from the queue, {took} after the approval"

    def _opened_by_queue(self) -> Access:
        """An access whose opening the queue rang for. It is given back."""
        for _ in range(QUEUE_TRIES):
            access = self._opened("alice", READ_ONLY, duration=LONG, reason="Look again.")
            opener = access.event("grant.provisioning")["request_id"]
            access.holder.post(f"grants/{access.grant}/release/")
            access.session.ended_at(by=time.time() + CUT_WITHIN)
            if opener.startswith("task-"):
                return access
        raise StoryFailed("who opens after the restart", expected="a task", got=opener)

    def _asked_in_vain(self) -> dict[str, Any]:
        with self.narrator.step(f"erik asks for {READ_WRITE}, and nobody answers") as step:
            reason = "Order 194 is paid twice."
            request = ask(
                self.people["erik"], self.levels[READ_WRITE], duration=LONG, reason=reason
            )
            step.outcome = f"request {request['id']}; we come back to it"
        return request

    def _chain_goes_on(self, request: Mapping[str, Any]) -> None:
        self.narrator.scene("7. Back to erik: nobody has answered him")
        with self.narrator.step(f"the clock reminds after {REMIND_AFTER} s") as step:
            self._wait_for(request, "requeststage.reminded", due=REMIND_AFTER)
            names = [name for name in ("bob", "dan", "dora") if self._hears(name, "Still to be")]
            step.outcome = f"{', '.join(names)} are told"
        with self.narrator.step(f"and asks the owners as well after {ESCALATE_AFTER} s") as step:
            self._wait_for(request, "requeststage.escalated", due=ESCALATE_AFTER)
            self._hears("olga", "Not decided by those asked first")
            step.outcome = "olga is told, and approves"
            told = approve(self.people["olga"], request)
            states = [stage["state"] for stage in told["stages"]]
            expect("the stages", expected=["passed", "open"], got=states)
        with self.narrator.step("carol is away for an hour and lends her votes to dan") as step:
            until = datetime.now(UTC) + timedelta(hours=1)
            body = {"delegate": "dan", "ends_at": until.isoformat(), "note": "At lunch."}
            self.people["carol"].post("delegations/", body, status=201)
            step.outcome = "dan is asked in her stead"
        with self.narrator.step("dan approves for carol, erik signs in") as step:
            access = self._let_in("dan", request)
            vote = access.event("vote.cast")
            step.outcome = f"account {access.account} answers; {len(access.events())} events"
            expect("who began the votes", expected="olga", got=vote["actor"]["name"])
        self._longer(access)

    def _longer(self, access: Access) -> None:
        erik, carol = access.holder, self.people["carol"]
        with self.narrator.step("erik asks for ten minutes more, carol approves") as step:
            body = {"duration": 600, "reason": "Two more orders are like it."}
            more = erik.post(f"grants/{access.grant}/extend/", body, status=201)
            told = approve(carol, more)
            expect("the request", expected="approved", got=told["state"])
            extended = wait_until(
                "the new end",
                access.told,
                lambda grant: moment(grant["expires_at"]) > access.expires_at + 599,
                within=OPENS_WITHIN,
            )
            access.session.db.execute("SELECT 1")
            ends = moment(extended["expires_at"]) - access.expires_at
            step.outcome = f"ends {ends:.0f} s later; his session goes on as it was"
        with self.narrator.step("erik is done and gives it back") as step:
            erik.post(f"grants/{access.grant}/release/")
            access.session.ended_at(by=time.time() + CUT_WITHIN)
            step.outcome = "his session was closed"

    def _wait_for(self, request: Mapping[str, Any], action: str, *, due: float) -> None:
        """Wait until it is in the trail of a request; `due` is in seconds after it was asked."""

        def happened() -> bool:
            events = self.people["erik"].get(f"requests/{request['id']}/events/")["results"]
            return any(event["action"] == action for event in events)

        time.sleep(max(0.0, moment(request["submitted_at"]) + due - time.time()))
        wait_until(action, happened, bool, within=CLOCK_WITHIN)

    def _hears(self, name: str, begins: str) -> bool:
        """Wait until it is in somebody's inbox."""
        person = self.people[name]
        wait_until(
            f"{name} is told: {begins}…",
            person.inbox,
            lambda told: any(text.startswith(begins) for text in told),
            within=TOLD_WITHIN,
        )
        return True

    def _told(self) -> None:
        self.narrator.scene("What some of them were told meanwhile")
        rows = [
            (name, text)
            for name in ("erik", "olga", "bob")
            for text in reversed(self.people[name].inbox()[:7])
        ]
        expect("messages", expected=True, got=len(rows) > 6)
        self.narrator.table(("who", "was told, the last few"), rows)

    def _nothing_left(self) -> None:
        with self.narrator.step("what is left on the target of all accounts") as step:
            for access in self.accesses:
                if access.told()["state"] != "ended":
                    access.wait_until_ended(reason=access.told()["end_reason"])
            accounts = [access.account for access in self.accesses]
            oids = [access.oid for access in self.accesses]
            left = leftovers(self.site.production, accounts, oids)
            expect("left on the target", expected=[], got=left)
            step.outcome = f"nothing of {', '.join(accounts)}"

    def _trail(self, access: Access) -> None:
        self.narrator.scene(f"The audit trail of request {access.request}")
        rows = [_trail_row(event) for event in access.events()]
        self.narrator.table(("at (UTC)", "what happened"), rows)


def _stage_in_words(stage: Mapping[str, Any]) -> str:
    minima = ", ".join(f"{count} of {group}" for group, count in stage["groups"].items())
    return f"{' or '.join(stage['candidates'])} ({stage['name']}: {minima})"


def _refused_by_target(db: psycopg.Connection[Any], statement: LiteralString) -> str:
    """Run what the target must refuse; returns its words."""
    try:
        db.execute(statement)
    except psycopg.errors.InsufficientPrivilege as error:
        return str(error.diag.message_primary)
    raise StoryFailed(statement, expected="permission denied", got="it was done")


def _closer(access: Access) -> str:
    """Who cut it, by the audit trail: it must be the sweeper of the worker that lives."""
    by, survivor = str(access.event("grant.cut")["request_id"]), "sweep-worker-b"
    expect("who cut it", expected=survivor, got=by.partition("@")[0])
    return "the sweeper of worker-b"


def _trail_row(event: Mapping[str, Any]) -> tuple[str, str]:
    words = {
        "reason": "",
        **event["data"],
        "who": event["actor"]["name"],
        "what": event["subject"]["label"],
    }
    sentence = SENTENCES.get(event["action"], "{who}: " + event["action"])
    return event["at"][11:23], sentence.format_map(words)
