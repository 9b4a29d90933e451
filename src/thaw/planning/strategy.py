"""How deep to fine-tune: phases and cuts for a number of images and their similarity to the pre-training data.

The table is that of the guides to transfer learning (CS231n, "Transfer Learning"; the Keras guide): few and similar
images train only the head, more or different ones the top stages, very many the whole network. It decides what is
tried; validation decides what is kept, and whether an `optional` phase is tried at all. Training from scratch is for
random weights only: pre-trained weights are no worse a start, however different the images (He et al. 2019,
"Rethinking ImageNet Pre-training").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.utils.flop_counter import FlopCounterMode

from thaw.backbones.contract import Backbone
from thaw.errors import RecipeError
from thaw.formats import count
from thaw.inspection.similarity import Similarity, Verdict
from thaw.planning.measurements import Choice, PlannedRecipe
from thaw.recipe import Phase, Recipe, Strategy
from thaw.settings import assign
from thaw.torch_compiler import leave_alone

SMALL, LARGE = 1_000, 10_000
"""Training images below which a data set is small, and from which it is large."""

FEW_PER_CLASS = 20
"""Mean number of training images per class below which only the head trains: with ten, logistic regression beat both
phases by 1 to 5 points on insects, steel and waste (pretraining/prove.py, five seeds); both phases used two of the ten
for validation, which explains part of that difference."""

TOP, DEEPER = 0.4, 0.65
"""Maximum fraction of the network's multiply-adds in the stages that the first and the second thawing phase train: for
ResNet50 `layer4` and then `layer3`, for MobileNetV2 the last three stages and then the last five."""

TABLE: dict[tuple[str, Verdict], Strategy] = {
    ("small", "similar"): "head",
    ("small", "moderately different"): "top",
    ("small", "very different"): "top",
    ("medium", "similar"): "top",
    ("medium", "moderately different"): "top",
    ("medium", "very different"): "top",
    ("large", "similar"): "whole",
    ("large", "moderately different"): "whole",
    ("large", "very different"): "whole",
}

SHALLOWER: dict[Strategy, Strategy] = {"whole": "top", "top": "head"}
_TOP_EPOCHS, _SCRATCH_EPOCHS = 10, 60
_SHORTEST_SCHEDULE, _WANTED_STEPS = 6, 3_000
# Ten epochs of the top are as accurate as 20 with early stopping, within the noise, for 0.7 of the time, also where few
# images make few steps (bench/averaging.py); of 8, 6 and 4 none was clearly as good (bench/epochs.py).
# Nor epochs on windows of the maps, whose steps take half the time: that they cost no accuracy is not shown, and such a
# phase is kept less often (bench/windows.py).


def choose_strategy(
    recipe: Recipe, similarity: Callable[[], Similarity], train_images: int, classes: int
) -> tuple[Strategy, str]:
    """The strategy that the recipe asks for or the table gives, and why; `similarity` is measured only if needed."""
    if recipe.strategy == "manual":
        return "manual", "the recipe names its phases"
    if recipe.strategy != "auto":
        return recipe.strategy, "as requested"
    if recipe.weights == "random":
        return "scratch", "the weights are random, so there is nothing to freeze"
    if train_images < FEW_PER_CLASS * classes:
        return "head", f"{train_images / classes:.0f} training images per class are too few to thaw anything"
    size = "small" if train_images < SMALL else "large" if train_images >= LARGE else "medium"
    data_set = f"{train_images:,} training images are a {size} data set"
    found = similarity()
    if found.shift is None:
        return ("head" if size == "small" else "top"), f"{data_set}; the network cannot tell how similar they are"
    preposition = "to" if found.verdict == "similar" else "from"
    how = f"{found.verdict} {preposition} the pre-training data (feature shift {found.shift:.2f})"
    return TABLE[size, found.verdict], f"{data_set}, {how}"


def for_int8(recipe: Recipe) -> tuple[Strategy, str]:
    """The strategy for a network in int8, of which only the head can train: `head`, unless the recipe names phases.

    Raises:
        RecipeError: The recipe asks to train more.
    """
    if recipe.strategy in ("auto", "head"):
        return "head", "the weights are in int8, so only the head can train"
    cuts = {phase.cut for phase in recipe.phases} if recipe.strategy == "manual" else {f"strategy {recipe.strategy}"}
    if beyond := sorted(cuts - {"head"}):
        raise RecipeError(
            f"{beyond[0]}: the weights are in int8, so only the head can train; use the weights in float to train more"
        )
    return "manual", "the recipe names its phases"


def apply_strategy(
    recipe: Recipe, strategy: Strategy, why: str, backbone: Backbone, train_images: int
) -> PlannedRecipe:
    """The phases of a strategy, derived from the recipe's first phase (the head) and its last (thawed stages)."""
    named = Choice("strategy", strategy, why)
    if strategy == "manual":
        return PlannedRecipe(recipe, (named,))
    head, thawed = recipe.phases[0], recipe.phases[-1]
    epochs = max(_SHORTEST_SCHEDULE, min(thawed.epochs, round(_WANTED_STEPS * thawed.usual_batch_size / train_images)))
    phases: list[Phase] = [head.model_copy(update={"cut": "head"})]
    choices = [named]
    if strategy == "scratch":
        scratch = {"name": "scratch", "cut": "pixels", "batchnorm": "train", "layer_decay": 1.0}
        scratch |= {"lr": 1e-3, "epochs": _SCRATCH_EPOCHS, "patience": 15, "optional": False}
        phases = [thawed.model_copy(update=scratch)]
        choices.append(Choice("phases.0.batchnorm", "train", "random weights have no statistics to keep"))
    elif strategy == "whole":
        phases.append(thawed.model_copy(update={"cut": "pixels", "epochs": epochs, "lr": thawed.lr / 3}))
        choices.append(Choice("phases.1.cut", "pixels", "there are enough images to train every layer"))
    elif strategy == "top":
        for name, cut, fraction in _cuts(backbone):
            deeper = len(phases) > 1
            changes = {"name": name, "cut": cut, "optional": True, "epochs": min(epochs, _TOP_EPOCHS)}
            if deeper:
                changes |= {"lr": thawed.lr / 2}
            phases.append(thawed.model_copy(update=changes))
            only = ", only if thawing the top gained enough" if deeper else ""
            choices.append(
                Choice(f"phases.{len(phases) - 1}.cut", cut, f"{fraction:.0%} of the network's multiply-adds{only}")
            )
    planned = _with_phases(recipe, phases, strategy)
    if len(planned.phases) > 1:
        first, second, *_ = planned.phases
        choices.append(Choice("phases.1.lr", f"{second.lr:g}", f"1/{first.lr / second.lr:.0f} of the head's"))
        choices.append(Choice("phases.1.epochs", str(second.epochs), f"{second.epochs * train_images:,} views at most"))
    own = [choice for choice in choices if choice.setting not in recipe.phase_settings]
    requested = [
        Choice(key, str(list(value) if isinstance(value, tuple) else value), "as requested")
        for key, value in recipe.phase_settings.items()
    ]
    return PlannedRecipe(planned, (*own, *requested))


