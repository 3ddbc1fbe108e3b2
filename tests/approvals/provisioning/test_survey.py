"""What is ours on a target, by name and oid, and what strangers changed of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from approvals.errors import ProvisionError
from approvals.provisioning.base import Account, Found, Known, Survey
from approvals.provisioning.postgresql import PostgreSQL, survey
from approvals.provisioning.postgresql.connect import Db, Query, all_rows

from .conftest import ADMIN, READ, WRITE, NotedFence, Target, account_of, is_cut

STAMP = "debugflow 5e7a"


def opened(target: Target, rights: Any = READ) -> Known:
    """alice's access, with this installation's stamp on it, as its ledger knows it."""
    order, fence = replace(target.order(rights), stamp=STAMP), NotedFence()
    until = target.provisioner.open(order, fence).valid_until
    return Known(
        grant_id=order.grant_id,
        account=order.account,
        traces=fence.undo,
        rights=rights,
        valid_until=until,
    )


def look(target: Target, *known: Known, levels: Sequence[Any] = (READ, WRITE)) -> Survey:
    return target.provisioner.survey(known, levels=levels, stamp=STAMP)


def found(seen: Survey, name: str) -> Found:
    return next(one for one in seen.accounts if one.account == name)


def as_account(known: Known) -> Account:
    return Account(grant_id=known.grant_id, account=known.account, traces=known.traces)


def test_an_account_as_it_was_opened_differs_in_nothing(target: Target) -> None:
    alices = opened(target)
    session = target.sign_in(alices.account)
    seen = look(target, alices)
    assert seen.findings == ()
    assert seen.accounts == (
        Found(
            account=alices.account,
            trace={"oid": alices.traces[-1]["oid"]},
            stamp=STAMP,
            can_sign_in=True,
            sessions=1,
            removable=True,
        ),
    )
    assert not is_cut(session)


def test_a_second_attempt_leaves_the_stamp_too(target: Target) -> None:
    order, fence = target.order(), NotedFence()
    target.provisioner.open(order, fence)
    again = replace(order, known=fence.undo, stamp=STAMP)
    target.provisioner.open(again, fence)
    assert found(look(target), order.account).stamp == STAMP
    target.end(account_of(order, fence))


RENAMED = "ALTER ROLE {0} RENAME TO carls_own"
CHANGES = {
    "ALTER ROLE {0} SUPERUSER": "is a superuser",
    "ALTER ROLE {0} CREATEROLE": "may make roles (CREATEROLE)",
    "ALTER ROLE {0} CREATEDB": "may make databases (CREATEDB)",
    "ALTER ROLE {0} REPLICATION": "may replicate (REPLICATION)",
    "ALTER ROLE {0} BYPASSRLS": "passes by row security (BYPASSRLS)",
    "ALTER ROLE {0} VALID UNTIL 'infinity'": "may sign in beyond its end (VALID UNTIL)",
    "ALTER ROLE {0} VALID UNTIL '2099-01-01'": "may sign in beyond its end (VALID UNTIL)",
    "ALTER ROLE {0} CONNECTION LIMIT -1": "has a connection limit of -1, not 10",
    "REVOKE orders_ro FROM {0} GRANTED BY {1}": "has not the rights of orders_ro any more",
    "GRANT {0} TO mallory": "is lent to mallory, who is a member of it",
    RENAMED: "is called carls_own there",
    "COMMENT ON ROLE {0} IS 'mine'": (
        "bears no stamp of this installation, so that another may remove it"
    ),
}
CHANGES_15 = {
    "GRANT orders_rw TO {0}": "is a member of orders_rw besides",
    "GRANT orders_ro TO {0} WITH ADMIN OPTION": "may pass orders_ro on (ADMIN OPTION)",
}
CHANGES_16 = {
    "GRANT orders_rw TO {0} WITH SET FALSE": "is a member of orders_rw besides",
    "GRANT orders_ro TO {0} WITH ADMIN TRUE, SET FALSE": "may pass orders_ro on (ADMIN OPTION)",
    "GRANT orders_ro TO {0} WITH SET TRUE": (
        "may act as orders_ro (SET), and keep that after its end"
    ),
    "GRANT orders_ro TO {0} WITH INHERIT FALSE GRANTED BY {1}": (
        "has not the rights of orders_ro any more"
    ),
}


def test_what_a_stranger_changes_is_told_and_nothing_else(target: Target) -> None:
    changes = CHANGES | (CHANGES_16 if target.major > 15 else CHANGES_15)
    accounts = {statement: opened(target) for statement in changes}
    untouched = opened(target)
    target.tell(*(statement.format(one.account, ADMIN) for statement, one in accounts.items()))
    seen = look(target, untouched, *accounts.values())
    target.tell(f"ALTER ROLE carls_own RENAME TO {accounts[RENAMED].account}")
    differences = {one.trace["oid"]: one.differences for one in seen.accounts}
    assert differences.pop(oid(untouched)) == ()
    told = {statement: differences.pop(oid(one)) for statement, one in accounts.items()}
    assert told == {statement: (words,) for statement, words in changes.items()}
    assert differences == {}
    assert not found(seen, "carls_own").removable


def oid(known: Known) -> int:
    return int(known.traces[-1]["oid"])


def test_a_closed_account_is_seen_to_be_closed(target: Target) -> None:
    alices = opened(target)
    target.tell(f"ALTER ROLE {alices.account} NOLOGIN")
    one = found(look(target, alices), alices.account)
    assert not one.can_sign_in
    assert one.differences == ()


def test_what_a_stranger_does_to_a_level_is_told(target: Target) -> None:
    opened(target, WRITE)  # ours, hence no stranger in its level
    target.tell(
        "ALTER ROLE orders_ro LOGIN CREATEDB",
        "GRANT orders_ro TO mallory",
        "ALTER ROLE orders_rw RENAME TO gone",
    )
    try:
        findings = look(target).findings
    finally:
        target.tell(
            "ALTER ROLE orders_ro NOLOGIN NOCREATEDB",
            "REVOKE orders_ro FROM mallory",
            "ALTER ROLE gone RENAME TO orders_rw",
        )
    assert set(findings) == {
        "orders_ro, the role of a level, may sign in (LOGIN)",
        "orders_ro, the role of a level, may make databases (CREATEDB)",
        "mallory is a member of orders_ro, which is for temporary accounts",
        "there is no role orders_rw, which a level names",
    }
    assert look(target).findings == ()


HOSTILE = [
    'dbgf_1"; DROP ROLE mallory; --',
    "dbgf_1'; DROP ROLE mallory; --",
    "dbgf_1 ",
    " dbgf_1",
    "dbgf_1\n",
    "x\ndbgf_1",
    "DBGF_1",
    "dbgf_",
    "dbgf_-1",
    "dbgf_1_",
    "dbgf_１",  # a digit of another script
    "dbgf_١",
    "ԁbgf_1",  # a letter of another script
    "dbgf\u200b_1",
    "dbgf_1\u202e",
    "%s",
    "{}",
]


def test_names_that_only_look_like_ours_are_not_ours(target: Target) -> None:
    alices = opened(target)
    with target.bob() as db:
        for name in HOSTILE:
            db.execute(psycopg.sql.SQL("CREATE ROLE {}").format(psycopg.sql.Identifier(name)))
            lent = psycopg.sql.SQL("GRANT orders_ro TO {}").format(psycopg.sql.Identifier(name))
            db.execute(lent)
        try:
            seen = look(target, alices)
        finally:
            for name in HOSTILE:
                db.execute(psycopg.sql.SQL("DROP ROLE {}").format(psycopg.sql.Identifier(name)))
    assert [one.account for one in seen.accounts] == [alices.account]
    assert len(seen.findings) == len(HOSTILE)
    assert all(line.isprintable() for line in seen.findings)
    assert target.ask("SELECT count(*) FROM pg_roles WHERE rolname = 'mallory'") == 1


def test_a_name_or_comment_in_no_encoding_blinds_nobody(target: Target) -> None:
    alices = opened(target)
    bare = "ENCODING 'SQL_ASCII' LOCALE 'C' LOCALE_PROVIDER libc"
    target.tell(f"CREATE DATABASE bytes TEMPLATE template0 {bare}", database="postgres")
    try:
        with target.bob("bytes") as db:
            db.execute("SET client_encoding TO 'SQL_ASCII'")
            db.execute(b'CREATE ROLE "caf\xe9"')
            db.execute(b'GRANT orders_ro TO "caf\xe9"')
            db.execute(f"COMMENT ON ROLE {alices.account} IS '".encode() + b"\xe9'")
            seen = look(target, alices)
            db.execute(b'DROP ROLE "caf\xe9"')
            db.execute(f"COMMENT ON ROLE {alices.account} IS NULL".encode())
    finally:
        target.tell("DROP DATABASE bytes WITH (FORCE)", database="postgres")
    assert found(seen, alices.account).stamp == "\ufffd"
    (line,) = seen.findings
    assert line.startswith("caf\ufffd is a member of orders_ro")


def test_whom_we_may_remove(newest: Target) -> None:
    """From 16 on only whoever made a role, or was given it, may; nobody of us a superuser."""
    newest.tell(
        "CREATE ROLE dbgf_901 LOGIN",
        f"CREATE ROLE dbgf_902; GRANT dbgf_902 TO {ADMIN} WITH ADMIN TRUE",
        f"CREATE ROLE dbgf_903 SUPERUSER; GRANT dbgf_903 TO {ADMIN} WITH ADMIN TRUE",
        "CREATE ROLE dbgf_99999999999999999999999999",
    )
    assert removable(newest) == {
        "dbgf_901": False,
        "dbgf_902": True,
        "dbgf_903": False,
        "dbgf_99999999999999999999999999": False,
    }
    assert_not_cleaned(newest, "dbgf_901")


def test_whom_we_may_remove_before_16(oldest: Target) -> None:
    """CREATEROLE is enough, but for superusers and who may replicate."""
    oldest.tell(
        "CREATE ROLE dbgf_901 LOGIN BYPASSRLS CREATEROLE",
        "CREATE ROLE dbgf_902 LOGIN REPLICATION",
        "CREATE ROLE dbgf_903 SUPERUSER",
    )
    assert removable(oldest) == {"dbgf_901": True, "dbgf_902": False, "dbgf_903": False}
    assert_not_cleaned(oldest, "dbgf_903")


def removable(target: Target) -> dict[str, bool]:
    return {one.account: one.removable for one in look(target).accounts}


def stray(target: Target, name: str) -> Account:
    known = target.ask(f"SELECT oid FROM pg_roles WHERE rolname = '{name}'")
    return Account(grant_id=0, account=name, traces=[{"oid": known}])


def assert_not_cleaned(target: Target, name: str) -> None:
    account = stray(target, name)
    with pytest.raises(ProvisionError):
        target.provisioner.clean(account)


def test_the_admin_account_is_never_one_of_them(target: Target) -> None:
    target.tell("CREATE ROLE dbgf_77 LOGIN CREATEROLE PASSWORD 'own'")
    itself = PostgreSQL({**target.config, "user": "dbgf_77"}, {"password": "own"})
    assert itself.survey([], levels=[], stamp=STAMP).accounts == ()


def test_a_thousand_accounts_take_no_more_questions_than_one(
    newest: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = newest
    asked: list[Query] = []

    def noted(db: Db, query: Query, **values: Any) -> Any:
        asked.append(query)
        return all_rows(db, query, **values)

    monkeypatch.setattr(survey, "all_rows", noted)
    alices = opened(target)
    look(target, alices)
    few = len(asked)
    make = (
        f"SET ROLE {ADMIN}; DO $$ BEGIN FOR i IN 100001..101000 LOOP"
        " EXECUTE format('CREATE ROLE dbgf_%s LOGIN VALID UNTIL ''2099-01-01''', i);"
        " EXECUTE format('GRANT orders_ro TO dbgf_%s WITH SET FALSE', i); END LOOP; END $$"
    )
    drop = (
        "DO $$ BEGIN FOR i IN 100001..101000 LOOP"
        " EXECUTE format('DROP ROLE dbgf_%s', i); END LOOP; END $$"
    )
    target.tell(make)
    try:
        known = [alices, *map(_one_of_many, look(target, alices).accounts)]
        asked.clear()
        began = time.monotonic()
        seen = look(target, *known)
        took = time.monotonic() - began
    finally:
        target.tell(drop)
    assert len(asked) == few
    assert len(seen.accounts) == 1001
    assert all(one.removable for one in seen.accounts)
    assert took < 2


def _one_of_many(one: Found) -> Known:
    until = datetime.now(UTC) + timedelta(minutes=1)
    return Known(
        grant_id=1, account=one.account, traces=[one.trace], rights=READ, valid_until=until
    )


def test_sessions_from_elsewhere_are_ended_and_no_other(target: Target) -> None:
    alices, others = opened(target), opened(target)
    hers, theirs = target.sign_in(alices.account), target.sign_in(others.account)
    began = target.ask(
        f"SELECT backend_start FROM pg_stat_activity WHERE usename = '{alices.account}'"
    )
    provisioner, accounts = target.provisioner, [as_account(alices)]
    assert provisioner.end_elsewhere(accounts, ["10.0.0.0/8", "127.0.0.0/8"]) == []
    assert not is_cut(hers)
    (ended,) = provisioner.end_elsewhere(accounts, ["10.0.0.0/8"])
    assert (ended.account, ended.address) == (alices.account, "127.0.0.1")
    assert (ended.number, ended.began_at) == (hers.info.backend_pid, began)
    assert is_cut(hers)
    assert not is_cut(theirs)
    target.sign_in(alices.account)
    assert len(provisioner.end_elsewhere(accounts, [])) == 1
    assert not lent_to_us(target, oid(alices)), "the look behind the curtain was rolled back"


def lent_to_us(target: Target, role: int) -> bool:
    """Whether the admin account has the rights of this role, as it has after a clean-up began."""
    return bool(target.ask(f"SELECT pg_has_role('{ADMIN}', {role}::oid, 'USAGE')"))


def test_where_a_session_comes_from_must_be_seen(newest: Target) -> None:
    newest.tell("CREATE ROLE dbgf_904 LOGIN PASSWORD 'x'")
    account = stray(newest, "dbgf_904")
    session = newest.sign_in("dbgf_904", "x", database="postgres")
    with pytest.raises(ProvisionError, match="may not see"):
        newest.provisioner.end_elsewhere([account], [])
    assert not is_cut(session)
