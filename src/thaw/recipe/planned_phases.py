"""Settings of phases that a recipe does not have, but the strategy that it names will plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from thaw.errors import RecipeError
from thaw.recipe.sections import Phase
from thaw.settings import assign

MOST_PHASES = 3
"""What a strategy plans at most: the head, the top stages, and deeper ones."""


def with_planned(phases: Sequence[Phase], settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Plain values of phases, and of others like the last one, as many as a strategy plans at most, with settings.

    Raises:
        RecipeError: A key is not that of a setting of one of them, such as `phases.1.lr`.
    """
    found = [phase.model_dump(mode="json") for phase in phases]
    found += [found[-1] | {"name": f"phase-{number}"} for number in range(len(found), MOST_PHASES)]
    for key, value in settings.items():
        if key.count(".") < 2:
            raise RecipeError(f"{key}: not a setting of a phase; those have names such as phases.1.lr")
        assign({"phases": found}, key, value)
    return found


def refuse_planned(keys: Iterable[str], phases: int) -> None:
    """Raise `RecipeError` for a setting of a phase beyond the first `phases` that a strategy could plan."""
    for key in keys:
        number = key.split(".")[1:2]
        if number and number[0].isdecimal() and phases <= int(number[0]) < MOST_PHASES:
            raise RecipeError(
                f"{key}: the recipe has {phases} phases, numbered from 0; add `--strategy top`, which plans more, to "
                "keep this for one of them"
            )
