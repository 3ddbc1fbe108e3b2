"""Pending requests that `escalation.tend` may have something to do for, in SQL."""

from __future__ import annotations

import functools

from django.contrib.auth import get_user_model
from django.db import connection

from approvals.models import RequestStage
from approvals.states import RequestState, StageState
from audit import clock


def nudges(most: int) -> set[int]:
    """Ids of up to `most` in whose open stage a reminder or the escalation is due."""
    stages = RequestStage.objects.filter(
        state=StageState.OPEN, nudge_at__lte=clock.DbNow(), request__state=RequestState.PENDING
    )
    return set(stages.order_by("nudge_at").values_list("request_id", flat=True)[:most])


class Rounds:
    """Goes through what is open, part by part, for stages whose people come and go.

    What has been looked at is looked at again only after somebody else left, came back or voted:
    else a hundred thousand requests that one person could decide would be weighed again and again
    after that person has gone.
    """

    def __init__(self) -> None:
        self._after = 0
        self._last: dict[int, str] = {}
        self._this: dict[int, str] = {}

    def look(self, most: int) -> set[int]:
        """Ids of those, among the next `most` that are open, in which that has changed."""
        opened = RequestStage.objects.filter(
            state=StageState.OPEN, request__state=RequestState.PENDING, request_id__gt=self._after
        )
        part = opened.order_by("request_id").values_list("request_id", "pk")[:most]
        ids = dict(part)
        self._after = max(ids, default=0)
        found = self._left(list(ids.values()))
        self._this |= {stage: left for stage, (_, left) in found.items()}
        new = {pk for stage, (pk, left) in found.items() if self._last.get(stage) != left}
        if len(ids) < most:
            self._after, self._last, self._this = 0, self._this, {}
        return new

    def _left(self, stages: list[int]) -> dict[int, tuple[int, str]]:
        """Of the stages that somebody has left, that are stalled, or whose votes may suffice: the
        request, and who left and which votes stand."""
        with connection.cursor() as cursor:
            cursor.execute(_left_query(), [stages])
            return {stage: (request, left) for stage, request, left in cursor.fetchall()}


@functools.cache
def _left_query() -> str:
    people = get_user_model()._meta
    members = people.get_field("groups").remote_field.through._meta  # type: ignore[union-attr]
    return f"""
        SELECT s.id, s.request_id, concat(
            string_agg(c.id::text, ' ' ORDER BY c.id) FILTER (WHERE m.id IS NULL), '/', given.ids)
        FROM approvals_requeststage s
        CROSS JOIN LATERAL (
            SELECT string_agg(v.id::text, ' ' ORDER BY v.id) AS ids,
                count(*) FILTER (WHERE v.decision = 'approve') AS approvals,
                count(*) FILTER (WHERE v.decision = 'deny') AS denials
            FROM approvals_vote v JOIN {people.db_table} a ON a.id = v.voter_id AND a.is_active
            WHERE v.stage_id = s.id AND v.replaced_at IS NULL AND v.voided_at IS NULL
        ) given
        LEFT JOIN approvals_candidate c ON c.stage_id = s.id
        LEFT JOIN {people.db_table} u ON u.id = c.user_id AND u.is_active
        LEFT JOIN {members.db_table} m ON m.user_id = u.id AND m.group_id = c.group_id
        WHERE s.id = ANY(%s)
        GROUP BY s.id, given.ids, given.approvals, given.denials
        HAVING s.stalled_since IS NOT NULL OR bool_or(m.id IS NULL)
            OR given.approvals >= s.total OR given.denials >= s.deny_quorum
    """  # noqa: S608 - the names of Django's own tables
