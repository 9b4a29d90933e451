"""The recipe: every choice of one run.

A `Recipe` is frozen. `"auto"` (or null, where the help says so) leaves the choice to the plan, which gives its reason;
a `ResolvedRecipe` has no such value.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import ModelWrapValidatorHandler, ValidationError, ValidationInfo, field_validator, model_validator

from thaw.errors import RecipeError
from thaw.recipe.planned_phases import refuse_planned, with_planned
from thaw.recipe.recipe_settings import DEFAULT_BACKBONE, FINE_TUNE_PHASE, HEAD_PHASE, RecipeSettings
from thaw.recipe.sections import HeadSettings, Phase
from thaw.recipe.upgrade import upgraded
from thaw.settings import assign, explain, flatten, only_set, value_at
from thaw.yaml_text import read_yaml, write_yaml

_LISTS = {"phases": Phase}

_OF_CHOICE: Mapping[str, Any] = {"candidates": {}, "max_latency_ms": None, "max_size_mb": None}
"""Settings of the choice of a backbone by `auto`, and the values without effect."""


class Recipe(RecipeSettings):
    """Every choice of one run.

    Takes its settings as a recipe file has them, also those of earlier releases and in the short forms of the command
    line. Raises `RecipeError`, with one line per wrong key.
    """

    @model_validator(mode="before")
    @classmethod
    def _named_phases_are_kept(cls, values: Any) -> Any:
        """Phases that a recipe names are not replaced by the plan, unless it names a strategy as well."""
        if isinstance(values, dict) and "phases" in values and "strategy" not in values:
            return {**values, "strategy": "manual"}
        return values

    @field_validator("phase_settings")
    @classmethod
    def _settings_are_those_of_phases(cls, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        """Checked on the phases that a recipe plans from, and with the values that these get."""
        planned = _planned_phases(settings, HeadSettings())
        return {key: value_at(planned, key) for key in settings}

    @model_validator(mode="after")
    def _settings_are_of_planned_phases(self) -> Recipe:
        if self.phase_settings and self.strategy == "manual":
            keys = ", ".join(self.phase_settings)
            raise ValueError(
                f"phase_settings: strategy manual plans no phases that {keys} could change; change the phases of the "
                "recipe instead, or choose another strategy"
            )
        if self.phase_settings and self.head != HeadSettings():
            # With this head, for which a phase may be solved or not.
            _planned_phases(self.phase_settings, self.head)
        return self

    @model_validator(mode="after")
    def _phases_have_distinct_names(self) -> Recipe:
        names = [phase.name for phase in self.phases]
        if len(set(names)) < len(names):
            raise ValueError(f"two phases share a name: {', '.join(names)}")
        return self

    @model_validator(mode="after")
    def _only_a_linear_head_can_be_solved(self) -> Recipe:
        for phase in self.phases:
            if phase.solver == "lbfgs" and not self.can_solve(phase):
                raise ValueError(
                    f"phase {phase.name}: solver lbfgs needs cut head, no hidden layers in the head, and mixup 0"
                )
        return self

    # The last one, so that it is around the others.
    @model_validator(mode="wrap")
    @classmethod
    def _upgraded_and_explained(
        cls, values: Any, validate: ModelWrapValidatorHandler[Self], info: ValidationInfo
    ) -> Self:
        where = (info.context or {}).get("where", "recipe: ")
        try:
            return validate(upgraded(values) if isinstance(values, Mapping) else values)
        except ValidationError as error:
            raise RecipeError("\n".join(f"{where}{line}" for line in explain(error, cls, _LISTS))) from error

    @property
    def cache_bytes(self) -> int | None:
        """Disk space for cached features in bytes; `None` as long as it is not decided."""
        return None if self.cache_gb is None else int(self.cache_gb * (1 << 30))

    def can_solve(self, phase: Phase) -> bool:
        """Whether a phase trains only a linear head on unmixed features, so that L-BFGS can fit it at once."""
        return phase.cut == "head" and not self.head.hidden and phase.mixup == 0

    @classmethod
    def load(cls, file: str | Path) -> Self:
        """Read a recipe from YAML; raises `RecipeError` that names the file and the key."""
        try:
            values = read_yaml(Path(file).read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise RecipeError(f"{file}: cannot be read as a YAML recipe: {error}") from error
        if values is not None and not isinstance(values, dict):
            raise RecipeError(f"{file}: a recipe is a table of `key: value` lines, this is a {type(values).__name__}")
        return cls.from_values(values or {}, where=str(file))

    @classmethod
    def from_values(cls, values: Mapping[str, Any], where: str = "recipe") -> Self:
        """Check plain values, also those of earlier releases; raises `RecipeError` with one line per wrong key."""
        return cls.model_validate(values, context={"where": f"{where}: "})

    def with_settings(self, settings: Mapping[str, Any]) -> Recipe:
        """A copy with dotted keys changed, for example `{"phases.1.lr": 1e-5}`; raises `RecipeError`.

        Settings of phases that a strategy will plan are kept in `phase_settings`. What was not set stays so, which
        counts where a section is used alone, as `thaw.decide` uses `decision`.
        """
        values = self.model_dump(mode="json")
        strategy = settings.get("strategy", self.strategy)
        of_phases = {key: value for key, value in settings.items() if key.partition(".")[0] == "phases"}
        if of_phases and strategy == "auto" and "strategy" not in settings and not self.phase_settings:
            strategy = "manual"
            refuse_planned(of_phases, len(self.phases))
        if of_phases and strategy != "manual":
            if "phases" in of_phases:
                raise self.model_copy(update={"strategy": strategy}).phases_are_replaced("phases")
            others = {key: value for key, value in settings.items() if key not in of_phases}
            settings = {"phase_settings": {**self.phase_settings, **of_phases}, **others}
        changed = {**settings, "strategy": strategy}
        for key, value in changed.items():
            assign(values, key, value)
        return Recipe.from_values(only_set(values, self, changed))

    def check_strategy(self) -> None:
        """Raise `RecipeError` where the recipe names phases, and a strategy that would plan others instead."""
        if self.strategy == "manual":
            return
        planned = self.model_copy(update={"phases": (HEAD_PHASE, FINE_TUNE_PHASE)})
        if differences := planned.differences(self):
            raise self.phases_are_replaced(differences[0].partition(":")[0])

    def check_choice(self, given: Collection[str] = ()) -> None:
        """Raise `RecipeError` where settings are for a choice of backbone that this recipe leaves out.

        The recipe of a run has them next to the backbone that its plan has chosen, so with a backbone that is named
        only those count that were `given` with it, by dotted key.
        """
        sections = {key.partition(".")[0] for key in given}
        if self.backbone == "auto":
            return
        for key, default in _OF_CHOICE.items():
            is_ignored = getattr(self, key) != default and (self.backbone == DEFAULT_BACKBONE or key in sections)
            if is_ignored:
                raise RecipeError(f"{key}: is for backbone auto; add --backbone auto, or omit it")

    def phases_are_replaced(self, key: str) -> RecipeError:
        """The error for phases that the strategy of this recipe would replace."""
        plan = "thaw plan DATA" if self.strategy == "auto" else f"thaw plan DATA --strategy {self.strategy}"
        return RecipeError(
            f"{key}: strategy {self.strategy} plans the phases itself and would not keep this; omit the strategy, or "
            f"write its phases with `{plan} --out recipe.yaml` and change them there"
        )

    def to_yaml(self) -> str:
        """The whole recipe as YAML that `load` reads back to an equal recipe."""
        return write_yaml(self.model_dump(mode="json"))

    def differences(self, other: Recipe) -> list[str]:
        """One line `key: this -> that` for each setting in which two recipes differ."""
        mine, theirs = dict(flatten(self.model_dump(mode="json"))), dict(flatten(other.model_dump(mode="json")))
        keys = [*mine, *(key for key in theirs if key not in mine)]
        absent = "(absent)"
        return [
            f"{key}: {mine.get(key, absent)} -> {theirs.get(key, absent)}"
            for key in keys
            if mine.get(key, absent) != theirs.get(key, absent)
        ]


def _planned_phases(settings: Mapping[str, Any], head: HeadSettings) -> Recipe:
    """A recipe with a head and phases that have the settings of planned ones; raises `ValueError`."""
    try:
        values = {"phases": with_planned((HEAD_PHASE, FINE_TUNE_PHASE), settings), "head": head}
        return Recipe.model_validate(values, context={"where": ""})
    except RecipeError as error:
        raise ValueError("; ".join(str(error).splitlines())) from error
