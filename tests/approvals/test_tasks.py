"""A ring: it wakes the sweeper of its process, and where there is none it does the work itself."""

from __future__ import annotations

import pytest

from approvals import grants
from approvals.models import Grant, Reconciliation
from approvals.states import GrantState
from approvals.tasks import close_grant, open_grant
from audit.log import timeline
from tests.approvals.test_sweeper import eventually, sweeping
from tests.world import World


def state_of(grant: Grant) -> str:
    return str(Grant.objects.values_list("state", flat=True).get(pk=grant.pk))


def test_without_a_sweeper_the_task_does_it(world: World):
    grant = world.approved()
    open_grant.apply((grant.pk,), throw=True)
    assert state_of(grant) == GrantState.ACTIVE
    grants.release(grant.pk, by=world.alice)
    close_grant.apply((grant.pk,), throw=True)
    assert state_of(grant) == GrantState.ENDED
    told = [event.request_id for event in timeline(f"request:{grant.request_id}")]
    assert sum(one.startswith("task-") for one in told) >= 4


@pytest.mark.usefixtures("committed")
def test_a_sweeper_that_sleeps_is_woken_and_its_work_is_put_down_to_the_task(world: World):
    with sweeping(interval=60):  # longer than anybody waits here
        # The comparison is the last it begins in a look, so the first look is over.
        eventually(Reconciliation.objects.filter(ran_at__isnull=False).exists)
        grant = world.approved()
        open_grant.apply((grant.pk,), throw=True, task_id="rung")
        eventually(lambda: state_of(grant) == GrantState.ACTIVE, within=5)
    began = timeline(f"request:{grant.request_id}").get(action="grant.provisioning")
    assert began.request_id == "task-rung"
