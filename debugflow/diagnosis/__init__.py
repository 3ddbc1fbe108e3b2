"""What `manage.py doctor` looks at: each part says what is well, or what is wrong and what to do.

Changes nothing. What makes an instance unready is in `health`, what calls people in
docs/alerts.yml.
"""

from __future__ import annotations

from collections.abc import Iterator

from debugflow.diagnosis import ledger, servers
from debugflow.diagnosis.finding import Finding, Part, looked_at

# Of the database, and what can be said without it.
FIRST: tuple[Part, ...] = (servers.database, servers.settings_are_safe, servers.broker)
# What only the database knows.
REST: tuple[Part, ...] = (
    servers.database_is_safe,
    servers.processes,
    servers.clocks,
    servers.mail,
    servers.slack,
    ledger.targets,
    ledger.secrets,
    ledger.owners,
    ledger.levels,
    ledger.policies,
    ledger.second_person,
    ledger.grants,
    ledger.comparisons,
    ledger.alarms,
)


def diagnose() -> Iterator[Finding]:
    """Look at everything, one thing after the other. Never raises."""
    answers = True
    for part in FIRST:
        for finding in looked_at(part):
            answers = answers and (finding.ok or part is not servers.database)
            yield finding
    for part in REST if answers else ():
        yield from looked_at(part)
