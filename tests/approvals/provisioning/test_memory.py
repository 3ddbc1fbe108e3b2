"""The rehearsal target: faults come where they were ordered."""

from __future__ import annotations

import pytest

from approvals.errors import ProvisionError
from approvals.provisioning.base import Account, OpenOrder
from approvals.provisioning.memory import MemoryProvisioner, MemoryServer

from .conftest import NotedFence

ORDER = OpenOrder(
    grant_id=1,
    account="dbgf_1",
    rights={"level": "read-only"},
    summary=("may read",),
    password="x",
    duration=60,
)


@pytest.fixture
def provisioner() -> MemoryProvisioner:
    MemoryServer.forget_all()
    return MemoryProvisioner({"name": "prod"}, {})


def test_a_fault_comes_as_often_as_ordered_and_only_in_its_verb(
    provisioner: MemoryProvisioner,
) -> None:
    account = Account(grant_id=1, account="dbgf_1", traces=[])
    provisioner.server.fail_next("cut", ProvisionError("no route"), times=2)
    provisioner.observe(account)
    for _ in range(2):
        with pytest.raises(ProvisionError, match="no route"):
            provisioner.cut(account)
    provisioner.cut(account)
    assert provisioner.server.calls == ["observe", "cut", "cut", "cut"]


def test_a_lost_commit_leaves_the_undo_and_nothing_else(provisioner: MemoryProvisioner) -> None:
    fence = NotedFence()
    provisioner.server.fail_next("commit", ProvisionError("connection lost"))
    with pytest.raises(ProvisionError, match="connection lost"):
        provisioner.open(ORDER, fence)
    assert len(fence.undo) == 1
    assert provisioner.server.accounts == {}


def test_servers_are_shared_by_name_within_the_process(provisioner: MemoryProvisioner) -> None:
    provisioner.open(ORDER, NotedFence())
    assert "dbgf_1" in MemoryProvisioner({"name": "prod"}, {}).server.accounts
    assert MemoryProvisioner({"name": "staging"}, {}).server.accounts == {}


def test_a_session_outlives_its_account_until_it_is_cut(provisioner: MemoryProvisioner) -> None:
    fence = NotedFence()
    provisioner.open(ORDER, fence)
    session = provisioner.server.sign_in("dbgf_1", "x")
    account = Account(grant_id=1, account="dbgf_1", traces=fence.undo)
    provisioner.clean(account)
    assert session.alive
    assert provisioner.observe(account).sessions == 1
    provisioner.cut(account)
    assert not session.alive
