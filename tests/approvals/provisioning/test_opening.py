"""Many openings at once: all are made or none, and none that was to end is missed by its cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from approvals.errors import Fenced, ProvisionError
from approvals.provisioning.base import Account, OpenOrder
from approvals.provisioning.postgresql import openers
from approvals.provisioning.postgresql.config import NAME_BYTES
from approvals.provisioning.postgresql.scram import verifier

from .conftest import READ, WRITE, NotedFence, Target

IDS = st.sets(st.integers(1, 2**63 - 1), min_size=1, max_size=40)
BEHIND = "SELECT count(*) FROM pg_roles WHERE rolname ~ '^dbgf_[0-9]+$'"


@dataclass
class JointFence:
    """The control plane's side: keeps what it was given; `before` runs inside `hold_many`."""

    undos: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    before: Callable[[], None] = lambda: None

    def now(self) -> datetime:
        return datetime.now(UTC)

    def hold_many(self, undos: Mapping[int, Mapping[str, Any]]) -> None:
        self.before()
        self.undos |= undos


def orders(target: Target, count: int, rights: Mapping[str, Any] = READ) -> list[OpenOrder]:
    """Orders of one level; the target is asked for its summary once."""
    first = target.order(rights)
    ids = [first.grant_id, *(next(target._ids) for _ in range(count - 1))]
    return [
        replace(first, grant_id=one, account=f"dbgf_{one}", stamp=f"debugflow {one}") for one in ids
    ]


def ids_of(wanted: Sequence[OpenOrder]) -> set[int]:
    return {order.grant_id for order in wanted}


def test_all_are_usable_with_their_own_rights_stamp_and_expiry(target: Target) -> None:
    readers, writers = orders(target, 3), orders(target, 2, WRITE)
    wanted, fence = [*readers, *writers], JointFence()
    opened = target.provisioner.open_many(wanted, fence)
    assert opened.keys() == fence.undos.keys() == ids_of(wanted)
    with target.bob() as bob:
        seen = bob.execute(
            "SELECT rolname, oid, rolcanlogin, rolconnlimit, rolvaliduntil,"
            " shobj_description(oid, 'pg_authid'), ARRAY(SELECT roleid::regrole::text"
            " FROM pg_auth_members WHERE member = r.oid) FROM pg_roles r WHERE rolname = ANY(%s)",
            [[order.account for order in wanted]],
        ).fetchall()
    assert {row[0]: row[1:] for row in seen} == {
        order.account: (
            fence.undos[order.grant_id]["oid"],
            True,
            20 if order in writers else 10,
            opened[order.grant_id].valid_until,
            order.stamp,
            ["orders_rw" if order in writers else "orders_ro"],
        )
        for order in wanted
    }
    for order in wanted:
        assert opened[order.grant_id].connection["user"] == order.account
        assert fence.undos[order.grant_id]["valid_until"] == (
            opened[order.grant_id].valid_until.isoformat()
        )
    with target.sign_in(readers[1].account) as alice:
        assert alice.execute("SELECT count(*) FROM orders").fetchone() == (2000,)


def test_they_are_cut_and_removed_like_any(target: Target) -> None:
    wanted, fence = orders(target, 2), JointFence()
    target.provisioner.open_many(wanted, fence)
    for order in wanted:
        undo = [fence.undos[order.grant_id]]
        target.end(Account(grant_id=order.grant_id, account=order.account, traces=undo))


def test_twenty_five_take_no_more_statements_than_two(newest: Target, monkeypatch) -> None:
    said: list[Any] = []
    execute = psycopg.Connection.execute

    def noted(self: Any, query: Any, *args: Any, **more: Any) -> Any:
        said.append(query)
        return execute(self, query, *args, **more)

    def statements(count: int) -> int:
        wanted = orders(newest, count)
        with monkeypatch.context() as patch:
            patch.setattr(psycopg.Connection, "execute", noted)
            said.clear()
            assert newest.provisioner.open_many(wanted, JointFence()).keys() == ids_of(wanted)
        return len(said)

    assert statements(2) == statements(25) < 60  # the look at the level is most of it


def test_a_strangers_name_is_left_to_its_single_opening(target: Target) -> None:
    wanted, fence = orders(target, 3), JointFence()
    target.tell(f"CREATE ROLE {wanted[1].account} LOGIN PASSWORD 'strangers'")
    opened = target.provisioner.open_many(wanted, fence)
    assert opened.keys() == fence.undos.keys() == ids_of(wanted) - {wanted[1].grant_id}
    target.sign_in(wanted[1].account, "strangers").close()
    with pytest.raises(ProvisionError) as caught:
        target.provisioner.open(wanted[1], NotedFence())
    assert caught.value.code == "name_taken"


def test_a_level_that_changed_is_left_to_the_single_openings(target: Target) -> None:
    readers, writers = orders(target, 2), orders(target, 2, WRITE)
    with drifted(target, "UPDATE ON orders", "orders_ro"):
        opened = target.provisioner.open_many([*readers, *writers], JointFence())
        assert opened.keys() == ids_of(writers)