def _with_phases(recipe: Recipe, phases: Sequence[Phase], strategy: Strategy) -> Recipe:
    """The recipe with the phases of a strategy, and the settings of these that it asks for.

    Raises:
        RecipeError: The strategy has no such phase, or a setting does not fit the others of its phase.
    """
    values = [phase.model_dump(mode="json") for phase in phases]
    for key, value in recipe.phase_settings.items():
        number = int(key.split(".")[1])
        if number >= len(values):
            raise RecipeError(
                f"{key}: strategy {strategy} plans {count(len(values), 'phase')}, numbered from 0; this would not be "
                "kept; leave it out, or choose another strategy"
            )
        assign({"phases": values}, key, value)
    return Recipe.from_values({**recipe.model_dump(mode="json"), "phases": values, "phase_settings": {}})


def flops_above(backbone: Backbone) -> tuple[float, ...]:
    """For each block, the fraction of the network's multiply-adds in it and the blocks above it."""
    size = min(backbone.facts.pixels.size, 256)
    value = torch.zeros(1, 3, size, size, device=backbone.device)
    flops = []
    with torch.no_grad():
        for position in range(len(backbone.blocks)):
            with FlopCounterMode(display=False) as counter:
                leave_alone(type(counter.mode))
                value = backbone.run(value, position, position + 1)
            flops.append(counter.get_total_flops())
    total = max(1, sum(flops))
    return tuple(sum(flops[position:]) / total for position in range(len(flops)))


def _cuts(backbone: Backbone) -> list[tuple[str, str, float]]:
    """(name, cut, fraction of the multiply-adds) of each phase that thaws stages, the higher cut first.

    A network without a stage that is small enough is thawed whole.
    """
    starts: dict[str, float] = {}
    for block, fraction in zip(backbone.blocks, flops_above(backbone), strict=True):
        starts.setdefault(block.stage, fraction)
    found: list[tuple[str, str, float]] = []
    for name, most in (("fine-tune", TOP), ("deeper", DEEPER)):
        fitting = [(stage, fraction) for stage, fraction in starts.items() if 0 < fraction <= most]
        if fitting and fitting[0][0] not in {cut for _, cut, _ in found}:
            found.append((name, *fitting[0]))
    return found or [("fine-tune", "pixels", 1.0)]
