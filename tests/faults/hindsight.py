"""What a crowd was told, held against what the database witnessed and against when it was told.

An act that had ended before another began came first; of acts that overlap nothing is assumed.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from math import inf

from approvals import scope
from approvals.models import AccessRequest, Grant
from approvals.states import GrantState
from audit.models import Event
from tests.faults.campaign import Row, Run, campaign
from tests.faults.checker import Look, Record
from tests.faults.clients import Act, Done
from tests.faults.crowd import LEAVERS, Crowd, crowd
from tests.faults.ground import Ground
from tests.faults.witness import Said

# The Events that tell of an act that was done, each of which must be there exactly once.
TELLING = {
    "accessrequest.submitted": "submit",
    "vote.cast": "vote",
    "vote.replaced": "vote",
    "accessrequest.cancelled": "cancel",
    "grant.revoking": "end",
    "grant.ended": "end",
    "grant.revealed": "reveal",
    "grant.tried_again": "try_again",
    "grant.abandon_asked": "abandon",
    "grant.abandoned": "abandon",
    "accesslevel.changed": "rescope",
    "policy.published": "publish",
    "policy.changed": "switch",
}
KINDS = {
    "approve": "vote", "deny": "vote", "release": "end", "revoke": "end", "on": "switch",
    "off": "switch",
}  # fmt: skip
# Of what is due already, it is not put off.
CHANGING_NOTHING = {"try_again"}
TO_A_DATABASE = 100
MOST_TOLD = 100  # lines of what was wrong
UNTOLD = {"expire", "open", "close", "sweep", "compare", "deactivate", "activate", "leave", "join",
          "wait"}  # fmt: skip


def anomalies(crowd: Crowd, done: Sequence[Done]) -> list[str]:
    """All that could not have happened; nothing if all is well. Nobody acts any more."""
    look = crowd.record.look()
    return [
        *look.breaches,
        *(f"{one.act} met with {one.code[1:]}" for one in done if one.code.startswith("!")),
        *_untold(crowd, done, look),
        *_lost(crowd.record, done),
        *_late_votes(crowd, done, look),
        *_stale_scopes(crowd.record, look),
        *_old_versions(done, look),
    ]


def _untold(crowd: Crowd, done: Sequence[Done], look: Look) -> Iterator[str]:
    """Whoever was told yes or no, the log says so, and of nobody else."""
    ids = {name: str(person.pk) for name, person in crowd.client.world.people.items()}
    named = [one for one in done if one.act.verb not in UNTOLD and not one.code.startswith("!")]
    refused = Counter((ids[one.act.who], one.code) for one in named if one.code)
    told_no = Counter((event.actor_id, event.data["code"]) for event in look.refusals)
    succeeded = Counter(
        (ids[one.act.who], KINDS.get(one.act.verb, one.act.verb)) for one in named if not one.code
    )
    told_yes = Counter(
        (event.actor_id, TELLING[event.action])
        for event in look.events
        if event.action in TELLING and event.actor_id
    )
    told_yes.pop((ids["ada"], "cancel"), None)  # nobody could fill its chain after her change
    yield from (f"refused, and not in the log: {one}" for one in refused - told_no)
    yield from (f"in the log as refused, and nobody was: {one}" for one in told_no - refused)
    untold = (one for one in succeeded - told_yes if one[1] not in CHANGING_NOTHING)
    yield from (f"done, and not in the log: {one}" for one in untold)
    yield from (f"in the log, and nobody was told so: {one}" for one in told_yes - succeeded)


def _lost(record: Record, done: Sequence[Done]) -> Iterator[str]:
    """Whoever was told that an access ends, it ends; a password is shown to one act only."""
    for one in done:
        if one.succeeded and one.act.verb in ("release", "revoke"):
            state = (record.of_grant(one.act.to).grant or {})["state"]
            if state not in (GrantState.REVOKING, GrantState.ENDED):
                yield f"{one.act} was done, and it is {state}"
    shown = Counter(one.act.to for one in done if one.succeeded and one.act.verb == "reveal")
    yield from (f"grant {pk}: its password was shown {n} times" for pk, n in shown.items() if n > 1)


def _surely(done: Iterable[Done], off: Act, on: Act, during: Done) -> bool:
    """Whether `off` had been done before an act began, and nothing can have undone it by its end:
    neither what came later nor what overlapped with it."""
    offs = [one for one in done if one.act == off and one.succeeded and one.ended < during.began]
    last = max((one.began for one in offs), default=inf)
    return bool(offs) and not any(
        one.act == on and one.began < during.ended and one.ended > last for one in done
    )


def _gone(crowd: Crowd, done: Sequence[Done], who: str, during: Done) -> bool:
    """Whether they had surely been deactivated, or had left all groups that make them a voter."""
    person = crowd.client.world.people[who].pk
    off, on = Act("deactivate", to=person), Act("activate", to=person)
    left = [
        _surely(done, Act("leave", "", person, group), Act("join", "", person, group), during)
        for name, group in LEAVERS
        if name == who
    ]
    return _surely(done, off, on, during) or (bool(left) and all(left))


def _late_votes(crowd: Crowd, done: Sequence[Done], look: Look) -> Iterator[str]:
    """No vote by somebody who had left, none that counted of somebody who had, none once off."""
    for one in done:
        if not one.succeeded or one.act.verb not in ("approve", "deny"):
            continue
        if _gone(crowd, done, one.act.who, one):
            yield f"{one.act} counted, and they had gone"
        if _surely(done, Act("off", "ada"), Act("on", "ada"), one):
            yield f"{one.act} counted, and the policy had been switched off"
        if _completed(crowd, one, look):
            yield from _counted_of_the_gone(crowd, done, one)


def _completed(crowd: Crowd, one: Done, look: Look) -> bool:
    """Whether this vote made the request an approved one."""
    voter = str(crowd.client.world.people[one.act.who].pk)
    return any(
        event.action == "accessrequest.approved"
        and event.subject_id == str(one.act.to)
        and event.actor_id == voter
        for event in look.events
    )


def _counted_of_the_gone(crowd: Crowd, done: Sequence[Done], last: Done) -> Iterator[str]:
    course, people = crowd.record.courses[last.act.to], crowd.client.world.people
    for voter, said in course.counting(course.round()[-1]).items():
        who = next(name for name, person in people.items() if person.pk == voter)
        if said == "approve" and _gone(crowd, done, who, last):
            yield f"{last.act} completed the chain with the vote of {who}, who had gone"


def _stale_scopes(record: Record, look: Look) -> Iterator[str]:
    """What is undecided is pending as things are; what began to open was approved as they were."""
    related = ("beneficiary", "level__target", "policy_version")
    for request in AccessRequest.objects.undecided().select_related(*related):
        if scope.digest(scope.of(request)) != request.scope_hash:
            yield f"{request} is pending under a scope that is not what its level is"
    for event in look.events:
        if event.action == "grant.provisioning":
            yield from _opened_as(Grant.objects.get(pk=event.subject_id), event)


def _opened_as(grant: Grant, event: Said) -> Iterator[str]:
    """Times of both are read under the target's lock, so they are in the order of the locks."""
    saved = (
        Event.objects.filter(
            action="accesslevel.changed", subject_id=str(grant.level_id), at__lt=event.at
        )
        .order_by("at")
        .last()
    )
    if saved is not None and saved.data["summary"] != grant.scope["level"]["summary"]:
        yield f"{grant} began to open under a scope that had been replaced"


