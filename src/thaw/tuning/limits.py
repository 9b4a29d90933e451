"""The limits of a search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, ValidationError

from thaw.errors import RecipeError
from thaw.recipe.sections import Seconds
from thaw.settings import Section, explain

DEFAULT_SECONDS = 30 * 60.0
"""How long a search may take where nobody says."""


@dataclass(frozen=True)
class Limits:
    """How long a search goes on: seconds in all, and trials; `None` for as many as pay.

    Seconds can be text such as `10m` or `1h30m` too. Raises `RecipeError` where they, or the trials, are no positive
    number.

    spent: Seconds that have already gone by, such as those in which libraries were imported.
    """

    seconds: float | None = DEFAULT_SECONDS
    trials: int | None = None
    spent: float = 0.0

    def __post_init__(self) -> None:
        try:
            checked = _Checked(seconds=self.seconds, trials=self.trials)
        except ValidationError as error:
            raise RecipeError("\n".join(f"limits: {line}" for line in explain(error, _Checked, {}))) from error
        object.__setattr__(self, "seconds", checked.seconds)


class _Checked(Section):
    seconds: Seconds | None
    trials: Annotated[int, Field(ge=1, strict=True)] | None
