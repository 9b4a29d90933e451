"""`--backbone auto`: the candidates looked at with the images themselves, under the limits that a person gives.

Each candidate reads the same training images once; a linear head on its features under cross-validation says how well
it separates the classes (a linear probe ranks networks as fine-tuning does: Kornblith et al. 2019). Of those that the
noise does not tell apart, the one that is quickest here is taken. Images of validation and test have no say.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from thaw.backbones import build
from thaw.backbones.catalogue import entries
from thaw.backbones.starter import NAME as STARTER
from thaw.backbones.weights import is_cached
from thaw.data.dataset import Dataset
from thaw.data.geometry import PixelSpec
from thaw.data.manifest import Manifest
from thaw.data.prepare import Prepared, prepare
from thaw.data.split import groups_of
from thaw.device import choose_device, worker_count
from thaw.errors import RecipeError
from thaw.features.engines import FrozenPart
from thaw.features.pooled import PROBE_IMAGES, Bar, plain_sample, pooled_features
from thaw.features.probe import choose_engine, median_seconds
from thaw.inspection import linear_probe as probing
from thaw.inspection.linear_probe import Features
from thaw.planning.measurements import Choice, PlannedRecipe
from thaw.recipe import Recipe
from thaw.seeds import derive_seed
from thaw.training.gain import standard_error_of_difference

MOST_IMAGES = 800
_ROUNDS = 5


@dataclass(frozen=True)
class Trial:
    """One candidate: cross-validated accuracy over `images`, milliseconds for one image, megabytes of its weights.

    refused: why it is out of the question, or empty.
    """

    name: str
    weights: str
    accuracy: float
    images: int
    latency_ms: float
    size_mb: float
    refused: str

    def describe(self) -> str:
        """For people."""
        seen = "" if self.refused else f"{self.accuracy:.1%}, "
        why = f", refused: {self.refused}" if self.refused else ""
        return f"{self.name} {seen}{self.latency_ms:.0f} ms, {self.size_mb:.0f} MB{why}"


def choose_backbone(
    recipe: Recipe, dataset: Dataset, previous: Manifest | None, cache: Path, bar: Bar
) -> PlannedRecipe:
    """The recipe with `auto` replaced by the best candidate; as it is where it names a backbone.

    Raises `RecipeError` where no candidate is left, or where images have several labels each.
    """
    if recipe.backbone != "auto":
        return PlannedRecipe(recipe, ())

    @functools.cache
    def prepared_for(spec: PixelSpec) -> Prepared:
        return prepare(dataset, spec, recipe.decode, recipe.split, previous, cache, bar)

    trials = [_try(name, weights, recipe, prepared_for, cache, bar) for name, weights in candidates(recipe)]
    usable = [trial for trial in trials if not trial.refused]
    if not usable:
        shown = "; ".join(trial.describe() for trial in trials)
        raise RecipeError(f"backbone auto: no candidate is within the limits ({shown}); raise them or name others")
    best = pick(usable)
    others = "; ".join(trial.describe() for trial in trials if trial is not best)
    reason = f"{best.describe()} under cross-validation on {best.images} training images"
    reason += f", against {others}" if others else ", the only candidate"
    chosen = recipe.model_copy(update={"backbone": best.name, "weights": best.weights})
    return PlannedRecipe(chosen, (Choice("backbone", best.name, reason),))


def candidates(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Names and weights of what is tried."""
    if not recipe.candidates:
        yield STARTER, "published"
        yield from ((entry.name, "published") for entry in entries() if entry.name != STARTER and is_cached(entry.name))
    for candidate in recipe.candidates:
        name, _, file = candidate.partition("=")
        yield name, file or "published"


def pick(trials: list[Trial]) -> Trial:
    """The quickest of those that are no worse than the most accurate by more than one standard error."""
    most = max(trials, key=lambda trial: trial.accuracy)
    equal = [
        trial
        for trial in trials
        if most.accuracy - trial.accuracy <= standard_error_of_difference(most.accuracy, trial.accuracy, trial.images)
    ]
    return min(equal, key=lambda trial: trial.latency_ms)


def _try(
    name: str, weights: str, recipe: Recipe, prepared_for: Callable[[PixelSpec], Prepared], cache: Path, bar: Bar
) -> Trial:
    backbone = build(recipe.model_copy(update={"backbone": name, "weights": weights}))
    size = sum(tensor.numel() for tensor in backbone.state_dict().values()) * 4 / 1e6
    prepared, device = prepared_for(backbone.facts.pixels), choose_device(recipe.device).device
    manifest, pixels = prepared.manifest, prepared.pixels
    if manifest.task == "multilabel":
        raise RecipeError("backbone auto: chooses by one label an image, these have several; name a backbone")
    backbone.to(device)
    rows, top = _sample(prepared, recipe.seed), backbone.head_position
    plain = plain_sample(pixels, rows[:PROBE_IMAGES], PROBE_IMAGES)
    engine = choose_engine(backbone, device, recipe.engine, [top], plain, len(rows), cache).engine
    frozen = FrozenPart(backbone, device, engine)
    latency = _latency(frozen, top, plain)
    if refused := _refuse(recipe, latency, size):
        return Trial(name, weights, 0.0, len(rows), latency, size, refused)
    values = pooled_features(pixels, rows, frozen, recipe.seed, cache, bar(f"try {name}"))
    pairs = [(pair.first, pair.second) for pair in pixels.duplicates(worker_count())]
    with probing.one_thread():
        found = probing.probe(Features(rows, values, manifest.targets()[rows], groups_of(manifest, rows, pairs)))
    if found is None:
        raise RecipeError("backbone auto: needs two training images of each class, apart from duplicates; name one")
    return Trial(name, weights, found.linear, len(rows), latency, size, "")


def _sample(prepared: Prepared, seed: int) -> np.ndarray:
    """Training rows, the same for every candidate."""
    rows = prepared.manifest.indices("train")
    if len(rows) <= MOST_IMAGES:
        return rows
    chosen = np.random.default_rng(derive_seed(seed, "candidates")).choice(rows, MOST_IMAGES, replace=False)
    return np.sort(chosen)


def _latency(frozen: FrozenPart, top: int, plain: Tensor) -> float:
    """Milliseconds for one image alone, the median of a few."""
    runner = frozen.runner([top])
    runner.run(plain[:1])
    return 1000 * median_seconds(runner, plain[:1], frozen.device, _ROUNDS)


def _refuse(recipe: Recipe, latency: float, size: float) -> str:
    if recipe.max_latency_ms is not None and latency > recipe.max_latency_ms:
        return f"slower than {recipe.max_latency_ms:g} ms"
    if recipe.max_size_mb is not None and size > recipe.max_size_mb:
        return f"larger than {recipe.max_size_mb:g} MB"
    return ""
