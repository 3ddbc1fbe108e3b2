"""A database with the cast in it, set back for each life, where every change is witnessed.

Its target is in memory, so that something can be made to happen in the midst of a verb. What is
done there, and what must hold, is in `machine` and `clients`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group

from approvals import closing, extending, leases, opening
from approvals.administration import StageDraft
from approvals.models import AccessLevel, Policy, PolicyVersion, StepKind, Target
from approvals.provisioning.memory import MemoryAccount, MemoryServer
from audit import clock
from tests.conftest import DATABASE, Control
from tests.faults import witness
from tests.faults.book import Wording
from tests.world import World, publish

# Seconds, of every stage that is published here: less than the shortest deadline of one.
REMIND, ESCALATE = 240, 480
# Time that passes only when it is moved on: else no life could be lived again as it was.
STANDING_STILL = """
CREATE OR REPLACE FUNCTION dbnow() RETURNS timestamptz LANGUAGE sql VOLATILE
    RETURN timestamptz '2030-01-01 12:00Z' + (SELECT shift FROM audit_clock);
"""
# All rows as they are, to be put back with no trigger and no constraint in the way: those that fire
# even for a replica are made to fire for everybody else. A clone of the database took 0.3 s, and as
# long again until its connection knew its tables.
KEEP = """
CREATE SCHEMA kept;
DO $$ DECLARE name text; one record; BEGIN
    FOR one IN SELECT tgrelid::regclass AS at, tgname FROM pg_trigger WHERE tgenabled = 'A' LOOP
        EXECUTE format('ALTER TABLE %s ENABLE TRIGGER %I', one.at, one.tgname);
    END LOOP;
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' LOOP
        EXECUTE format('CREATE TABLE kept.%1$I AS TABLE public.%1$I', name);
    END LOOP;
END $$;
CREATE TABLE kept_sequences AS
    SELECT format('public.%I', sequencename) AS name, coalesce(last_value, 1) AS value,
        last_value IS NOT NULL AS used
    FROM pg_sequences WHERE schemaname = 'public';
"""
PUT_BACK = """
SET session_replication_role = replica;
DO $$ DECLARE name text; BEGIN
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'kept' LOOP
        EXECUTE format('DELETE FROM public.%I', name);
        EXECUTE format('INSERT INTO public.%1$I OVERRIDING SYSTEM VALUE TABLE kept.%1$I', name);
    END LOOP;
    PERFORM setval(one.name, value, used) FROM kept_sequences one;
END $$;
"""


class Crash(BaseException):
    """The process ends here. Not an Exception: nobody gets to handle it."""


class Accounts(dict[str, MemoryAccount]):
    """The accounts, which tell when one has come to be."""

    def __init__(self, made: Callable[[], None]) -> None:
        super().__init__()
        self._made = made

    def __setitem__(self, name: str, account: MemoryAccount) -> None:
        super().__setitem__(name, account)
        self._made()

    def __ior__(self, made: Any) -> Accounts:  # type: ignore[override, misc]
        """All of a joint opening come to be at once, as a COMMIT has it."""
        self.update(made)
        self._made()
        return self


class Interrupted(MemoryServer):
    """A target at which something happens in the midst of a verb. It goes by the database's time.

    At "committed" an opening has made its account, and not been told yet.
    """

    def __init__(self) -> None:
        super().__init__()
        self.then: dict[str, Callable[[], None]] = {}
        self.clock = clock.now
        self.accounts = Accounts(lambda: self._happen("committed"))

    def answer_as(self, name: str) -> None:
        """Be found under one more name."""
        self._servers[name] = self

    def enter(self, verb: str) -> None:
        super().enter(verb)
        self._happen(verb)

    def _happen(self, moment: str) -> None:
        if act := self.then.pop(moment, None):
            act()

    def mend(self) -> None:
        """No more faults, and nothing more happens."""
        self._faults.clear()
        self.then.clear()

    @property
    def ails(self) -> bool:
        return any(self._faults.values())


class Ground:
    """The present database, with the cast in it and committed."""

    def __init__(self, control: Control, *setting: str) -> None:
        """`setting` is SQL for that database."""
        self.control = control
        with control.superuser(DATABASE) as database:
            witness.install(database)
            for statement in (*setting, KEEP):
                database.execute(statement.encode())

    def fresh(self) -> tuple[World, Interrupted]:
        """The cast and their target, with nothing asked yet. Call it while nobody acts."""
        with self.control.superuser(DATABASE) as database:
            database.execute(PUT_BACK.encode())
        MemoryServer.forget_all()
        server = Interrupted()
        server.answer_as("orders")
        server.levels |= {"read-write": ("may read", "may write")}
        return _cast(), server


def _cast() -> World:
    """As they are stored, in an order that is the same for every life."""
    world = World()
    world.people = {one.get_username(): one for one in get_user_model().objects.order_by("pk")}
    world.groups = {group.name: group for group in Group.objects.order_by("pk")}
    world.target = Target.objects.get(name="orders")
    levels = AccessLevel.objects.filter(target=world.target).select_related("target")
    world.read, world.write = levels.order_by("rank")
    world.policy = Policy.objects.get(name="Production")
    return world


def sweep_grants() -> None:
    """One look of a sweeper at grants, with its work done at once and in its order."""
    for kind in (StepKind.CUT, StepKind.CLEAN):
        if jobs := closing.claim(kind, worker="sweeper", room=room()):
            closing.run_all(jobs)
    if longer := extending.claim(worker="sweeper", room=room()):
        extending.run_all(longer)
    if opens := opening.claim(worker="sweeper", room=room()):
        opening.run_all(opens)


def room() -> leases.Room:
    """For one worker: so many grants of one target at once."""
    return leases.Room(free=1, batch=25)


def publish_wording(world: World, wording: Wording, **more: Any) -> PolicyVersion:
    """Publish it as the policy's next version."""
    stages = [
        StageDraft(
            name=name,
            groups={world.groups[one]: least for one, least in minima.items()},
            total=total,
            deny_quorum=quorum,
            deadline=deadline,
            remind_every=REMIND,
            max_reminders=2,
            escalate_after=ESCALATE,
            escalation_group=world.groups["owners"],
        )
        for name, minima, total, quorum, deadline in wording
    ]
    version: PolicyVersion = publish(world, *stages, **more)
    return version
