"""Reminders and escalations against each other and against people, on real connections."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import psycopg
import pytest

from approvals import escalation, workflow
from approvals.errors import NotAllowed
from approvals.models import AccessRequest, Grant, Nudge
from approvals.states import RequestState
from tests.approvals.test_escalation import asked, opened, timed
from tests.approvals.test_races import actions, at_once, until_blocked, vote
from tests.conftest import Control
from tests.world import HOUR, World, publish, stage

pytestmark = pytest.mark.usefixtures("committed")


def test_two_workers_remind_once(world: World, clock):
    publish(world, timed(world))
    for _ in range(5):
        request = world.submit()
        clock.forward(600)
        at_once(*[partial(escalation.tend, request.pk)] * 4)
        assert Nudge.objects.filter(stage__request=request).count() == 1
        assert actions(request)["requeststage.reminded"] == 1
        workflow.cancel(request.pk, by=world.alice)


def test_two_workers_escalate_once(world: World, clock):
    publish(world, timed(world, remind_every=None, max_reminders=None))
    for _ in range(5):
        request = world.submit()
        clock.forward(HOUR)
        at_once(*[partial(escalation.tend, request.pk)] * 4)
        assert actions(request)["requeststage.escalated"] == 1
        workflow.cancel(request.pk, by=world.alice)


def test_escalation_against_a_vote(world: World, clock):
    """Whichever is first, the vote counts once, and nobody is asked about what is decided."""
    publish(world, timed(world))
    for _ in range(5):
        request = world.submit()
        clock.forward(HOUR)
        tend = partial(escalation.tend, request.pk)
        at_once(tend, vote(world, request, "bob"), tend)
        request.refresh_from_db()
        assert request.state == RequestState.APPROVED
        assert Grant.objects.filter(request=request).count() == 1
        assert actions(request)["requeststage.escalated"] <= 1
        assert escalation.tend(request.pk) is None
        assert actions(request)["accessrequest.approved"] == 1


def test_a_vote_of_the_escalation_group_against_the_escalation(world: World, clock):
    """It counts if they were asked by then, and is refused if they were not."""
    publish(world, timed(world))
    for _ in range(5):
        request = world.submit()
        clock.forward(HOUR)
        results = at_once(partial(escalation.tend, request.pk), vote(world, request, "olga"))
        request.refresh_from_db()
        refused = isinstance(results[1], NotAllowed)
        assert refused == (request.state == RequestState.PENDING)
        if refused:
            escalation.tend(request.pk)
            vote(world, request, "olga")()


def test_the_deadline_against_escalation(world: World, clock):
    """What has run out is never escalated, however late the clock comes by."""
    publish(world, timed(world, deadline=2 * HOUR))
    for _ in range(5):
        request = world.submit()
        clock.forward(2 * HOUR)
        at_once(partial(workflow.expire, request.pk), partial(escalation.tend, request.pk))
        workflow.expire(request.pk)
        request.refresh_from_db()
        assert request.state == RequestState.EXPIRED
        assert not Nudge.objects.filter(stage__request=request).exists()


def test_the_clock_waits_for_nobody(world: World, control: Control, clock):
    """Somebody has the request locked: it comes by again, and its time is that of its lock."""
    publish(world, timed(world))
    request = world.submit()
    clock.forward(600)
    with psycopg.connect(control.url()) as other:
        other.execute("SELECT FROM approvals_accessrequest WHERE id = %s FOR UPDATE", [request.pk])
        assert escalation.tend(request.pk) is None
        other.commit()
    assert escalation.tend(request.pk) is not None
    assert Nudge.objects.count() == 1


@pytest.mark.slow
def test_drawing_anew_against_a_vote(world: World):
    """dan, who is a member again, is asked in time or refused; nothing is lost or counted twice."""
    publish(world, stage(world, "Database", "dba"))
    for _ in range(5):
        world.groups["dba"].user_set.remove(world.dan)
        request = world.submit()
        world.groups["dba"].user_set.add(world.dan)
        redraw = partial(escalation.redraw, request.pk, by=world.ada)
        _, result = at_once(redraw, vote(world, request, "dan"))
        request.refresh_from_db()
        assert isinstance(result, NotAllowed) == (request.state == RequestState.PENDING)
        if request.state == RequestState.PENDING:
            assert "dan" in asked(request)
            vote(world, request, "dan")()


def test_a_vote_that_waits_for_the_redraw_is_judged_by_it(world: World, control: Control):
    publish(world, stage(world, "Database", "dba"))
    request = world.submit()
    with psycopg.connect(control.url()) as other:
        other.execute("SELECT FROM approvals_accessrequest WHERE id = %s FOR UPDATE", [request.pk])
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(at_once, vote(world, request, "bob"))
            until_blocked(control)
            other.execute(
                "DELETE FROM approvals_candidate WHERE stage_id = %s AND user_id = %s",
                [opened(request).pk, world.bob.pk],
            )
            other.commit()
            [result] = waiting.result(timeout=10)
    assert isinstance(result, NotAllowed)
    assert AccessRequest.objects.get(pk=request.pk).state == RequestState.PENDING