def _old_versions(done: Sequence[Done], look: Look) -> Iterator[str]:
    """Nobody who asks after a policy was published is asked under the version before."""
    under = {
        int(event.subject_id): _number(event)
        for event in look.events
        if event.action == "accessrequest.submitted"
    }
    numbers = sorted(_number(event) for event in look.events if event.action == "policy.published")
    published = [one for one in done if one.act.verb == "publish" and one.succeeded]
    for one in done:
        before = sum(earlier.ended < one.began for earlier in published)
        if one.made and before and under[one.made] < (least := numbers[before - 1]):
            yield f"{one.act} was made under version {under[one.made]}, and {least} was in force"


def _number(event: Said) -> int:
    return int(event.policy_version.rpartition("v")[2])


def histories(
    ground: Ground, *, count: int, chance: int, most: float = inf
) -> Iterator[tuple[Sequence[Done], list[str]]]:
    """So many histories, a hundred to a database, each with what could not have happened in it.

    Fewer, if they take longer than `most` seconds.
    """
    chances, began = random.Random(chance), time.monotonic()
    for _ in range(0, count, TO_A_DATABASE):
        with crowd(ground, chances) as here:
            for _ in range(min(count, TO_A_DATABASE)):
                done = here.history()
                yield done, anomalies(here, done)
                if time.monotonic() > began + most:
                    return
            yield (), here.left()


@campaign("clients")
def ten_thousand(run: Run) -> list[Row]:
    """Ten thousand histories of sixteen clients."""
    ground, looked_at, wrong, acts = Ground(run.place.control), 0, list[str](), 0
    for done, found in histories(ground, count=run.times(10_000), chance=run.seed):
        looked_at += bool(done)
        acts += len(done)
        wrong += found and [f"history {looked_at}", *found, *map(str, done)]
    note = "\n    ".join([f"{acts} acts", *wrong[:MOST_TOLD]])
    return [Row(what="histories of sixteen at once", runs=looked_at, bad=len(wrong), note=note)]
