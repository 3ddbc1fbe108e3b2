"""A number noted in one cluster is somebody else's in another: a target rebuilt from a dump."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from approvals.provisioning.base import Account

from .conftest import Connection, Target, is_cut

ELSEWHERE = {"cluster": "7000000000000000001"}


@pytest.fixture
def erin(target: Target) -> Iterator[tuple[int, Connection]]:
    """A stranger of the rebuilt target, with a session; her role has a number of ours."""
    target.tell("CREATE ROLE erin LOGIN PASSWORD 'erins'")
    yield (
        target.ask("SELECT oid FROM pg_roles WHERE rolname = 'erin'"),
        target.sign_in("erin", "erins"),
    )
    target.close_all()
    target.tell("DROP ROLE erin")


def noted(account: Account, **changed: Any) -> Account:
    """The account as an attempt in another cluster would have noted it."""
    traces: list[Mapping[str, Any]] = [{**one, **ELSEWHERE, **changed} for one in account.traces]
    return replace(account, traces=traces)


def test_a_strangers_role_with_our_number_is_left_alone(
    target: Target, erin: tuple[int, Connection]
) -> None:
    oid, session = erin
    account = Account(grant_id=77, account="dbgf_77", traces=[{"oid": oid, **ELSEWHERE}])
    target.provisioner.cut(account)
    assert target.provisioner.cut_many([account]) == {77}
    target.provisioner.clean(account)
    assert target.provisioner.observe(account).gone
    assert not is_cut(session)
    assert target.ask("SELECT rolcanlogin FROM pg_roles WHERE rolname = 'erin'")


def test_a_level_with_another_levels_number_keeps_what_it_owns(
    target: Target, erin: tuple[int, Connection]
) -> None:
    """Before 16 what was made in a level's name is taken over; in another cluster it is erin's."""
    oid, _ = erin
    target.tell("CREATE TABLE work.erins (id int)", "ALTER TABLE work.erins OWNER TO erin")
    account = noted(target.opened(), level=oid, level_name="orders_rw")
    try:
        target.end(account)
        assert target.ask("SELECT tableowner FROM pg_tables WHERE tablename = 'erins'") == "erin"
    finally:
        target.tell("DROP TABLE work.erins")


def test_after_an_upgrade_ours_is_known_by_its_name(target: Target) -> None:
    """pg_upgrade keeps the numbers and makes another cluster."""
    account = noted(target.opened())
    with target.sign_in(account.account) as alice:
        target.provisioner.cut(account)
        assert is_cut(alice)
    target.end(account)


def test_after_an_upgrade_ours_is_known_by_its_stamp(target: Target) -> None:
    account = noted(target.opened())
    target.tell(
        f"COMMENT ON ROLE {account.account} IS 'debugflow 0f1e'",
        f"ALTER ROLE {account.account} RENAME TO renamed",
    )
    with target.sign_in("renamed") as alice:
        target.provisioner.cut(account)
        assert is_cut(alice)
    target.end(account)


def test_in_its_own_cluster_a_renamed_account_stays_ours_without_a_stamp(target: Target) -> None:
    account = target.opened()
    target.tell(
        f"COMMENT ON ROLE {account.account} IS NULL",
        f"ALTER ROLE {account.account} RENAME TO renamed",
    )
    with target.sign_in("renamed") as alice:
        target.provisioner.cut(account)
        assert is_cut(alice)
    target.end(account)


def test_another_grants_account_with_our_number_is_left_alone(target: Target) -> None:
    other = target.opened()
    account = replace(noted(other), grant_id=7777, account="dbgf_7777")
    with target.sign_in(other.account) as alice:
        target.provisioner.cut(account)
        target.provisioner.clean(account)
        assert not is_cut(alice)
    target.end(other)
