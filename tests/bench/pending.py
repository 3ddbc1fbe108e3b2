"""A hundred thousand requests pending, two thousand of which wait for bob."""

from __future__ import annotations

from typing import Any

import psycopg

from approvals.models import AccessRequest
from approvals.states import RequestState
from debugflow.embedded.installation import Installation
from debugflow.embedded.runtime import DATABASE
from tests.bench.votes import read_only, submitted

PENDING, FOR_BOB = 100_000, 2_000
LEVELS, PEOPLE = 200, 500  # one undecided request for each pair

# One undecided request and all that belongs to it, taken as the pattern for the others. Each has
# its own level, asker, reason and clock; every fiftieth is asked of bob, the others of others.
# Triggers are off meanwhile: they would take hours.
FILL = """
INSERT INTO accounts_user (username, password, is_superuser, is_staff, is_active, first_name,
    last_name, email, date_joined, time_zone)
    SELECT 'asker-' || n, '!', false, false, true, '', '', '', now(), 'UTC'
    FROM generate_series(1, {people}) n;
CREATE TEMP TABLE asker AS SELECT id, row_number() OVER (ORDER BY id) - 1 AS n
    FROM accounts_user WHERE username LIKE 'asker-%';
CREATE TEMP TABLE pattern AS SELECT * FROM approvals_accessrequest WHERE id = {pk};
INSERT INTO approvals_target (name, description, kind, environment, labels, config, address,
    trust_anchor, secrets, enabled, created_at)
    SELECT 'target-' || n, '', kind, environment, labels, config, address, trust_anchor, secrets,
        true, now() FROM approvals_target, generate_series(1, {levels}) n
    WHERE id = (SELECT target_id FROM pattern);
INSERT INTO approvals_accesslevel (target_id, name, description, rights, summary, summarised_at,
    risk, max_duration, reach, rank, guardrails, enabled)
    SELECT t.id, l.name, '', l.rights, l.summary, l.summarised_at, l.risk, l.max_duration, l.reach,
        l.rank, l.guardrails, true FROM approvals_accesslevel l, approvals_target t
    WHERE l.id = (SELECT level_id FROM pattern) AND t.name LIKE 'target-%';
CREATE TEMP TABLE level AS SELECT id, target_id, row_number() OVER (ORDER BY id) - 1 AS n
    FROM approvals_accesslevel WHERE target_id IN
        (SELECT id FROM approvals_target WHERE name LIKE 'target-%');
CREATE TEMP TABLE made AS
    SELECT nextval(pg_get_serial_sequence('approvals_accessrequest', 'id')) AS id, i AS n,
        a.id AS asker, l.id AS level, l.target_id AS target
    FROM generate_series(0, {pending} - 1) i
    JOIN asker a ON a.n = i % {people} JOIN level l ON l.n = i / {people};
INSERT INTO approvals_accessrequest (id, kind, state, requester_id, beneficiary_id,
    last_edited_by_id, target_id, level_id, policy_version_id, reason, ticket, duration, scope,
    scope_hash, round, submitted_at, pending_until, decision_note)
    OVERRIDING SYSTEM VALUE
    SELECT m.id, p.kind, p.state, m.asker, m.asker, m.asker, m.target, m.level, p.policy_version_id,
        'Orders of batch ' || m.n || ' hang since this morning, customers wait and write to us.',
        'OPS-' || m.n, p.duration, p.scope, p.scope_hash, p.round,
        p.submitted_at - m.n * interval '10 ms', p.pending_until + m.n * interval '10 ms', ''
    FROM pattern p, made m;
CREATE TEMP TABLE made_stage AS
    SELECT nextval(pg_get_serial_sequence('approvals_requeststage', 'id')) AS id, m.n,
        m.id AS request, s.id AS pattern
    FROM made m, approvals_requeststage s WHERE s.request_id = {pk};
INSERT INTO approvals_requeststage (id, request_id, round, "order", name, state, minima,
    group_names, stand_ins, total, deny_quorum, deadline, opened_at, deadline_at, remind_every,
    max_reminders, nudge_at)
    OVERRIDING SYSTEM VALUE
    SELECT m.id, m.request, s.round, s."order", s.name, s.state, s.minima, s.group_names,
        s.stand_ins, s.total, s.deny_quorum, s.deadline, s.opened_at, s.deadline_at, 3600, 3,
        s.opened_at + interval '1 h' + m.n * interval '10 ms'
    FROM made_stage m JOIN approvals_requeststage s ON s.id = m.pattern;
INSERT INTO approvals_candidate (stage_id, user_id, group_id)
    SELECT m.id, CASE WHEN c.user_id = {bob} AND m.n % {every} <> 0
            THEN (SELECT id FROM asker WHERE asker.n = (m.n + 1) % {people}) ELSE c.user_id END,
        c.group_id
    FROM made_stage m JOIN approvals_candidate c ON c.stage_id = m.pattern;
"""
TABLES = ("accessrequest", "requeststage", "candidate", "target", "accesslevel")


def filled(site: Installation, people: dict[str, Any]) -> None:
    """There are that many afterwards, made in seconds; nothing to do where there are already."""
    pending = AccessRequest.objects.filter(state=RequestState.PENDING)
    if pending.count() < PENDING:
        of_alice = pending.filter(requester=people["alice"])
        pattern = of_alice.first() or submitted(people, read_only())
        with psycopg.connect(site.runtime.postgres.url(DATABASE), autocommit=True) as server:
            _fill(server, pattern.pk, people["bob"].pk)
    if AccessRequest.objects.waiting_for(people["bob"]).count() < FOR_BOB:
        raise AssertionError("the requests are not there")


def _fill(server: psycopg.Connection[Any], pattern: int, bob: int) -> None:
    """Requests like the one with the id `pattern`."""
    _triggers(server, "DISABLE")
    values = {"pk": pattern, "bob": bob, "every": PENDING // FOR_BOB}
    server.execute(FILL.format(**values, pending=PENDING, people=PEOPLE, levels=LEVELS))
    _triggers(server, "ENABLE")
    server.execute("VACUUM ANALYZE")


def _triggers(server: psycopg.Connection[Any], verb: str) -> None:
    for table in TABLES:
        server.execute(f"ALTER TABLE approvals_{table} {verb} TRIGGER ALL")
