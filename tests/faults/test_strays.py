"""Law 5's last layer on a real server: accounts nobody should have, and strangers at ours."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from approvals import closing, grants, opening, reconciler
from approvals.models import Grant, Reconciliation
from approvals.provisioning.postgresql import PostgreSQL
from approvals.states import GrantState
from audit.models import Event
from tests.faults.place import OTHER_DATABASE, Place, state_of

pytestmark = pytest.mark.slow

STRAYS_OWN = (
    "ALTER TABLE hers OWNER TO dbgf_900",
    "GRANT SELECT ON hers TO PUBLIC",
    "CREATE FUNCTION door() RETURNS int LANGUAGE sql SECURITY DEFINER RETURN 1",
    "ALTER FUNCTION door() OWNER TO dbgf_900",
)


def compare(place: Place) -> Reconciliation:
    target = place.level.target_id
    assert reconciler.run_all(reconciler.claim_now(target, worker="w"))
    return Reconciliation.objects.get(target=target)


def opened(place: Place, who: str = "alice") -> tuple[Grant, psycopg.Connection[Any]]:
    grant = place.approved(who)
    opening.open_grant(grant.pk, worker="w")
    grant.refresh_from_db()
    shown = grants.reveal(grant.pk, by=place.world.people[who])
    return grant, place.sign_in(grant, shown.password)


def tell(place: Place, *statements: str, database: str = "orders") -> None:
    """Said by bob, the target's superuser."""
    with place.production.superuser(database) as server:
        for statement in statements:
            server.execute(statement.encode())


def stray(place: Place, name: str, mark: str = "") -> psycopg.Connection[Any]:
    """An account under our name that debugflow's own login made, and a session of it."""
    with psycopg.connect(place.production.admin_url, autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'x'".encode())
        admin.execute(f"GRANT orders_readonly TO {name} WITH SET FALSE".encode())
        admin.execute(f"COMMENT ON ROLE {name} IS '{mark}'".encode())
    session = psycopg.connect(
        place.production.server.url("orders", name, "x"), autocommit=True, connect_timeout=5
    )
    place.signed_in.append(session)
    return session


def is_cut(session: psycopg.Connection[Any]) -> bool:
    try:
        session.execute("SELECT 1")
    except psycopg.OperationalError:
        return True
    return False


def owner(place: Place, table: str, database: str = "orders") -> str:
    with place.production.superuser(database) as server:
        query = "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = %s"
        return str(server.execute(query, [table]).fetchone())


def test_a_stray_goes_with_its_session_and_leaves_no_door(place: Place, clock):
    """After its grace; an account of another installation and alice's own stay."""
    mine, theirs = stray(place, "dbgf_900"), stray(place, "dbgf_901", "debugflow another")
    grant, hers = opened(place)
    for database in ("orders", OTHER_DATABASE):
        tell(place, "CREATE TABLE hers ()", *STRAYS_OWN, database=database)
    try:
        assert len(compare(place).unknown) == 1
        assert not is_cut(mine)
        clock.forward(120)
        with place.running("manage.py", "reconcile", "production") as process:
            said = process.communicate(timeout=60)[0]
        assert process.returncode == 0, said
        assert "removed dbgf_900" in said
        assert is_cut(mine)
        assert not is_cut(theirs)
        assert not is_cut(hers)
        assert sorted(place.accounts()) == sorted([grant.account, "dbgf_901"])
        for database in ("orders", OTHER_DATABASE):
            assert owner(place, "hers", database) == "('dbgf_quarantine',)"
        quarantined = Event.objects.get(action="reconciliation.quarantined")
        assert quarantined.data["disarmed"]["count"] == 2
    finally:
        for database in ("orders", OTHER_DATABASE):
            tell(place, "DROP TABLE hers", "DROP FUNCTION door", database=database)


def test_a_run_that_dies_midway_is_made_up_for(place: Place, clock, monkeypatch):
    session = stray(place, "dbgf_900")
    compare(place)
    clock.forward(120)

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(PostgreSQL, "clean", die)
    with pytest.raises(KeyboardInterrupt):
        compare(place)
    monkeypatch.undo()
    assert is_cut(session)
    assert place.accounts() == ["dbgf_900"]
    assert reconciler.claim_now(place.level.target_id, worker="w") == []
    clock.forward(reconciler.LEASE)
    compare(place)
    assert place.leftovers() == []


def test_a_grant_is_ended_when_a_stranger_drops_its_account(place: Place):
    grant, session = opened(place)
    tell(place, f"DROP ROLE {grant.account}")
    assert not is_cut(session), "a dropped role's session lives on"
    compare(place)
    assert state_of(grant) == GrantState.REVOKING
    closing.close_grant(grant.pk, worker="w")
    assert state_of(grant) == GrantState.ENDED
    assert is_cut(session)
    assert Grant.objects.get(pk=grant.pk).end_code == "account_gone"


def test_a_grant_is_ended_when_a_stranger_closes_its_account(place: Place):
    grant, session = opened(place)
    tell(place, f"ALTER ROLE {grant.account} NOLOGIN")
    compare(place)
    closing.close_grant(grant.pk, worker="w")
    assert state_of(grant) == GrantState.ENDED
    assert is_cut(session)
    assert place.leftovers() == []


def test_powers_a_stranger_gave_are_told_until_they_are_taken_back(place: Place):
    grant, _ = opened(place)
    tell(
        place, f"ALTER ROLE {grant.account} SUPERUSER", f"GRANT pg_read_all_data TO {grant.account}"
    )
    seen = compare(place)
    assert f"{grant.account} is a superuser" in seen.findings
    assert f"{grant.account} is a member of pg_read_all_data besides" in seen.findings
    assert compare(place).findings == seen.findings
    assert state_of(grant) == GrantState.ACTIVE
    tell(place, f"ALTER ROLE {grant.account} NOSUPERUSER")
    tell(place, f"REVOKE pg_read_all_data FROM {grant.account}")
    assert compare(place).findings == []
    told = Event.objects.filter(action="target.drifted").order_by("id")
    assert [bool(event.data["new"]) for event in told] == [True, False]
