"""The two cheap levels: heads on features that are in the cache, cross-validated on training images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from thaw.backbones.facts import Features
from thaw.backbones.stages import AtCut
from thaw.classifier.classifier import Classifier
from thaw.data.augment import Augmentation, of_phase
from thaw.data.stratified import divided
from thaw.recipe import ClassWeights, Recipe, ResolvedPhase
from thaw.seeds import derive_seed
from thaw.selection.heads import Basis, predict_folds
from thaw.selection.scores import image_scores, standard_error_of
from thaw.temporary import remove_leftovers, temporary
from thaw.training.context import FitCallbacks, FitContext, FitSettings
from thaw.training.fit import fit
from thaw.training.loss import class_weights
from thaw.training.outputs import probabilities_at
from thaw.training.sources import Batch, PhaseSources
from thaw.trial import with_new_head
from thaw.tuning.workbench import Network, Workbench

OnFold = Callable[[int, float], bool]
"""Called with the number and the value of a fold; gives whether to leave out the folds that are left."""


@dataclass(frozen=True)
class Measured:
    """What a trial measured on images that it did not train on.

    Attributes:
        value: The monitored metric, higher being better; a loss is negated.
        standard_error: Of the value, by groups of images.
        scores: (N,) scores of the tested images, whose mean is the value.
        by_fold: The metric in each fold by itself.
        latency_ms: Of one image through the frozen network.
        is_pruned: Whether folds were left out.
        without: The value without each block of validation images, where there are no scores.
    """

    value: float
    standard_error: float
    scores: np.ndarray
    by_fold: tuple[float, ...] = ()
    latency_ms: float | None = None
    is_pruned: bool = False
    without: tuple[float, ...] = ()


def probe(recipe: Recipe, bench: Workbench) -> Measured:
    """A linear head on the plain view and one augmented view, in all folds at once.

    Args:
        recipe: Its backbone, preprocessing, head features, augmentation and class weights matter.
        bench: Images, folds and networks.
    """
    return _linear(recipe, bench, views=2)


def _linear(recipe: Recipe, bench: Workbench, views: int) -> Measured:
    """A linear head on some views, in all folds at once."""
    network, task = bench.network(recipe), bench.prepared.manifest.task
    values = [bench.features(network, *view) for view in _views(recipe, views)]
    basis = Basis.of(values[0], network.backbone.feature_groups, _taken(recipe, network))
    classes = len(bench.prepared.manifest.classes)
    found = predict_folds(
        basis.design(values), _class_weights(recipe), bench.sample.targets, bench.folds, classes, task
    )
    return _measured(found, bench, network)


def head(recipe: Recipe, bench: Workbench, on_fold: OnFold) -> Measured:
    """The head of a recipe, trained as its first phase would train it, fold by fold.

    As in a run, validation images choose the epoch: if those of the fold did, its value would be the best of many.

    A linear head without label smoothing is a convex problem, which takes a tenth of the time in all folds at once.

    Args:
        recipe: Its first phase, its head and `views` matter too.
        bench: Images, folds and networks.
        on_fold: Called after each fold.
    """
    network, manifest = bench.network(recipe), bench.prepared.manifest
    number = 4 if recipe.views == "auto" else recipe.views
    if solver_of(recipe) == "lbfgs" and not recipe.phases[0].label_smoothing:
        linear = _linear(recipe, bench, number)
        for fold, value in enumerate(linear.by_fold):
            # All folds are done; later trials are compared with them.
            on_fold(fold, value)
        return linear
    values = np.stack([bench.features(network, *view) for view in _views(recipe, number)])
    folds = int(bench.folds.max()) + 1
    probabilities = np.full((len(bench.folds), len(manifest.classes)), np.nan)
    for fold, (trained, tested) in enumerate(divided(bench.folds, folds)):
        with network.backbone.taking(_taken(recipe, network)):
            probabilities[tested] = _fitted(recipe, bench, network, values, trained, tested)
        if on_fold(fold, float(_scores(probabilities, bench, tested).mean())) and fold + 1 < folds:
            measured = _measured(probabilities, bench, network, fold + 1)
            return replace(measured, standard_error=0.0, is_pruned=True)
    return _measured(probabilities, bench, network)


def _scores(probabilities: np.ndarray, bench: Workbench, tested: np.ndarray) -> np.ndarray:
    """Scores (T,) of the images at positions `tested` (T,), of probabilities (N, C) of the sample."""
    targets, task = bench.sample.targets[tested], bench.prepared.manifest.task
    return image_scores(probabilities[tested], targets, task, bench.monitor)


def _measured(probabilities: np.ndarray, bench: Workbench, network: Network, folds: int | None = None) -> Measured:
    """What probabilities (N, C) of the sample say, in the first folds or in all of them.

    The score of an image depends on the images that it is scored with, so that of all tested images in one go is the
    only one that two heads can be compared by, however they were fitted.
    """
    numbers = range(int(bench.folds.max()) + 1 if folds is None else folds)
    tested = np.flatnonzero(np.isin(bench.folds, numbers))
    scores = _scores(probabilities, bench, tested)
    error = standard_error_of(scores, bench.sample.strata[tested], bench.sample.units[tested])
    by_fold = tuple(
        float(_scores(probabilities, bench, np.flatnonzero(bench.folds == fold)).mean()) for fold in numbers
    )
    return Measured(float(scores.mean()), error, scores, by_fold, network.latency_ms)


def _class_weights(recipe: Recipe) -> ClassWeights:
    """Those of a recipe, which the plan or the trial has decided."""
    assert recipe.class_weights != "auto"
    return recipe.class_weights


def _views(recipe: Recipe, number: int) -> list[tuple[Augmentation, int]]:
    """The (augmentation, number) of each view: the plain one first."""
    augmentation = of_phase(recipe.augment, recipe.phases[0].augment)
    return [(Augmentation(), 0), *((augmentation, view) for view in range(1, number) if augmentation.changes)]


def _taken(recipe: Recipe, network: Network) -> Features:
    return recipe.head.taken if network.backbone.has_stages else "last"


def _fitted(
    recipe: Recipe, bench: Workbench, network: Network, values: np.ndarray, trained: np.ndarray, tested: np.ndarray
) -> np.ndarray:
    """Probabilities (T, C) of the images at `tested`, by a head fitted on all views (V, N, W) of those at `trained`."""
    classifier = with_new_head(network.backbone, bench.prepared, recipe).to(network.frozen.device)
    targets, val_targets = bench.sample.targets, bench.prepared.rows("val").targets

    def source(views: np.ndarray, of: np.ndarray) -> PooledSource:
        return PooledSource.of(views, of, classifier, derive_seed(recipe.seed, "fold"))

    train = source(values[:, trained], targets[trained])
    sources = PhaseSources(train, source(bench.val_features(network)[None], val_targets))
    classes, kind = len(classifier.classes), _class_weights(recipe)
    weights = class_weights(targets[trained], classes, classifier.task, kind)
    place = bench.cache / "features" / "fold"
    # Of a process that was killed.
    remove_leftovers(place.parent, place.name)
    with temporary(place, Path.mkdir) as checkpoints:
        settings = FitSettings(
            seed=recipe.seed,
            precision="fp32",
            monitor=bench.monitor,
            class_weights=None if weights is None else weights.to(classifier.device),
            checkpoints=checkpoints,
            val_images=len(val_targets),
        )
        first = recipe.phases[0]
        decided = {"solver": solver_of(recipe), "inputs": "cached", "batch_size": first.usual_batch_size}
        phase = ResolvedPhase(**{**first.model_dump(), **decided})
        fit(FitContext(classifier, (phase,), settings, _SILENT), lambda index: sources)
    held_out = source(values[:1, tested], targets[tested])
    return probabilities_at(classifier, network.backbone.head_position, held_out, "fp32")[0]


def solver_of(recipe: Recipe) -> str:
    """How the plan would solve the first phase of a recipe: by L-BFGS where that is possible."""
    first = recipe.phases[0]
    if first.solver != "auto":
        return first.solver
    return "lbfgs" if recipe.can_solve(first) else "optimizer"


@dataclass(frozen=True)
class PooledSource:
    """Features in memory, of V views of N images: values (V, N, W) float32, those of the last stage at the end.

    stages: How many of the features belong to lower stages. first_view: (N,) int64, the view of each in epoch 0.
    """

    values: Tensor
    targets: Tensor
    stages: int
    first_view: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, targets: np.ndarray, classifier: Classifier, seed: int) -> PooledSource:
        """A source of what the head of a classifier takes of the features of all stages."""
        backbone, device = classifier.backbone, classifier.device
        held = torch.from_numpy(values[:, :, values.shape[2] - backbone.feature_width :]).to(device)
        first_view = np.random.default_rng(derive_seed(seed, "first view")).integers(len(values), size=len(targets))
        lower = backbone.feature_width - backbone.facts.width
        return cls(held, torch.from_numpy(targets).to(device), lower, first_view)

    @property
    def views(self) -> int:
        """Views of each image."""
        return len(self.values)

    def __len__(self) -> int:
        return len(self.targets)

    def batch(self, chosen: np.ndarray, epoch: int) -> Batch:
        """The features of the chosen images, in the view that an epoch has of them."""
        views = torch.from_numpy((self.first_view[chosen] + epoch) % self.views)
        positions = torch.from_numpy(chosen)
        found = self.values[views, positions]
        return AtCut(found[:, self.stages :], found[:, : self.stages]), self.targets[positions]


_SILENT = FitCallbacks(lambda records, is_best: None, lambda note: None)
