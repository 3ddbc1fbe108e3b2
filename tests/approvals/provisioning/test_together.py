"""Many cuts at once: the same certainty as one by one, and no holder's doing holds up another's."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from approvals.provisioning.base import Account

from .conftest import ADMIN, ADMIN_PASSWORD, WRITE, Connection, Target, is_cut


@contextmanager
def holders(target: Target, count: int) -> Iterator[list[tuple[Account, Connection]]]:
    """Accounts, each with a session of its holder's."""
    accounts = [target.opened() for _ in range(count)]
    yield [(account, target.sign_in(account.account)) for account in accounts]
    target.close_all()


def cut_many(target: Target, held: list[tuple[Account, Connection]]) -> frozenset[int]:
    return target.provisioner.cut_many([account for account, _ in held])


def assert_out(target: Target, account: Account) -> None:
    observed = target.provisioner.observe(account)
    assert (observed.sessions, observed.can_sign_in) == (0, False)
    with pytest.raises(psycopg.OperationalError):
        target.sign_in(account.account)


def test_all_are_out_at_once(target: Target) -> None:
    with holders(target, 8) as held:
        assert cut_many(target, held) == {account.grant_id for account, _ in held}
        assert all(is_cut(session) for _, session in held)
        for account, _ in held:
            assert_out(target, account)
        assert cut_many(target, held) == {
            account.grant_id for account, _ in held
        }  # again: the same


def test_an_account_that_is_gone_already_is_certain_too(target: Target) -> None:
    with holders(target, 2) as held:
        gone = held[0][0]
        target.end(gone)
        never = Account(grant_id=999_999, account="dbgf_999999", traces=[])
        done = target.provisioner.cut_many([gone, held[1][0], never])
        assert done == {gone.grant_id, held[1][0].grant_id, never.grant_id}


def test_a_holder_who_locked_their_own_row_is_cut_with_the_others(target: Target) -> None:
    with holders(target, 4) as held:
        held[1][1].execute("BEGIN")
        held[1][1].execute("ALTER ROLE CURRENT_USER PASSWORD 'mine now'")
        assert cut_many(target, held) == {account.grant_id for account, _ in held}
        for account, _ in held:
            assert_out(target, account)


def test_a_row_that_stays_locked_keeps_only_its_own_grant_back(target: Target) -> None:
    """A prepared transaction holds it, which no ended session frees."""
    with holders(target, 3) as held:
        trapped, session = held[1]
        session.execute("BEGIN")
        session.execute("ALTER ROLE CURRENT_USER PASSWORD 'mine now'")
        session.execute("PREPARE TRANSACTION 'trap'")
        began = time.monotonic()
        assert cut_many(target, held) == {one.grant_id for one, _ in held} - {trapped.grant_id}
        assert time.monotonic() - began < 2
        assert all(is_cut(session) for _, session in held)
        target.provisioner.cut(trapped)
        for account, _ in held:
            assert_out(target, account)


def test_one_deaf_session_keeps_only_its_own_grant_back(target: Target) -> None:
    with holders(target, 4) as held:
        deaf, session = held[2]
        pid = session.info.backend_pid
        os.kill(pid, signal.SIGSTOP)
        try:
            done = cut_many(target, held)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert done == {account.grant_id for account, _ in held} - {deaf.grant_id}
        for account, _ in held:
            target.provisioner.cut(account)
            assert_out(target, account)


def test_a_stranger_under_a_name_of_ours_is_left_alone(target: Target) -> None:
    with holders(target, 2) as held:
        account, session = held[0]
        target.tell(f"ALTER ROLE {account.account} RENAME TO renamed")
        target.tell(f"CREATE ROLE {account.account} LOGIN PASSWORD 'stranger'")
        try:
            assert cut_many(target, held) == {one.grant_id for one, _ in held}
            assert is_cut(session)
            with target.sign_in(account.account, "stranger") as stranger:
                assert not is_cut(stranger)
            assert not target.ask("SELECT rolcanlogin FROM pg_roles WHERE rolname = 'renamed'")
        finally:
            target.close_all()
            target.tell(f"DROP ROLE {account.account}")
            target.tell(f"ALTER ROLE renamed RENAME TO {account.account}")


def test_an_opener_under_way_is_ended_first(target: Target) -> None:
    with holders(target, 2) as held:
        late = held[0][0]
        opener = psycopg.connect(
            target.server.url("postgres", ADMIN, ADMIN_PASSWORD),
            application_name=f"dbgf-open-{late.grant_id}",
        )
        assert cut_many(target, held) == {account.grant_id for account, _ in held}
        assert is_cut(opener)
        opener.close()


def cut(target: Target, count: int) -> list[Account]:
    accounts = [target.opened(WRITE) for _ in range(count)]
    for account in accounts:
        target.provisioner.cut(account)
    return accounts


def test_those_who_left_nothing_are_removed_at_once(newest: Target) -> None:
    accounts = cut(newest, 6)
    assert newest.provisioner.clean_many(accounts) == {one.grant_id for one in accounts}
    assert all(newest.provisioner.observe(one).gone for one in accounts)
    assert newest.provisioner.clean_many(accounts) == {one.grant_id for one in accounts}  # again


def test_where_levels_must_be_looked_through_none_is_removed_at_once(oldest: Target) -> None:
    accounts = cut(oldest, 2)
    assert oldest.provisioner.clean_many(accounts) == frozenset()
    for account in accounts:
        oldest.end(account)


def test_one_who_left_something_is_left_to_the_single_clean_up(newest: Target) -> None:
    accounts = [newest.opened(WRITE) for _ in range(3)]
    with newest.sign_in(accounts[1].account) as session:
        session.execute("CREATE TABLE work.left_behind (id int)")
    for account in accounts:
        newest.provisioner.cut(account)
    done = newest.provisioner.clean_many(accounts)
    assert done == {accounts[0].grant_id, accounts[2].grant_id}
    newest.end(accounts[1])
    assert newest.ask("SELECT tableowner FROM pg_tables WHERE tablename = 'left_behind'") == (
        "dbgf_quarantine"
    )
    newest.tell("DROP TABLE work.left_behind")


def test_a_role_whose_row_is_locked_keeps_none_from_being_removed_later(newest: Target) -> None:
    accounts = cut(newest, 2)
    with newest.bob() as bob, bob.transaction():
        bob.execute(f"ALTER ROLE {accounts[0].account} CONNECTION LIMIT 3".encode())
        assert newest.provisioner.clean_many(accounts) == frozenset()
    for account in accounts:
        newest.end(account)


def test_a_session_that_is_left_keeps_its_grant_open(newest: Target) -> None:
    """It was dropped behind our back while somebody was in: the session goes on, nameless."""
    account = newest.opened()
    session = newest.sign_in(account.account)
    newest.tell(f"DROP ROLE {account.account}")
    assert newest.provisioner.clean_many([account]) == frozenset()
    newest.provisioner.cut(account)
    assert is_cut(session)
    assert newest.provisioner.clean_many([account]) == {account.grant_id}
