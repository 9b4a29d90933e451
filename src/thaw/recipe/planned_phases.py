"""Settings of phases that a recipe does not have, but the strategy that it names will plan."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from thaw.errors import RecipeError

MOST_PHASES = 3
"""What a strategy plans at most: the head, the top stages, and deeper ones."""


def as_many_as_planned(phases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Plain values of phases, and of others like the last one, up to as many as a strategy plans at most."""
    return phases + [phases[-1] | {"name": f"phase-{number}"} for number in range(len(phases), MOST_PHASES)]


def refuse_planned(keys: Iterable[str], phases: int) -> None:
    """Raise `RecipeError` for a setting of a phase beyond the first `phases` that a strategy could plan."""
    for key in keys:
        number = key.split(".")[1:2]
        if number and number[0].isdecimal() and phases <= int(number[0]) < MOST_PHASES:
            raise RecipeError(
                f"{key}: the recipe has {phases} phases, numbered from 0; add `--strategy top`, which plans more, to "
                "keep this for one of them"
            )
