"""Class activation maps: where in an image a classifier found evidence for a class, and whether they reflect learning.

The method is HiResCAM (Draelos and Carin 2020): at each place of a layer's output, activation times the gradient of the
class score, summed over channels, negative values set to 0. For a linear head on average pooling, at the last map, it
equals CAM (Zhou et al. 2016) up to a factor; below that it is exact to first order only.

Three methods were compared on the synthetic defects of `data.surfaces`, with four classifiers by the recipe of the demo
(the starter with two seeds, ImageNet MobileNetV2 and EfficientNet-Lite0) and 902 new images that they classified
correctly. Three numbers each, in percent: maps whose maximum lies in the defect's box widened by half a cell (random:
31, 25 and 22); the fraction of the map inside the box itself; and, for three of the classifiers, the first number again
for the map of another class, which should be low.

                                    HiResCAM        Grad-CAM        LayerCAM
    last map, 7 x 7                 92   49   35    92   49   35    87   44   84
    last finer map, 14 x 14         95   60   65    69   53   33    95   56   65
    28 x 28                         91   47   78    46   30   31    96   55   80

Hence HiResCAM on the last finer map. Grad-CAM (Selvaraju et al. 2017) averages the gradient over the image, which fails
below the last map; LayerCAM (Jiang et al. 2021) keeps positive gradients only, and at the last map is nearly the same
for every class. The cut `head` discriminates best between classes, for the question why an image is *not* of a class.

A head on all stages also takes evidence from stages below the explained map, which the gradient of that map does not
see. It is added: activation less its mean over the image, times gradient, pooled to the resolution of the map. The mean
is evidence, but not of any place. Maps with their maximum in the widened box, last finer and last map, for the demo on
all stages and 148 images: 93 and 87 %, and 79 and 45 % with the mean.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from thaw.backbones.random_weights import randomise
from thaw.classifier.classifier import Classifier
from thaw.errors import BackboneError
from thaw.seeds import derive_seed

_BATCH = 16


@dataclass(frozen=True)
class _Map:
    """A module with output (N, C, side, side), and the position of the block that it belongs to."""

    module: nn.Module
    position: int
    side: int


def class_maps(
    classifier: Classifier, pixels: np.ndarray, class_indices: Sequence[int] | np.ndarray, cut: str | None = None
) -> np.ndarray:
    """Class activation maps (N, h, w) float32 in 0..1, each divided by its maximum.

    A map without any evidence for the class is 0 everywhere. Weights and modes are left as they are.

    Args:
        classifier: A network with spatial maps.
        pixels: (N, S, S, 3) uint8.
        class_indices: (N,) the class to explain in each image; for a binary task the score of class 1 is the logit and
            that of class 0 its negative.
        cut: Take the last map at or below this cut, `head` for the last map of all; `None` takes the last map that is
            finer than that.

    Raises:
        BackboneError: If the network has no such cut, or no map at or below it.
    """
    found = _map_at(classifier, pixels[:1], cut)
    modules = [module for module, position in classifier.backbone.stage_modules() if position < found.position]
    indices = np.asarray(class_indices, dtype=np.int64)
    batches = [
        _maps_of(classifier, (*modules, found.module), pixels[start : start + _BATCH], indices[start : start + _BATCH])
        for start in range(0, len(pixels), _BATCH)
    ]
    return np.concatenate(batches)


def randomised_agreement(
    classifier: Classifier, pixels: np.ndarray, class_indices: Sequence[int] | np.ndarray, seed: int = 0
) -> float:
    """Mean rank correlation -1..1 between the maps of a classifier and those of the same network with random weights.

    The sanity check of Adebayo et al. 2018: it should be near 0; near 1, the maps show the image and not what was
    learned. Spearman's correlation is averaged over images; a constant map counts as 0.

    Args:
        classifier: As for `class_maps`.
        pixels: As for `class_maps`.
        class_indices: As for `class_maps`.
        seed: Random seed of the weights.
    """
    learned = class_maps(classifier, pixels, class_indices)
    random = class_maps(_randomised(classifier, derive_seed(seed, "randomised")), pixels, class_indices)
    return float(np.mean([_rank_correlation(first, second) for first, second in zip(learned, random, strict=True)]))


def _map_at(classifier: Classifier, image: np.ndarray, cut: str | None) -> _Map:
    """The map that is explained, found by a forward pass of one image (1, S, S, 3)."""
    maps = _find_maps(classifier, image)
    backbone = classifier.backbone
    if not maps:
        raise BackboneError(f"{backbone.facts.architecture}: has no maps (N, C, h, w), so images cannot be explained")
    if cut is None:
        candidates = [found for found in maps if found.side > maps[-1].side] or maps
    else:
        position = backbone.cut(cut).position
        candidates = [found for found in maps if found.position <= position]
    if not candidates:
        raise BackboneError(f"cut {cut}: there is no map at or below it in {backbone.facts.architecture}; use head")
    return candidates[-1]


def _find_maps(classifier: Classifier, image: np.ndarray) -> list[_Map]:
    """The modules whose output is a square map of more than one cell, in order of execution."""
    found: list[_Map] = []

    def record(module: nn.Module, output: object, position: int) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] == output.shape[3] > 1:
            found.append(_Map(module, position, output.shape[3]))

    hooks = [
        module.register_forward_hook(lambda module, _, output, position=position: record(module, output, position))
        for module, position in classifier.backbone.modules_in_order()
    ]
    try:
        with _in_eval_mode(classifier), torch.no_grad():
            classifier.logits(torch.tensor(image, device=classifier.device))
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _maps_of(
    classifier: Classifier, modules: Sequence[nn.Module], pixels: np.ndarray, indices: np.ndarray
) -> np.ndarray:
    """Maps (N, h, w) of one batch at the output of the last of some modules, each divided by its maximum.

    Evidence that the head takes from the outputs of the others, directly and not through the last one, is added.
    """
    activations: list[Tensor] = []

    def start_graph(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        # Each output starts a graph of its own, so that a gradient never passes from one of the modules to another.
        activations.append(output.detach().requires_grad_())
        # The next module may work in place.
        return activations[-1].clone()

    hooks = [module.register_forward_hook(start_graph) for module in modules]
    try:
        with _in_eval_mode(classifier), torch.enable_grad():
            logits = classifier.logits(torch.tensor(pixels, device=classifier.device))
            # Not `backward`, which would leave gradients in the weights of the head.
            gradients = torch.autograd.grad(_class_score(classifier, logits, indices), activations)
    finally:
        for hook in hooks:
            hook.remove()
    *lower, explained = (output.detach() for output in activations)
    *gradients_below, gradient = gradients
    maps = (explained * gradient).sum(dim=1)
    for output, below in zip(lower, gradients_below, strict=True):
        # Evidence that is the same everywhere says nothing of where it is.
        evidence = ((output - output.mean(dim=(2, 3), keepdim=True)) * below).sum(dim=1)
        # The sum over the image is part of the logit, at any resolution.
        maps += adaptive_avg_pool2d(evidence, maps.shape[-1]) * (evidence[0].numel() / maps[0].numel())
    maps = maps.relu()
    maxima = maps.amax(dim=(1, 2), keepdim=True)
    return (maps / maxima.where(maxima > 0, 1.0)).cpu().numpy()


def _class_score(classifier: Classifier, logits: Tensor, indices: np.ndarray) -> Tensor:
    """The sum over images of their class scores; in eval mode an image does not affect the gradient of another."""
    chosen = torch.tensor(indices, device=logits.device)
    if classifier.task == "binary":
        return (logits[:, 0] * (2 * chosen - 1)).sum()
    return logits.gather(1, chosen[:, None]).sum()


@contextmanager
def _in_eval_mode(classifier: Classifier) -> Iterator[None]:
    """Put every module in eval mode, and back in its own mode afterwards."""
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
    randomise(random.backbone.network, generator)
    randomise(random.head, generator)
    return random


def _rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's rank correlation of two maps; 0 where one is constant."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(np.corrcoef(_ranks(first.ravel()), _ranks(second.ravel()))[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks of values, ties with their mean rank."""
    _, index, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (counts.cumsum() - (counts - 1) / 2)[index]
