"""Break the product on purpose, one law at a time, and see which named test notices.

    python -m tests.faults.lawbreakers [NAME…]

Each breach is made in a copy of the checkout, where the named tests, which pass on the whole copy,
must fail then. Prints a table; exits with 1 when a breach survived. A breach whose text is not in
the file any more is an error: it would break nothing.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LEFT_OUT = (".git", ".venv", ".debugflow", "__pycache__", "staticfiles", ".*_cache", "*.json")
NOT_COLLECTED = (2, 3, 4, 5)  # pytest's exit codes for runs in which no test could fail
FAILED = re.compile(r"^FAILED (\S+)", re.MULTILINE)

RACES = "tests/approvals/test_races.py::"
GRANTS = "tests/approvals/test_grants.py::"
EXTENSIONS = "tests/approvals/test_extensions.py::"
TAKEOVER = "tests/faults/test_takeover.py::"
INSTANTS = "tests/faults/test_instants.py::"
ONE_GRANT = "tests/faults/test_one_grant.py::"
CLOCK = "tests/audit/test_clock.py::"
CUT = "tests/approvals/provisioning/test_cut.py::"
MANY = "tests/approvals/provisioning/test_opening.py::"
BATCHES = "tests/approvals/test_batches.py::"


@dataclass(frozen=True)
class Breach:
    """One guard taken out: `old` in `file` becomes `new`, and one of `tests` must notice."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


BREACHES = (
    Breach(
        "rows are read without a lock",
        "approvals/models/locks.py",
        'if not _locked(model, pk, "FOR UPDATE"):',
        'if not _locked(model, pk, ""):',
        (
            f"{RACES}test_two_approvers_of_the_last_place",
            f"{RACES}test_a_vote_that_waited_past_the_deadline_is_late",
        ),
    ),
    Breach(
        "an opener's lost lease is ignored",
        "approvals/leases.py",
        "for grant in found if grant.lease == leased[grant.pk]}",
        "for grant in found}",
        (
            f"{TAKEOVER}test_a_late_opener_makes_no_account_beside_the_one_that_took_over",
            f"{BATCHES}test_one_that_another_took_over_meanwhile_is_not_opened",
        ),
    ),
    Breach(
        "a closer's lost lease is ignored",
        "approvals/closing.py",
        "        done = [job.grant for job in jobs if job.grant.pk in held]\n",
        "        done = [job.grant for job in jobs]\n",
        (f"{TAKEOVER}test_a_late_closer_does_not_say_ended_for_the_one_that_took_over",),
    ),
    Breach(
        "leases are never waited for",
        "approvals/leases.py",
        "return Q(lease_until__isnull=True) | Q(lease_until__lte=clock.DbNow())",
        "return Q()",
        (f"{INSTANTS}test_an_opener_killed_in_mid_step_is_taken_over",),
    ),
    Breach(
        "leases of the dead are waited for",
        "approvals/sweeper.py",
        "        return free_the_dead()\n",
        "        return 0\n",
        (f"{TAKEOVER}test_a_cut_whose_workers_are_killed_one_after_the_other_is_on_time",),
    ),
    Breach(
        "no re-read before COMMIT: the fence only stores",
        "approvals/opening.py",
        "        if any(not _may_commit(held.get(job.grant.pk), now) for job, _ in left):\n"
        "            raise Fenced\n",
        "",
        (
            f"{INSTANTS}test_an_opener_stopped_in_mid_step_opens_nothing_after_the_end",
            f"{BATCHES}test_one_that_was_revoked_meanwhile_is_not_opened_and_the_others_are",
        ),
    ),
    Breach(
        "the fence does not store what is about to be left",
        "approvals/leases.py",
        "        cursor.execute(_LEAVE, [[step.pk for step, _ in traces], values])\n",
        "        pass\n",
        (
            f"{INSTANTS}test_an_opener_killed_in_mid_step_is_taken_over",
            f"{BATCHES}test_a_lost_answer_of_many_is_taken_up_by_the_next_attempt",
        ),
    ),
    Breach(
        "an extension asks nobody whether it still may",
        "approvals/extending.py",
        "            if _held(self.job) is None:\n                raise Fenced\n",
        "",
        (f"{EXTENSIONS}TestCarryingOut::test_an_end_during_it_wins",),
    ),
    Breach(
        "an end moves though the access was taken away",
        "approvals/extending.py",
        "    return found if found is not None and found.goes_on(clock.now()) else None\n",
        "    return job.grant\n",
        (f"{EXTENSIONS}TestCarryingOut::test_one_that_ends_between_target_and_ledger_stays_ended",),
    ),
    Breach(
        "what is read back is ignored",
        "approvals/closing.py",
        "if not seen.gone:",
        "if False:",
        (f"{GRANTS}TestNeverGivingUp::test_what_is_still_there_is_not_ended",),
    ),
    Breach(
        "the transaction's time for the clock's",
        "audit/clock.py",
        'cursor.execute("SELECT dbnow()")',
        'cursor.execute("SELECT now() + shift FROM audit_clock")',
        (f"{CLOCK}test_a_vote_that_waited_for_its_lock_past_the_deadline_is_late",),
    ),
    Breach(
        "this machine's time for the database's",
        "audit/clock.py",
        "        return cast(datetime, cursor.fetchone()[0])",
        "        return datetime.now().astimezone()",
        (f"{GRANTS}TestRevealing::test_not_after_the_end_even_if_no_sweeper_came",),
    ),
    Breach(
        "due scans by the transaction's time",
        "audit/clock.py",
        'template = "(SELECT dbnow())"',
        'template = "(SELECT now())"',
        (f"{RACES}test_a_vote_that_waited_past_the_deadline_is_late",),
    ),
    Breach(
        "a cut leaves openers alone",
        "approvals/provisioning/postgresql/cut.py",
        "        _end_openers(db, cutter)\n",
        "",
        (
            f"{INSTANTS}test_an_opener_stopped_in_mid_step_opens_nothing_after_the_end",
            f"{CUT}test_an_opener_under_way_is_ended_first",
        ),
    ),
    Breach(
        "a cut finds no opener of many",
        "approvals/provisioning/postgresql/openers.py",
        "return bool(int(name.removeprefix(MANY), 16) & _bits(grant_ids))",
        "return False",
        (
            f"{INSTANTS}test_openers_of_many_stopped_in_mid_step_open_nothing_after_the_end_of_one",
            f"{MANY}test_a_cut_of_one_ends_the_opening_of_all",
        ),
    ),
    Breach(
        "a cut leaves sessions alone",
        "approvals/provisioning/postgresql/sessions.py",
        "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity",
        "SELECT pid FROM pg_stat_activity",
        (
            f"{CUT}test_an_idle_session_is_ended",
            f"{ONE_GRANT}test_a_sweeper_alone_ends_access_on_time",
        ),
    ),
    Breach(
        "accounts without VALID UNTIL",
        "approvals/provisioning/postgresql/roles.py",
        "        _set_expiry(db, order.account, until)\n",
        "",
        (
            f"{ONE_GRANT}test_the_targets_own_expiry_refuses_a_sign_in_with_no_sweeper_at_all",
            f"{INSTANTS}test_an_opener_killed_in_mid_step_is_taken_over",
        ),
    ),
    Breach(
        "a stopped process keeps its rows locked",
        "debugflow/settings.py",
        " -c idle_in_transaction_session_timeout=3s",
        "",
        (f"{INSTANTS}test_whoever_is_stopped_holding_rows_of_ours_loses_them",),
    ),
)


