"""Whom a plan would ask, in words and by name, for whoever looks before anybody asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from django.contrib.auth import get_user_model

from approvals.policy import PlannedStage


@dataclass(frozen=True)
class AskedStage:
    """A stage as it would be asked: how many of whom, and who they are."""

    name: str
    needs: list[str]
    names: list[str]
    more: int
    fallback: bool


def asked_stages(planned: Sequence[PlannedStage], *, most: int) -> list[AskedStage]:
    """Each stage with the names of the first `most` of its people."""
    ids = {person for stage in planned for person in stage.candidates}
    users = get_user_model()._default_manager.filter(pk__in=ids).order_by("username")
    names = {user.pk: user.get_username() for user in users}
    return [_asked(stage, names, most) for stage in planned]


def _asked(stage: PlannedStage, names: Mapping[int, str], most: int) -> AskedStage:
    needs = [f"{least} of {stage.group_names[key]}" for key, least in stage.minima.items() if least]
    free = stage.stage.total - sum(stage.minima.values())
    if free > 0:
        groups = " or ".join(sorted(stage.group_names[key] for key in stage.minima))
        needs.append(f"{free}{' more' if needs else ''} of {groups}")
    people = sorted(names[person] for person in stage.candidates if person in names)
    return AskedStage(
        stage.stage.name, needs, people[:most], max(0, len(people) - most), bool(stage.stand_ins)
    )
