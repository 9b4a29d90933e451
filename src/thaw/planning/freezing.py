"""Whether the first thawing phase freezes its lowest stage again, after how many epochs, and whether that fits."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from thaw.backbones.contract import Backbone
from thaw.device import choose_device
from thaw.planning.cache_plan import plan_cache
from thaw.planning.measurements import Choice, Measurements, PlannedRecipe
from thaw.recipe import Phase, Recipe, Strategy

SETTING = "phases.1.freeze_after"
_FEWEST_EPOCHS = 10
"""From so many on the phase does so after a quarter of them: that takes 0.79 of its time, and what a run keeps is as
accurate (0.0 points, standard error 0.1; two networks, four sets, four splits each, bench/climbing.py)."""

_REASON = "the lowest stage of the phase is frozen again then: 0.8 of its time, as accurate"


def with_freezing(
    planned: PlannedRecipe, strategy: Strategy, backbone: Backbone, asked: Collection[str]
) -> PlannedRecipe:
    """A recipe whose first thawing phase freezes its lowest stage again, if that pays for its epochs and its cut.

    On accelerators it does not: their steps would be compiled or captured twice.

    Args:
        planned: The phases as they are trained, but for this.
        strategy: That they are of.
        backbone: The network.
        asked: Settings of phases that were asked for, such as "phases.1.lr".
    """
    recipe = planned.recipe
    if strategy != "top" or SETTING in asked:
        return planned
    phase, is_on_cpu = recipe.phases[1], choose_device(recipe.device).device.type == "cpu"
    after = epochs_before_freezing(phase.epochs) if is_on_cpu and _trains_several_stages(phase, backbone) else ()
    choices = [choice for choice in planned.choices if choice.setting != SETTING]
    choices += [Choice(SETTING, str(number), _REASON) for number in after]
    return replace(planned, recipe=_freezing(recipe, after), choices=tuple(choices))


def epochs_before_freezing(epochs: int) -> tuple[int, ...]:
    """`freeze_after` of a phase of so many epochs; empty for those with too few to pay for another extraction."""
    return (epochs // 4,) if epochs >= _FEWEST_EPOCHS else ()


def if_it_fits(planned: PlannedRecipe, measured: Measurements, budget: int) -> PlannedRecipe:
    """The same without what `with_freezing` planned, if the features above that stage left less room for others.

    Args:
        planned: The phases.
        measured: The sizes of features.
        budget: Bytes that cached features may take.
    """
    if not any(choice.setting == SETTING and choice.reason == _REASON for choice in planned.choices):
        return planned
    recipe = _freezing(planned.recipe, ())
    with_it, without = (plan_cache(each, measured, budget) for each in (planned.recipe, recipe))
    inputs = [[phase.inputs for phase in each.phases] for each in (with_it, without)]
    if (with_it.views, with_it.dtype, inputs[0]) == (without.views, without.dtype, inputs[1]):
        return planned
    choices = tuple(choice for choice in planned.choices if choice.setting != SETTING)
    return replace(planned, recipe=recipe, choices=choices)


def _freezing(recipe: Recipe, after: tuple[int, ...]) -> Recipe:
    head, top, *deeper = recipe.phases
    return recipe.model_copy(update={"phases": (head, top.model_copy(update={"freeze_after": after}), *deeper)})


def _trains_several_stages(phase: Phase, backbone: Backbone) -> bool:
    cut = backbone.cut(phase.cut)
    return cut.position > 0 and backbone.raised(cut, 1).position != cut.position
