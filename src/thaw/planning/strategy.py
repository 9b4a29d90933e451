"""How deep training goes: which phases, with which cuts, for so many images that lie so far from the pre-training.

The table is the one that guides to transfer learning share (CS231n, "Transfer Learning"; the Keras guide): few and
similar images train the head alone, more of them or stranger ones thaw the top, very many the whole network. It decides
what is tried; validation decides how far it goes, for every phase after the head is `optional`. From scratch is for
random weights only: pre-trained ones are no worse a start, however strange the images (He et al. 2019, "Rethinking
ImageNet Pre-training").
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from thaw.backbones.contract import Backbone
from thaw.inspection.similarity import Similarity, Verdict
from thaw.planning.measurements import Choice, PlannedRecipe
from thaw.recipe import Phase, Recipe, Strategy

SMALL, LARGE = 1_000, 10_000
"""Training images below which a set counts as small, and from which as large."""

FEW_PER_CLASS = 20
"""Training images of a class, on average, below which the head alone trains: with ten, logistic regression on whole
images beat both phases by 1 to 5 points on insects, steel and waste (pretraining/prove.py, five seeds); both phases
gave two of the ten to validation, which is a part of that difference."""

TOP, DEEPER = 0.4, 0.65
"""Shares of the network's work (multiply-adds of a forward pass) that the top stages, and those below, may have: of
ResNet50 `layer4` and then `layer3`, of MobileNetV2 the last three stages and then the last five."""

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
_DEEPER_EPOCHS, _SCRATCH_EPOCHS = 10, 60
_LEAST_EPOCHS, _WANTED_STEPS = 6, 3_000


def choose_strategy(
    recipe: Recipe, measure: Callable[[], Similarity], train_images: int, classes: int
) -> tuple[Strategy, str]:
    """The strategy that the recipe asks for or the table gives, and why; `measure` is called where it hangs on it."""
    if recipe.strategy != "auto":
        return recipe.strategy, "as asked" if recipe.strategy != "as_written" else "the phases are those of the recipe"
    if recipe.weights == "random":
        return "scratch", "the weights are random: nothing in them is worth freezing"
    if train_images < FEW_PER_CLASS * classes:
        return "head", f"{train_images / classes:.0f} training images a class are too few to thaw anything"
    size = "small" if train_images < SMALL else "large" if train_images >= LARGE else "medium"
    set_is = f"{train_images:,} training images are a {size} set"
    similarity = measure()
    if similarity.shift is None:
        return ("head" if size == "small" else "top"), f"{set_is}; the network cannot tell how similar they are"
    how = f"{similarity.verdict} to the pre-training (activations {similarity.shift:.2f} deviations away)"
    return TABLE[size, similarity.verdict], f"{set_is}, {how}"


def apply_strategy(
    recipe: Recipe, strategy: Strategy, why: str, backbone: Backbone, train_images: int
) -> PlannedRecipe:
    """The phases of a strategy, made from the recipe's own: its first is the head's, its last that of thawed stages."""
    named = Choice("strategy", strategy, why)
    if strategy == "as_written":
        return PlannedRecipe(recipe, (named,))
    head, thawed = recipe.phases[0], recipe.phases[-1]
    epochs = max(_LEAST_EPOCHS, min(thawed.epochs, round(_WANTED_STEPS * thawed.batch_size / train_images)))
    phases: list[Phase] = [head.model_copy(update={"cut": "head"})]
    choices = [named]
    if strategy == "scratch":
        scratch = {"name": "scratch", "cut": "pixels", "batchnorm": "train", "layer_decay": 1.0}
        scratch |= {"lr": 1e-3, "epochs": _SCRATCH_EPOCHS, "patience": 15, "optional": False}
        phases = [thawed.model_copy(update=scratch)]
        choices.append(Choice("phases.0.batchnorm", "train", "random weights have no statistics worth keeping"))
    elif strategy == "whole":
        phases.append(thawed.model_copy(update={"cut": "pixels", "epochs": epochs, "lr": thawed.lr / 3}))
        choices.append(Choice("phases.1.cut", "pixels", "many images can move every layer"))
    elif strategy == "top":
        for name, cut, fraction in _cuts(backbone):
            deeper = len(phases) > 1
            changes = {"name": name, "cut": cut, "optional": True, "epochs": epochs}
            if deeper:
                changes |= {"epochs": min(epochs, _DEEPER_EPOCHS), "lr": thawed.lr / 2}
            phases.append(thawed.model_copy(update=changes))
            only = ", only if thawing the top paid" if deeper else ""
            choices.append(Choice(f"phases.{len(phases) - 1}.cut", cut, f"{fraction:.0%} of the network's work{only}"))
    if len(phases) > 1:
        rate = phases[1].lr
        reason = f"{phases[0].lr / rate:.0f}x less than the head's; {epochs} epochs are {epochs * train_images:,} views"
        choices.append(Choice("phases.1.lr", f"{rate:g}", reason))
    return PlannedRecipe(recipe.model_copy(update={"phases": tuple(phases)}), tuple(choices))


def work_above(backbone: Backbone) -> tuple[float, ...]:
    """For each block, the share of the network's multiply-adds that it and the blocks above it do."""
    size = min(backbone.facts.pixels.size, 256)
    value = torch.zeros(1, 3, size, size, device=next(backbone.parameters()).device)
    work = []
    with torch.no_grad():
        for position in range(len(backbone.blocks)):
            with FlopCounterMode(display=False) as counter:
                value = backbone.run(value, position, position + 1)
            work.append(counter.get_total_flops())
    total = max(1, sum(work))
    return tuple(sum(work[position:]) / total for position in range(len(work)))


def _cuts(backbone: Backbone) -> list[tuple[str, str, float]]:
    """Name, cut and share of each phase that thaws stages, the higher cut first."""
    if not backbone.is_divisible:
        return [("fine-tune", "pixels", 1.0)]
    starts: dict[str, float] = {}
    for block, fraction in zip(backbone.blocks, work_above(backbone), strict=True):
        starts.setdefault(block.stage, fraction)
    found: list[tuple[str, str, float]] = []
    for name, most in (("fine-tune", TOP), ("deeper", DEEPER)):
        fitting = [(stage, fraction) for stage, fraction in starts.items() if 0 < fraction <= most]
        if fitting and fitting[0][0] not in {cut for _, cut, _ in found}:
            found.append((name, *fitting[0]))
    return found
