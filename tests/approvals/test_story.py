"""One grant from end to end, on the rehearsal target."""

from __future__ import annotations

from approvals import closing, opening
from approvals.models import Grant
from approvals.states import GrantState, RequestState, StageState
from audit.log import timeline
from tests.world import World


def test_alice_asks_two_approve_it_opens_and_ends(world: World, clock):
    request = world.submit()
    assert request.state == RequestState.PENDING

    world.vote(request, "bob")
    world.vote(request, "carol")
    request.refresh_from_db()
    assert request.state == RequestState.APPROVED
    assert [s.state for s in request.stages.all()] == [StageState.PASSED, StageState.PASSED]

    grant = Grant.objects.get(request=request)
    opening.open_grant(grant.pk, worker="w1")
    grant.refresh_from_db()
    assert grant.state == GrantState.ACTIVE, grant.last_error
    assert world.server.accounts[grant.account].valid_until == grant.expires_at

    clock.forward(3600)
    closing.close_grant(grant.pk, worker="w1")
    grant.refresh_from_db()
    assert (grant.state, grant.end_reason) == (GrantState.ENDED, "expired")
    assert grant.account not in world.server.accounts

    told = [event.action for event in timeline(f"request:{request.pk}")]
    assert told == [
        "accessrequest.submitted",
        "requeststage.open",
        "vote.cast",
        "requeststage.passed",
        "requeststage.open",
        "vote.cast",
        "requeststage.passed",
        "accessrequest.approved",
        "grant.scheduled",
        "grant.provisioning",
        "grant.active",
        "grant.revoking",
        "grant.cut",
        "grant.ended",
    ]
