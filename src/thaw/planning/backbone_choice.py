"""`--backbone auto`: compare candidate networks on the run's own images, within limits on latency and size.

A linear head on each candidate, on its last stage or on all, is cross-validated in the same folds of the same training
images (a linear probe ranks networks as fine-tuning does: Kornblith et al. 2019). Of the candidates within one standard
error of the best, the fastest on this machine is chosen. Images of validation and test are not used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from thaw.backbones import build
from thaw.backbones.catalogue import entries
from thaw.backbones.contract import Backbone
from thaw.backbones.default import name_backbone
from thaw.backbones.download import is_cached
from thaw.backbones.facts import Features
from thaw.backbones.starter import NAME as STARTER
from thaw.data.dataset import Dataset
from thaw.data.geometry import PixelSpec
from thaw.data.prepare import DataPreparation, Prepared
from thaw.errors import RecipeError
from thaw.features.cache import FeatureCache
from thaw.features.pooled import PROBE_IMAGES, plain_sample, pooled_features
from thaw.features.timed_part import timed_part
from thaw.formats import percent
from thaw.inspection.linear_probe import TOO_FEW
from thaw.planning.measurements import Choice, PlannedRecipe
from thaw.recipe import Recipe
from thaw.selection.heads import Basis, predict_folds
from thaw.selection.sample import Sample, draw_sample
from thaw.selection.scores import compare

MAX_IMAGES = 800


@dataclass(frozen=True)
class Candidate:
    """One network, its latency for one image, and the size of its weights.

    Attributes:
        correct: (N,) 0 or 1, whether each tested image is predicted correctly without its fold; empty over a limit.
        groups: (N,) int, equal for images that are no independent evidence.
        exceeds: Which limit it exceeds, or empty.
        remark: Why not all folds are tested; empty where they are.
    """

    name: str
    weights: str
    correct: np.ndarray
    groups: np.ndarray
    latency_ms: float
    size_mb: float
    exceeds: str = ""
    remark: str = ""

    @property
    def accuracy(self) -> float:
        """The cross-validated accuracy."""
        return float(self.correct.mean()) if len(self.correct) else 0.0

    def describe(self) -> str:
        """Accuracy, latency and size in one line."""
        accuracy = "" if self.exceeds else f"{percent(self.accuracy)}, "
        reason = f", {self.exceeds}" if self.exceeds else ""
        return f"{self.name} {accuracy}{self.latency_ms:.0f} ms, {self.size_mb:.0f} MB{reason}"


def choose_backbone(
    requested: Recipe, dataset: Dataset, preparation: DataPreparation, say: Callable[[str], None]
) -> PlannedRecipe:
    """The recipe with backbone `default` or `auto` replaced by a name; unchanged where it names a backbone.

    `say` is told where the default may be downloaded, and where the starter takes its place. Raises `RecipeError` where
    no candidate is within the limits, or where images have several labels each.
    """
    recipe, reason = name_backbone(requested, say)
    if recipe.backbone != "auto":
        return PlannedRecipe(recipe, (Choice("backbone", recipe.backbone, reason),) if reason else ())

    prepared: dict[PixelSpec, Prepared] = {}

    def prepared_for(spec: PixelSpec) -> Prepared:
        # Near-duplicates, and with them the split, depend on the geometry; all networks have that of the first one.
        if spec not in prepared:
            prepared[spec] = preparation.prepare(dataset, spec, next(iter(prepared.values()), None))
        return prepared[spec]

    candidates = [
        _measure(recipe.model_copy(update={"backbone": name, "weights": weights}), prepared_for, preparation)
        for name, weights in candidate_weights(recipe)
    ]
    usable = [candidate for candidate in candidates if not candidate.exceeds]
    if not usable:
        shown = "; ".join(candidate.describe() for candidate in candidates)
        raise RecipeError(f"backbone auto: no candidate is within the limits ({shown}); raise them or name others")
    best = pick(usable)
    others = "; ".join(candidate.describe() for candidate in candidates if candidate is not best)
    reason = f"{best.describe()}, cross-validated on {len(best.correct)} training images"
    reason += f"; {best.remark}" if best.remark else ""
    reason += f"; compared with {others}" if others else "; the only candidate"
    chosen = recipe.model_copy(update={"backbone": best.name, "weights": best.weights})
    return PlannedRecipe(chosen, (Choice("backbone", best.name, reason),))


def candidate_weights(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """(name, weights) of each candidate."""
    if recipe.candidates:
        yield from recipe.candidates.items()
        return
    yield STARTER, "published"
    yield from ((entry.name, "published") for entry in entries() if entry.name != STARTER and is_cached(entry.name))


def pick(candidates: list[Candidate]) -> Candidate:
    """The fastest of those whose accuracy is within one standard error of the best, on the same images."""
    best = max(candidates, key=lambda candidate: candidate.accuracy)
    equal = [
        candidate for candidate in candidates if not compare(best.correct, candidate.correct, best.groups).exceeds_noise
    ]
    return min(equal, key=lambda candidate: candidate.latency_ms)


def _measure(recipe: Recipe, prepared_for: Callable[[PixelSpec], Prepared], preparation: DataPreparation) -> Candidate:
    """Measure the backbone that a recipe names."""
    backbone = build(recipe)
    size_mb = sum(tensor.numel() for tensor in backbone.state_dict().values()) * 4 / 1e6
    prepared, cache = prepared_for(backbone.facts.pixels), preparation.cache
    manifest, pixels = prepared.manifest, prepared.pixels
    if manifest.task == "multilabel":
        raise RecipeError("backbone auto: needs one label per image, these have several; name a backbone")
    sample = draw_sample(manifest, prepared.duplicates, recipe.seed, MAX_IMAGES)
    plain = plain_sample(pixels, sample.rows, PROBE_IMAGES)
    timed = timed_part(backbone, recipe, plain, len(sample.rows), cache)
    if exceeds := _exceeded_limit(recipe, timed.latency_ms, size_mb):
        return Candidate(recipe.backbone, recipe.weights, np.empty(0), np.empty(0), timed.latency_ms, size_mb, exceeds)
    folds = sample.folds()
    if folds is None:
        raise RecipeError(f"backbone auto: cannot compare networks, because {TOO_FEW}; name one, or add images")
    bar = preparation.bar(f"measure {recipe.backbone}")
    kept = FeatureCache(cache, "float16", recipe.cache_bytes)
    values = pooled_features(pixels, sample.rows, timed.frozen, recipe.seed, kept, bar)
    taken: tuple[Features, ...] = ("last", "all") if backbone.has_stages else ("last",)
    tested = [correct_in_folds(values, backbone, features, sample, folds) for features in taken]
    best = max(tested, key=lambda correct: float(correct.mean()))
    groups, remark = sample.units[folds >= 0], sample.why_few_folds
    return Candidate(recipe.backbone, recipe.weights, best, groups, timed.latency_ms, size_mb, remark=remark)


def correct_in_folds(
    values: np.ndarray, backbone: Backbone, features: Features, sample: Sample, folds: np.ndarray
) -> np.ndarray:
    """Whether a linear head that was fitted without the fold of an image predicts it correctly, 0 or 1 for each in one.

    Args:
        values: (N, W) float32, what lies at the head: of all stages, or of the last one.
        backbone: What they were extracted with.
        features: What the head takes of them.
        sample: The images, with one label each.
        folds: (N,) int, -1 for an image that is not tested.
    """
    design = Basis.of(values, backbone.feature_groups, features).design([values])
    classes = int(sample.targets.max()) + 1
    probabilities = predict_folds(design, "none", sample.targets, folds, classes, "multiclass")
    tested = folds >= 0
    return np.asarray((probabilities[tested].argmax(axis=1) == sample.targets[tested]).astype(float))


def _exceeded_limit(recipe: Recipe, latency_ms: float, size_mb: float) -> str:
    if recipe.max_latency_ms is not None and latency_ms > recipe.max_latency_ms:
        return f"over the limit of {recipe.max_latency_ms:g} ms"
    if recipe.max_size_mb is not None and size_mb > recipe.max_size_mb:
        return f"over the limit of {recipe.max_size_mb:g} MB"
    return ""
