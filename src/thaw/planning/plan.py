"""The plan: every "auto" of a recipe turned into a value with the measured reason for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from thaw.backbones.contract import Facts
from thaw.data import augment
from thaw.device import DeviceChoice
from thaw.features.probe import Probe
from thaw.features.store import StoredType
from thaw.planning.costs import GIB, Forecast, Images, Rates, ThawedProbe, forecast
from thaw.recipe import AugmentSettings, Phase, PreprocessingSettings, Recipe, Task
from thaw.training.loss import IMBALANCE
from thaw.training.solve import PENALTIES

MOST_VIEWS = 8
SHARE_OF_FREE_DISK = 0.5
MOST_SOLVED_BYTES = 2 * GIB


@dataclass(frozen=True)
class Choice:
    """One setting, the value it got, and why in one sentence."""

    setting: str
    value: str
    reason: str


@dataclass(frozen=True)
class Sizes:
    """Bytes that one stored view takes in half precision and in eight bits."""

    float16: int
    uint8: int

    def of(self, dtype: StoredType) -> int:
        """Bytes as one type or the other."""
        return self.uint8 if dtype == "uint8" else self.float16


@dataclass(frozen=True)
class Measured:
    """What was measured before anything is decided.

    `plain_images` are those of validation and test, looked at once as they are. `imbalance` is the largest class count
    over the smallest. `sizes` and `positions` run along the phases: what one stored view takes at the phase's cut, and
    where that cut lies (0 at the pixels).
    """

    task: Task
    train_images: int
    val_images: int
    plain_images: int
    imbalance: float
    facts: Facts
    device: DeviceChoice
    engine: Probe
    thawed: ThawedProbe
    positions: tuple[int, ...]
    sizes: tuple[Sizes, ...]
    free_bytes: int


@dataclass(frozen=True)
class _Storing:
    """Which phases read stored features, as what, and how many views of each training image."""

    phases: tuple[Phase, ...]
    views: int
    dtype: StoredType
    disk_bytes: int
    choices: tuple[Choice, ...]


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


def make_plan(recipe: Recipe, measured: Measured) -> Plan:
    """Resolve every "auto" of `recipe`."""
    budget, budget_choice = _budget(recipe, measured)
    storing = _storing(recipe, measured, budget)
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
        }
    )
    choices = (
        _task(recipe, measured),
        Choice("backbone", recipe.backbone, f"weights: {measured.facts.origin}"),
        Choice("preprocessing", _describe(measured.facts), measured.facts.preprocessing_origin),
        Choice("device", str(measured.device.device), measured.device.reason),
        Choice("engine", measured.engine.engine, measured.engine.reason),
        Choice("precision", measured.thawed.precision, measured.thawed.reason),
        weights,
        monitor,
        budget_choice,
        *storing.choices,
        *solving,
    )
    rates = Rates(measured.engine.images_per_second, measured.thawed.rates)
    images = Images(measured.train_images, measured.val_images, measured.plain_images)
    predicted = forecast(phases, rates, images, storing.views, storing.disk_bytes, _feature_bytes(measured))
    return Plan(resolved, choices, predicted)


def _task(recipe: Recipe, measured: Measured) -> Choice:
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


def _class_weights(recipe: Recipe, measured: Measured) -> Choice:
    figure = f"the largest class has {measured.imbalance:.1f}x the images of the smallest"
    if recipe.class_weights != "auto":
        return Choice("class_weights", recipe.class_weights, f"as asked; {figure}")
    if measured.imbalance > IMBALANCE:
        return Choice("class_weights", "balanced", f"{figure}, more than {IMBALANCE:g}x")
    return Choice("class_weights", "none", f"{figure}, no more than {IMBALANCE:g}x")


def _monitor(recipe: Recipe, measured: Measured, class_weights: str) -> Choice:
    if recipe.monitor != "auto":
        return Choice("monitor", recipe.monitor, "as asked")
    if measured.task == "multilabel":
        return Choice("monitor", "mean_average_precision", "several labels an image: does not hang on one threshold")
    if class_weights == "balanced":
        return Choice("monitor", "balanced_accuracy", "the classes are imbalanced and weighted alike")
    return Choice("monitor", "accuracy", "the classes are of similar size")


def _budget(recipe: Recipe, measured: Measured) -> tuple[int, Choice]:
    if recipe.cache_gb is not None:
        return int(recipe.cache_gb * GIB), Choice("cache_gb", f"{recipe.cache_gb:g}", "as asked")
    budget = int(measured.free_bytes * SHARE_OF_FREE_DISK)
    return budget, Choice("cache_gb", f"{budget / GIB:.1f}", f"half of the {measured.free_bytes / GIB:.1f} GiB free")


def wanted_views(recipe: Recipe, stored: Iterable[int]) -> tuple[int, str]:
    """How many stored views the recipe asks for or the training of phases `stored` can use, and why."""
    if recipe.views != "auto":
        return recipe.views, "as asked"
    if not augment.resolve(recipe.augment).changes:
        return 1, "no augmentation: every view is the same"
    epochs = max((recipe.phases[index].epochs for index in stored), default=1)
    if epochs < MOST_VIEWS:
        return epochs, f"no phase reads more in its {epochs} epochs"
    return MOST_VIEWS, "eight stored views train as well as fresh ones each epoch"


def _storing(recipe: Recipe, measured: Measured, budget: int) -> _Storing:
    """As many views as fit: eight bits give way to fewer views, and those to running the deepest cut anew."""
    stored = [
        index for index, phase in enumerate(recipe.phases) if phase.inputs != "fresh" and measured.positions[index] > 0
    ]
    wanted, why = wanted_views(recipe, stored)
    asked = recipe.stored_as
    dtype: StoredType = "float16" if asked == "auto" else asked
    views, dropped = wanted, []
    while stored and _disk(measured, stored, views, dtype) > budget:
        if dtype == "float16" and asked == "auto":
            dtype = "uint8"
        elif views > 1 and recipe.views == "auto":
            views //= 2
        else:
            deepest = min(stored, key=lambda index: measured.positions[index])
            stored.remove(deepest)
            dropped.append(deepest)
            views, dtype = wanted, "float16" if asked == "auto" else asked
    phases = tuple(
        phase.model_copy(update={"inputs": "stored" if index in stored else "fresh"})
        for index, phase in enumerate(recipe.phases)
    )
    if views < wanted:
        size = _disk(measured, stored, wanted, dtype)
        why = f"{wanted} would take {size / GIB:.1f} GiB, the budget is {budget / GIB:.1f}"
    choices = []
    if stored:
        choices = [Choice("views", str(views), why), Choice("stored_as", dtype, _why_stored_as(recipe, dtype))]
    for index, phase in enumerate(phases):
        choices.append(_inputs(measured, phase, index, views, dtype, index in dropped))
    return _Storing(phases, views, dtype, _disk(measured, stored, views, dtype), tuple(choices))


def _why_stored_as(recipe: Recipe, dtype: StoredType) -> str:
    if recipe.stored_as != "auto":
        return "as asked"
    if dtype == "uint8":
        return "half precision would not fit; eight bits a value with a scale for each channel train as well"
    return "half precision fits"


def _inputs(measured: Measured, phase: Phase, index: int, views: int, dtype: StoredType, dropped: bool) -> Choice:
    setting = f"phases.{index}.inputs"
    if phase.inputs == "stored":
        size = _disk(measured, [index], views, dtype)
        reason = f"{size / 1e6:,.0f} MB for {views} views of {measured.train_images} images at cut {phase.cut}"
        return Choice(setting, "stored", reason)
    if dropped:
        size = _disk(measured, [index], 1, dtype)
        return Choice(setting, "fresh", f"one view alone would take {size / GIB:.1f} GiB, more than the cache may")
    return Choice(setting, "fresh", "nothing is frozen" if measured.positions[index] == 0 else "as asked")


def _solving(
    recipe: Recipe, measured: Measured, phases: Sequence[Phase], views: int
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


def _feature_bytes(measured: Measured) -> int:
    """What the pooled features of one view take in memory, as float32."""
    return 4 * measured.facts.width


def _disk(measured: Measured, stored: Sequence[int], views: int, dtype: StoredType) -> int:
    """Bytes of the stores of some phases; phases with the same cut share one."""
    sizes = {measured.positions[index]: measured.sizes[index].of(dtype) for index in stored}
    return sum(sizes.values()) * (measured.train_images * views + measured.plain_images)
