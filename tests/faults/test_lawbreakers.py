"""Each breach of `lawbreakers` breaks what is there, and names tests that are."""

from __future__ import annotations

import pytest

from tests.faults.lawbreakers import BREACHES, ROOT, Breach


@pytest.mark.parametrize("breach", BREACHES, ids=lambda breach: breach.name)
def test_the_guard_is_where_it_is_taken_out(breach: Breach):
    assert (ROOT / breach.file).read_text(encoding="utf-8").count(breach.old) == 1


@pytest.mark.parametrize("breach", BREACHES, ids=lambda breach: breach.name)
def test_the_tests_that_notice_are_there(breach: Breach):
    for named in breach.tests:
        file, *_, name = named.split("::")
        name = name.partition("[")[0]
        assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8")
