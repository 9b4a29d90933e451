"""What was measured for a plan, and the recipe that it gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from thaw.planning.measurements import Choice, PlannedRecipe
from thaw.recipe import Recipe
from thaw.selection.estimates import Estimates
from thaw.settings import assign


@dataclass(frozen=True)
class Selected:
    """What was measured.

    Attributes:
        changes: Settings of the recipe, by key, and their values; `thawed` is the preset of thawed stages.
        choices: The reason for each.
        estimates: What to expect; `None` where nothing could be measured.
        is_remembered: Whether an earlier run has measured it, which has left its features in the cache.
    """

    changes: Mapping[str, Any]
    choices: tuple[Choice, ...]
    estimates: Estimates | None = None
    is_remembered: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain values that `from_json` reads."""
        return {
            "changes": dict(self.changes),
            "choices": [asdict(choice) for choice in self.choices],
            "estimates": self.estimates.to_json() if self.estimates else None,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Selected:
        """What `to_json` gave, as remembered from an earlier run."""
        choices = tuple(
            Choice(item["setting"], item["value"], f"remembered from an earlier run: {item['reason']}")
            for item in values["choices"]
        )
        return cls(dict(values["changes"]), choices, Estimates.from_json(values["estimates"]), is_remembered=True)

    @property
    def of_plain_views(self) -> Selected:
        """What plain views alone have answered."""
        others = {"augment", "thawed", *self.preprocessing}
        return replace(self, changes={key: value for key, value in self.changes.items() if key not in others})

    @property
    def preprocessing(self) -> dict[str, Any]:
        """The settings of the preprocessing among the changes."""
        return {key: value for key, value in self.changes.items() if key.startswith("preprocessing.")}


def with_selected(planned: PlannedRecipe, selected: Selected) -> PlannedRecipe:
    """The recipe with what was measured, and the reasons.

    Where thawed stages train with another augmentation than the head, theirs is that of the recipe, and the head phase
    names its own.
    """
    changes, choices = dict(selected.changes), selected.choices
    of_head, of_thawed = changes.pop("augment", None), changes.pop("thawed", None)
    values = planned.recipe.model_dump(mode="json")
    for key, value in changes.items():
        assign(values, key, value)
    if of_head is not None:
        thaws = any(phase["cut"] != "head" for phase in values["phases"])
        values["augment"] |= of_thawed if thaws else of_head
        if thaws and of_head != of_thawed:
            phases = enumerate(values["phases"])
            heads = [index for index, phase in phases if phase["cut"] == "head" and phase["augment"] is None]
            for index in heads:
                values["phases"][index]["augment"] = of_head["preset"]
            choices = tuple(each for choice in choices for each in _of_each(choice, heads, of_thawed))
    return PlannedRecipe(Recipe.from_values(values), (*planned.choices, *choices))


def _of_each(choice: Choice, heads: list[int], of_thawed: Mapping[str, Any]) -> list[Choice]:
    """The reason for an augmentation as those for the head phases and for thawed stages; any other reason as it is."""
    if choice.setting != "augment.preset":
        return [choice]
    changed = [f"{key} {value}" for key, value in of_thawed.items() if key != "preset"]
    value, reason = ", ".join([of_thawed["preset"], *changed]), f"for thawed stages; no worse than {choice.value}"
    of_heads = [replace(choice, setting=f"phases.{index}.augment") for index in heads]
    return [replace(choice, value=value, reason=f"{reason} beyond noise where the head is trained with it"), *of_heads]
