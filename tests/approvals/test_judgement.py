"""What follows from a survey: nobody's accounts, lost grants, strangers' doings, and the limit."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from approvals.judgement import (
    FINDING_MAX,
    FINDINGS_MOST,
    GRACE,
    Entry,
    Judged,
    Lost,
    Plan,
    judge,
    key_of,
    plan,
)
from approvals.provisioning.base import Found, Known, Survey
from approvals.states import GrantState

NOW = datetime(2026, 3, 1, 10, 40, tzinfo=UTC)
BEGAN = NOW - timedelta(seconds=5)
OURS, THEIRS = "debugflow one", "debugflow two"


def found(number: int, trace: int | None = None, **more: Any) -> Found:
    values = {"account": f"dbgf_{number}", "trace": {"oid": trace or number}, "stamp": OURS}
    state = {"can_sign_in": True, "sessions": 0, "removable": True}
    return Found(**{**values, **state, **more})


def entry(number: int, state: str = GrantState.ACTIVE, **more: Any) -> Entry:
    """A grant; an active one as it was before the survey."""
    name, traces = f"dbgf_{number}", [{"oid": number, "valid_until": "…"}]
    until = NOW + timedelta(hours=1)
    known = Known(grant_id=number, account=name, traces=traces, rights={}, valid_until=until)
    values = {"grant_id": number, "account": name, "state": state, "ended_at": None}
    before = known if state == GrantState.ACTIVE else None
    return Entry(**{**values, "traces": traces, "before": before, **more})


def judged(accounts: list[Found], entries: list[Entry], **more: Any) -> Judged:
    given = {"began": BEGAN, "now": NOW, "stamp": OURS, "unknown": {}, **more}
    return judge(Survey(accounts=tuple(accounts)), entries, **given)


def ended(number: int, *, at: datetime) -> Entry:
    return entry(number, GrantState.ENDED, ended_at=at)


def test_what_agrees_is_not_told():
    seen = judged([found(1), found(2)], [entry(1), entry(2, GrantState.REVOKING)])
    assert (seen.strays, seen.lost, seen.findings, seen.unknown) == ((), (), (), {})
    assert (seen.seen, seen.active) == (2, 1)


def test_an_unknown_account_is_watched_before_it_is_removed():
    first = judged([found(9)], [])
    assert first.strays == ()
    assert first.unknown == {"dbgf_9:9": NOW.isoformat()}
    assert "not in the ledger" in first.findings[0]
    early = judged([found(9)], [], now=NOW + GRACE - timedelta(seconds=1), unknown=first.unknown)
    assert early.strays == ()
    ripe = judged([found(9)], [], now=NOW + GRACE, unknown=first.unknown)
    assert ripe.strays == (found(9),)
    assert ripe.findings == first.findings == early.findings


def test_an_account_of_the_same_name_begins_its_grace_anew():
    unknown = {"dbgf_9:9": (NOW - GRACE).isoformat()}
    again = judged([found(9, trace=10)], [], unknown=unknown)
    assert again.strays == ()
    assert again.unknown == {"dbgf_9:10": NOW.isoformat()}


def test_an_account_under_a_grants_name_is_not_the_grants():
    """By trace, never by name: the grant has lost its account, and this one is nobody's."""
    seen = judged([found(1, trace=77)], [entry(1)])
    assert [one.grant_id for one in seen.lost] == [1]
    assert "dbgf_1:77" in seen.unknown


@pytest.mark.parametrize("stamp", [THEIRS, "kept for carl"])
def test_what_bears_anothers_mark_is_never_removed(stamp: str):
    before = {"dbgf_9:9": (NOW - 9 * GRACE).isoformat()}
    seen = judged([found(9, stamp=stamp)], [ended(9, at=BEGAN)], unknown=before)
    assert (seen.strays, seen.seen) == ((), 0)
    assert stamp in seen.findings[0]


def test_what_bears_no_mark_goes_by_its_name():
    before = {"dbgf_9:9": (NOW - GRACE).isoformat()}
    assert judged([found(9, stamp="")], [], unknown=before).strays


def test_the_account_of_a_grant_that_had_ended_goes_at_once():
    seen = judged([found(5)], [ended(5, at=BEGAN)])
    assert seen.strays == (found(5),)
    assert seen.findings == ("dbgf_5:5 is the account of grant 5, which has ended",)


def test_a_grant_that_ended_during_the_survey_is_no_finding():
    seen = judged([found(5)], [ended(5, at=BEGAN + timedelta(microseconds=1))])
    assert (seen.strays, seen.findings, seen.unknown) == ((), (), {})


