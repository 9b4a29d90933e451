"""The plan: every "auto" of a recipe turned into a value with the measured reason for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from thaw.backbones.contract import Facts
from thaw.classifier.classifier import Classifier
from thaw.data import augment
from thaw.data.prepare import Prepared
from thaw.features.pooled import plain_sample
from thaw.inspection.similarity import Similarity, measure_similarity
from thaw.planning.costs import GIB, Forecast, ImageCounts, Rates, forecast
from thaw.planning.measure import measure_run
from thaw.planning.measurements import Choice, Measurements, PlannedRecipe
from thaw.planning.storing import plan_cache
from thaw.planning.strategy import SHALLOWER, apply_strategy, choose_strategy
from thaw.recipe import AugmentSettings, Phase, PreprocessingSettings, Recipe
from thaw.training.head_solver import PENALTIES
from thaw.training.loss import IMBALANCE

SHARE_OF_FREE_DISK = 0.5
MOST_SOLVED_BYTES = 2 * GIB

LONGEST_PHASE = 2 * 3600.0
"""Seconds at most that a phase nobody asked for may take."""

SIMILARITY_IMAGES = 32


@dataclass(frozen=True)
class Plan:
    """A recipe without "auto", the reasons, and what it should take."""

    recipe: Recipe
    choices: tuple[Choice, ...]
    forecast: Forecast

    def to_json(self) -> dict[str, Any]:
        """Plain values for plan.json."""
        return {
            "choices": [asdict(choice) for choice in self.choices],
            "predicted": {**asdict(self.forecast), "seconds": self.forecast.seconds},
        }


def plan_run(asked: PlannedRecipe, prepared: Prepared, classifier: Classifier, cache: Path) -> Plan:
    """Choose a strategy, measure what it takes, and resolve every "auto" of what was asked.

    A strategy that nobody asked for gives way to a shallower one where this machine would train for too long.
    """
    recipe, backbone, train = asked.recipe, classifier.backbone, prepared.manifest.indices("train")

    def measure() -> Similarity:
        return measure_similarity(backbone, plain_sample(prepared.pixels, train, SIMILARITY_IMAGES))

    strategy, why = choose_strategy(recipe, measure, len(train), len(prepared.manifest.classes))
    while True:
        phased = apply_strategy(recipe, strategy, why, backbone, len(train))
        measured = measure_run(phased.recipe, prepared, classifier, cache)
        plan = make_plan(phased.recipe, measured, (*asked.choices, *phased.choices))
        longest = max(plan.forecast.phase_seconds)
        if recipe.strategy != "auto" or strategy not in SHALLOWER or longest < LONGEST_PHASE:
            return plan
        why = f"{why}; {strategy} would train for {longest / 3600:.1f} h here"
        strategy = SHALLOWER[strategy]


def make_plan(recipe: Recipe, measured: Measurements, chosen: tuple[Choice, ...] = ()) -> Plan:
    """Resolve every "auto" of `recipe`, whose backbone and phases are decided; `chosen` says why."""
    budget, budget_choice = _budget(recipe, measured)
    storing = plan_cache(recipe, measured, budget)
    phases, solving = _solving(recipe, measured, storing.phases, storing.views)
    weights = _class_weights(recipe, measured)
    monitor = _monitor(recipe, measured, weights.value)
    resolved = recipe.model_copy(
        update={
            "task": measured.task,
            "device": str(measured.device.device),
            "engine": measured.engine.engine,
            "precision": measured.thawed.precision,
            "views": storing.views,
            "stored_as": storing.dtype,
            "cache_gb": round(budget / GIB, 3),
            "class_weights": weights.value,
            "monitor": monitor.value,
            "preprocessing": _preprocessing(measured.facts),
            "augment": AugmentSettings(preset=recipe.augment.preset, **asdict(augment.resolve(recipe.augment))),
            "phases": phases,
            "strategy": "as_written",
        }
    )
    reasons = {choice.setting: choice for choice in chosen}
    published = Choice("backbone", recipe.backbone, f"weights: {measured.facts.origin}")
    choices = (
        _task(recipe, measured),
        reasons.pop("backbone", published),
        Choice("preprocessing", _describe(measured.facts), measured.facts.preprocessing_origin),
        Choice("device", str(measured.device.device), measured.device.reason),
        Choice("engine", measured.engine.engine, measured.engine.reason),
        Choice("precision", measured.thawed.precision, measured.thawed.reason),
        weights,
        monitor,
        budget_choice,
        *reasons.values(),
        *storing.choices,
        *solving,
    )
    rates = Rates(measured.engine.images_per_second, measured.thawed.rates)
    images = ImageCounts(measured.train_images, measured.val_images, measured.plain_images)
    predicted = forecast(phases, rates, images, storing.views, storing.disk_bytes, _feature_bytes(measured))
    return Plan(resolved, choices, predicted)


def _task(recipe: Recipe, measured: Measurements) -> Choice:
    reasons = {
        "multiclass": "one label of several on each image: softmax",
        "binary": "two classes: one sigmoid",
        "multilabel": "several labels on an image: a sigmoid for each",
    }
    return Choice("task", measured.task, "as asked" if recipe.task != "auto" else reasons[measured.task])


def _preprocessing(facts: Facts) -> PreprocessingSettings:
    return PreprocessingSettings(
        image_size=facts.pixels.size,
        crop_pct=facts.pixels.crop_pct,
        crop_mode=facts.pixels.crop_mode,
        interpolation=facts.pixels.interpolation,
        mean=facts.mean,
        std=facts.std,
    )


def _describe(facts: Facts) -> str:
    spec = facts.pixels
    mean, std = (", ".join(f"{value:.3g}" for value in values) for values in (facts.mean, facts.std))
    return f"{spec.size} px, {spec.crop_mode} {spec.crop_pct:.3g}, {spec.interpolation}, mean {mean}, std {std}"


def _class_weights(recipe: Recipe, measured: Measurements) -> Choice:
    figure = f"the largest class has {measured.imbalance:.1f}x the images of the smallest"
    if recipe.class_weights != "auto":
        return Choice("class_weights", recipe.class_weights, f"as asked; {figure}")
    if measured.imbalance > IMBALANCE:
        return Choice("class_weights", "balanced", f"{figure}, more than {IMBALANCE:g}x")
    return Choice("class_weights", "none", f"{figure}, no more than {IMBALANCE:g}x")


def _monitor(recipe: Recipe, measured: Measurements, class_weights: str) -> Choice:
    if recipe.monitor != "auto":
        return Choice("monitor", recipe.monitor, "as asked")
    if measured.task == "multilabel":
        return Choice("monitor", "mean_average_precision", "several labels an image: does not hang on one threshold")
    if class_weights == "balanced":
        return Choice("monitor", "balanced_accuracy", "the classes are imbalanced and weighted alike")
    return Choice("monitor", "accuracy", "the classes are of similar size")


def _budget(recipe: Recipe, measured: Measurements) -> tuple[int, Choice]:
    if recipe.cache_gb is not None:
        return int(recipe.cache_gb * GIB), Choice("cache_gb", f"{recipe.cache_gb:g}", "as asked")
    budget = int(measured.free_bytes * SHARE_OF_FREE_DISK)
    return budget, Choice("cache_gb", f"{budget / GIB:.1f}", f"half of the {measured.free_bytes / GIB:.1f} GiB free")


def _solving(
    recipe: Recipe, measured: Measurements, phases: Sequence[Phase], views: int
) -> tuple[tuple[Phase, ...], tuple[Choice, ...]]:
    """Which phases solve the head instead of stepping towards it."""
    resolved, choices = [], []
    size = measured.train_images * views * _feature_bytes(measured)
    for index, phase in enumerate(phases):
        solver, reason = phase.solver, "as asked"
        if phase.solver == "auto":
            if not recipe.can_solve(phase):
                solver, reason = "steps", "trains more than a linear head"
            elif phase.inputs != "stored":
                solver, reason = "steps", "features are not stored"
            elif size > MOST_SOLVED_BYTES:
                solver, reason = "steps", f"all views at once would take {size / GIB:.1f} GiB of memory"
            else:
                solver, reason = "lbfgs", f"a linear head on {size / 1e6:,.0f} MB of features has one best solution"
        epochs = min(phase.epochs, len(PENALTIES)) if solver == "lbfgs" else phase.epochs
        resolved.append(phase.model_copy(update={"solver": solver, "epochs": epochs}))
        choices.append(Choice(f"phases.{index}.solver", solver, reason))
    return tuple(resolved), tuple(choices)


def _feature_bytes(measured: Measurements) -> int:
    """What the pooled features of one view take in memory, as float32."""
    return 4 * measured.facts.width