@contextmanager
def checkout() -> Iterator[Path]:
    """A copy of the checkout, its environment linked, that the system user of servers can reach."""
    with tempfile.TemporaryDirectory(prefix="lawbreakers-") as directory:
        copy = Path(directory) / "checkout"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*LEFT_OUT))
        (copy / ".venv").symlink_to(ROOT / ".venv")
        yield copy


def failures(copy: Path, tests: Sequence[str]) -> list[str]:
    """The named tests that fail there. Raises RuntimeError where they could not be run at all."""
    flags = ("-q", "-n", "0", "-x", "-p", "no:cacheprovider")
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *flags, *tests],
        check=False,
        cwd=copy,
        capture_output=True,
        text=True,
    )
    if ended.returncode in NOT_COLLECTED:
        raise RuntimeError(ended.stdout[-3000:])
    return FAILED.findall(ended.stdout)


@contextmanager
def broken(copy: Path, breach: Breach) -> Iterator[None]:
    path = copy / breach.file
    whole = path.read_text(encoding="utf-8")
    if whole.count(breach.old) != 1:
        raise RuntimeError(f"{breach.name}: its text is {whole.count(breach.old)} times in {path}")
    path.write_text(whole.replace(breach.old, breach.new), encoding="utf-8")
    try:
        yield
    finally:
        path.write_text(whole, encoding="utf-8")


def caught_by(copy: Path, breach: Breach) -> str:
    """The first named test that notices; nothing if the breach survives them all."""
    with broken(copy, breach):
        for test in breach.tests:
            if failed := failures(copy, [test]):
                return failed[0]
    return ""


def main(names: Sequence[str]) -> int:
    """Make the breaches named, or all; 1 if one survived or a test fails on the whole product."""
    chosen = [breach for breach in BREACHES if not names or breach.name in names]
    survived = 0
    with checkout() as copy:
        if failed := failures(copy, sorted({test for one in chosen for test in one.tests})):
            sys.stdout.write(f"fails unbroken: {', '.join(failed)}\n")
            return 1
        for breach in chosen:
            test = caught_by(copy, breach)
            survived += not test
            sys.stdout.write(f"{breach.name:<52}{test or 'SURVIVED'}\n")
            sys.stdout.flush()
    return int(bool(survived))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
