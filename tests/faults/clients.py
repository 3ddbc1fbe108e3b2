"""What one of many clients does, and what came of it; with real commits, as any caller would.

Which clients there are, and what they find, is in `crowd`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from approvals import administration, closing, grants, opening, reconciler, sweeper, workflow
from approvals.errors import DebugflowError
from approvals.models import AccessLevel, AccessRequest, Policy
from debugflow.accounts.models import User
from tests.conftest import Clock
from tests.faults.book import Wording
from tests.faults.ground import Interrupted, publish_wording, sweep_grants
from tests.world import World

WORDINGS: tuple[Wording, ...] = (
    (("Database", {"dba": 1}, 1, 1, None),),
    (("Database", {"dba": 2}, 2, 2, None),),
    (("Database", {"dba": 1}, 1, 1, None), ("Security", {"security": 1}, 1, 1, None)),
    (("Both", {"dba": 1, "security": 1}, 2, 1, None),),
)


@dataclass(frozen=True)
class Act:
    """One act of one client: who does what to which object, and what they have in hand."""

    verb: str
    who: str = ""
    to: int = 0
    told: str = ""


@dataclass(frozen=True)
class Done:
    """An act, when it was begun and had ended (seconds, one clock for all), and what came of it.

    `code`: nothing if it was done, the reason of a refusal, or "!" and an error that is none.
    """

    act: Act
    began: float
    ended: float
    code: str = ""
    made: int = 0  # the request that was submitted

    @property
    def succeeded(self) -> bool:
        return not self.code


@dataclass(frozen=True)
class Client:
    """Does what it is told, in the thread that it is called in."""

    world: World
    server: Interrupted

    def does(self, act: Act) -> Done:
        """Never raises: what any caller would have seen is what is looked at."""
        began, result, code = time.perf_counter(), None, ""
        try:
            result = getattr(self, f"_{act.verb}")(act, _named(act.who))
        except DebugflowError as error:
            code = error.code
        except Exception as error:  # noqa: BLE001
            code = f"!{type(error).__name__}: {error}"
        made = result.pk if isinstance(result, AccessRequest) and act.verb == "submit" else 0
        return Done(act, began, time.perf_counter(), code, made)

    def _submit(self, act: Act, by: Any) -> AccessRequest:
        return workflow.submit(act.to, by=by, wish=self.world.wish())

    def _approve(self, act: Act, by: Any) -> object:
        return workflow.vote(
            act.to, by=by, decision=act.verb, scope_hash=act.told, comment="So be it."
        )

    _deny = _approve

    def _cancel(self, act: Act, by: Any) -> object:
        return workflow.cancel(act.to, by=by)

    def _expire(self, act: Act, by: Any) -> object:
        return sweeper.expire_requests()

    def _release(self, act: Act, by: Any) -> object:
        return grants.release(act.to, by=by)

    def _revoke(self, act: Act, by: Any) -> object:
        return grants.revoke(act.to, by=by, reason="It must end.")

    def _reveal(self, act: Act, by: Any) -> object:
        return grants.reveal(act.to, by=by)

    def _try_again(self, act: Act, by: Any) -> object:
        return grants.try_again(act.to, by=by)

    def _abandon(self, act: Act, by: Any) -> object:
        return grants.abandon(act.to, by=by, reason="It cannot be.")

    def _open(self, act: Act, by: Any) -> None:
        opening.open_grant(act.to, worker="one")

    def _close(self, act: Act, by: Any) -> None:
        closing.close_grant(act.to, worker="one")

    def _sweep(self, act: Act, by: Any) -> None:
        sweep_grants()

    def _compare(self, act: Act, by: Any) -> None:
        for job in reconciler.claim_now(self.world.target.pk, worker="three"):
            reconciler.run(job)

    def _rescope(self, act: Act, by: Any) -> object:
        """Somebody changed on the target what a level may do, and now it is saved again."""
        level = AccessLevel.objects.select_related("target").get(pk=act.to)
        self.server.levels[level.name] = (act.told,)
        return administration.save_level(level, by=by)

    def _publish(self, act: Act, by: Any) -> object:
        return publish_wording(self.world, WORDINGS[act.to])

    def _on(self, act: Act, by: Any) -> object:
        chosen = Policy.objects.get(pk=self.world.policy.pk)
        chosen.enabled = act.verb == "on"
        return administration.change_policy(chosen, by=by)

    _off = _on

    def _activate(self, act: Act, by: Any) -> None:
        User.objects.filter(pk=act.to).update(is_active=act.verb == "activate")

    _deactivate = _activate

    def _leave(self, act: Act, by: Any) -> None:
        User.objects.get(pk=act.to).groups.remove(self.world.groups[act.told])

    def _join(self, act: Act, by: Any) -> None:
        User.objects.get(pk=act.to).groups.add(self.world.groups[act.told])

    def _wait(self, act: Act, by: Any) -> None:
        Clock().forward(act.to)


def _named(who: str) -> Any:
    return User.objects.get(username=who) if who else None
