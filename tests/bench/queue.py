"""The queue page, and one request's, with a hundred thousand requests pending.

Two thousand of them wait for bob. Times are the server's, through the middleware and with the page
rendered, without a network.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import psycopg
from django.contrib.auth import get_user_model
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from approvals.models import AccessRequest
from debugflow.embedded.installation import Installation
from debugflow.embedded.runtime import DATABASE
from tests.bench.votes import read_only, submitted

PENDING, FOR_BOB = 100_000, 2_000
LEVELS, PEOPLE = 200, 500  # one undecided request for each pair
LOOKS = 20

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
    group_names, stand_ins, total, deny_quorum, deadline, opened_at, deadline_at)
    OVERRIDING SYSTEM VALUE
    SELECT m.id, m.request, s.round, s."order", s.name, s.state, s.minima, s.group_names,
        s.stand_ins, s.total, s.deny_quorum, s.deadline, s.opened_at, s.deadline_at
    FROM made_stage m JOIN approvals_requeststage s ON s.id = m.pattern;
INSERT INTO approvals_candidate (stage_id, user_id, group_id)
    SELECT m.id, CASE WHEN c.user_id = {bob} AND m.n % {every} <> 0
            THEN (SELECT id FROM asker WHERE asker.n = (m.n + 1) % {people}) ELSE c.user_id END,
        c.group_id
    FROM made_stage m JOIN approvals_candidate c ON c.stage_id = m.pattern;
"""
TABLES = ("accessrequest", "requeststage", "candidate", "target", "accesslevel")


def measure(site: Installation, figure: Callable[..., Any]) -> list[Any]:
    people = {user.username: user for user in get_user_model().objects.all()}
    client = Client(headers={"host": "localhost"})
    client.force_login(people["bob"])
    pattern = submitted(people, read_only())
    small = _milliseconds(client, "/queue/")
    with psycopg.connect(site.runtime.postgres.url(DATABASE), autocommit=True) as server:
        fill(server, pattern.pk, people["bob"].pk)
    waiting = AccessRequest.objects.waiting_for(people["bob"])
    if waiting.count() < FOR_BOB:
        raise AssertionError("the requests are not there")
    newest = waiting.order_by("-pk").values_list("pk", flat=True)[0]
    return [
        figure("queue_page_ms_100k", _milliseconds(client, "/queue/"), "ms", small),
        figure("queue_all_page_ms_100k", _milliseconds(client, "/queue/?show=all"), "ms", small),
        figure("queue_page_queries", _queries(client, "/queue/"), "statements"),
        figure("request_page_queries", _queries(client, f"/requests/{newest}/"), "statements"),
    ]


def fill(server: psycopg.Connection[Any], pattern: int, bob: int) -> None:
    """Pending requests like the one with the id `pattern`, in seconds."""
    _triggers(server, "DISABLE")
    values = {"pk": pattern, "bob": bob, "every": PENDING // FOR_BOB}
    server.execute(FILL.format(**values, pending=PENDING, people=PEOPLE, levels=LEVELS))
    _triggers(server, "ENABLE")
    server.execute("VACUUM ANALYZE")


def _triggers(server: psycopg.Connection[Any], verb: str) -> None:
    for table in TABLES:
        server.execute(f"ALTER TABLE approvals_{table} {verb} TRIGGER ALL")


def _milliseconds(client: Client, address: str) -> float:
    return median(_timed(client, address) for _ in range(LOOKS)) * 1000


def _timed(client: Client, address: str) -> float:
    began = time.perf_counter()
    answer = client.get(address)
    took = time.perf_counter() - began
    if answer.status_code != 200:
        raise RuntimeError(f"{address} answered {answer.status_code}")
    return took


def _queries(client: Client, address: str) -> float:
    with CaptureQueriesContext(connection) as queries:
        client.get(address)
    return float(len(queries))
