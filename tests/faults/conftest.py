"""A production server for all fault tests of this process, and the place each begins with."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_django.plugin import DjangoDbBlocker

from debugflow.embedded.production import Production
from tests.conftest import Control
from tests.faults import children
from tests.faults.campaign import Run
from tests.faults.place import Place, make_place, production_in

SCALE = 0.05  # of a campaign's full size: what a test does of it


@pytest.fixture(scope="session")
def production(server_directory: Path) -> Iterator[Production]:
    with production_in(server_directory / "production") as running:
        yield running


@pytest.fixture(scope="module")
def shared(
    django_db_setup: None,
    control: Control,
    production: Production,
    django_db_blocker: DjangoDbBlocker,
) -> Iterator[Place]:
    """One place for all tests of a file, each with grants of its own; they really commit."""
    with django_db_blocker.unblock():
        made = make_place(control, production)
        children.prepare(made.environment)
        yield made
        made.leave()
        control.fresh_database()


@pytest.fixture
def place(committed: None, production: Production, control: Control) -> Iterator[Place]:
    made = make_place(control, production)
    children.prepare(made.environment)
    yield made
    made.leave()


@pytest.fixture
def run(place: Place) -> Run:
    """A twentieth of a campaign."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")  # noqa: T201 - pytest shows it where the test fails
    return Run(place=place, scale=SCALE, seed=seed)