def test_what_we_may_not_remove_is_told_to_those_who_may():
    before = {"dbgf_9:9": (NOW - GRACE).isoformat()}
    seen = judged([found(9, removable=False)], [], unknown=before)
    assert seen.strays == ()
    assert "drop it there" in seen.findings[0]


@pytest.mark.parametrize("state", [GrantState.PROVISIONING, GrantState.REVOKING])
def test_what_the_sweeper_is_at_is_left_to_it(state: str):
    there = found(5, can_sign_in=False, differences=("is a superuser",))
    for accounts in ([there], []):
        seen = judged(accounts, [entry(5, state)])
        assert (seen.strays, seen.lost, seen.findings) == ((), (), ())


def test_a_grant_that_was_not_active_before_the_survey_is_not_lost():
    """An opener commits between the survey and the look at the ledger."""
    assert judged([], [entry(5, before=None)]).lost == ()


def test_an_account_closed_by_a_stranger_is_of_no_use():
    seen = judged([found(5, can_sign_in=False)], [entry(5)])
    assert [one.why for one in seen.lost] == [
        "somebody on the target closed its account to sign-ins."
    ]


def test_a_renamed_account_is_told_and_its_grant_not_ended():
    """Its trace may have gone to a stranger, whom ending the grant would end."""
    there = found(5, account="carl", can_sign_in=False, differences=("is called carl there",))
    seen = judged([there], [entry(5)])
    assert (seen.lost, seen.strays) == ((), ())
    assert seen.findings == ("dbgf_5 is called carl there",)


def test_any_attempts_account_will_do():
    two = [{"oid": 4}, {"oid": 5}]
    assert judged([found(5, trace=4)], [entry(5, traces=two)]).lost == ()


def test_traces_of_other_forms_are_not_mistaken():
    other = entry(5, traces=[{"id": 5}, {}])
    seen = judged([found(5), found(6, trace=6, account="dbgf_6")], [other])
    assert set(seen.unknown) == {"dbgf_5:5", "dbgf_6:6"}


def test_findings_are_few_short_and_printable():
    words = "may\x1b[31m \u202ehide\x00 " + "x" * 400
    seen = judged([found(1, differences=(words,))], [entry(1)])
    assert len(seen.findings[0]) == FINDING_MAX
    assert seen.findings[0].isprintable()
    many = judged([found(n) for n in range(1, 300)], [])
    assert len(many.findings) == FINDINGS_MOST + 1
    assert many.findings[-1] == "… and 199 more"


def planned(strays: int, *, of: int, lost: int = 0, active: int = 0, **more: Any) -> Plan:
    seen = Judged(
        strays=tuple(found(n) for n in range(1, strays + 1)),
        lost=tuple(
            Lost(grant_id=n, account=f"dbgf_{n}", why="gone.") for n in range(101, 101 + lost)
        ),
        unknown={},
        findings=(),
        seen=of,
        active=active,
    )
    return plan(seen, **{"allowed": [], "moved": False, **more})


@pytest.mark.parametrize(
    ("strays", "of", "held"),
    [(3, 3, False), (4, 4, True), (4, 19, True), (4, 20, False), (20, 100, False), (21, 100, True)],
)
def test_more_than_three_or_a_fifth_wait(strays: int, of: int, held: bool):
    made = planned(strays, of=of)
    assert (len(made.strays), len(made.held)) == ((0, strays) if held else (strays, 0))


@pytest.mark.parametrize(("lost", "active", "held"), [(3, 3, False), (4, 4, True), (4, 20, False)])
def test_grants_lost_together_wait_as_well(lost: int, active: int, held: bool):
    made = planned(1, of=1, lost=lost, active=active)
    assert len(made.strays) == 1, "what is few goes on"
    assert (len(made.lost), len(made.held)) == ((0, lost) if held else (lost, 0))
    assert all(key.endswith(":gone") for key in made.held)


def test_what_was_allowed_is_done_and_nothing_else():
    made = planned(6, of=6, lost=1, active=1, allowed=["dbgf_1:1", "dbgf_2:2", "dbgf_8:8"])
    assert [key_of(one) for one in made.strays] == ["dbgf_1:1", "dbgf_2:2"]
    assert (made.lost, made.held) == ((), ())


def test_what_was_allowed_and_is_over_allows_nothing():
    made = planned(4, of=4, allowed=["dbgf_8:8"])
    assert (made.strays, len(made.held)) == ((), 4)


def test_after_a_restore_elsewhere_all_of_it_waits():
    made = planned(1, of=50, lost=1, active=50, moved=True, allowed=["dbgf_1:1"])
    assert (made.strays, made.lost, made.held) == ((), (), ("dbgf_101:gone", "dbgf_1:1"))
