"""Why: where in an image a classifier found what speaks for a class, and whether that hangs on what it has learned.

A class activation map is HiResCAM (Draelos & Carin 2020): at each place of a layer's output, activation times gradient
of the class's score, summed over the channels, without what speaks against the class. For a linear head on average
pooling, at the last map, that is CAM (Zhou et al. 2016) up to a factor. Lower down it is exact to first order only.

Three methods were tried on the planted defects of `data.surfaces`: four classifiers by the demo's recipe (the starter
with two seeds, MobileNetV2 and EfficientNet-Lite0 of ImageNet) and 902 new images that they classified rightly. First
the percentage of maps that are highest inside the defect's box widened by half a cell, where chance gives 31, 25 and
22; then the share of a map that lies inside the box itself; last, for three of them, the first again for the map of
another class, which ought to be low.

                                    HiResCAM        Grad-CAM        LayerCAM
    last map, 7 x 7                 92   49   35    92   49   35    87   44   84
    last finer map, 14 x 14         95   60   65    69   53   33    95   56   65
    28 x 28                         91   47   78    46   30   31    96   55   80

Hence HiResCAM on the last finer map. Grad-CAM (Selvaraju et al. 2017) averages the gradient over the image, which fails
below the last map; LayerCAM (Jiang et al. 2021) keeps rising gradients alone, and at the last map shows nearly the same
for every class. To ask why an image is *not* of a class, the cut `head` tells classes apart best.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from thaw.backbones.contract import randomise_parameters
from thaw.classifier.classifier import Classifier
from thaw.errors import BackboneError
from thaw.seeds import derive_seed

_BATCH = 16


@dataclass(frozen=True)
class _Map:
    """A module whose output is a map (N, C, side, side), and the position of the block that it ends or is part of."""

    module: nn.Module
    position: int
    side: int


def class_maps(
    classifier: Classifier, pixels: np.ndarray, class_indices: Sequence[int] | np.ndarray, cut: str | None = None
) -> np.ndarray:
    """Class activation maps (N, h, w) float32 of pixels (N, S, S, 3) uint8, each for the class of its number.

    The highest value of a map is 1; a map is 0 all over where nothing speaks for the class. For a binary task class 1
    is the logit and class 0 its negative. `cut` names the depth: the last map at or below it, `head` for the last of
    all; `None` is the last map that is finer than that one. Weights and modes are left as they are. Raises
    `BackboneError` for a cut that the network does not have, or below which there is no map.
    """
    module = _module_at(classifier, pixels[:1], cut)
    indices = np.asarray(class_indices, dtype=np.int64)
    parts = [
        _maps_of(classifier, module, pixels[start : start + _BATCH], indices[start : start + _BATCH])
        for start in range(0, len(pixels), _BATCH)
    ]
    return np.concatenate(parts)


def randomised_agreement(
    classifier: Classifier, pixels: np.ndarray, class_indices: Sequence[int] | np.ndarray, seed: int = 0
) -> float:
    """How alike the maps of a classifier and of a random network of its shape are: mean rank correlation, -1..1.

    The sanity check of Adebayo et al. 2018: near 0 as it should be; near 1 the maps show the image and not what was
    learned. Images are as for `class_maps`; Spearman's correlation is taken image by image and averaged. A map that is
    the same everywhere agrees with nothing and counts as 0. Equal seeds give equal results.
    """
    learned = class_maps(classifier, pixels, class_indices)
    random = class_maps(_randomised(classifier, derive_seed(seed, "randomised")), pixels, class_indices)
    return float(np.mean([_rank_correlation(one, other) for one, other in zip(learned, random, strict=True)]))


def _module_at(classifier: Classifier, image: np.ndarray, cut: str | None) -> nn.Module:
    """The module whose output is looked at, found by watching one image (1, S, S, 3) pass."""
    maps = _maps_on_the_way(classifier, image)
    backbone = classifier.backbone
    if not maps:
        raise BackboneError(f"{backbone.facts.architecture}: has no maps (N, C, h, w), so that it cannot show where")
    if cut is None:
        reached = [found for found in maps if found.side > maps[-1].side] or maps
    else:
        position = backbone.cut(cut).position
        reached = [found for found in maps if found.position <= position]
    if not reached:
        raise BackboneError(f"cut {cut}: there is no map at or below it in {backbone.facts.architecture}; take head")
    return reached[-1].module


def _maps_on_the_way(classifier: Classifier, image: np.ndarray) -> list[_Map]:
    """What gives a map, in the order in which it runs: members of the chain, or children of a network that is none.

    A map has as many rows as columns, for images have; what has one cell is no map any more.
    """
    found: list[_Map] = []

    def watch(module: nn.Module, output: object, position: int) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] == output.shape[3] > 1:
            found.append(_Map(module, position, output.shape[3]))

    hooks = [
        module.register_forward_hook(lambda module, _, output, position=position: watch(module, output, position))
        for module, position in classifier.backbone.modules_in_order()
    ]
    try:
        with _in_eval_mode(classifier), torch.no_grad():
            classifier.logits(torch.tensor(image, device=classifier.device))
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _maps_of(classifier: Classifier, module: nn.Module, pixels: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Maps (N, h, w) of one batch at the output of a module, each divided by its highest value."""
    kept: list[Tensor] = []

    def differentiate_from_here(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        kept.append(output.detach().requires_grad_())
        # What follows may write into its input, and what is kept must stay as it is.
        return kept[-1].clone()

    hook = module.register_forward_hook(differentiate_from_here)
    try:
        with _in_eval_mode(classifier), torch.enable_grad():
            logits = classifier.logits(torch.tensor(pixels, device=classifier.device))
            # Not `backward`, which would leave gradients in the weights of the head.
            (gradient,) = torch.autograd.grad(_score(classifier, logits, indices), kept[-1])
    finally:
        hook.remove()
    maps = (kept[-1].detach() * gradient).sum(dim=1).relu()
    highest = maps.amax(dim=(1, 2), keepdim=True)
    return (maps / highest.where(highest > 0, 1.0)).cpu().numpy()


def _score(classifier: Classifier, logits: Tensor, indices: np.ndarray) -> Tensor:
    """The sum over images of the logit of each one's class; images do not touch each other's gradients."""
    chosen = torch.tensor(indices, device=logits.device)
    if classifier.task == "binary":
        return (logits[:, 0] * (2 * chosen - 1)).sum()
    return logits.gather(1, chosen[:, None]).sum()


@contextmanager
def _in_eval_mode(classifier: Classifier) -> Iterator[None]:
    """Everything in eval mode within the block; each module in the mode that it had after it."""
    modes = {module: module.training for module in classifier.modules()}
    classifier.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _randomised(classifier: Classifier, seed: int) -> Classifier:
    """A copy with random weights."""
    random = copy.deepcopy(classifier)
    generator = torch.Generator().manual_seed(seed)
    random.backbone.randomise(generator)
    for module in random.head.modules():
        randomise_parameters(module, generator)
    return random


def _rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's rank correlation of two maps, equal values sharing their mean rank; 0 where one map is flat."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(np.corrcoef(_ranks(one.ravel()), _ranks(other.ravel()))[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (counts.cumsum() - (counts - 1) / 2)[place]
