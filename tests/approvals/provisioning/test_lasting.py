"""Code that alice leaves to run with her rights does not outlive the end of her access.

mallory runs it in a transaction of her own, which nobody ends for her.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from approvals.errors import ProvisionError
from approvals.provisioning.base import Account
from approvals.provisioning.postgresql import clean, lasting

from .conftest import WRITE, Connection, Target, refused

# It writes with alice's rights until mallory lets go of an advisory lock, and cares for no error.
AGENT = """
CREATE FUNCTION work.agent() RETURNS int LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE written int := 0; BEGIN
  LOOP
    UPDATE public.customers SET name = 'agent' WHERE id = 7;
    written := written + 1;
    EXIT WHEN NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 77);
    PERFORM pg_sleep(0.01);
  END LOOP;
  RETURN written;
END $$"""
ASK = """
CREATE FUNCTION work.ask(q text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE answer text; BEGIN EXECUTE q INTO answer; RETURN answer; END $$"""
COUNT = "SELECT work.ask('SELECT count(*) FROM public.customers')"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lasting, "WAIT", 0.2)


@pytest.fixture
def work(target: Target) -> Iterator[Target]:
    """The target, with schema `work` open to mallory and empty again afterwards."""
    target.tell("GRANT USAGE ON SCHEMA work TO mallory")
    yield target
    target.close_all()
    target.tell("REVOKE USAGE ON SCHEMA work FROM mallory", "DROP OWNED BY dbgf_quarantine CASCADE")
    target.tell("GRANT USAGE, CREATE ON SCHEMA work TO dbgf_quarantine")


def left_by_alice(target: Target, *statements: str) -> Account:
    account = target.opened(WRITE)
    with target.sign_in(account.account) as alice:
        for statement in statements:
            alice.execute(statement.encode())
    return account


def holds_customers(db: Connection) -> str:
    return (
        f"SELECT count(*) FROM pg_locks WHERE pid = {db.info.backend_pid}"
        " AND relation = 'customers'::regclass"
    )


def wait_until(db: Connection, query: str) -> None:
    deadline = time.monotonic() + 10
    while db.execute(query.encode()).fetchone() == (0,):
        assert time.monotonic() < deadline, f"never saw {query}"
        time.sleep(0.01)


@contextmanager
def running(target: Target) -> Iterator[tuple[Connection, Future[Any]]]:
    """mallory runs `work.agent()`; it is under way inside, and returns afterwards."""
    mallory = target.sign_in("mallory", "mallory")
    with target.bob() as bob, ThreadPoolExecutor(1) as pool:
        bob.execute("SELECT pg_advisory_lock(77)")
        written = pool.submit(lambda: mallory.execute("SELECT work.agent()").fetchone())
        try:
            wait_until(bob, holds_customers(mallory))
            yield mallory, written
        finally:
            bob.execute("SELECT pg_advisory_unlock(77)")
            written.exception(timeout=10)


def blocked(target: Target, account: Account) -> ProvisionError:
    with pytest.raises(ProvisionError) as caught:
        target.provisioner.clean(account)
    assert caught.value.code == "clean_blocked"
    return caught.value


def test_who_runs_it_when_it_is_disarmed_is_waited_for_by_name(work: Target) -> None:
    account = left_by_alice(work, AGENT, "CREATE TABLE work.notes (i int)")
    with running(work) as (mallory, written):
        work.provisioner.cut(account)
        for _ in range(2):
            error = blocked(work, account)
            assert f"process {mallory.info.backend_pid} of mallory" in error.message
            assert not work.provisioner.observe(account).gone
        assert not written.done(), "nobody ended her"
        owner = "SELECT relowner::regrole::text FROM pg_class WHERE relname = 'notes'"
        assert work.ask(owner) == "dbgf_quarantine", "what she made need not wait"
    work.provisioner.clean(account)
    assert work.provisioner.observe(account).gone


def test_a_transaction_that_begins_afterwards_holds_up_nothing(work: Target) -> None:
    account = left_by_alice(work, AGENT)
    work.provisioner.cut(account)
    first = work.sign_in("mallory", "mallory")
    first.execute("BEGIN")
    first.execute("SELECT 1")
    blocked(work, account)
    second = work.sign_in("mallory", "mallory")
    second.execute("BEGIN")
    second.execute("SELECT 1")
    assert str(second.info.backend_pid) not in blocked(work, account).message
    first.execute("ROLLBACK")
    work.provisioner.clean(account)
    assert work.provisioner.observe(account).gone


def test_one_who_left_no_such_code_waits_for_nobody(work: Target) -> None:
    account = left_by_alice(work, "CREATE FUNCTION work.plain() RETURNS int RETURN 1")
    with work.sign_in("mallory", "mallory") as mallory:
        mallory.execute("BEGIN")
        mallory.execute("SELECT 1")
        work.end(account)


def test_nor_does_one_whose_code_was_in_another_database(work: Target) -> None:
    account = left_by_alice(work, ASK)
    with work.sign_in("mallory", "mallory", database="billing") as mallory:
        mallory.execute("BEGIN")
        mallory.execute("SELECT 1")
        work.end(account)


def test_an_attempt_killed_right_after_disarming_forgets_nobody(
    work: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = left_by_alice(work, AGENT)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with running(work) as (mallory, _):
        work.provisioner.cut(account)
        with monkeypatch.context() as dying:
            dying.setattr(lasting.Lasting, "wait", killed)
            with pytest.raises(KeyboardInterrupt):
                work.provisioner.clean(account)
        assert work.ask("SELECT prosecdef FROM pg_proc WHERE proname = 'agent'") is False
        assert f"{mallory.info.backend_pid}" in blocked(work, account).message
    work.end(account)


def test_who_runs_it_meanwhile_cannot_arm_it_again(work: Target) -> None:
    account = left_by_alice(work, ASK)
    mallory = work.sign_in("mallory", "mallory")
    mallory.execute("BEGIN")
    assert mallory.execute(COUNT.encode()).fetchone() == ("2000",)
    work.provisioner.cut(account)
    blocked(work, account)
    arm = "SELECT work.ask('ALTER FUNCTION work.ask(text) SECURITY DEFINER')"
    assert refused(mallory, arm) == "42501"
    mallory.execute("ROLLBACK")
    work.end(account)


def test_what_could_not_be_disarmed_yet_is_not_moved_with_the_rest(
    newest: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or whoever runs it would not have been noted."""
    account = left_by_alice(newest, ASK)
    newest.provisioner.cut(account)
    with monkeypatch.context() as hurried:
        hurried.setattr(clean, "RIGHTS_UNTIL", clean.CLEAN_DEADLINE)
        with pytest.raises(ProvisionError, match="still runs as its owner") as caught:
            newest.provisioner.clean(account)
    assert caught.value.code == "clean_unfinished"
    newest.end(account)
    newest.tell("DROP FUNCTION work.ask(text)")


def test_what_dropped_itself_meanwhile_is_waited_for_all_the_same(work: Target) -> None:
    account = left_by_alice(work, AGENT)
    with running(work) as (mallory, _):
        work.provisioner.cut(account)
        blocked(work, account)
        work.tell("DROP FUNCTION work.agent()")
        assert work.provisioner.clean_many([account]) == frozenset()
        assert f"{mallory.info.backend_pid}" in blocked(work, account).message
    work.end(account)


def test_the_survey_still_knows_whose_it_is(work: Target) -> None:
    account = left_by_alice(work, AGENT)
    work.tell(f"COMMENT ON ROLE {account.account} IS 'debugflow here'")
    with running(work):
        work.provisioner.cut(account)
        blocked(work, account)
        survey = work.provisioner.survey([], levels=[], stamp="debugflow here")
        (found,) = [one for one in survey.accounts if one.account == account.account]
        assert found.stamp == "debugflow here"
    work.end(account)


def test_after_the_cut_it_reads_nothing_for_anyone_though_the_clean_up_is_held_up(
    work: Target,
) -> None:
    account = left_by_alice(
        work,
        ASK,
        "CREATE VIEW work.seen AS SELECT * FROM public.customers",
        "GRANT SELECT ON work.seen TO mallory",
    )
    mallory = work.sign_in("mallory", "mallory")
    assert mallory.execute(COUNT.encode()).fetchone() == ("2000",)
    work.provisioner.cut(account)
    assert refused(mallory, COUNT) == "42501"
    assert refused(mallory, "SELECT * FROM work.seen") == "42501"
    work.end(account)


def test_a_joint_cut_takes_the_memberships_too(work: Target) -> None:
    accounts = [left_by_alice(work, ASK.replace("ask(", f"ask{n}(")) for n in range(2)]
    assert len(work.provisioner.cut_many(accounts)) == 2
    assert memberships(work, *accounts) == 0
    for account in accounts:
        work.end(account)


def test_who_holds_a_lock_on_the_level_delays_nobodys_cut(newest: Target) -> None:
    account, others = newest.opened(WRITE), [newest.opened(WRITE) for _ in range(3)]
    with newest.bob() as bob:
        bob.execute("BEGIN")
        bob.execute("GRANT orders_rw TO mallory")
        began = time.monotonic()
        newest.provisioner.cut(account)
        assert len(newest.provisioner.cut_many(others)) == 3
        assert time.monotonic() - began < 3
        assert memberships(newest, account) == 1
        bob.execute("ROLLBACK")
    newest.provisioner.cut(account)
    assert memberships(newest, account) == 0
    for one in (account, *others):
        newest.end(one)


def test_what_somebody_else_gave_her_goes_with_the_role(newest: Target) -> None:
    account = newest.opened(WRITE)
    newest.tell(f"GRANT orders_ro TO {account.account}")
    newest.provisioner.cut(account)
    assert memberships(newest, account) == 1
    newest.end(account)


def memberships(target: Target, *accounts: Account) -> int:
    names = ", ".join(f"'{one.account}'::regrole" for one in accounts)
    found: int = target.ask(f"SELECT count(*) FROM pg_auth_members WHERE member IN ({names})")
    return found


def test_what_the_clean_up_waits_for_is_not_the_holders_to_change(target: Target) -> None:
    account = target.opened(WRITE)
    with target.sign_in(account.account) as alice:
        assert refused(alice, f"COMMENT ON ROLE {account.account} IS ''") == "42501"
    target.end(account)


def test_code_made_as_the_level_is_waited_for_too(oldest: Target) -> None:
    """On 15, where she may act as the level, whose rights outlive her membership."""
    oldest.tell("GRANT USAGE ON SCHEMA work TO mallory")
    account = oldest.opened(WRITE)
    with oldest.sign_in(account.account) as alice:
        alice.execute("SET ROLE orders_rw")
        alice.execute(AGENT.encode())
    with running(oldest) as (mallory, _):
        oldest.provisioner.cut(account)
        for _ in range(2):
            assert f"{mallory.info.backend_pid}" in blocked(oldest, account).message
    oldest.end(account)
    runs = "SELECT has_function_privilege('dbgf_quarantine', 'work.agent()', 'EXECUTE')"
    assert oldest.ask(runs) is False
    oldest.tell("DROP FUNCTION work.agent()", "REVOKE USAGE ON SCHEMA work FROM mallory")


def test_what_holds_up_one_database_keeps_nothing_armed_in_the_next(newest: Target) -> None:
    open_to = "GRANT USAGE, CREATE ON SCHEMA public TO orders_rw, dbgf_quarantine"
    closed = open_to.replace("GRANT", "REVOKE").replace(" TO ", " FROM ")
    door = "CREATE FUNCTION public.door() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'"
    for database in ("billing", "orders"):
        newest.tell(open_to, database=database)
    account = newest.opened(WRITE)
    for database in ("billing", "orders"):
        with newest.sign_in(account.account, database=database) as alice:
            alice.execute(door.encode())
            alice.execute("CREATE TABLE public.bait (i int)")
            alice.execute("GRANT ALL ON public.bait TO mallory")
    with newest.sign_in("mallory", "mallory", database="billing") as mallory:
        mallory.execute("BEGIN")
        mallory.execute("LOCK TABLE public.bait")
        newest.provisioner.cut(account)
        assert "of mallory" in blocked(newest, account).message
        assert newest.ask("SELECT prosecdef FROM pg_proc WHERE proname = 'door'") is False
    newest.end(account)
    for database in ("billing", "orders"):
        newest.tell(
            "DROP FUNCTION public.door()", "DROP TABLE public.bait", closed, database=database
        )
