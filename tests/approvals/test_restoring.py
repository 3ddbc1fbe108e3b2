"""What a restored database is made fit with. The whole restore is played in tests/faults."""

from __future__ import annotations

from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from approvals import installation, restoring, tokens
from approvals.errors import Invalid, NotAllowed
from audit.models import Event
from tests.approvals.api.conftest import program
from tests.world import World


@pytest.mark.parametrize("margin", [0, -1, -10_000])
def test_a_margin_that_passes_over_nothing_is_refused_and_nothing_is_changed(
    world: World, margin: int
):
    """Numbers given out since the backup would be given out again, to other people's accounts."""
    before = Event.objects.count()
    with pytest.raises(Invalid, match="1 or more"):
        restoring.settle(margin=margin)
    with pytest.raises(CommandError, match=f"margin is 1 or more, not {margin}:"):
        call_command("restored", margin=margin, stdout=StringIO())
    assert Event.objects.count() == before
    assert not installation.moved()


def test_numbers_are_passed_over_tokens_end_and_somebody_has_to_confirm(world: World):
    first = world.submit()
    clear = program(world).clear
    settled = restoring.settle(margin=3)
    assert settled.sequences > 10
    assert world.submit("amir").pk == first.pk + 4
    assert installation.moved()
    assert Event.objects.get(action="installation.settled").data["passed_over"] == 3
    assert settled.tokens == 1
    with pytest.raises(NotAllowed):
        tokens.presented(clear)
