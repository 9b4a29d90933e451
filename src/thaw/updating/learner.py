"""What an update trains: the classifier with outputs for all classes, on the features of old and new images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from thaw.classifier.classifier import Classifier, new_head, outputs_of
from thaw.evaluation.evaluate import bootstrap_groups
from thaw.evaluation.finalize import TrainedWeights
from thaw.features.cache import CachedFeatures
from thaw.features.extract import extract
from thaw.features.view_request import ViewRequest
from thaw.formats import count
from thaw.progress import Reporter
from thaw.recipe import ResolvedRecipe
from thaw.seeds import derive_seed
from thaw.training.context import FitSettings
from thaw.training.loss import class_weights
from thaw.training.outputs import outputs_at
from thaw.training.sources import CachedSource, JoinedSource, PhaseSources, Source, pooled
from thaw.updating.new_images import NewImages
from thaw.updating.stored_run import StoredRun

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Learner:
    """A run, the new images that it learns, and the classifier that does.

    Attributes:
        recipe: How it is trained.
        classifier: With the run's weights, and outputs for the new classes.
        sources: Old and new images of each split at the cut of the run, as far as there are any, as `JoinedSource`.
        known: What the classifier of the run gives for new images of "val" and "test", (N, C) probabilities.
    """

    run: StoredRun
    new: NewImages
    recipe: ResolvedRecipe
    classifier: Classifier
    sources: Mapping[str, Source]
    known: Mapping[str, np.ndarray]

    @classmethod
    def of(
        cls, run: StoredRun, new: NewImages, recipe: ResolvedRecipe, old: Mapping[str, list[Source]], reporter: Reporter
    ) -> Learner:
        """Extract the new images at the cut of the run; `old` has the sources of its own images by split."""
        added = {split: _new_source(run, new, split, reporter) for split in SPLITS}
        sources = {
            split: JoinedSource([*old.get(split, ()), *([source] if source else [])])
            for split, source in added.items()
            if source or old.get(split)
        }
        known = {
            split: outputs_at(run.classifier, run.position, source, "fp32").probabilities
            for split, source in added.items()
            if source and split != "train"
        }
        return cls(run, new, recipe, _extended(run, new, recipe), sources, known)

    @property
    def groups(self) -> dict[str, np.ndarray | None]:
        """Which images of validation and test are dependent."""
        manifest = self.new.manifest
        return {
            split: bootstrap_groups(manifest, manifest.indices(split), self.new.duplicates)
            for split in SPLITS[1:]
            if split in self.sources
        }

    @property
    def weights(self) -> TrainedWeights | None:
        """The weights of the classes in training; `None` for none."""
        kind, classifier = self.recipe.class_weights, self.classifier
        targets = self.sources["train"].targets.cpu().numpy()
        values = class_weights(targets, len(classifier.classes), classifier.task, kind)
        return None if values is None else TrainedWeights(kind, values.numpy())

    def phase_sources(self, index: int) -> PhaseSources:
        """The inputs of a phase, with the weights that the classifier has now."""
        backbone, cut = self.classifier.backbone, self.recipe.phases[index].cut
        stop, start = backbone.cut(cut).position, self.run.position
        train, val = self.sources["train"], self.sources["val"]
        if stop == backbone.head_position:
            return PhaseSources(pooled(train, backbone, start), pooled(val, backbone, start))
        sources = PhaseSources(train, val)
        return sources if stop == start else sources.above(backbone, start, stop)

    def fit_settings(self, identity: str) -> FitSettings:
        """How the phases are trained; checkpoints are where the caller puts them."""
        recipe, weights = self.recipe, self.weights
        return FitSettings(
            seed=recipe.seed,
            precision=recipe.precision,
            steps=recipe.steps,
            monitor=recipe.monitor,
            class_weights=torch.from_numpy(weights.values).to(self.classifier.device) if weights else None,
            checkpoints=self.run.folder.checkpoints,
            val_images=len(self.sources["val"]),
            run=identity,
            val_groups=self.groups["val"],
            keep_phase=recipe.keep_phase,
        )


def old_sources(run: StoredRun, reporter: Reporter) -> dict[str, list[Source]]:
    """The run's own images by split and part, from cached features; raises `DataError` where they are gone."""
    targets, found = run.manifest.targets(), dict[str, list[Source]]()
    for split in SPLITS:
        rows, start = run.manifest.indices(split), 0
        found[split] = []
        for features in run.features(split, reporter):
            own = rows[start : start + len(features.rows)]
            found[split].append(_cached(run, features, targets[own]))
            start += len(own)
    return found


def _new_source(run: StoredRun, new: NewImages, split: str, reporter: Reporter) -> Source | None:
    """The new images of a split at the cut of the run; `None` where there are none."""
    rows = new.rows(split)
    if not len(rows):
        return None
    views = run.views(new.pixels.key, rows, split)
    request = ViewRequest(new.pixels, rows, len(views.numbers), views.augmentation, views.seed)
    bar = reporter.bar(f"extract features of {count(len(rows), 'new image')}, {split}")
    features = extract(request, run.frozen, [run.position], run.cache, bar)[run.position]
    return _cached(run, features, new.manifest.targets()[new.first + rows])


def _cached(run: StoredRun, features: CachedFeatures, targets: np.ndarray) -> Source:
    seed = derive_seed(run.recipe.seed, "views")
    return CachedSource.of(features, torch.from_numpy(targets), run.classifier.device, seed)


def _extended(run: StoredRun, new: NewImages, recipe: ResolvedRecipe) -> Classifier:
    """The classifier of the run with outputs for the new classes, which are as likely as no evidence makes them."""
    old, manifest = run.classifier, new.manifest
    outputs, seed = outputs_of(manifest.task, manifest.classes), derive_seed(recipe.seed, "head")
    head = new_head(old.backbone, outputs, recipe.head.hidden, recipe.head.dropout, seed)
    with torch.no_grad():
        for own, other in zip(_layers(head), _layers(old.head), strict=True):
            # The one output of a binary classifier is that of its second class.
            first = 1 if old.task == "binary" and manifest.task != "binary" and own is _layers(head)[-1] else 0
            own.weight[first : first + len(other.weight)] = other.weight
            own.bias[first : first + len(other.bias)] = other.bias
    return Classifier(old.backbone, head, manifest.classes, manifest.task, recipe.decode).to(old.device)


def _layers(head: nn.Module) -> list[nn.Linear]:
    return [module for module in head.modules() if isinstance(module, nn.Linear)]