def test_a_level_that_became_unsafe_is_left_to_the_single_openings(target: Target) -> None:
    readers, writers = orders(target, 2), orders(target, 2, WRITE)
    target.tell("GRANT SELECT ON orders TO orders_ro WITH GRANT OPTION")
    try:
        opened = target.provisioner.open_many([*readers, *writers], JointFence())
        assert opened.keys() == ids_of(writers)
        assert target.provisioner.open_many(readers, JointFence()) == {}
    finally:
        target.tell("REVOKE GRANT OPTION FOR SELECT ON orders FROM orders_ro")


@contextmanager
def drifted(target: Target, right: str, level: str) -> Iterator[None]:
    target.tell(f"GRANT {right} TO {level}")
    try:
        yield
    finally:
        target.tell(f"REVOKE {right} FROM {level}")


def test_one_that_was_overtaken_leaves_nothing_of_any(target: Target) -> None:
    def overtaken() -> None:
        raise Fenced

    with pytest.raises(Fenced):
        target.provisioner.open_many(orders(target, 3), JointFence(before=overtaken))
    assert target.ask(BEHIND) == 0


def test_what_an_earlier_attempt_committed_is_taken_up(target: Target) -> None:
    wanted, fence = orders(target, 3), JointFence()
    target.provisioner.open_many(wanted[:2], fence)
    before = {key: undo["oid"] for key, undo in fence.undos.items()}
    again = [
        replace(order, known=[fence.undos[order.grant_id]], password="another-canary-2Ks")
        for order in wanted[:2]
    ]
    opened = target.provisioner.open_many([*again, wanted[2]], fence)
    assert opened.keys() == ids_of(wanted)
    assert {key: fence.undos[key]["oid"] for key in before} == before
    target.sign_in(wanted[0].account, "another-canary-2Ks").close()


def test_a_cut_of_one_ends_the_opening_of_all(target: Target) -> None:
    """It has passed its look at the ledger, and would commit what was just taken away."""
    wanted = orders(target, 3)
    cut = Account(grant_id=wanted[1].grant_id, account=wanted[1].account, traces=[])
    fence = JointFence(before=lambda: target.provisioner.cut(cut))
    with pytest.raises(ProvisionError):
        target.provisioner.open_many(wanted, fence)
    assert target.ask(BEHIND) == 0


def test_a_joint_cut_ends_it_as_well_and_that_of_others_does_not(target: Target) -> None:
    ours, others = orders(target, 2), orders(target, 2)

    def cut(wanted: Sequence[OpenOrder]) -> None:
        accounts = [
            Account(grant_id=one.grant_id, account=one.account, traces=[]) for one in wanted
        ]
        assert target.provisioner.cut_many(accounts) == ids_of(wanted)

    opened = target.provisioner.open_many(ours, JointFence(before=lambda: cut(others)))
    assert opened.keys() == ids_of(ours)
    with pytest.raises(ProvisionError):
        target.provisioner.open_many(others, JointFence(before=lambda: cut(others[:1])))


def test_a_level_that_somebody_holds_locked_is_not_waited_for(newest: Target) -> None:
    wanted = orders(newest, 2)
    with newest.bob() as bob, bob.transaction():
        bob.execute("ALTER ROLE orders_ro CONNECTION LIMIT 7")
        bob.execute("GRANT orders_ro TO mallory")
        assert newest.provisioner.open_many(wanted, JointFence()) == {}
        raise psycopg.Rollback
    assert newest.ask(BEHIND) == 0
    assert newest.provisioner.open_many(wanted, JointFence()).keys() == ids_of(wanted)


def test_without_the_right_to_make_roles_none_is_made(newest: Target) -> None:
    wanted = orders(newest, 2)
    newest.tell("REVOKE orders_ro FROM debugflow_admin")
    try:
        assert newest.provisioner.open_many(wanted, JointFence()) == {}
        assert newest.ask(BEHIND) == 0
    finally:
        newest.tell("GRANT orders_ro TO debugflow_admin WITH ADMIN TRUE, INHERIT FALSE, SET FALSE")


@given(IDS)
def test_a_joint_opener_is_found_by_each_of_its_grants(ids: set[int]) -> None:
    name = openers.joint_name(ids)
    assert len(name.encode()) <= NAME_BYTES
    assert all(openers._opens(name, [one]) for one in ids)


@given(st.integers(1, 2**62), st.sets(st.integers(0, openers.BITS - 1), min_size=2))
def test_grants_with_close_numbers_are_told_apart(first: int, offsets: set[int]) -> None:
    one, *others = (first + offset for offset in offsets)
    assert not openers._opens(openers.joint_name(others), [one])
    assert not openers._opens(openers.opener_name(others[0]), [one])


def test_an_opener_whose_grants_cannot_be_told_is_anyones() -> None:
    assert openers._opens(f"{openers.MANY}?", [1])


def test_the_verifier_is_the_servers_own_form(newest: Target) -> None:
    with newest.bob() as bob:
        theirs = bob.pgconn.encrypt_password(b"secret", b"anyone", b"scram-sha-256").decode()
    shape = [len(part) for part in theirs.replace(":", "$").split("$")]
    assert [len(part) for part in verifier("secret").replace(":", "$").split("$")] == shape
    assert verifier("secret") != verifier("secret")  # salted


@pytest.mark.parametrize("password", ["pässword", "two\nlines", "half\u00a0space"])
def test_a_password_that_would_have_to_be_prepared_is_refused(password: str) -> None:
    with pytest.raises(ValueError, match="printable ASCII"):
        verifier(password)
