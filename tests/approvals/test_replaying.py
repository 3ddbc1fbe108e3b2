"""A broker may deliver any message any number of times, late, and of what is long over.

Every task of the registry is run again and again over a world with something of everything in it:
the first time it does what is due, and after that nothing changes in any table, nobody is told
anything, and the target is left alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from celery import current_app

from approvals import grants, opening, sweeper, workflow
from approvals.errors import ProvisionError
from approvals.heartbeats import CANARY_TASK
from approvals.models import AccessRequest, ExtensionApproval, Grant, Notice
from approvals.notify import outbox
from approvals.states import GrantState, RequestState
from tests.approvals.notify.conftest import mailbox  # noqa: F401
from tests.approvals.notify.receiver import Receiver
from tests.approvals.notify.telling import close, opened
from tests.approvals.notify.test_webhooks import endpoint, server  # noqa: F401
from tests.approvals.smtp import Mailbox
from tests.approvals.test_editing import back
from tests.approvals.test_emergency import break_glass
from tests.approvals.test_escalation import timed
from tests.conftest import Clock
from tests.tables import changed, rows
from tests.world import HOUR, World, owe_review, publish, stage

DOWN = ProvisionError("The target does not answer.", code="unreachable")
# That a worker lives is of every moment, and so is what it counted.
BEATS = ("approvals_heartbeat",)


def ids(model: Any) -> list[int]:
    """Of all that there is, and of something that is gone."""
    return [*model.objects.order_by("pk").values_list("pk", flat=True), 2**40]


# What each task may be told. One that is not here has no test, and fails.
TOLD: dict[str, Any] = {
    "approvals.tasks.open_grant": lambda: ids(Grant),
    "approvals.tasks.extend_grant": lambda: ids(Grant),
    "approvals.tasks.close_grant": lambda: ids(Grant),
    "approvals.tasks.tell": lambda: ids(Notice),
    CANARY_TASK: lambda: [str(uuid4())],
}


def registered() -> set[str]:
    """Our tasks, and not those that Celery brings."""
    current_app.loader.import_default_modules()
    return {name for name in current_app.tasks if not name.startswith("celery.")}


def run(name: str) -> None:
    for told in TOLD[name]():
        current_app.tasks[name].apply((told,), throw=True)


@pytest.fixture
def outside(world: World, mailbox: Mailbox, server: Receiver) -> Callable[[], tuple[int, ...]]:  # noqa: F811
    """Counts mails, webhooks and calls of the target."""
    return lambda: (len(mailbox.taken), len(server.got), len(world.server.calls))


@pytest.fixture
def everything(world: World, clock: Clock, mailbox: Mailbox, server: Receiver) -> World:  # noqa: F811
    """Requests and accesses in every state they can be in, and people told in every way."""
    endpoint(world, server.url, "asked", "approved", "usable", "ended")
    mailbox.refused["dan@example.com"] = "451 later"
    publish(
        world,
        timed(world),
        stage(world, "Security", "security"),
        emergency_groups=[world.groups["developers"]],
        emergency_duration=HOUR,
        extensions_most=3,
        extension_max=HOUR,
        max_total=12 * HOUR,
        extension_window=8 * HOUR,
        extension_approval=ExtensionApproval.LAST,
    )
    _over(world)
    _stuck(world, clock)
    _waiting(world, clock)
    _open(world)
    return world


def _over(world: World) -> None:
    """Released and looked back at; denied; taken back."""
    grant = opened(world)
    grants.release(grant.pk, by=world.alice)
    close(grant)
    owe_review(grant)
    world.vote(world.submit(), "bob", "deny")
    workflow.cancel(world.submit().pk, by=world.alice)


def _stuck(world: World, clock: Clock) -> None:
    """Has failed so often that it is tried every few seconds only."""
    grant = opened(world)
    world.server.fail_next("cut", DOWN, times=8)
    grants.revoke(grant.pk, by=world.bob, reason="Enough.")
    for _ in range(7):
        close(grant)
        clock.forward(5)
    close(grant)


def _waiting(world: World, clock: Clock) -> None:
    """Expired; reminded of and escalated; half decided; sent back."""
    expired = world.submit()
    clock.forward(86400)
    workflow.expire(expired.pk)
    world.submit()
    clock.forward(HOUR)
    sweeper.nudge()
    world.vote(world.submit("amir"), "bob")
    back(world, world.submit(level=world.write))


def _open(world: World) -> None:
    """Approved; being opened by somebody; open; to go on, asked and agreed; taken away; and an
    emergency."""
    world.approved("amir", level=world.write)
    begun = world.approved("amir", level=world.write)
    opening.claim(worker="another", only=begun.pk)
    opened(world, "amir", level=world.write)
    asked, agreed = (opened(world, "amir", level=world.write) for _ in range(2))
    workflow.ask_longer(asked.pk, by=world.amir, wish=world.wish())
    longer = workflow.ask_longer(agreed.pk, by=world.amir, wish=world.wish())
    world.vote(longer, "carol")
    taken = opened(world, "amir", level=world.write)
    grants.revoke(taken.pk, by=world.olga, reason="Enough.")
    break_glass(world)
    outbox.note_endings()


def states(model: Any) -> set[str]:
    return set(model.objects.values_list("state", flat=True))


def test_every_task_is_replayed() -> None:
    assert registered() == TOLD.keys(), "say in TOLD what it may be told"


@pytest.mark.slow
def test_replaying_any_task_changes_nothing_and_tells_nobody_twice(
    everything: World, outside: Callable[[], tuple[int, ...]]
) -> None:
    assert (states(Grant), states(AccessRequest)) == (set(GrantState), set(RequestState))
    for name in sorted(registered()):
        run(name)
        before, told = rows(BEATS), outside()
        run(name)
        run(name)
        assert changed(before, BEATS) == [], name
        assert outside() == told, name
    assert min(told) > 5


@pytest.mark.slow
def test_nor_does_what_every_sweeper_does_in_passing(
    everything: World, outside: Callable[[], tuple[int, ...]]
) -> None:
    passing = sweeper.Sweeper()
    for chore in (*passing._chores, *passing._tellers):
        while chore._work():
            pass
        before, told = rows(BEATS), outside()
        chore._work()
        chore._work()
        assert changed(before, BEATS) == [], chore._work
        assert outside() == told, chore._work
